"""Signals with Laplace increments: heavy tails and edges, where a Gaussian prior sees slopes.

    x_1 ~ N(mean, start^2),    x_(i+1) - x_i ~ Laplace(0, scale)      independent, i = 1 ... n - 1

the Lévy process of the benchmark of Zach et al. (2026), as images (1, 1, n). Neither denoiser nor posterior has a
closed form, but both can be computed as exactly as one likes:

- The denoiser has independent data of every x_i, so x is a hidden Markov chain, and the forward and backward messages
  of Rabiner (1989) on a lattice give ``E[x0_i | x]``. The lattice sums are trapezoidal rules. The kernel's kink is
  corrected by the Euler-Maclaurin formula, so that their error falls with the fourth power of the spacing.
- The posterior of any linear measurement is sampled by the Gibbs sampler of Park and Casella (2008): Laplace(b) is
  ``N(0, v)`` with ``v`` exponential of mean ``2 b^2``, so that ``x`` given all ``v`` is Gaussian, and ``1/v`` given the
  increment ``u`` is inverse-Gaussian of mean ``1/(b |u|)`` and shape ``1/b^2``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.mixture import measured
from workbench.models.prior import Prior
from workbench.text import require

SPACING = 0.6  # of the lattice, in units of the smaller of noise level and scale
WINDOW = 12  # lattice points each side of a noisy value where the noise is the smaller one: 7.2 deviations
MOST = 500.0  # no overflow where the result is not used


@dataclass(frozen=True)
class Draws:
    """Samples of posteriors (B, count, n), and means and variances of the pixels (B, n) over the whole chains."""

    samples: Tensor
    mean: Tensor
    variance: Tensor


class LaplaceIncrements(Prior):
    """The prior above. Computed in float64 whatever the images.

    The denoiser is off by less than 0.001 ``min(sigma, scale)`` for signals of the prior, measured beside a lattice
    six times finer.

    Args:
        length: n, at least 2.
        scale: of the increments, in the unit of the images; their standard deviation is ``sqrt(2) scale``.
        start: standard deviation of the first value.
        mean: of all values.
        sigma_min, sigma_max, name: see :class:`Prior`.

    Raises:
        ValueError: a length below 2, or a scale or start that is not positive and finite.
    """

    checked = True

    def __init__(
        self,
        length: int = 16,
        scale: float = 0.05,
        start: float = 0.1,
        mean: float = 0.5,
        *,
        sigma_min: float = 1e-3,
        sigma_max: float = 100.0,
        name: str = "",
    ) -> None:
        require(length >= 2, "length", "at least 2", length)
        if not (0 < scale < math.inf and 0 < start < math.inf and math.isfinite(mean)):
            raise ValueError(f"scale and start must be positive, all finite, got {scale}, {start}, mean {mean}")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=1, name=name)
        self.shape, self.sides = (1, 1, length), (1, length)
        self.scale, self.start, self.mean = scale, start, mean

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (count, 1, 1, n), float64."""
        first = self.start * torch.randn(count, 1, generator=generator, dtype=torch.float64)
        u = torch.rand(count, self.shape[2] - 1, generator=generator, dtype=torch.float64) - 0.5
        steps = -self.scale * u.sign() * torch.log1p(-2 * u.abs())
        return (self.mean + torch.cat([first, steps], 1).cumsum(1)).view(count, *self.shape)

    def log_density(self, x: Tensor) -> Tensor:
        """``log p`` of ``x`` (B, 1, 1, n) or (B, n) up to a constant, (B,) in float64."""
        flat = x.double().flatten(1)
        first = ((flat[:, 0] - self.mean) / self.start).square() / 2
        return -first - flat.diff(dim=1).abs().sum(1) / self.scale

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``E[x0 | x]``, see the module. Where the noise is small the lattice surrounds every noisy value, else it
        holds all that the prior knows."""
        flat, level = x.double().flatten(1), sigma.double()[:, None]
        out, wide = flat.clone(), sigma >= self.scale
        if bool(wide.any()):
            spacing = SPACING * self.scale
            # Far tails of the sum of all increments: four deviations, and what one increment adds.
            reach = 4 * math.hypot(self.start, math.sqrt(2 * self.shape[2]) * self.scale) + 16 * self.scale
            side = math.ceil(reach / spacing)
            low = torch.full((1, self.shape[2]), -side, dtype=torch.int64)
            means = self._chain(flat[wide], level[wide], flat.new_full((1, 1), spacing), low, side)
            out = out.index_put((wide,), means)
        if bool((~wide).any()):
            spacings = SPACING * level[~wide]
            low = ((flat[~wide].detach() - self.mean) / spacings).round().long() - WINDOW
            means = self._chain(flat[~wide], level[~wide], spacings, low, WINDOW)
            out = out.index_put((~wide,), means)
        return out.view(x.shape).to(x.dtype)

    def _chain(self, x: Tensor, sigma: Tensor, spacing: Tensor, low: Tensor, side: int) -> Tensor:
        """Posterior means (B, n) of ``x`` (B, n): value i is among the lattice points ``mean + spacing (low_i + k)``,
        k up to 2 ``side``. ``spacing`` is (B or 1, 1), ``low`` (B or 1, n), whole numbers."""
        points = self.mean + spacing[..., None] * (low[..., None] + torch.arange(2 * side + 1))
        log_data = -0.5 * ((x[..., None] - points) / sigma[..., None]).square()
        first = torch.zeros_like(log_data)
        first[:, 0] = -0.5 * ((points[:, 0] - self.mean) / self.start).square()
        seen = (log_data + first).softmax(-1).unbind(1)
        ratio = spacing / self.scale
        shifts = low.diff(dim=1).unbind(1) if bool((low != low[:, :1]).any()) else None
        forward, backward = [seen[0]], [torch.ones_like(seen[0])]
        for i in range(1, len(seen)):
            there, back = (None, None) if shifts is None else (shifts[i - 1], -shifts[-i])
            forward.append(_normalised(seen[i] * _spread(forward[-1], ratio, there)))
            backward.append(_normalised(_spread(seen[-i] * backward[-1], ratio, back)))
        marginal = torch.stack(forward, 1) * torch.stack(backward[::-1], 1)
        return (marginal * points).sum(-1) / marginal.sum(-1)

    def gibbs(
        self,
        matrix: Tensor,
        y: Tensor,
        sigma_noise: float,
        count: int,
        generator: torch.Generator | None = None,
        *,
        burn_in: int = 200,
        thin: int = 20,
    ) -> Draws:
        """Samples of the posterior of ``y = matrix x + sigma_noise eps``, one Markov chain per measurement.

        Args:
            matrix: (m, n).
            y: (B, ...) with m numbers each.
            count: samples of each chain, ``thin`` sweeps apart, after ``burn_in`` sweeps.

        Raises:
            ValueError: ``sigma_noise`` is not positive, or shapes do not fit.
        """
        require(min(count, thin) >= 1 and burn_in >= 0, "count and thin", "at least 1", f"{count} and {thin}")
        n = self.shape[2]
        a, data = measured(matrix, y, sigma_noise, n)
        differences = torch.eye(n, dtype=torch.float64).diff(dim=0)
        first = torch.zeros(n, dtype=torch.float64)
        first[0] = self.start**-2
        known = a.T @ a / sigma_noise**2 + first.diag()
        pulled = data @ a / sigma_noise**2 + first * self.mean
        precision = torch.full((len(data), n - 1), 0.5 * self.scale**-2, dtype=torch.float64)
        kept, total, squares = [], torch.zeros_like(pulled), torch.zeros_like(pulled)
        sweeps = count * thin
        for sweep in range(-burn_in, sweeps):
            factor = torch.linalg.cholesky(known + differences.T @ (precision[..., None] * differences))
            white = torch.randn(len(data), n, 1, generator=generator, dtype=torch.float64)
            mean = torch.cholesky_solve(pulled[..., None], factor)
            x = (mean + torch.linalg.solve_triangular(factor.mT, white, upper=True))[..., 0]
            precision = inverse_gaussian(1 / (self.scale * x.diff(dim=1).abs()), self.scale**-2, generator)
            if sweep >= 0:
                total, squares = total + x, squares + (x - self.mean).square()
                if sweep % thin == thin - 1:
                    kept.append(x)
        average = total / sweeps
        return Draws(torch.stack(kept, 1), average, squares / sweeps - (average - self.mean).square())


def inverse_gaussian(mean: Tensor, shape: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws like ``mean``, by the transformation of Michael, Schucany and Haas (1976).

    The smaller root is written without the difference of large numbers that the paper has; means up to infinity.
    """
    mean = mean.clamp(max=1e12 * shape)
    z = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    u = torch.rand(mean.shape, generator=generator, dtype=mean.dtype)
    half = mean * z.square() / (2 * shape)
    root = mean / (1 + half + (half * (2 + half)).sqrt())
    return torch.where(u * (mean + root) <= mean, root, mean * (mean / root))


