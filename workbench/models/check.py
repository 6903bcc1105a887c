"""Whether a prior is one: a network of one's own is shown a noisy photo before results are built on it.

A denoiser is told the level of the noise it is shown, and answers with the photo. An answer that is not nearer to the
photo than a blur is read in the ways that networks are commonly mistaken (``READINGS``): if one of them is much nearer,
the sentence names it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.images import sample_photo
from workbench.models.adapters import Adapter, VPNoise
from workbench.models.prior import Prior

SIDE, HIGHEST = 64, 0.5
BLURS = (1, 3, 5, 9, 17)  # sides of the box blurs that a denoiser must beat
NEARER = 0.7  # of the mean squared error; with half or twice the level the shipped priors' is 1.6 to 10 times as large
WORSE = 2.0  # times the error of the best blur: no denoiser of photos
KINDS = ("denoiser", "consistency")
ADAPTERS = "PlainDenoiser, EDMPrecond, VPNoise, VEScore"

Denoise = Callable[[Tensor, Tensor], Tensor]
Reading = Callable[[Denoise, Tensor, Tensor], Tensor]
TWICE: tuple[tuple[str, Reading], ...] = (
    ("wants sigma twice as large, that of [-1, 1]: give it 2 * sigma", lambda d, x, s: d(x, 2 * s)),
    ("wants sigma half as large: give it sigma / 2", lambda d, x, s: d(x, s / 2)),
)
# What a network seems to do, and the image that its answers ``d(x, s)`` mean if it does; ``s`` is (B, 1, 1, 1).
READINGS: tuple[tuple[str, Reading], ...] = (
    ("returns the noise, of standard deviation 1: the image is x - sigma * noise", lambda d, x, s: x - s * d(x, s)),
    ("returns the noise, as large as it is in x: the image is x - noise", lambda d, x, s: x - d(x, s)),
    ("returns minus the noise: the image is x + sigma * answer", lambda d, x, s: x + s * d(x, s)),
    ("returns the score: the image is x + sigma^2 * score", lambda d, x, s: x + s**2 * d(x, s)),
    ("returns the score in [-1, 1]: the image is x + 2 sigma^2 * score", lambda d, x, s: x + 2 * s**2 * d(x, s)),
    ("returns images in [-1, 1]: the image is (answer + 1) / 2", lambda d, x, s: (d(x, s) + 1) / 2),
    ("returns values in 0..255: divide by 255", lambda d, x, s: d(x, s) / 255),
    ("takes values in 0..255: give it 255 * x and 255 * sigma", lambda d, x, s: d(255 * x, 255 * s) / 255),
    ("takes images in [-1, 1] and returns [0, 1]: give it 2 x - 1 and 2 sigma", lambda d, x, s: d(2 * x - 1, 2 * s)),
    ("wants sigma in 255 units: give it 255 * sigma", lambda d, x, s: d(x, 255 * s)),
    ("takes its sigma 255 times too large: give it sigma / 255", lambda d, x, s: d(x, s / 255)),
    ("wants the variance: give it sigma^2", lambda d, x, s: d(x, s**2)),
    *TWICE,
)  # fmt: skip


def check_prior(prior: Prior, photo: Tensor | None = None) -> None:
    """Raise ValueError, with a sentence on what ``prior`` looks like, unless it denoises a photo.

    It is asked at three levels, at most 0.5 and within its range, in eval mode and without gradients; neither its modes
    nor the global random streams change. Unfolded and feed-forward networks, which have no level, are not looked at.

    Args:
        photo: (1, C, H, W) in [0, 1]. Default: a sample photo of 64x64 or the size that the prior takes. A prior of
            other images wants one of its own.

    Raises:
        ValueError: it fails, its answer is no image, is not finite, or is read better in another way (as noise, score,
            in another range or unit of ``sigma``); or it denoises no better than a blur at any level.
    """
    try:
        found = _finding(prior, photo)
    except Exception as error:  # of any kind: it is the user's network that fails
        raise ValueError(f"{prior.name} cannot denoise a photo: {error}") from error
    if found is not None:
        raise ValueError(found[0])


def check_once(prior: Prior, like: Tensor | None = None) -> str:
    """Look at ``prior`` unless that is done (``prior.checked``), and return its ``remark``.

    A network that is being trained, or one of other images, may not denoise photos: here that is a remark, no error.
    Neither is one an error that cannot be asked about a sample photo.

    Args:
        like: images (B, C, H, W) that it is going to be asked about; their size, if smaller, dtype and device count.

    Raises:
        ValueError: as :func:`check_prior`, where it is beyond doubt.
    """
    while prior.kind in KINDS and isinstance(inner := getattr(prior, "prior", None), Prior):
        prior = inner
    if prior.checked:
        return prior.remark
    try:
        found = _finding(prior, None if like is None else _photo(prior, like))
    except Exception:
        found = None
    if found is not None and found[1]:
        raise ValueError(f"{found[0]} (check=False, or prior.checked = True, takes it as it is)")
    prior.checked, prior.remark = True, "" if found is None else found[0]
    return prior.remark


@torch.no_grad()
def _finding(prior: Prior, photo: Tensor | None) -> tuple[str, bool] | None:
    """A sentence on what is wrong with ``prior``, and whether that is beyond doubt."""
    if prior.kind not in KINDS or prior.sigma_max <= 0:
        return None
    if photo is None:
        first = next(chain(prior.parameters(), prior.buffers()), torch.zeros(()))
        photo = _photo(prior, torch.zeros(1, 1, SIDE, SIDE, device=first.device))
    top = min(HIGHEST, prior.sigma_max)
    levels = torch.tensor([0.1 * top, 0.4 * top, top]).clamp(min=prior.sigma_min).to(photo).view(-1, 1, 1, 1)
    noise = torch.randn(3, *photo.shape[1:], generator=torch.Generator().manual_seed(0))
    noisy = photo + levels * noise.to(photo)
    training = [module for module in prior.modules() if module.training]
    devices = [photo.device] if photo.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        try:
            _set_training(training, False)
            return _compared(prior, photo, noisy, levels)
        finally:
            _set_training(training, True)


def _compared(prior: Prior, photo: Tensor, noisy: Tensor, levels: Tensor) -> tuple[str, bool] | None:
    if isinstance(prior, VPNoise) and prior.alphas_cumprod[-1] > 0.5:
        end = f"its alphas_cumprod end at {float(prior.alphas_cumprod[-1]):.3g}, where a cumulative product is near 0"
        return f"noise levels do not fit {prior.name}: {end}; torch.cumprod(1 - betas, 0)?", True

    def off(image: Tensor) -> Tensor:
        return (image - photo).square().mean((1, 2, 3))

    def ask(x: Tensor, s: Tensor) -> Tensor:
        return prior.denoise(x, s.flatten())

    answer, name = prior(noisy, levels.flatten()), prior.name
    if not isinstance(answer, Tensor) or answer.shape != noisy.shape:
        got = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        return f"{name} must return images like those it is shown, {tuple(noisy.shape)}, got {got}", True
    if not bool(answer.isfinite().all()):
        return f"{name} returns numbers that are not finite for a photo with noise {float(levels[0]):.3g}", True
    plain = off(answer)
    blurred = torch.stack([off(_blurred(noisy, side)) for side in BLURS]).amin(0)
    fine = bool((plain < blurred).all())
    readings = READINGS
    if isinstance(prior, Adapter):
        says = "has a network that denoises by itself: PlainDenoiser(lambda x, s: (net(2 * x - 1, 2 * s) + 1) / 2)"
        readings += ((says, lambda d, x, s: (prior.ask(2 * x - 1, 2 * s.flatten()) + 1) / 2),)
    for says, reading in TWICE if fine else readings:
        # Of a network that denoises, the middle level tells, at a third of the cost.
        for some in ([1], [0, 1, 2]) if fine else ([0, 1, 2],):
            try:
                read = reading(ask, noisy[some], levels[some])
                nearer = (read - photo).square().mean((1, 2, 3)) < torch.minimum(NEARER * plain, blurred)[some]
            except Exception:  # a level or range that it does not know
                break
            if not bool(nearer.all()):
                break
        else:
            return f"{name} {says}; adapters translate ({ADAPTERS})", True
    ratio, worst = (plain / blurred).max(0)
    if float(ratio) > WORSE:
        where = f"at noise {float(levels[worst]):.3g} its answer is {float(ratio):.2g} times as far off"
        return f"{name} looks like no denoiser of photos: {where} as a blur (mean squares)", False
    return None


def _blurred(images: Tensor, side: int) -> Tensor:
    margin = side // 2
    return functional.avg_pool2d(functional.pad(images, [margin] * 4, mode="replicate"), side, 1)


def _photo(prior: Prior, like: Tensor) -> Tensor:
    """A sample photo (1, C, H, W) that ``prior`` takes, no larger than ``like`` and ``SIDE`` where it may choose."""
    usual = -(-SIDE // prior.multiple) * prior.multiple
    height, width = (prior.image_size or min(side, usual) for side in like.shape[-2:])
    photo = sample_photo("coffee", max(height, width))[..., :height, :width]
    colours = photo.mean(1, keepdim=True) if prior.channels == 1 else photo
    return colours[:, torch.arange(prior.channels) % colours.shape[1]].to(like)


def _set_training(modules: list[nn.Module], mode: bool) -> None:
    for module in modules:
        module.training = mode
