"""How the package reproduces stored runs of plug-and-play codes (DPIR, RED, PnP-ReG, deepinv): pairs (ours, stored).

In float64. Slips of the published codes (clamping, clipping, what is put back at the end) are injected from outside.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from tests.solvers.published_cases import Case
from tests.solvers.solver_problems import FunctionPrior, Recorder
from workbench.models.gaussian import GaussianPrior
from workbench.models.prior import Prior
from workbench.operators import Blur, FunctionOperator, Inpainting, Operator
from workbench.solvers import ADMM, HQS, RED, ForwardBackward, PnPReG
from workbench.solvers.base import Restoration

Pairs = list[tuple[Tensor, Tensor]]


class Channels(Operator):
    """``y = A x`` in every channel, for an explicit matrix (low, high) of square images, row by row."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix.double()
        self.low, self.high = (round(n**0.5) for n in matrix.shape)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(2) @ self.matrix.T).unflatten(2, (self.low, self.low))

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(2) @ self.matrix).unflatten(2, (self.high, self.high))

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        gram = self.matrix @ self.matrix.T + weight.flatten()[0] * torch.eye(len(self.matrix))
        return (torch.linalg.solve(gram, r.flatten(2).mT).mT @ self.matrix).unflatten(2, (self.high, self.high))

    def measurement_shape(self, image_shape: Any) -> tuple[int, ...]:
        return (*image_shape[:2], self.low, self.low)

    def image_shape(self, measurement_shape: Any) -> tuple[int, ...]:
        return (*measurement_shape[:2], self.high, self.high)


def decimated_blur(kernel: Tensor, factor: int, size: int) -> Channels:
    """True circular convolution, then every ``factor``-th pixel from the first."""
    eye = torch.eye(size**2, dtype=torch.float64).view(-1, 1, size, size)
    return Channels(Blur(kernel.double())(eye)[..., ::factor, ::factor].flatten(1).T)