def _spread(message: Tensor, ratio: Tensor, shift: Tensor | None) -> Tensor:
    """``sum_k message_k exp(-ratio |l + shift - k|)``, (B, points), up to a factor per image: the Laplace kernel.

    Two running sums, one from each side. ``ratio`` is (B or 1, 1); ``shift`` (B,), whole numbers, is how many points
    the window of the result lies to the right of that of the message, None for none.

    The value at the kernel's kink is less by ``ratio/6``: a trapezoidal rule has ``h^2/12`` times the jump of the slope
    too much there (Euler-Maclaurin).
    """
    points = torch.arange(message.shape[1])
    grow = torch.exp(ratio * points)
    left, right = (message * grow).cumsum(1), (message / grow).flip(1).cumsum(1).flip(1)
    if shift is None:
        return left / grow + right * grow - message * (1 + ratio / 6)
    place = points + shift[:, None]
    near = place.clamp(0, len(points) - 1)
    apart = (shift.abs()[:, None] - len(points) + 1).clamp(min=0)  # between windows that do not overlap
    falls, rises = ((apart + sign * place) * ratio for sign in (-1, 1))
    from_left = torch.where(place >= 0, left.gather(1, near) * falls.clamp(max=MOST).exp(), 0.0)
    from_right = torch.where(place < len(points), right.gather(1, near) * rises.clamp(max=MOST).exp(), 0.0)
    twice = torch.where(place == near, message.gather(1, near), 0.0)
    return from_left + from_right - twice * (1 + ratio / 6)


def _normalised(message: Tensor) -> Tensor:
    return message / message.sum(-1, keepdim=True)
