"""Adapters: each family of networks, translated once to the VE denoiser of :class:`~workbench.models.prior.Prior`.

========================  =====================================  =====================================
family                    network                                denoiser on [0, 1]
========================  =====================================  =====================================
:class:`VEScore`          score, x in [0, 1] (score_sde VE)       ``x + sigma^2 s``
:class:`VPNoise`          noise at step t, x in [-1, 1]           nearest step, ``u - s eps`` (DDPM, ADM)
:class:`EDMPrecond`       raw network, x in [-1, 1]               ``c_skip u + c_out F`` (Karras et al. 2022)
:class:`PlainDenoiser`    clean image, x in [0, 1]                itself (DRUNet and alike)
========================  =====================================  =====================================

In all of them ``u = 2 x - 1`` is the image in [-1, 1], where noise has twice the standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from workbench.models.prior import Prior

Network = nn.Module | Callable[[Tensor, Tensor], Tensor]


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


class VEScore(Prior):
    """Variance-exploding score network of score_sde (NCSN++): ``net(2x - 1, sigma) / sigma`` is the score.

    Args:
        net: takes ([-1, 1] image, sigma in [0, 1] units of shape (B,)) and returns (B, C, H, W).
        scale_by_sigma: the published networks divide their output by sigma (``model.scale_by_sigma``).
        sigma_min, sigma_max: 0.01 and 50 for CIFAR-10, 378 for bedrooms, 380 for churches.

    Source: Song et al. 2021, published code models/ncsnpp.py; denoiser by Tweedie (MUPET, eq. 7).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        scale_by_sigma: bool = True,
        channels: int = 3,
        multiple: int = 1,
        name: str = "",
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=channels, multiple=multiple, name=name)
        self.net = net
        self.scale_by_sigma = scale_by_sigma

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = _column(sigma)
        raw = self.net(2 * x - 1, sigma)
        return x + (level * raw if self.scale_by_sigma else level**2 * raw)


class VPNoise(Prior):
    """Variance-preserving noise predictor (DDPM, ADM, DDPM++) with its discrete steps.

    The VP state at step t is ``sqrt(abar_t) (u + s_t eps)`` with ``s_t = sqrt((1 - abar_t) / abar_t)``, so the VE
    image u at noise ``2 sigma`` is shown to the network at the step whose ``s_t`` is nearest (in log), scaled by
    ``sqrt(abar_t)``; the predicted noise is scaled by the true ``2 sigma``.

    Args:
        net: takes ([-1, 1] state, step t as float (B,)) and returns noise in its first C channels; further channels
            (a learned variance) are ignored.
        alphas_cumprod: (T,) float64, decreasing. Default: the linear schedule, betas from 1e-4 to 0.02 in 1000 steps.
        time_scale: what is added to the network as conditioning is ``t * time_scale``.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        alphas_cumprod: Tensor | None = None,
        time_scale: float = 1.0,
        channels: int = 3,
        multiple: int = 1,
        image_size: int | None = None,
        name: str = "",
    ) -> None:
        if alphas_cumprod is None:
            alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        if alphas_cumprod.ndim != 1 or not bool((alphas_cumprod.diff() < 0).all()):
            raise ValueError(f"alphas_cumprod must be a decreasing vector, got shape {tuple(alphas_cumprod.shape)}")
        levels = ((1 - alphas_cumprod) / alphas_cumprod).double().sqrt() / 2
        super().__init__(
            sigma_min=float(levels[0]),
            sigma_max=float(levels[-1]),
            channels=channels,
            multiple=multiple,
            image_size=image_size,
            name=name,
        )
        self.net = net
        self.time_scale = time_scale
        self.register_buffer("alphas_cumprod", alphas_cumprod.double(), persistent=False)

    def steps(self, sigma: Tensor) -> Tensor:
        """The step whose noise level is nearest to ``sigma`` (B,) (in [0, 1] units), on a logarithmic scale; int64."""
        alphas = self.alphas_cumprod.to(sigma.device, torch.float64)
        levels = ((1 - alphas) / alphas).sqrt().log()
        return (levels[None] - (2 * sigma.double()).log()[:, None]).abs().argmin(dim=1)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        step = self.steps(sigma)
        scale = self.alphas_cumprod.to(x.device)[step].sqrt().to(x.dtype)
        u = 2 * x - 1
        predicted = self.net(_column(scale) * u, step.to(x.dtype) * self.time_scale)[:, : self.channels]
        return (u - _column(2 * sigma) * predicted + 1) / 2


class EDMPrecond(Prior):
    """Preconditioned network of Karras et al. (2022), table 1: unit variance in, unit variance out, at every sigma.

    ``D_u = c_skip u + c_out F(c_in u, s)`` with ``s = 2 sigma``, ``c_skip = d^2 / (s^2 + d^2)``,
    ``c_out = s d / sqrt(s^2 + d^2)``, ``c_in = 1 / sqrt(s^2 + d^2)`` and d the standard deviation of the data in
    [-1, 1]. The network is conditioned on s itself (NCSN++ takes the logarithm in its embedding).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 50.0,
        sigma_data: float = 0.5,
        channels: int = 3,
        multiple: int = 1,
        name: str = "",
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=channels, multiple=multiple, name=name)
        self.net = net
        self.sigma_data = sigma_data

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        u, s, d = 2 * x - 1, _column(2 * sigma), self.sigma_data
        total = s**2 + d**2
        raw = self.net(u * total.rsqrt(), 2 * sigma)
        return (u * (d**2 / total) + raw * (s * d * total.rsqrt()) + 1) / 2


class PlainDenoiser(Prior):
    """A network that returns the clean image: ``net(x, sigma)`` with x in [0, 1] plus noise and sigma (B,)."""

    def __init__(
        self,
        net: Network,
        *,
        sigma_min: float = 0.0,
        sigma_max: float = float("inf"),
        channels: int = 3,
        multiple: int = 1,
        name: str = "",
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=channels, multiple=multiple, name=name)
        self.net = net

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.net(x, sigma)