class Regularised(GaussianPrior):
    """A Gaussian prior whose score is that of clean images, ``-C^-1 (x - mean)``; it remembers what it was asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.calls: list[Tensor] = []

    def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls.append(x)
        return -self._filter(1 / self.spectrum, x.double() - self.mean).to(x.dtype)


def run(solver: Any, case: Case, op: Operator, prior: Prior, noise: float, start: str = "x_init") -> Restoration:
    y, initial = case["y"].double(), case[start].double()
    y = y[0] if y.ndim == 5 else y
    return solver(y, op, prior, sigma_noise=noise, initial=initial)


def recorded(case: Case, prior: Recorder, name: str, asked: str = "x") -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _, _ in prior.calls]), case[name]


def dpir(case: Case) -> Pairs:
    """Demosaicking clamps what the denoiser sees and puts the measured pixels back."""
    info, settings = case.info, case.info["schedule_arguments"]
    inner: Prior = GaussianPrior(case["prior/spectrum"], case["prior/mean"])
    demosaic = "op/mask" in case
    if demosaic:
        op: Operator = Inpainting(case["op/mask"])
        gaussian = inner
        inner = FunctionPrior(lambda x, sigma: gaussian.denoise(x, sigma))
    elif info["scale_factor"] > 1:
        op = decimated_blur(case["op/kernel"], info["scale_factor"], case["output"].shape[-1])
    else:
        op = Blur(case["op/kernel"].double())
    clamped = Clamped(op) if demosaic else op
    prior = Recorder(inner)
    solver = HQS(
        max_steps=settings["iter_num"],
        sigma_start=settings["modelSigma1"] / 255,
        sigma_end=settings["modelSigma2"] / 255,
        self_ensemble=info.get("periodical_geometric_self_ensemble_x8", True),
    )
    image = run(solver, case, clamped, prior, info["noise_level_255"] / 255).image
    if demosaic:
        image = torch.where(case["op/mask"] > 0, case["y"].double(), image)
    return [(image, case["output"]), recorded(case, prior, "states_denoiser_input")]


class Clamped(Operator):
    """``op`` whose data step ends in [low, high]."""

    def __init__(self, op: Operator, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.op, self.bounds = op, (low, high)
        self.forward, self.adjoint, self.image_shape = op.forward, op.adjoint, op.image_shape

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        return self.op.prox(z, y, weight).clamp(*self.bounds)

    def take(self, rows: Tensor, count: int) -> Operator:
        return self


def pnp_admm(case: Case) -> Pairs:
    parameters, prior = case.info["parameters"], Recorder(GaussianPrior(case["prior/spectrum"], case["prior/mean"]))
    op = Channels(case["op/A"]) if "op/A" in case else Blur(case["op/kernel"].double())
    level = parameters["g_param_sigma_denoiser"]
    solver = ADMM(
        max_steps=parameters["max_iter"],
        sigma_start=level,
        sigma_end=level,
        penalty=parameters["L2_sigma"] ** 2 / parameters["stepsize_gamma"],
        denoise_first="gfirst" in case.info["algorithm"] or "g_first" in case.info["algorithm"],
    )
    image = run(solver, case, op, prior, parameters["noise_std"]).image
    return [(image, case["output"]), recorded(case, prior, "states_denoiser_input")]


def pnp_pgd(case: Case) -> Pairs:
    parameters, prior = case.info["parameters"], Recorder(GaussianPrior(case["prior/spectrum"], case["prior/mean"]))
    settings = {"step_size": parameters["stepsize_gamma"], "sigma": parameters["g_param_sigma_denoiser"]}
    solver = ForwardBackward(max_steps=parameters["max_iter"], tolerance=0.0, **settings)
    image = run(solver, case, Inpainting(case["op/mask"][None]), prior, 0.0).image
    return [(image, case["output"]), recorded(case, prior, "states_denoiser_input")]


def red_deepinv(case: Case) -> Pairs:
    """Its weights do not know the noise: ours are told such a ``lambda_`` that they are the same."""
    parameters, prior = case.info["parameters"], Recorder(GaussianPrior(case["prior/spectrum"], case["prior/mean"]))
    gamma, noise = parameters["stepsize_gamma"], parameters["noise_std"]
    sigma, weight = parameters["g_param_sigma_denoiser"], parameters["lambda"] * parameters["L2_sigma"] ** 2
    common = {"max_steps": parameters["max_iter"], "tolerance": 0.0, "sigma": sigma, "noise_floor": 0.0}
    common["lambda_"] = weight * (sigma / noise) ** 2
    if "PGD" in case.info["algorithm"]:
        op: Operator = Blur(case["op/kernel"].double())
        solver = RED(form="fixed-point", damping=gamma * parameters["lambda"], **common)
    else:
        op, solver = Channels(case["op/A"]), RED(form="gradient", step_size=gamma, **common)
    image = run(solver, case, op, prior, noise).image
    return [(image, case["output"]), recorded(case, prior, "states_denoiser_input")]


def red_problems(case: Case) -> Iterator[tuple[int, Tensor, Tensor, Recorder, float, float]]:
    """Image number, measurement, start, prior, its level and ``lambda_`` in [0, 1] units; every image has a prior."""
    sigma, noise = case.info["effective_sigma"] / 255, case.info["input_sigma_parameter"] / 255
    weight = case.info["lambda"] * case.info["input_sigma_parameter"] ** 2
    spectra, means = case["prior/spectrum"].double() / 255**2, case["prior/mean"].double() / 255
    for i in range(len(case["y"])):
        prior = GaussianPrior(spectra[i, None], means[i, None])
        y, start = (case[name][i, None, None].double() / 255 for name in ("y", "x_init"))
        yield i, y, start, Recorder(prior), sigma, weight * (sigma / noise) ** 2


def red_published(case: Case) -> Pairs:
    """The published code clips every iterate to [0, 255]: one step at a time, clipped from outside."""
    pairs, noise = [], case.info["input_sigma_parameter"] / 255
    gradient = "steepest" in case.info["algorithm"]
    for i, y, x, prior, sigma, lambda_ in red_problems(case):
        op = Blur(case["op/psf"].double())
        solver = RED(form="gradient" if gradient else "fixed-point", sigma=sigma, lambda_=lambda_, max_steps=1)
        for _ in range(case.info["outer_iters"]):
            x = solver(y, op, prior, sigma_noise=noise, initial=x).image.clamp(0, 1)
        states = torch.cat([asked for asked, _, _ in prior.calls])[:, 0]
        pairs += [(255 * x[0, 0], case["output"][i]), (255 * states, case["states_denoiser_input"][:, i])]
    return pairs


class InnerSteps(Channels):
    """Its data step is ``inner`` clipped steps of minimal residual from the last estimate (RunFP.m)."""

    def __init__(self, matrix: Tensor, inner: int, start: Tensor) -> None:
        super().__init__(matrix)
        self.inner, self.last = inner, start

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        def q(x: Tensor) -> Tensor:
            return self.adjoint(self(x)) + weight * x

        x, goal = self.last, self.adjoint(y) + weight * z
        for _ in range(self.inner):
            r = goal - q(x)
            x = (x + (r * q(r)).sum() / q(r).square().sum() * r).clamp(0, 1)
        self.last = x
        return x


def psf_and_decimation(psf: Tensor, size: int) -> Tensor:
    """Matrix of a blur whose kernel is cut off and normalised again at the border, every third pixel (float64; the
    stored one is float32)."""
    eye = torch.eye(size**2, dtype=torch.float64).view(-1, 1, size, size)
    rows = conv2d(eye, psf.double()[None, None], padding=len(psf) // 2)[..., ::3, ::3].flatten(1).T
    return rows / rows.sum(1, keepdim=True)


def red_inner(case: Case) -> Pairs:
    pairs, noise = [], case.info["input_sigma_parameter"] / 255
    matrix = psf_and_decimation(case["op/psf"], case["output"].shape[-1])
    torch.testing.assert_close(matrix.float(), case["op/A"], atol=1e-7, rtol=0)
    for i, y, start, prior, sigma, lambda_ in red_problems(case):
        op = InnerSteps(matrix, case.info["inner_iters"], start)
        solver = RED(sigma=sigma, lambda_=lambda_, max_steps=case.info["outer_iters"], tolerance=0.0)
        x = solver(y, op, prior, sigma_noise=noise, initial=start).image
        states = torch.cat([asked for asked, _, _ in prior.calls])[:, 0]
        pairs += [(255 * x[0, 0], case["output"][i]), (255 * states, case["states_denoiser_input"][:, i])]
    return pairs


class OldDenoised(Prior):
    """RED's ADMM in place of a denoiser: ``(beta w + lambda D(v)) / (beta + lambda)``, ``v`` its own last answer."""

    def __init__(self, prior: Prior, share: float, start: Tensor) -> None:
        super().__init__(channels=1)
        self.prior, self.share, self.last = prior, share, start

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.last = torch.lerp(x, self.prior(self.last, sigma), self.share)
        return self.last


