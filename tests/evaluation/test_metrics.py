"""PSNR, SSIM and LPIPS against other implementations, and what happens where one is not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from workbench.evaluation import metrics, perceptual
from workbench.images import sample_photos


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    original = sample_photos(48)
    levels = torch.tensor([0.02, 0.05, 0.1, 0.3]).view(-1, 1, 1, 1)
    return original + levels * torch.randn(original.shape, generator=torch.Generator().manual_seed(0)), original


def _pixels(image: torch.Tensor) -> np.ndarray:
    return image.clamp(0, 1).permute(1, 2, 0).double().numpy()


def test_psnr_is_scikit_images_of_the_clipped_image(pair):
    restored, original = pair
    expected = [
        peak_signal_noise_ratio(_pixels(x), _pixels(r), data_range=1) for r, x in zip(restored, original, strict=True)
    ]
    torch.testing.assert_close(metrics.psnr(restored, original), torch.tensor(expected, dtype=torch.float64))


def test_clipping_happens_before_the_comparison():
    white = torch.ones(1, 3, 16, 16)
    assert math.isinf(float(metrics.psnr(white + 3, white)))
    assert float(metrics.ssim(white + 3, white)) == pytest.approx(1)


def test_ssim_is_scikit_images(pair):
    restored, original = pair
    options = {"data_range": 1, "channel_axis": 2, "gaussian_weights": True, "sigma": 1.5}
    expected = [
        structural_similarity(_pixels(r), _pixels(x), use_sample_covariance=False, **options)
        for r, x in zip(restored, original, strict=True)
    ]
    torch.testing.assert_close(
        metrics.ssim(restored.double(), original.double()), torch.tensor(np.array(expected)), rtol=1e-9, atol=1e-9
    )


def test_small_images_have_no_ssim_and_say_so():
    image = torch.rand(1, 3, 10, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="at least 11 pixels, got 10x64"):
        metrics.ssim(image, image)
    (row,) = metrics.score(image * 0.9, image)
    assert row["ssim"] is None
    assert "at least 11" in str(row["ssim_reason"])
    assert row["psnr"] > 20
    assert metrics.ssim(image.new_zeros(1, 3, 11, 11), image.new_zeros(1, 3, 11, 11)) == 1


def test_scores_are_per_image_and_valid_json(pair):
    import json

    restored, original = pair
    rows = metrics.score(torch.cat([restored, original[:1]]), torch.cat([original, original[:1]]))
    assert [row["psnr"] for row in rows[:4]] == sorted((row["psnr"] for row in rows[:4]), reverse=True)
    assert rows[4]["psnr"] is None
    assert "infinite" in rows[4]["psnr_reason"]
    json.dumps(rows, allow_nan=False)


def test_shapes_must_agree_and_values_be_finite(pair):
    restored, original = pair
    with pytest.raises(ValueError, match=r"\(4, 3, 48, 48\) and \(1, 3, 48, 48\)"):
        metrics.psnr(restored, original[:1])
    with pytest.raises(ValueError, match="NaN"):
        metrics.score(restored * torch.nan, original)


def test_consistency_is_the_sum_of_what_the_measurement_misses():
    from workbench.operators.parse import parse_operator
    from workbench.random import generator

    op = parse_operator("gray", (3, 8, 6), generator(0))
    original = torch.full((3, 3, 8, 6), 0.5)
    y = op(original)
    # Shifted; shifted in one channel of three; beyond white, where y is white.
    restored = torch.stack([original[0] + 0.1, original[1], original[2] + 0.9])
    restored[1, 0] += 0.3
    y[2] = 1
    torch.testing.assert_close(metrics.consistency(restored, y, op).float(), torch.tensor([4.8, 4.8, 0.0]))
    # Of noise-free data the pseudo-inverse misses nothing.
    photo = sample_photos(16)
    op = parse_operator("sr:2", (3, 16, 16), generator(0))
    inside = 0.25 + photo / 2
    assert metrics.consistency(op.pinv(op(inside)), op(inside), op).max() < 1e-3


def test_lpips_without_weights_is_none_with_the_reason(pair, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    restored, original = pair
    rows = metrics.score(restored, original)
    assert all(row["lpips"] is None for row in rows)
    expected = f"unavailable: place alexnet-owt-7be5be79.pth in {tmp_path / 'hub' / 'checkpoints'}"
    assert rows[0]["lpips_reason"] == expected
    with pytest.raises(ValueError, match="place alexnet"):
        metrics.lpips(restored, original)


def test_lpips_is_computed_once_the_weights_are_there(pair, monkeypatch, tmp_path):
    from torchvision.models import alexnet

    # Random weights stand in for the published ones: the numbers mean nothing, the mechanism is what is tested.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    with torch.device("meta"):
        shapes = {name: weights.shape for name, weights in alexnet().state_dict().items()}
    torch.manual_seed(0)
    weights = {n: 0.05 * torch.randn(s) if "features" in n else torch.zeros(s) for n, s in shapes.items()}
    torch.save(weights, folder / perceptual.LPIPS_WEIGHTS)
    restored, original = pair
    rows = metrics.score(torch.cat([restored, original]), torch.cat([original, original]))
    assert all(row["lpips"] > 0 for row in rows[:4])
    assert all(row["lpips"] == 0 for row in rows[4:])
    assert "lpips_reason" not in rows[0]
    # The network of one device stays there when another device asks.
    distance = perceptual.lpips_distance(torch.device("cpu"))
    perceptual.lpips_distance(torch.device("meta"))
    assert distance(restored.clamp(0, 1), original).tolist() == pytest.approx([row["lpips"] for row in rows[:4]])
    assert "at least 32" in metrics.lpips_unavailable(original[..., :31])
