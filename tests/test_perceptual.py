"""perceptual-tiny: what a distance must do, the order of known distortions, and the file that is shipped."""

from __future__ import annotations

import json

import pytest
import torch

from workbench import metrics
from workbench.images import sample_photos
from workbench.perceptual import PerceptualTiny, perceptual_tiny, perceptual_tiny_card, perceptual_tiny_unavailable
from workbench.perceptual.distance import WEIGHTS
from workbench.perceptual.distortions import DISTORTIONS, at_equal_error, blur, jpeg, ladder, noise, rising, shift
from workbench.perceptual.file import load_network, save_network
from workbench.perceptual.network import WIDTHS, PerceptualNetwork, fused
from workbench.perceptual.training import accuracy, labelled_photos


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return sample_photos(64)


@pytest.fixture(scope="module")
def validation(shared):
    file = shared / "data" / "tiny-imagenet" / "val.tar"
    if not file.is_file():
        pytest.skip(f"no validation photos: {file} is missing")
    return labelled_photos([str(file)], perceptual_tiny_card()["classes"])


def test_equal_images_have_distance_zero_and_order_does_not_matter(photos):
    other = noise(photos, 0.1)
    assert perceptual_tiny(photos, photos).tolist() == [0] * len(photos)
    forth = perceptual_tiny(other, photos)
    assert bool((forth > 0.1).all())
    torch.testing.assert_close(forth, perceptual_tiny(photos, other))