def red_admm(case: Case) -> Pairs:
    """The image is x, not v; x is clipped, and over-relaxed by 2."""
    info, pairs, noise = case.info, [], case.info["input_sigma_parameter"] / 255
    for i, y, start, prior, sigma, _ in red_problems(case):
        op = Clamped(Blur(case["op/psf"].double()))
        inner, seen = op.prox, []

        def prox(z: Tensor, y: Tensor, weight: float | Tensor, inner: Any = inner, seen: list = seen) -> Tensor:
            seen.append(inner(z, y, weight))
            return seen[-1]

        op.prox = prox
        denoiser = OldDenoised(prior, info["lambda"] / (info["lambda"] + info["beta"]), start)
        solver = ADMM(
            max_steps=info["outer_iters"],
            sigma_start=sigma,
            sigma_end=sigma,
            penalty=info["beta"] * info["input_sigma_parameter"] ** 2,
            relaxation=info["alpha"],
        )
        solver(y, op, denoiser, sigma_noise=noise, initial=start)
        states = torch.cat([asked for asked, _, _ in prior.calls])[:, 0]
        pairs += [(255 * seen[-1][0, 0], case["output"][i]), (255 * states, case["states_denoiser_input"][:, i])]
    return pairs


def correlated(kernel: Tensor) -> FunctionOperator:
    """Cross-correlation on the torus, first tap at ``2 i - 3``, every second pixel."""

    def forward(x: Tensor) -> Tensor:
        wide = pad(x.flatten(0, 1)[:, None], (3, 4, 3, 4), mode="circular")
        return conv2d(wide, kernel.to(x)[None, None], stride=2).unflatten(0, x.shape[:2])[:, :, 0]

    return FunctionOperator(forward, (3, 32, 32))


def pnpreg(case: Case) -> Pairs:
    """The published code tells the regulariser the noise level where there is noise, but not in completion."""
    info, arguments = case.info, case.info["arguments"]
    prior = Regularised(case["prior/spectrum"], case["prior/mean"])
    operators: dict[str, Callable[[], Operator]] = {
        "completion": lambda: Inpainting(case["op/mask"]),
        "deblur": lambda: Blur(case["op/kernel"].double()),
        "sr": lambda: correlated(case["op/kernel_cross_correlation"].double()),
    }
    plain = arguments.get("opt") == "grad_manuel"
    noise = arguments["noise_level_img"] / 255
    solver = PnPReG(
        max_steps=arguments["num_iter"],
        rule="gradient" if plain else "adam",
        step_size=arguments["lr"],
        sigma=(arguments["noise_level_img"] or arguments["sigma"]) / 255,
        self_ensemble=not plain,
    )
    image = run(solver, case, operators[info["task"]](), prior, noise).image
    return [(image, case["output"]), (torch.stack(prior.calls), case["states_network_input"])]
