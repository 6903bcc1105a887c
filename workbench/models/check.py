"""Whether a prior is one: a network of one's own is shown noisy photos before results are built on it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from workbench.images import PLAUSIBLE, check_range, sample_photo
from workbench.models.adapters import Adapter, VPNoise
from workbench.models.prior import Prior
from workbench.text import require, require_kind

SIDE, LEVELS = 64, torch.tensor([0.05, 0.2, 0.5]).view(-1, 1, 1, 1)
NEARER = 0.7  # of the mean squared error; with half or twice the level the shipped priors' is 1.6 to 10 times as large
WORSE = 2.0  # times the error of the best blur: no denoiser of photos
ALONE = 0.01  # root mean square, above the rounding of bfloat16
KINDS = ("denoiser", "consistency")

Reading = Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, Tensor], Tensor]
# What a network seems to do, and the image that is meant if it does: ``a`` is its answer ``d(x, s)``, ``s`` the level.
READINGS: dict[str, Reading] = {
    "wants sigma twice as large, that of [-1, 1]: give it 2 * sigma": lambda d, x, s, a: d(x, 2 * s),
    "wants sigma half as large: give it sigma / 2": lambda d, x, s, a: d(x, s / 2),
    "returns the noise, of standard deviation 1: the image is x - sigma * noise": lambda d, x, s, a: x - s * a,
    "returns the noise, as large as it is in x: the image is x - noise": lambda d, x, s, a: x - a,
    "returns the score: the image is x + sigma^2 * score": lambda d, x, s, a: x + s**2 * a,
    "returns images in [-1, 1]: the image is (answer + 1) / 2": lambda d, x, s, a: (a + 1) / 2,
    "returns values in 0..255: divide by 255": lambda d, x, s, a: a / 255,
    "takes values in 0..255: give it 255 * x and 255 * sigma": lambda d, x, s, a: d(255 * x, 255 * s) / 255,
    "wants sigma in 255 units: give it 255 * sigma": lambda d, x, s, a: d(x, 255 * s),
    "takes its sigma 255 times too large: give it sigma / 255": lambda d, x, s, a: d(x, s / 255),
}


def check_prior(prior: Prior, photo: Tensor | None = None) -> None:
    """Raise ValueError, with a sentence on what ``prior`` looks like, unless it denoises ``photo`` (1, C, H, W).

    Asked at three levels up to 0.5, in eval mode, it must return finite images, each as if it were alone, not be read
    better in another way (as noise, score, in another range or unit), and not be twice as far off as a blur. Default: a
    sample photo; priors of other images need their own. Unfolded and feed-forward networks are not looked at.
    """
    require_kind(prior, Prior, "prior", "load_prior('photo')")
    if photo is not None:
        require(photo.ndim == 4 and len(photo) == 1, "photo", "one image (1, C, H, W)", f"shape {tuple(photo.shape)}")
        check_range(photo, "photo", *PLAUSIBLE)
    says, _ = _finding(prior, _photo(prior) if photo is None else photo)
    if says:
        raise ValueError(f"{prior.name} {says}")


def check_once(prior: Prior, like: Tensor | None = None) -> str:
    """The ``remark`` on ``prior``, which is looked at unless ``checked``; ``like`` are images that it will be asked of.

    Raises ValueError as :func:`check_prior`, but only beyond doubt: photos may not suit it, or its training go on.
    """
    while prior.kind in KINDS and isinstance(inner := getattr(prior, "prior", None), Prior):
        prior = inner
    if not prior.checked:
        try:
            says, certain = _finding(prior, _photo(prior, like))
        except Exception:  # of any kind: it is the user's network
            says, certain = "", False
        if certain:
            raise ValueError(f"{prior.name} {says} (check=False, or prior.checked = True, takes it as it is)")
        prior.checked, prior.remark = True, says and f"{prior.name} {says}"
    return prior.remark


@torch.no_grad()
def _finding(prior: Prior, photo: Tensor) -> tuple[str, bool]:
    """What is wrong with ``prior``, or nothing; and whether that is beyond doubt."""
    if prior.kind not in KINDS or prior.sigma_max <= 0:
        return "", False
    if isinstance(prior, VPNoise) and prior.alphas_cumprod[-1] > 0.5:
        return "has wrong noise levels: alphas_cumprod end above 0.5, not near 0; torch.cumprod(1 - betas, 0)?", True
    levels = (LEVELS * min(1.0, prior.sigma_max / float(LEVELS.max()))).clamp(min=prior.sigma_min).to(photo)
    noisy = photo + levels * torch.randn(3, *photo.shape[1:], generator=torch.Generator().manual_seed(0)).to(photo)
    modes = [(module, module.training) for module in prior.modules()]
    with torch.random.fork_rng(devices=[photo.device] if photo.is_cuda else []):
        try:
            return _compared(prior.eval(), photo, noisy, levels)
        finally:
            for module, mode in modes:
                module.training = mode


def _compared(prior: Prior, photo: Tensor, noisy: Tensor, levels: Tensor) -> tuple[str, bool]:
    def off(image: Tensor) -> Tensor:
        return (image - photo).square().mean((1, 2, 3))

    prior.check(noisy)
    answer: object = prior.denoise(given := noisy.clone(), levels.flatten())
    if not torch.equal(given, noisy):
        return "writes into its input: let it work on a copy (x.clone())", True
    if not isinstance(answer, Tensor) or answer.shape != noisy.shape:
        got = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        return f"must return images like those it is shown, {tuple(noisy.shape)}, got {got}", True
    if not bool(answer.isfinite().all()):
        return f"returns numbers that are not finite for a photo with noise {float(levels[0]):.3g} or more", False
    if not _near(alone := prior.denoise(noisy[1:2].clone(), levels[1:2].flatten()), answer[1:2]):
        if _near(prior.denoise(noisy[1:2].clone(), levels[1:2].flatten()), alone):
            return "answers otherwise for an image alone than in a batch: each has a sigma of its own, (B,)", True
        return "answers otherwise each time it is asked", False
    blurs = [functional.avg_pool2d(noisy, side, 1, side // 2, count_include_pad=False) for side in (1, 3, 5, 9, 17)]
    plain, blurred = off(answer), torch.stack([off(image) for image in blurs]).amin(0)
    readings = list(READINGS.items())
    if bool((plain < blurred).all()):
        readings = readings[:2]
    elif isinstance(prior, Adapter):
        says = "has a network that denoises by itself: PlainDenoiser(lambda x, s: (net(2 * x - 1, 2 * s) + 1) / 2)"
        readings.append((says, lambda d, x, s, a: (prior.ask(2 * x - 1, 2 * s.flatten()) + 1) / 2))
    for says, reading in readings:
        for some in ([1], [0, 1, 2]):  # the middle level rules out most, at a third of the cost
            try:
                read = reading(lambda x, s: prior.denoise(x, s.flatten()), noisy[some], levels[some], answer[some])
            except Exception:  # a level or range that it does not know
                break
            if not bool((off(read) < torch.minimum(NEARER * plain, blurred)[some]).all()):
                break
        else:
            return f"{says} (PlainDenoiser, EDMPrecond, VPNoise and VEScore translate)", True
    ratio, worst = (float(found) for found in (plain / blurred).max(0))
    where = f"at noise {float(levels[int(worst)]):.3g} its mean square error is {ratio:.2g} times that of a blur"
    return (f"looks like no denoiser of photos: {where}" if ratio > WORSE else ""), False


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).square().mean().sqrt()) <= ALONE


def _photo(prior: Prior, like: Tensor | None = None) -> Tensor:
    """A sample photo (1, C, H, W) that ``prior`` takes, no larger than ``like`` and ``SIDE`` where it may choose."""
    step, first = prior.multiple, next(prior.parameters(), torch.zeros(()))
    like = torch.zeros(1, 1, SIDE, SIDE, device=first.device) if like is None else like
    height, width = (prior.image_size or -(-min(side, SIDE) // step) * step for side in like.shape[-2:])
    photo = sample_photo("coffee", max(height, width))[..., :height, :width]
    return (photo if prior.channels == 3 else photo.mean(1, keepdim=True).repeat(1, prior.channels, 1, 1)).to(like)
