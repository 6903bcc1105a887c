"""What cannot be an image in [0, 1] is refused: its figures would look better than those of the right one."""

import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from workbench.evaluation.fid import frechet_effnet
from workbench.evaluation.metrics import haarpsi, lpips, paper_scores, psnr, score, ssim
from workbench.evaluation.perceptual import effnet
from workbench.images import sample_photos
from workbench.models.load import load_prior
from workbench.records import save
from workbench.restore import degrade, observe, restore
from workbench.solvers import PseudoInverse
from workbench.solvers.base import Problem, Restoration, Solver

PHOTO = sample_photos(16, ("cat",))
WRONG = {
    "divide by 65535": PHOTO * 65535,
    r"values from -0\.\d+ to 0\.\d+: \(x \+ 1\) / 2": PHOTO * 2 - 1,
    "uint8: divide by 255": (PHOTO * 255).byte(),
    "NaN": torch.where(PHOTO > 0.5, PHOTO, math.nan),
    "infinite": torch.where(PHOTO > 0.5, PHOTO, -math.inf),
    "clip or rescale": (PHOTO - 0.45) / 0.225 - 0.5,
}
METRICS = (psnr, ssim, effnet, partial(effnet, name="effnet2"), lpips, haarpsi, paper_scores, score)


@dataclass(frozen=True)
class Returns(Solver):
    """Its result is the same whatever is measured."""

    value: float = 0.0
    needs_prior = False

    def run(self, p: Problem, callback: object = None) -> Restoration:
        once = torch.ones(len(p.y), dtype=torch.int64)
        return Restoration(torch.full_like(PHOTO, self.value), once, once)


@pytest.mark.parametrize("told", WRONG)
def test_what_is_no_image_is_refused_with_the_remedy(told):
    wrong, degraded = WRONG[told], degrade(PHOTO, "denoise")
    expected = partial(pytest.raises, ValueError, match=rf"must have values in \[0, 1\], got .*{told}")
    with expected():
        degrade(wrong, "sr:4")
    with expected():
        observe(wrong, "blur:1")
    with expected():
        restore(replace(degraded, original=wrong), PseudoInverse(), load_prior("photo"))
    with expected():
        restore(degraded, PseudoInverse(), load_prior("photo"), initial=wrong)
    for metric in METRICS:
        with expected():
            metric(wrong, wrong)
        with expected():
            metric(wrong, PHOTO)
    with expected():
        frechet_effnet(PHOTO.repeat(2, 1, 1, 1), wrong.repeat(2, 1, 1, 1))


def test_an_original_is_held_to_the_range_and_a_restoration_to_what_solvers_leave():
    nearly, restored = PHOTO * 1.0005 / PHOTO.amax(), PHOTO * 1.9 / PHOTO.amax() - 0.45
    degrade(nearly, "sr:4")
    assert torch.equal(psnr(restored, PHOTO), psnr(restored.clamp(0, 1), PHOTO))
    with pytest.raises(ValueError, match=r"photos .* from -0.3.* to 1.45: clip or rescale"):
        degrade(restored, "sr:4")
    with pytest.raises(ValueError, match="the original"):
        psnr(PHOTO, restored)
    observe(restored, "denoise")


def test_the_noise_of_a_measurement_may_leave_the_range():
    y = degrade(PHOTO, "denoise", 0.5).y
    assert float(y.amin()) < -0.5
    observe(y, "denoise", 0.5)
    with pytest.raises(ValueError, match="photos must"):
        observe(y, "denoise", 0.02)


def test_clipping_of_any_range_is_asked_for():
    wild = PHOTO * 1e12
    for metric in (psnr, ssim, effnet, haarpsi):
        assert torch.equal(metric(wild, PHOTO, clip=True), metric(wild.clamp(0, 1), PHOTO))
    assert paper_scores(wild, PHOTO, clip=True) == paper_scores(wild.clamp(0, 1), PHOTO)
    with pytest.raises(ValueError, match="NaN"):
        psnr(wild * torch.nan, PHOTO, clip=True)
    with pytest.raises(ValueError, match=r"the original .*up to"):
        psnr(wild, wild, clip=True)


def test_a_restoration_that_diverged_has_a_record_and_says_so(tmp_path):
    value = -1e12
    result = restore(degrade(PHOTO, "sr:4"), Returns(value=value), load_prior("photo"))
    assert result.records[0]["psnr"] == float(psnr(torch.full_like(PHOTO, value).clamp(0, 1), PHOTO))
    assert "where photos have 0 to 1" in result.records[0]["message"]
    save(result, tmp_path)
    assert (tmp_path / "metrics.json").is_file()
