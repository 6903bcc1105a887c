"""PSNR, SSIM and LPIPS against other implementations, and what happens where one is not defined."""

from functools import partial

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from workbench.evaluation import metrics, perceptual
from workbench.images import load_image, sample_photos, to_uint8


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    original = sample_photos(48)
    levels = torch.tensor([0.02, 0.05, 0.07, 0.1]).view(-1, 1, 1, 1)
    return original + levels * torch.randn(original.shape, generator=torch.Generator().manual_seed(0)), original


def _pixels(image: torch.Tensor) -> np.ndarray:
    return image.clamp(0, 1).permute(1, 2, 0).double().numpy()


def test_psnr_is_scikit_images_of_the_clipped_image(pair):
    restored, original = pair
    expected = [
        peak_signal_noise_ratio(_pixels(x), _pixels(r), data_range=1) for r, x in zip(restored, original, strict=True)
    ]
    torch.testing.assert_close(metrics.psnr(restored, original), torch.tensor(expected, dtype=torch.float64))


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


def test_paper_scores_are_scikit_images_of_the_saved_pictures(pair):
    """Y of MATLAB's rgb2ycbcr from 8-bit pictures, 4 pixels off each border, the peak at 255."""
    found = metrics.paper_scores(*pair, crop=4)
    assert list(found) == ["psnr_rgb_crop4", "ssim_rgb_crop4", "psnr_y_crop4", "ssim_y_crop4"]
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for index, saved in enumerate(zip(*map(to_uint8, pair), strict=True)):
        restored, original = (pixels[4:-4, 4:-4].astype(float) for pixels in saved)
        y = [rgb2ycbcr(pixels / 255)[..., 0] for pixels in (restored, original)]
        expected = {
            "psnr_rgb_crop4": peak_signal_noise_ratio(original, restored, data_range=255),
            "ssim_rgb_crop4": structural_similarity(restored, original, channel_axis=2, **options),
            "psnr_y_crop4": peak_signal_noise_ratio(y[1], y[0], data_range=255),
            "ssim_y_crop4": structural_similarity(*y, **options),
        }
        assert {key: float(value[index]) for key, value in found.items()} == pytest.approx(expected, abs=1e-4)


def test_bicubic_interpolation_of_set5_has_its_published_figures(shared):
    """By 4: 28.42 dB and 0.8104 in papers on super-resolution, whose MATLAB rounds Y as well. RGB has 26.7 dB."""
    resize = partial(torch.nn.functional.interpolate, mode="bicubic", antialias=True)
    found = []
    for file in sorted((shared / "data" / "set5").glob("*.png")):
        photo = load_image(file)
        height, width = (side // 4 for side in photo.shape[-2:])
        photo = photo[..., : 4 * height, : 4 * width]
        restored = resize(to_eight_bits(resize(photo, (height, width))), photo.shape[-2:])
        scores = metrics.paper_scores(restored, photo, crop=4)
        found.append([float(scores["psnr_y_crop4"]), float(scores["ssim_y_crop4"])])
    assert len(found) == 5
    decibel, similarity = np.mean(found, axis=0)
    assert decibel == pytest.approx(28.42, abs=0.02)
    assert similarity == pytest.approx(0.8104, abs=0.001)


def test_paper_scores_need_colours_and_something_to_measure(pair):
    with pytest.raises(ValueError, match=r"channels must be 3 \(RGB\), got 1"):
        metrics.paper_scores(*(images[:, :1] for images in pair))
    with pytest.raises(ValueError, match="crop must be 0 to less than half of 48x48 pixels, got 24"):
        metrics.paper_scores(*pair, crop=24)
    with pytest.raises(ValueError, match=r"crop must be .*, got 1.5"):
        metrics.paper_scores(*pair, crop=1.5)
    # 10 pixels hold no window of SSIM.
    assert list(metrics.paper_scores(*pair, crop=19)) == ["psnr_rgb_crop19", "psnr_y_crop19"]


def to_eight_bits(images: torch.Tensor) -> torch.Tensor:
    return images.clamp(0, 1).mul(255).round().div(255)


def test_small_images_have_no_ssim_and_say_so():
    image = torch.rand(1, 3, 10, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="at least 11 pixels, got 10x64"):
        metrics.ssim(image, image)
    (row,) = metrics.score(image * 0.9, image)
    assert row["ssim"] is None
    assert "at least 11" in str(row["ssim_reason"])
    assert row["psnr"] > 20
    assert metrics.ssim(image.new_zeros(1, 3, 11, 11), image.new_zeros(1, 3, 11, 11)) == 1


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
    weights = {n: 0.05 * torch.randn(s) if "features" in n else torch.zeros(1).expand(s) for n, s in shapes.items()}
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
