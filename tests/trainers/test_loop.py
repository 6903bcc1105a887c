"""The loop learns, resumes exactly after a kill, and gives the same curve on two processes as on one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tests.trainers.small_run import OBJECTIVES, small_prior, small_run
from workbench.data import Photos
from workbench.images import sample_photo, save_image
from workbench.trainers import DSM, StepDecay, TrainSettings, train
from workbench.trainers.dsm import LOST

PROGRAM = Path(__file__).with_name("small_run.py")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft blobs: structure that a small network can learn."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((64, 3, 3, 3)))
    images = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic").clamp(0, 1)
    path = tmp_path_factory.mktemp("photos") / "photos.npy"
    np.save(path, (images * 255).byte().numpy())
    return path


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def start(photos: Path, runs: list[dict], *launcher: str) -> subprocess.Popen:
    """The program of ``small_run.py`` in a process of its own."""
    root = str(PROGRAM.parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(PROGRAM), str(photos), json.dumps(runs)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output


def test_training_lowers_the_loss_and_leaves_its_records(photos: Path, tmp_path: Path) -> None:
    prior, progress = small_run(tmp_path / "run", photos, steps=60, batch=16, learning_rate=1e-2, save_every=30)
    losses = [line["loss"] for line in log_of(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    assert (progress.step, progress.images) == (60, 960)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["settings.steps"] == 60
    assert settings["objective"] == "DSM"
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert not prior.training
    assert not any(parameter.requires_grad for parameter in prior.parameters())


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"optimiser": "muon"}])
def test_time_slices_add_up_to_the_uninterrupted_run(photos: Path, tmp_path: Path, options: dict) -> None:
    """Dropout is a function of seed and step."""
    whole, _ = small_run(tmp_path / "whole", photos, steps=4, **options)
    for number in range(4):  # a slice of no length does one step
        torch.rand(number)  # what others draw does not matter
        sliced, progress = small_run(tmp_path / "sliced", photos, steps=4, stop_after=0.0, **options)
    assert progress.step == 4
    assert same_weights(whole.state_dict(), sliced.state_dict())
    torch.manual_seed(7)
    again, progress = small_run(tmp_path / "sliced", photos, steps=4, **options)  # finished: nothing left to do
    assert progress.step == 4
    assert same_weights(whole.state_dict(), again.state_dict())
    drawn = torch.rand(3)
    small_prior()  # as the run's
    assert torch.equal(drawn, torch.rand(3))  # nor does a run change what others draw
    plain, _ = small_run(tmp_path / "plain", photos, steps=4)
    assert not same_weights(whole.state_dict(), plain.state_dict())


def test_a_killed_process_resumes_to_the_same_weights(photos: Path, tmp_path: Path) -> None:
    objective, steps = "mtdeq", 20
    run = {"folder": str(tmp_path / "killed"), "objective": objective, "steps": steps}
    killed = start(photos, [run])
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "weights.pt").exists()
    assert 0 < torch.load(checkpoint, weights_only=True)["progress"]["step"] < steps
    with (tmp_path / "killed" / "log.jsonl").open("a") as log:
        log.write('{"step": 1, "lo{"step": 2}\n{}\n')  # where a disk was full
    resumed, _ = small_run(tmp_path / "killed", photos, steps=steps, objective=OBJECTIVES[objective])
    whole, _ = small_run(tmp_path / "whole", photos, steps=steps, objective=OBJECTIVES[objective])
    assert same_weights(whole.state_dict(), resumed.state_dict())
    steps_logged = [line["step"] for line in log_of(tmp_path / "killed")]
    assert steps_logged == [line["step"] for line in log_of(tmp_path / "whole")]


def test_the_loss_that_is_logged_is_a_mean_over_steps_also_after_a_resume(photos: Path, tmp_path: Path) -> None:
    """Slices of one step log every step; their mean is what the whole run logs for the interval."""
    for _ in range(4):
        small_run(tmp_path / "sliced", photos, steps=4, stop_after=0.0)
    small_run(tmp_path / "whole", photos, steps=4)
    sliced = [line["loss"] for line in log_of(tmp_path / "sliced")]
    assert len(sliced) == 4
    assert log_of(tmp_path / "whole")[-1]["loss"] == pytest.approx(np.mean(sliced), rel=1e-5)


@pytest.fixture(scope="module")
def two(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by two processes: four steps with each objective, and one that time stops."""
    folder = tmp_path_factory.mktemp("two")
    runs = [{"folder": str(folder / name), "objective": name, "steps": 4} for name in OBJECTIVES]
    runs += [{"folder": str(folder / "parts"), "objective": "dsm", "steps": 4, "batch": 2, "accumulate": 2}]
    runs += [{"folder": str(folder / "stopped"), "objective": "dsm", "steps": 1_000_000, "stop_after": 0.5}]
    finished(start(photos, runs, *TWO))
    return folder


