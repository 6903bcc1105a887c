"""Adapters: each family of networks, translated once to the VE denoiser of :class:`~workbench.models.prior.Prior`.

========================  =====================================  =====================================
family                    network                                denoiser on [0, 1]
========================  =====================================  =====================================
:class:`VEScore`          score, x in [0, 1] (score_sde VE)       ``x + sigma^2 s``
:class:`VPNoise`          noise at step t, x in [-1, 1]           ``u - s eps`` (DDPM, ADM, DDPM++)
:class:`EDMPrecond`       raw network, x in [-1, 1]               ``c_skip u + c_out F`` (Karras et al. 2022)
:class:`PlainDenoiser`    clean image, x in [0, 1] or [-1, 1]     itself (DRUNet and alike)
========================  =====================================  =====================================

In all of them ``u = 2 x - 1`` is the image in [-1, 1], where noise has twice the standard deviation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.prior import Prior
from workbench.operators.least_squares import column
from workbench.text import fits, require

PREDICTIONS, STEPS = ("noise", "image", "velocity"), ("interpolate", "nearest")
Network = nn.Module | Callable[[Tensor, Tensor], Tensor]


def _check_told(net: Network) -> None:
    try:
        takes = inspect.signature(net.forward if isinstance(net, nn.Module) else net)
    except ValueError:  # code without a signature
        return
    try:
        takes.bind(None, None)
    except TypeError:
        raise ValueError(
            f"a network is asked net(images, levels), at many noise levels, {type(net).__name__} takes {takes}: "
            "if it finds the level itself, give lambda x, sigma: net(x)"
        ) from None


class Adapter(Prior):
    """Base of the adapters: a prior with a network, ``net(images (B, C, H, W), what it is told (B,))``.

    Args:
        options: of :class:`Prior`.
    """

    def __init__(self, net: Network, **options: Any) -> None:
        super().__init__(**options)
        require(callable(net), "net", "a network or a function, net(images, levels)", repr(net))
        self.net = net

    def ask(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """``net(x, conditioning)``; the network computes in the precision of its weights, the image keeps its own.

        Raises:
            ValueError: the network takes images alone.
        """
        weights = next(self.net.parameters(), x) if isinstance(self.net, nn.Module) else x
        given = x
        if weights.dtype != x.dtype and weights.is_floating_point():
            given = x.to(weights.dtype)
            if weights.dtype not in (torch.bfloat16, torch.float16):  # these are told levels in single precision
                conditioning = conditioning.to(weights.dtype)
        try:
            answer = self.net(given, conditioning)
        except TypeError:
            _check_told(self.net)
            raise
        return answer.to(x.dtype) if isinstance(answer, Tensor) else answer  # else check_prior says what it is


class VEScore(Adapter):
    """Variance-exploding score network of score_sde (NCSN++): ``net(2x - 1, sigma) / sigma`` is the score.

    Args:
        net: takes ([-1, 1] image, sigma in [0, 1] units of shape (B,)) and returns (B, C, H, W).
        scale_by_sigma: the published networks divide their output by sigma (``model.scale_by_sigma``).
        centre: the network takes 2x - 1; False for one that does this itself.
        sigma_min, sigma_max: 0.01 and 50 for CIFAR-10, 378 for bedrooms, 380 for churches.
        options: of :class:`Prior`.

    Raises:
        ValueError: not ``0 < sigma_min <= sigma_max < inf``: the network is told log sigma.

    Source: Song et al. 2021, published code models/ncsnpp.py; denoiser by Tweedie (MUPET, eq. 7).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        scale_by_sigma: bool = True,
        centre: bool = True,
        **options: Any,
    ) -> None:
        levels, fits = f"{sigma_min:g} and {sigma_max:g}", 0 < sigma_min <= sigma_max < float("inf")
        require(fits, "noise levels", "0 < sigma_min <= sigma_max", levels)
        super().__init__(net, sigma_min=sigma_min, sigma_max=sigma_max, **options)
        self.scale_by_sigma = scale_by_sigma
        self.centre = centre

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = column(sigma, x)
        raw = self.ask(2 * x - 1 if self.centre else x, sigma)
        return x + (level * raw if self.scale_by_sigma else level**2 * raw)