def test_the_distance_is_the_formula(photos):
    one, other = photos[:1], blur(photos[:1], 1.0)
    features = load_network(WEIGHTS)[0].features
    expected = 0.0
    for stage, (f, g) in enumerate(zip(features(one), features(other), strict=True)):
        assert f.shape == (1, WIDTHS[stage], 64 // 2**stage, 64 // 2**stage)
        cosine = torch.nn.functional.cosine_similarity(f, g, dim=1)  # |f/|f| - g/|g||^2 = 2 - 2 cos
        expected += float((2 - 2 * cosine).mean().detach())
    assert float(perceptual_tiny(other, one)) == pytest.approx(expected, rel=1e-3)


def test_a_batch_gives_what_single_images_give(photos):
    distorted = shift(photos, 2)
    alone = torch.cat([perceptual_tiny(a[None], b[None]) for a, b in zip(distorted, photos, strict=True)])
    torch.testing.assert_close(perceptual_tiny(distorted, photos), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_every_sample_photo_gets_farther_the_stronger_the_distortion(photos, kind):
    distortion, strengths = DISTORTIONS[kind]
    assert len(strengths) >= 5
    assert rising(ladder(perceptual_tiny, photos, distortion, strengths)) == 1


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_held_out_photos_rank_as_the_card_says(validation, kind):
    half = torch.nn.functional.avg_pool2d(validation[0][:100].float() / 255, 2)
    figures = perceptual_tiny_card()["ranking"]["tiny-imagenet, 32"]
    values = ladder(perceptual_tiny, half, *DISTORTIONS[kind])
    assert rising(values) >= 0.9
    assert rising(values) == pytest.approx(figures["rising"][kind], abs=0.02)
    assert values.mean(dim=1).tolist() == pytest.approx(figures["mean"][kind], rel=0.01)


def test_rising_counts_the_images_whose_distances_grow_from_zero_on():
    distances = torch.tensor([[1.0, 1.0, 0.0, 1.0], [2.0, 0.5, 1.0, 2.0], [3.0, 3.0, 2.0, 2.0]])
    assert rising(distances) == 0.25


def test_distortions_of_no_strength_change_nothing(photos):
    assert torch.equal(shift(photos, 0), photos)
    assert torch.equal(noise(photos, 0.0), photos)
    torch.testing.assert_close(blur(photos, 0.01), photos)
    assert float((jpeg(photos, 95) - photos).abs().mean()) < 0.02
    assert torch.equal(shift(photos, 3)[..., 3:], photos[..., :-3])


def test_a_shift_costs_less_than_blur_or_noise_of_the_same_error(photos):
    errors = at_equal_error(photos, lambda a, b: (a - b).square().mean(dim=(1, 2, 3)))
    assert len(errors["shift"]) >= 2
    torch.testing.assert_close(errors["blur"], errors["shift"], rtol=1e-4, atol=0)
    torch.testing.assert_close(errors["noise"], errors["shift"], rtol=1e-4, atol=0)
    distances = at_equal_error(photos, perceptual_tiny)
    assert bool((distances["shift"] < distances["blur"]).all())
    assert float(distances["shift"].mean()) < 0.5 * float(distances["blur"].mean())


def test_gradients_are_those_of_finite_differences(photos):
    distance = PerceptualTiny().double()
    original = photos[:2, :, 20:40, 20:40].double()
    generator = torch.Generator().manual_seed(0)
    restored = original + 0.1 * torch.randn(original.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(distance(restored.requires_grad_(), original).sum(), restored)
    assert gradient.shape == restored.shape
    with torch.no_grad():
        for _ in range(3):
            direction = torch.randn(restored.shape, generator=generator, dtype=torch.float64)
            up, down = (distance(restored + step * direction, original).sum() for step in (1e-7, -1e-7))
            assert float((up - down) / 2e-7) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_flat_and_equal_images_have_finite_gradients():
    flat = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(PerceptualTiny()(flat, torch.zeros(1, 3, 16, 16)).sum(), flat)
    assert bool(gradient.isfinite().all())


def test_the_module_is_frozen_and_stays_in_eval_mode(photos):
    distance = PerceptualTiny().train()
    assert not distance.training
    assert not distance.network.training
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_the_metric_clips_and_the_module_does_not(photos):
    bright = photos + 0.6
    assert torch.equal(perceptual_tiny(bright, photos), perceptual_tiny(bright.clamp(0, 1), photos))
    assert float((PerceptualTiny()(bright, photos) - perceptual_tiny(bright, photos)).abs().min()) > 1e-4


@pytest.mark.parametrize("measure", [perceptual_tiny, PerceptualTiny()])
@pytest.mark.parametrize(
    ("restored", "original", "problem"),
    [
        ((2, 3, 32, 32), (1, 3, 32, 32), r"one shape, got \(2, 3, 32, 32\) and \(1, 3, 32, 32\)"),
        ((3, 32, 32), (3, 32, 32), r"\(B, C, H, W\)"),
        ((1, 1, 32, 32), (1, 1, 32, 32), "3 channels, got 1"),
        ((1, 3, 15, 32), (1, 3, 15, 32), "at least 16 pixels, got 15x32"),
    ],
)
def test_what_is_no_pair_of_photos_is_refused(measure, restored, original, problem):
    with pytest.raises(ValueError, match=problem):
        measure(torch.zeros(restored), torch.zeros(original))


def test_values_that_are_not_finite_are_refused(photos):
    with pytest.raises(ValueError, match="NaN"):
        perceptual_tiny(photos * torch.nan, photos)


def test_the_smallest_and_odd_sizes_work():
    images = torch.rand(2, 3, 16, 37, generator=torch.Generator().manual_seed(0))
    assert perceptual_tiny_unavailable(images) is None
    assert bool((perceptual_tiny(images * 0.5, images) > 0).all())


def test_scores_have_it_and_say_why_not(photos):
    (row,) = metrics.score(noise(photos[:1], 0.1), photos[:1])
    assert row["perceptual_tiny"] == pytest.approx(float(perceptual_tiny(noise(photos[:1], 0.1), photos[:1])))
    assert "perceptual_tiny_reason" not in row
    (row,) = metrics.score(photos[:1, :, :12, :12] * 0.9, photos[:1, :, :12, :12])
    assert row["perceptual_tiny"] is None
    assert "at least 16 pixels, got 12x12" in str(row["perceptual_tiny_reason"])
    assert metrics.as_text(0.12345, "perceptual_tiny") == "0.123"


def test_the_shipped_file_is_small_and_its_card_is_complete():
    assert WEIGHTS.stat().st_size <= 2_000_000
    card = perceptual_tiny_card()
    assert {"data", "images", "steps", "seconds", "accuracy", "ranking", "classes"} <= set(card)
    assert len(set(card["classes"])) == 200
    json.dumps(card, allow_nan=False)


def test_the_cards_accuracy_is_that_of_the_file(validation):
    images, labels, _ = validation
    network, card = load_network(WEIGHTS)
    assert len(labels) == card["accuracy_photos"] == 2000
    assert accuracy(network, images, labels) == pytest.approx(card["accuracy"], abs=0.01)
    assert card["accuracy"] > 0.2  # chance: 0.005


def test_fusing_and_saving_keep_the_function(tmp_path, photos):
    torch.manual_seed(0)
    network = PerceptualNetwork(5).train()
    for _ in range(5):
        network(photos)  # gives the normalisations statistics of their own
    network.eval()
    expected = network(photos)
    torch.testing.assert_close(fused(network)(photos), expected, rtol=1e-4, atol=1e-5)
    save_network(network, tmp_path / "net.safetensors", {"classes": list("abcde"), "summary": "s"})
    loaded, card = load_network(tmp_path / "net.safetensors")
    torch.testing.assert_close(loaded(photos), expected, rtol=0.02, atol=0.005)
    assert card["summary"] == "s"
    save_network(loaded, tmp_path / "again.safetensors", card)
    assert torch.equal(load_network(tmp_path / "again.safetensors")[0](photos), loaded(photos))


def test_bad_files_and_cards_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="no such file"):
        PerceptualTiny(tmp_path / "missing.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not a network of perceptual-tiny"):
        load_network(tmp_path / "other.safetensors")
    header = {"format": 1, "network": "perceptual-tiny", "card": {"classes": ["a"]}}
    save_file({"a": torch.zeros(1)}, tmp_path / "empty.safetensors", metadata={"workbench": json.dumps(header)})
    with pytest.raises(ValueError, match="tensors missing"):
        load_network(tmp_path / "empty.safetensors")
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "new.safetensors", metadata={"workbench": json.dumps(header | {"format": 2})}
    )
    with pytest.raises(ValueError, match="expected format 1"):
        load_network(tmp_path / "new.safetensors")
    with pytest.raises(ValueError, match="name the 3 classes"):
        save_network(PerceptualNetwork(3), tmp_path / "net.safetensors", {"classes": ["a"]})
    with pytest.raises(ValueError, match="without NaN"):
        save_network(PerceptualNetwork(1).eval(), tmp_path / "net.safetensors", {"classes": ["a"], "x": float("nan")})