@pytest.mark.parametrize("name", [*OBJECTIVES, "parts"])
def test_two_processes_take_the_steps_of_one_with_the_same_global_batch(
    photos: Path, two: Path, tmp_path: Path, name: str
) -> None:
    """Photos, noise, levels and degradations are those of the global batch; only sums are in another order."""
    options = {"batch": 4, "accumulate": 2} if name == "parts" else {"batch": 8, "objective": OBJECTIVES[name]}
    prior, _ = small_run(tmp_path / "one", photos, steps=4, **options)
    curves = [log_of(folder) for folder in (tmp_path / "one", two / name)]
    assert curves[1][-1]["images"] == 32
    for logged in sorted(set(curves[0][0]) - {"seconds", "waiting"}):
        single, double = ([line[logged] for line in curve] for curve in curves)
        # Gradients are rounded to float32 in another order, and Adam's first steps divide by them.
        assert double == pytest.approx(single, rel=1e-4), logged
    weights = torch.load(two / name / "weights.pt", weights_only=True)
    for key, value in prior.state_dict().items():
        torch.testing.assert_close(weights[key], value, atol=1e-4, rtol=1e-3)
    # Once per step, however many parts it has.
    assert (two / name / "shared.txt").read_text() == "4"


def test_other_settings_in_the_same_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    small_run(tmp_path / "run", photos, steps=2)
    with pytest.raises(ValueError, match=r"settings\.learning_rate was 0\.001 and is 0\.1"):
        small_run(tmp_path / "run", photos, steps=2, learning_rate=0.1)
    small_run(tmp_path / "run", photos, steps=2, log_every=1)  # what does not touch the weights may change
    settings = TrainSettings(steps=2, warmup=2, log_every=4, save_every=1, workers=0)
    other = small_prior()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ValueError, match="other settings: start was"):
        train(other, DSM(), Photos(photos, size=8, batch_size=4), settings, tmp_path / "run")
    np.save(tmp_path / "half.npy", np.load(photos)[:32])
    with pytest.raises(ValueError, match=r"photos\.sources was \[64\] and is \[32\]"):
        small_run(tmp_path / "run", tmp_path / "half.npy", steps=2)


def test_other_photos_in_the_same_number_are_refused_and_moved_ones_are_not(tmp_path: Path) -> None:
    run, folder, array = tmp_path / "run", tmp_path / "photos", tmp_path / "photos.npy"
    folder.mkdir()
    save_image(sample_photo("cat", 12), folder / "cat.png")
    small_run(run, folder, steps=1)
    folder = folder.rename(tmp_path / "elsewhere")
    small_run(run, folder, steps=1)
    save_image(sample_photo("rocket", 12), folder / "cat.png")
    with pytest.raises(ValueError, match=r"holds a run with other settings: photos\.contents was"):
        small_run(run, folder, steps=1)
    recorded = json.loads((run / "settings.json").read_text())
    del recorded["photos.contents"]  # as runs of before have it
    (run / "settings.json").write_text(json.dumps(recorded))
    small_run(run, folder, steps=1)
    np.save(array, np.zeros((2, 12, 12, 3), np.uint8))
    small_run(tmp_path / "arrays", array, steps=1)
    np.save(array, np.ones((2, 12, 12, 3), np.uint8))
    with pytest.raises(ValueError, match=r"photos\.contents was"):
        small_run(tmp_path / "arrays", array, steps=1)


class Losing(DSM):
    """No sample can be used in the steps from ``first`` to ``last``."""

    first, last, calls = 3, 4, 0

    def __call__(self, prior, images, draws):
        type(self).calls += 1
        loss, values = super().__call__(prior, images, draws)
        lost = self.first <= type(self).calls <= self.last
        return loss, {**values, LOST: torch.tensor(float(lost))}