class VPNoise(Adapter):
    """Variance-preserving network (DDPM, ADM, DDPM++) with its discrete steps, for data in [-1, 1].

    The VP state at step t is ``sqrt(abar_t) (u + s_t eps)`` with ``s_t = sqrt((1 - abar_t) / abar_t)``, so the VE
    image u at noise ``s = 2 sigma`` is shown to the network scaled by ``1 / sqrt(1 + s^2)``, together with the step
    of that level. Most levels lie between two steps; two ways to name the step are offered:

    - "interpolate": a fractional step, linear in ``log s``. The embeddings of these networks are smooth in t.
    - "nearest": the step whose ``s_t`` is nearest in ``log s``, and everything else as if the image had that level: the
      denoiser of a slightly wrong level, up to 0.4 dB worse at the lowest (``docs/vp_steps.md``).

    Args:
        net: takes ([-1, 1] state, step t as float (B,)) and returns its prediction in its first C channels; further
            channels (a learned variance) are ignored.
        alphas_cumprod: (T,) float64, decreasing. Default: the linear schedule, betas from 1e-4 to 0.02 in 1000 steps.
        prediction: what ``net`` returns: "noise", "image" or "velocity" (``sqrt(abar) eps - sqrt(1 - abar) u``,
            Salimans and Ho 2022, appendix D).
        step: "interpolate" or "nearest".
        times: (T,) what the network is told at each level; default 0, 1, ..., T - 1.
        options: of :class:`Prior`; the noise range follows from the schedule.

    Raises:
        ValueError: a schedule that does not decrease from below 1 to above 0, or an unknown ``prediction`` or ``step``.
    """

    data_range = (-1, 1)
    alphas_cumprod: Tensor
    times: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        alphas_cumprod: Tensor | None = None,
        prediction: str = "noise",
        step: str = "interpolate",
        times: Tensor | None = None,
        **options: Any,
    ) -> None:
        given = linear_alphas_cumprod() if alphas_cumprod is None else alphas_cumprod
        alphas_cumprod = torch.as_tensor(given, dtype=torch.float64)
        shape, expected = tuple(alphas_cumprod.shape), "a decreasing vector of two numbers or more"
        fits = len(shape) == 1 and shape[0] >= 2 and bool((alphas_cumprod.diff() < 0).all())
        require(fits, "alphas_cumprod", expected, f"shape {shape}")
        first, last = float(alphas_cumprod[0]), float(alphas_cumprod[-1])
        require(last > 0 and first < 1, "alphas_cumprod", "between 0 and 1", f"{first:g} to {last:g}")
        for label, value, known in (("prediction", prediction, PREDICTIONS), ("step", step, STEPS)):
            require(value in known, label, f"one of {', '.join(known)}", repr(value))
        times = torch.arange(len(alphas_cumprod)) if times is None else torch.as_tensor(times)
        require(times.shape == alphas_cumprod.shape, "times", f"of shape {shape}", f"shape {tuple(times.shape)}")
        levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt() / 2
        super().__init__(net, sigma_min=float(levels[0]), sigma_max=float(levels[-1]), **options)
        self.prediction = prediction
        self.step = step
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)
        self.register_buffer("times", times.double(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VPNoise:
        # The schedule follows the network to its device, but not into its precision: half would ruin it.
        schedule = {name: self.get_buffer(name) for name in ("alphas_cumprod", "times")}
        super()._apply(fn, recurse)
        for name, exact in schedule.items():
            setattr(self, name, exact.to(self.get_buffer(name).device))
        return self

    def conditioning(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is told at ``sigma`` (B,) (in [0, 1] units), and the factor ``sqrt(abar)`` it expects the
        image to be scaled by: two float64 tensors (B,).
        """
        alphas, times = (buffer.to(sigma.device, torch.float64) for buffer in (self.alphas_cumprod, self.times))
        levels = ((1 - alphas) / alphas).sqrt().log()
        wanted = (2 * sigma.double()).log()
        if self.step == "nearest":
            index = (levels[None] - wanted[:, None]).abs().argmin(dim=1)
            return times[index], alphas[index].sqrt()
        above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        share = ((wanted - levels[above - 1]) / (levels[above] - levels[above - 1])).clamp(0, 1)
        return torch.lerp(times[above - 1], times[above], share), (1 + 4 * sigma.double() ** 2).rsqrt()

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        time, scale = self.conditioning(sigma)
        s = column((scale**-2 - 1).sqrt().to(x.dtype), x)  # 2 sigma, or the level of the nearest step
        time, scale = time.to(x.dtype), scale.to(x.dtype)
        u = 2 * x - 1
        state = column(scale, x) * u
        predicted = self.ask(state, time)[:, : self.channels]
        if self.prediction == "noise":
            return (u - s * predicted + 1) / 2
        if self.prediction == "velocity":
            predicted = column(scale, x) * (state - s * predicted)
        return (predicted + 1) / 2


def linear_alphas_cumprod(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """``prod (1 - beta)`` of the linear schedule of DDPM (Ho et al. 2020, section 4): (steps,) float64."""
    return torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), 0)


class EDMPrecond(Adapter):
    """Preconditioned network of Karras et al. (2022), table 1: unit variance in, unit variance out, at every sigma.

    ``D_u = c_skip u + c_out F(c_in u, s)`` with ``s = 2 sigma``, ``c_skip = d^2 / (s^2 + d^2)``,
    ``c_out = s d / sqrt(s^2 + d^2)``, ``c_in = 1 / sqrt(s^2 + d^2)`` and d the standard deviation of the data in
    [-1, 1]. The network is conditioned on s itself (NCSN++ takes the logarithm in its embedding). If it returns 2 C
    channels, the second half is added to ``D_u`` as it is (``UNetConfig.direct``).
    """

    data_range = (-1, 1)

    def __init__(
        self,
        net: Network,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 50.0,
        sigma_data: float = 0.5,
        **options: Any,
    ) -> None:
        require(0 < sigma_data < float("inf"), "sigma_data", "positive and finite", sigma_data)
        super().__init__(net, sigma_min=sigma_min, sigma_max=sigma_max, **options)
        self.sigma_data = sigma_data

    def scalings(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``c_skip``, ``c_out`` and ``c_in`` at the levels ``s`` of images in [-1, 1], of its shape."""
        total = s**2 + self.sigma_data**2
        return self.sigma_data**2 / total, s * self.sigma_data * total.rsqrt(), total.rsqrt()

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        u, (skip, out, scale) = 2 * x - 1, self.scalings(column(2 * sigma, x))
        raw = self.ask(u * scale, 2 * sigma)
        clean = u * skip + raw[:, : self.channels] * out
        if raw.shape[1] > self.channels:
            clean = clean + raw[:, self.channels :]
        return (clean + 1) / 2


class PlainDenoiser(Adapter):
    """A network that returns the clean image: ``net(x, sigma)`` with x in ``data_range`` plus noise and sigma (B,).

    Args:
        data_range: of the images that the network takes and returns; its sigma is in the same unit. (-1, 1) for the
            complete denoisers of EDM, whose sigma is twice that of [0, 1] images. Levels of ``options`` are of [0, 1].
        options: of :class:`Prior`.
    """

    def __init__(self, net: Network, *, data_range: tuple[int, int] = (0, 1), **options: Any) -> None:
        rising = fits(data_range, tuple[float, float]) and data_range[0] < data_range[1]
        require(rising, "data_range", "two numbers, the lower first", data_range)
        super().__init__(net, **options)
        self.data_range = (data_range[0], data_range[1])

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        low, span = self.data_range[0], self.data_range[1] - self.data_range[0]
        if (low, span) == (0, 1):
            return self.ask(x, sigma)
        return (self.ask(low + span * x, span * sigma) - low) / span
