"""What a prior makes of noise."""

import math

import ipywidgets
import torch
from torch import Tensor

from workbench.images import sample_photo
from workbench.models.prior import Prior
from workbench.models.wrappers import whole_or_tiles
from workbench.plots import strip
from workbench.random import stream
from workbench.solvers.prior_samples import EDM, Consistency, PriorSampler
from workbench.text import fits, require, require_kind
from workbench.widgets.tool import Tool, View, decibels, one_photo, pictures

LEVELS = (1e-3, 100.0)  # of the slider, at most


def prior_inspector(
    prior: Prior, photo: Tensor | None = None, *, sampler: PriorSampler | None = None, samples: int = 4
) -> Tool:
    """Denoise ``photo`` (1, C, H, W) in [0, 1] at any noise level that the prior knows, and draw samples of the prior.

    A photo that the prior does not take whole is denoised in overlapping tiles.

    A button draws ``samples`` at a time, of the size that the prior was trained on, by ``sampler``: by default
    ``EDM()``, or ``Consistency()`` for a consistency model. ValueError for a prior of another kind than the sampler
    asks, or one that does not take the photo.
    """
    require_kind(prior, Prior, "prior", 'load_prior("photo")')
    sampler = sampler or (Consistency() if prior.kind == "consistency" else EDM())
    prior.check_kind("the prior inspector", sampler.prior_kind)
    require(fits(samples, int) and samples >= 1, "samples", "a whole number, at least 1", repr(samples))
    x = sample_photo("astronaut", prior.image_size or 128)[:, : prior.channels] if photo is None else one_photo(photo)
    fitted = whole_or_tiles(prior, *x.shape[-2:])
    fitted.check(x)
    x = x.to(next(prior.parameters(), x))
    low, high = max(prior.sigma_min, LEVELS[0]), min(prior.sigma_max, LEVELS[1])
    sigma = ipywidgets.FloatLogSlider(min(0.1, high), min=math.log10(low), max=math.log10(high), step=0.02)
    sigma.description, sigma.readout_format, sigma.layout.width = "σ, images in [0, 1]", ".3g", "420px"
    sigma.style.description_width = "initial"
    number, button = ipywidgets.IntText(0, description="Seed"), ipywidgets.Button(description=f"Draw {samples} samples")
    drawn: list[Tensor] = []

    @torch.no_grad()
    def view() -> View:
        level = min(sigma.value, high)
        noisy = x + level * torch.randn(x.shape, generator=stream(number.value, "noise")).to(x)
        columns = {"photo": x, f"with noise, σ = {level:.3g}": noisy, "denoised": fitted(noisy, level)}
        notes = {title: f"{float(decibels(image, x)):.2f} dB" for title, image in columns.items() if image is not x}
        title = f"samples by {type(sampler).__name__}"
        return prior.summary(), [pictures(columns, notes), *(pictures({title: strip(some)}) for some in drawn)]

    def sample() -> None:
        side = prior.image_size or prior.trained_size or x.shape[-1]
        streams = [stream(number.value, "sample", len(drawn) * samples + index) for index in range(samples)]
        found = sampler(prior, (samples, prior.channels, side, side), generator=streams, like=x)
        drawn.append(found.image.float().cpu())

    tool = Tool("Prior inspector", {"sigma": sigma, "seed": number, "samples": button}, view)
    button.on_click(lambda _: tool.redraw(first=sample))
    return tool