def test_a_step_without_a_usable_sample_is_skipped_counted_and_logged(photos: Path, tmp_path: Path) -> None:
    def run(steps: int, last: int, **options):
        Losing.first, Losing.last, Losing.calls = 3, last, 0
        settings = TrainSettings(steps=steps, schedule="constant", save_every=1, workers=0, **options)
        return train(small_prior(), Losing(), Photos(photos, size=8, batch_size=2), settings, tmp_path / f"run{steps}")

    (two, _), (four, progress) = (run(steps, 4, log_every=1) for steps in (2, 4))
    assert same_weights(two.state_dict(), four.state_dict())  # steps 3 and 4 left everything alone
    assert (progress.step, progress.lost_steps, progress.lost_in_a_row) == (4, 2, 2)
    assert [line["lost"] for line in log_of(tmp_path / "run4")] == [0, 0, 1, 1]
    assert [line["lost_steps"] for line in log_of(tmp_path / "run4")] == [0, 0, 1, 2]
    with pytest.raises(FloatingPointError, match=r"20 steps in a row.*step 21.*Lower the learning rate"):
        run(100, 10**9)
    assert Losing.calls == 22
    assert torch.load(tmp_path / "run100" / "checkpoint.pt", weights_only=True)["progress"]["step"] == 21


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_explodes_stops_the_run_and_keeps_the_checkpoint(photos: Path, tmp_path: Path, what: str) -> None:
    class Exploding(DSM):
        calls = 0

        def __call__(self, prior, images, draws):
            type(self).calls += 1
            loss, values = super().__call__(prior, images, draws)
            if self.calls > 3:  # sqrt has value 0 and an infinite slope at 0
                loss = loss * float("nan") if what == "loss" else loss + (0 * loss).sqrt()
            return loss, values

    settings = TrainSettings(steps=8, log_every=8, save_every=1, workers=0)
    with pytest.raises(FloatingPointError, match="is nan at step 4"):
        train(small_prior(), Exploding(), Photos(photos, size=8, batch_size=2), settings, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 3
    assert all(bool(value.isfinite().all()) for value in state["modules"]["prior"].values())


def test_rates_warm_up_and_fall_to_two_percent_or_by_steps() -> None:
    settings = TrainSettings(steps=100, learning_rate=1.0, warmup=10)
    assert settings.rate(0) == pytest.approx(0.1, rel=1e-2)
    assert settings.rate(50) == pytest.approx(0.51)
    assert settings.rate(100) == pytest.approx(0.02)
    stairs = TrainSettings(steps=100, learning_rate=1e-5, schedule=StepDecay(0.25, every=10))
    assert [stairs.rate(step) for step in (0, 9, 10, 25)] == pytest.approx([1e-5, 1e-5, 2.5e-6, 6.25e-7])


def test_wrong_settings_and_arguments_of_another_kind_are_refused(photos: Path, tmp_path: Path) -> None:
    for change in ({"ema_decay": -1.0}, {"betas": (0.9, 1.5)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            TrainSettings(**({"steps": 1} | change))
    good = {"prior": small_prior(), "objective": DSM(), "photos": Photos(photos, size=16, batch_size=1)}
    good |= {"settings": TrainSettings(steps=1), "folder": tmp_path / "run"}
    for name in ("prior", "objective", "photos", "settings"):
        with pytest.raises(ValueError, match=f"^{name} must be "):
            train(**good | {name: "a"})
    with pytest.raises(ValueError, match="max_seconds must be a number of seconds, or None, got '60'"):
        train(**good, max_seconds="60")
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_gone_on_with_are_refused(photos: Path, tmp_path: Path) -> None:
    small_run(tmp_path / "run", photos, steps=1)
    for name, message in (
        ("settings.json", "settings.json is missing or damaged"),
        ("checkpoint.pt", "cannot be read .*delete"),
    ):
        kept = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).write_bytes(kept[:40])
        with pytest.raises(ValueError, match=message):
            small_run(tmp_path / "run", photos, steps=1)
        (tmp_path / "run" / name).write_bytes(kept)
    whole = (file := tmp_path / "run" / "settings.json").rename(tmp_path / "whole.json")
    with pytest.raises(ValueError, match="missing or damaged"):  # not another rate in silence
        small_run(tmp_path / "run", photos, steps=1, learning_rate=0.5)
    whole.rename(file)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint.pt cannot be read .its content must be a checkpoint of a run"):
        small_run(tmp_path / "run", photos, steps=1)
    with pytest.raises(ValueError, match="is no folder"):
        small_run(photos, photos, steps=1)


def test_one_process_may_train_in_both_precisions(photos: Path, tmp_path: Path) -> None:
    first, _ = small_run(tmp_path / "first", photos, steps=2)
    low, _ = small_run(tmp_path / "low", photos, steps=2, precision="bf16")
    AcceleratorState._reset_state()
    Accelerator(mixed_precision="bf16")  # of another part of the program
    again, _ = small_run(tmp_path / "again", photos, steps=2)
    AcceleratorState._reset_state()
    assert same_weights(first.state_dict(), again.state_dict())
    assert not same_weights(first.state_dict(), low.state_dict())


def test_two_processes_stop_together_when_time_is_up(two: Path) -> None:
    assert torch.load(two / "stopped" / "checkpoint.pt", weights_only=True)["progress"]["step"] >= 1
