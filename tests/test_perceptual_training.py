"""Training perceptual-tiny: it learns, goes on exactly after any end, and says what is wrong with its photos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.perceptual import PerceptualTiny, training
from workbench.perceptual.training import ClassifierSettings, accuracy, labelled_photos, train_classifier
from workbench.pipelines.runner import run_pipeline
from workbench.pipelines.schema import load_pipeline

SETTINGS = ClassifierSettings(epochs=2, size=16, batch_size=8, precision="no", save_every=2)


@pytest.fixture
def coloured() -> tuple[torch.Tensor, torch.Tensor]:
    """24 photos 20x20 of two classes: more red, more blue."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (24, 3, 20, 20), dtype=torch.uint8, generator=generator)
    labels = torch.arange(24) % 2
    images[labels == 0, 0] += 120
    images[labels == 1, 2] += 120
    return images, labels


def test_it_learns_two_colours(coloured, tmp_path):
    settings = replace(SETTINGS, epochs=8, learning_rate=0.05)
    network, progress = train_classifier(*coloured, settings, tmp_path, classes=2)
    assert accuracy(network, *coloured) == 1
    assert progress["step"] == progress["steps"] == 24
    assert progress["log"][-1][1] < 0.8 * progress["log"][0][1]
    assert not network.training


def test_a_killed_run_goes_on_as_if_it_had_not_been(coloured, tmp_path, monkeypatch):
    whole, _ = train_classifier(*coloured, SETTINGS, tmp_path / "whole", classes=2)
    calls = []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return torch.nn.functional.cross_entropy(*arguments, **options)

    monkeypatch.setattr(training, "cross_entropy", dying)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(*coloured, SETTINGS, tmp_path / "killed", classes=2)
    resumed, progress = train_classifier(*coloured, SETTINGS, tmp_path / "killed", classes=2)
    assert len(calls) == 4 + 4  # it went on from step 2, the last checkpoint
    assert progress["step"] == 6
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_it_stops_in_time_and_goes_on(coloured, tmp_path):
    whole, _ = train_classifier(*coloured, SETTINGS, tmp_path / "whole", classes=2)
    _, progress = train_classifier(*coloured, SETTINGS, tmp_path / "parts", classes=2, max_seconds=0.0)
    assert progress["step"] == 1
    resumed, progress = train_classifier(*coloured, SETTINGS, tmp_path / "parts", classes=2)
    assert progress["step"] == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_bad_settings_and_other_runs_are_refused(coloured, tmp_path):
    with pytest.raises(ValueError, match="at least 16 pixels"):
        replace(SETTINGS, size=8)
    with pytest.raises(ValueError, match="'no' or 'bf16', got 'fp8'"):
        replace(SETTINGS, precision="fp8")
    with pytest.raises(ValueError, match="at least a batch of 100 photos, got 24"):
        train_classifier(*coloured, replace(SETTINGS, batch_size=100), tmp_path, classes=2)
    train_classifier(*coloured, SETTINGS, tmp_path, classes=2, max_seconds=0.0)
    with pytest.raises(ValueError, match="a run with other settings"):
        train_classifier(*coloured, replace(SETTINGS, seed=1), tmp_path, classes=2)


def test_labels_come_from_the_file_names(tmp_path):
    for number, name in enumerate(("n02_a_1.png", "n01_2.png", "n02_3.png")):
        Image.fromarray(np.full((20, 24, 3), 10 * number, np.uint8)).save(tmp_path / name)
    images, labels, classes = labelled_photos([str(tmp_path)])
    assert classes == ("n01", "n02")
    assert images.shape == (3, 3, 20, 24)
    assert {(int(image[0, 0, 0]), classes[label]) for image, label in zip(images, labels, strict=True)} == {
        (0, "n02"),
        (10, "n01"),
        (20, "n02"),
    }
    assert labelled_photos([str(tmp_path)], ("n02", "n07", "n01"))[1].unique().tolist() == [0, 2]
    with pytest.raises(ValueError, match="the first is 'n01'"):
        labelled_photos([str(tmp_path)], ("n02",))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "n01_small.png")
    with pytest.raises(ValueError, match="found 2 sizes"):
        labelled_photos([str(tmp_path)])
    with pytest.raises(ValueError, match="at least one source of labelled photos"):
        labelled_photos([])


def test_the_notebook_trains_and_saves_a_network(coloured, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (image, label) in enumerate(zip(*coloured, strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"class{label}_{number}.png")
    (tmp_path / "train.yaml").write_text(
        "name: train\ntitle: A network in seconds\njobs:\n- notebook: train_perceptual\n"
        f"  parameters: {{data: [{folder}], validation: [{folder}], epochs: 1, size: 16, batch_size: 8}}\n"
        "- notebook: train_perceptual\n"
    )
    pipeline = load_pipeline(tmp_path / "train.yaml", notebooks=Path(__file__).parents[1] / "notebooks" / "jobs")
    outcomes = run_pipeline(pipeline, tmp_path / "out")
    assert [outcome.state for outcome in outcomes] == ["done", "failed"], outcomes[0].note
    assert "expected at least one source of labelled photos" in outcomes[1].note
    done = tmp_path / "out" / "jobs" / pipeline.jobs[0].id
    result = json.loads((done / "result.json").read_text())
    assert (result["steps"], result["images"]) == (3, 24)
    distance = PerceptualTiny(done / "resume" / "perceptual-tiny.safetensors")
    assert distance.card["classes"] == ["class0", "class1"]
    assert result["accuracy"] == pytest.approx(accuracy(distance.network, *coloured), abs=0.1)
