"""Noise of a measurement that is not white and Gaussian: photon counts, or a deviation of each pixel or channel.

    y = gain P(A x / gain) + sigma e,        P: Poisson, e: standard normal

Poisson noise of PEAK counts at value 1 has ``gain = 1/PEAK``. A solver knows it as Gaussian noise of the variance
``gain A x + sigma^2``, pixel by pixel, and measurements are weighed accordingly (``operators/weighted.py``). That holds
where there are some ten counts or more; below, counts are skewed. The variance is needed before ``A x`` is known: see
:meth:`Noise.whitened`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from workbench.limits import Limited, Share
from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.operators.border import Frame
from workbench.operators.weighted import weighted
from workbench.own import imported, named
from workbench.random import noise_source
from workbench.solvers.start import initial_image
from workbench.text import require

FORMS = "SIGMA, poisson:PEAK, poisson-gauss:GAIN,SIGMA or FILE.py:NAME"


@dataclass(frozen=True)
class Noise(Limited):
    """See the module.

    Attributes:
        gain: of one count, in the unit of the measurement; 0 for no Poisson noise.
        sigma: standard deviation of the Gaussian noise: a number, or a tensor that broadcasts to one measurement,
            without its batch: (C, 1, 1) for channels, (C, H, W) for pixels.
        name, source: for records; what it is, and ``file`` and ``sha256`` of one's own code.

    Raises:
        ValueError: not finite, negative or above 1, no noise at all, or a tensor with zeros.
    """

    gain: Share = 0.0
    sigma: float | Tensor = 0.0
    name: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gain == 0 or self.gain >= 1e-9, "gain", "0, or 1e-9 to 1", self.gain)
        levels = torch.as_tensor(self.sigma)
        if levels.is_complex() or not bool(((levels >= 0) & (levels <= 1)).all()):
            negative = not levels.is_complex() and bool((levels < 0).any())
            got = "a negative sigma" if negative else f"sigma up to {float(levels.abs().max()):g}"
            raise ValueError(f"noise is on the [0, 1] scale, got {got}")
        if self.gain == 0 and not bool((levels > 0).all()):
            raise ValueError("noise that is not the same everywhere must be above 0 everywhere")

    def __str__(self) -> str:
        levels = torch.as_tensor(self.sigma)
        low, high = (f"{float(level):g}" for level in levels.aminmax())
        told = low if low == high else f"{low}..{high}"
        own = f"poisson-gauss:{self.gain:g},{told}" if self.gain and high != "0" else f"sigma {told}"
        return self.name or (f"poisson:{1 / self.gain:g}" if self.gain and high == "0" else own)

    def add(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """``clean`` (B, ...) with noise, image ``b`` drawn from generator ``b``. Raises ValueError where counts would
        be negative, and as :meth:`check`."""
        self.check(clean)
        y = clean
        if self.gain:
            if bool((clean < -0.25).any()):  # bicubic kernels overshoot a little
                raise ValueError(f"counts cannot be negative: the measurement goes down to {float(clean.min()):.3g}")
            rates = (clean.clamp(min=0) / self.gain).double().cpu()
            rows = [torch.poisson(rate, each) for rate, each in zip(rates, generators, strict=True)]
            y = (torch.stack(rows) * self.gain).to(clean)
        levels = torch.as_tensor(self.sigma).to(clean)
        return y + levels * noise_source(generators)(clean) if bool((levels > 0).any()) else y

    def check(self, y: Tensor) -> None:
        """Raise ValueError unless ``sigma`` is one for measurements ``y`` (B, ...)."""
        shape, one = torch.as_tensor(self.sigma).shape, y.shape[1:]
        if len(shape) > len(one) or any(a not in (1, b) for a, b in zip(shape[::-1], one[::-1], strict=False)):
            raise ValueError(f"sigma of shape {tuple(shape)} does not broadcast to a measurement {tuple(one)}")

    def deviation(self, mean: Tensor) -> Tensor:
        """Standard deviation, like ``mean`` (B, ...), of measurements of that mean; not below that of one count."""
        self.check(mean)
        levels = torch.as_tensor(self.sigma).to(mean)
        return (self.gain * mean.clamp(min=self.gain) + levels**2).sqrt().expand_as(mean)

    def level(self, y: Tensor) -> Tensor:
        """One number for what needs one, (B,): the root mean square of the deviation of measurements ``y`` (B, ...)."""
        return self.deviation(y).square().flatten(1).mean(1).sqrt()

    def framed(self, frame: Frame, y: Tensor) -> Noise:
        """The noise of measurements ``y`` (B, C, h, w) once they are continued beyond their border."""
        return replace(self, sigma=frame.put(torch.as_tensor(self.sigma).to(y).expand(1, *y.shape[1:]))[0])

    def whitened(self, op: Operator, y: Tensor, prior: Prior) -> tuple[Operator, Tensor, Tensor, int]:
        """Operator, measurements and noise level (B,) of the same likelihood with white noise, and how often the prior
        was asked for them.

        Counts tell of their own variance, but wrongly: those that came out low by chance would weigh more, and darken
        the picture. So it is that of ``A D(x)``, with ``x`` the ``initial_image`` and D the prior, where it is a
        denoiser, at the noise that it has.
        """
        mean, asked = y, 0
        if self.gain:
            rough = self.level(y)
            image = initial_image(op, y, rough)
            if prior.kind == "denoiser":
                image, asked = prior(image, rough.clamp(max=prior.sigma_max)), 1
            mean = op(image)
        deviation = self.deviation(mean)
        sigma = deviation.flatten(1).amin(1)
        weights = sigma.view(-1, *[1] * (y.ndim - 1)) / deviation
        return weighted(op, weights), y * weights, sigma, asked


NoiseLike = float | str | Tensor | Noise


def noise_from(given: NoiseLike) -> float | Noise:
    """Noise as it is given: a number, text (:func:`parse_noise`), a tensor of standard deviations, or a
    :class:`Noise`. Raises ValueError as they do."""
    if isinstance(given, str):
        return parse_noise(given)
    if not isinstance(given, Tensor):
        return given
    return float(given) if given.numel() == 1 and not given.is_complex() else Noise(sigma=given)


def parse_noise(text: str) -> float | Noise:
    """Noise as it is written: a standard deviation, poisson:PEAK, poisson-gauss:GAIN,SIGMA, or the name of a
    :class:`Noise` in one's own code.

    Raises:
        ValueError: none of these, one line.
    """
    text = text.strip()
    kind, _, rest = text.partition(":")
    wanted = {"poisson": 1, "poisson-gauss": 2}.get(kind, 0)
    try:
        numbers = [float(number) for number in (rest if wanted else "0" if named(text) else text).split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != (wanted or 1):
        raise ValueError(f"noise is {FORMS}, got {text!r}")
    if kind == "poisson":
        if not 1 <= numbers[0] <= 1e9:
            raise ValueError(f"{text}: the peak is a number of counts, at least 1, at most 1e9")
        return Noise(1 / numbers[0], name=text)
    if wanted:
        return Noise(numbers[0], numbers[1], text)
    if not named(text):
        return numbers[0]
    found, source = imported(text)
    if not isinstance(found, Noise):
        raise ValueError(f"{text}: expected a workbench.noise.Noise, got {type(found).__name__}")
    return replace(found, name=text, source=source)
