"""The published MUPET fixed points (Adam and gradient descent), reproduced through the one driver.

Published rules: Adam's bias correction one step late (errata 12), one stopping rule for the whole batch, the mean
square of the step, and the newest iterate as result. All are injected here; the package's own defaults differ.
"""

from __future__ import annotations

import pytest
import torch
from solver_problems import Case, FunctionPrior
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators import Inpainting
from workbench.operators.base import Operator
from workbench.solvers import Adam, MapByAdam, Picard, solve_fixed_point

ADAM = ["blur07_tinynet", "blur1_s002_60it", "box_s02_32px", "inpaint_s005", "sr2"]


def operator(case: Case):
    """(A, A^T) of the case."""
    if "op/mask" in case:
        mask = case["op/mask"]
        return lambda x: mask * x, lambda y: mask * y
    if "op/matrix_per_channel" in case:
        matrix = case["op/matrix_per_channel"]
        return (
            lambda x: (x.flatten(2) @ matrix.T).unflatten(2, (8, 8)),
            lambda y: (y.flatten(2) @ matrix).unflatten(2, (16, 16)),
        )
    kernel = case["op/kernel"][None, None].repeat(3, 1, 1, 1)
    radius = kernel.shape[-1] // 2

    def blur(x: Tensor, kernel: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, [radius] * 4, mode="circular")
        return torch.nn.functional.conv2d(padded, kernel, groups=3)

    return lambda x: blur(x, kernel.flip(-1, -2)), lambda y: blur(y, kernel)


def gradient_field(case: Case, seen: list[Tensor]):
    """MUPET, eq. 3 with G = -s: A^T (A x - y) - sigma^2 score(x), recording what the network is given."""
    forward, adjoint = operator(case)
    prior, sigma, y = case.ve_prior(), case.info["sigma"], case["y"]

    def field(x: Tensor, rows: Tensor) -> Tensor:
        seen.append(x.clone())
        return adjoint(forward(x) - y[rows]) - sigma**2 * prior.score(x, sigma)

    return field


def mean_square_step(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
    """One number for the whole batch, as published."""
    return (proposal - x).square().mean().expand(x.shape[0])


def check(case: Case, value: Tensor, seen: list[Tensor]) -> None:
    assert len(seen) == case.info["n_network_calls"]
    torch.testing.assert_close(value, case["output"], atol=case.atol, rtol=0)
    states = torch.stack([seen[i] for i in case["calls_index"].tolist()])
    torch.testing.assert_close(states, case["estimates_at_calls"], atol=case.atol, rtol=0)


class Explicit(Operator):
    """The operator of a case, as the solvers take it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.pair = operator(case)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair[0](x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.pair[1](y)

    def image_shape(self, measurement_shape) -> tuple[int, ...]:
        return tuple(self.adjoint(torch.zeros(measurement_shape)).shape)


class Watched(FunctionPrior):
    """The prior of a case, recording what it is given."""

    def __init__(self, prior: Prior, seen: list[Tensor]) -> None:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            seen.append(x.clone())
            return prior.denoise(x, sigma)

        super().__init__(denoise)


@pytest.mark.parametrize("name", ADAM)
def test_adam_reproduces(shared, name):
    case, seen = Case(shared, f"mupet_adam_{name}"), []
    info = case.info
    op = Explicit(case)
    start = {"randstart": lambda: 0.5 + case["noise_init"], "usex0": lambda: case["getx0_y"]}
    rule = MapByAdam(info["stepsize"], info["convmarg_argument"] / info["sigma"], info["maxit"], whole_batch=True)
    assert (info["beta1"], info["beta2"], info["eps"]) == (*rule.method().betas, rule.method().epsilon)
    x0 = start.get(info["inittype"], lambda: op.adjoint(case["y"]))()
    result = rule(case["y"], op, Watched(case.ve_prior(), seen), sigma_noise=info["sigma"], initial=x0)
    check(case, result.image, seen)
    assert result.evaluations.tolist() == [info["returned_iterations"]] * 2
    assert result.converged.tolist() == [bool(info["returned_converged"])] * 2


def test_annealed_map_evaluation_reproduces(shared):
    """mupet_map_eval_*: Adam with the level falling from step to step, no early stop."""
    case, seen = Case(shared, "mupet_map_eval_adam_annealed_inpaint"), []
    info = case.info
    mask = Inpainting(case["op/mask"][None])
    rule = MapByAdam(
        info["stepsize"], 0.0, info["maxit"], whole_batch=True, sigma_start=info["maxsig"], decay=info["fac"]
    )
    result = rule(case["y"], mask, Watched(case.ve_prior(), seen), sigma_noise=info["sigma"], initial=case["getx0_y"])
    torch.testing.assert_close(result.image, case["output_last"], atol=case.atol, rtol=0)
    states = torch.stack([seen[i] for i in case["calls_index"].tolist()])
    torch.testing.assert_close(states, case["estimates_at_calls"], atol=case.atol, rtol=0)
    torch.testing.assert_close(result.residuals[0], case["mean_sq_update"], atol=1e-7, rtol=1e-3)
    # The published evaluation also reports the iterate nearest to the truth, which a user does not have.
    iterates = torch.stack([*seen, result.image])
    quality = -10 * (iterates.clamp(0, 1) - case["x_orig"]).square().mean((2, 3, 4)).log10().mean(1)
    torch.testing.assert_close(quality, case["psnr_per_iteration"], atol=1e-3, rtol=0)
    torch.testing.assert_close(iterates[quality.argmax()], case["output_best_vs_gt"], atol=case.atol, rtol=0)


def test_gradient_descent_reproduces(shared):
    case, seen = Case(shared, "mupet_gd_inpaint_bigstepfirst"), []
    field, step = gradient_field(case, seen), case.info["stepsize"]
    start = operator(case)[1](case["y"])
    start = start - field(start, torch.arange(2))  # "bigstepfirst": one step of size 1.
    result = solve_fixed_point(
        lambda x, rows: x - step * field(x, rows),
        start,
        method=Picard(),
        max_steps=case.info["maxit"],
        tolerance=case.info["convmarg_argument"],
        measure=mean_square_step,
        keep="last",
    )
    check(case, result.value, seen)
    assert result.evaluations.tolist() == [case.info["returned_iterations"]] * 2


def test_per_sample_stopping_spends_no_more_than_the_published_batch_rule(shared):
    case = Case(shared, "mupet_adam_inpaint_s005")
    result = solve_fixed_point(
        gradient_field(case, []),
        0.5 + case["noise_init"],
        method=Adam(case.info["stepsize"]),
        max_steps=case.info["maxit"],
        tolerance=case.info["convmarg_argument"],
        measure=lambda x, residual, proposal: (proposal - x).flatten(1).square().mean(1),
    )
    assert result.converged.all()
    assert abs(int(result.evaluations.max()) - case.info["returned_iterations"]) <= 10
