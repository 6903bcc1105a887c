"""Published VP DiffPIR reproduced: same levels, its slips injected from outside.

- It clamps ``x0``: a wrapped prior does here.
- Noise of [0, 1] images over levels of [-1, 1] images, ``rho = lambda (sigma_n / (2 sigma))^2`` in our units: ``lambda
/ 4``.
- No noise below 0.001: that is given as the noise level.
- Its image is the state before the last network call; ours takes the data step once more.
- Its start is ``y``, as if it were a state of the diffusion: given as ``initial``, with the noise short by what y has.
"""

from __future__ import annotations

import pytest
import torch
from solver_problems import Case, FunctionPrior, replay
from torch import Tensor

from workbench.operators import Blur, Inpainting, Operator
from workbench.solvers import DiffPIR
from workbench.solvers.schedules import vp_quad_sigmas


def operator(case: Case) -> tuple[Operator, Tensor, Tensor]:
    """Operator and y on [0, 1] images, and the picture in [-1, 1] that the chain starts from."""
    if case.info["task"] == "deblur":
        return Blur(case["op/kernel"]), case["y"], 2 * case["y"] - 1
    return Inpainting(case["op/mask"]), (case["y"] + 1) / 2 * case["op/mask"], case["y"]


def levels_of(case: Case) -> Tensor:
    alpha_bar = case["schedule/alphas_cumprod"].double()[case["schedule/t_i_visited"]]
    return ((1 - alpha_bar) / alpha_bar).sqrt() / 2


def solve(case: Case):
    """Our result, and what the network saw and (clamped) said at its last call."""
    info, levels = case.info, levels_of(case)
    op, y, picture = operator(case)
    calls: list[tuple[Tensor, Tensor]] = []
    inner = case.vp_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append((x, inner.denoise(x, sigma).clamp(0, 1)))
        return calls[-1][1]

    alpha_bar = case["schedule/alphas_cumprod"].double()
    ratios = ((1 - alpha_bar) / alpha_bar).sqrt()
    nearest = int((ratios - 2 * info["noise_level_img"]).abs().argmin())
    start = picture.double() / alpha_bar[nearest].sqrt()
    short = (1 - (ratios[nearest] / (2 * levels[0])) ** 2).sqrt()
    solver = DiffPIR(len(levels), info["zeta"], lambda_=info["lambda_"] / 4, schedule=levels.tolist())
    result = solver(
        y,
        op,
        FunctionPrior(denoise),
        sigma_noise=info["sigma_used_in_rho"],
        noise=replay([(short * case["noise_init"]).float(), *case["noise_zeta"]]),
        initial=((start + 1) / 2).float(),
    )
    return op, y, result, *calls[-1]


NAMES = [
    "deblur_N100_l7_z03",
    "deblur_N20_l1_z01_asym",
    "inpaint_N20_uniform_tinynet",
    "inpaint_box_N20_z03_noisy",
    "inpaint_random_N20_z1",
]


@pytest.mark.parametrize("name", NAMES)
def test_vp_diffpir_reproduces(shared, name):
    case = Case(shared, f"diffpir_vp_{name}")
    op, y, result, state, last = solve(case)
    # The published Fourier step cancels in float32; both are stored.
    exact = "_exact_solver" if case.info["task"] == "deblur" else ""
    alpha_bar = 1 / (1 + 4 * levels_of(case)[-1] ** 2)
    image = alpha_bar.sqrt() * (state - 0.5) + 0.5
    torch.testing.assert_close(image.float(), case[f"output_x_0_image01{exact}"], atol=case.atol, rtol=0)
    expected = case[f"output_x0_last_model_call{exact}"]
    torch.testing.assert_close(2 * last - 1, expected, atol=case.atol, rtol=0)
    ratio = case.info["lambda_"] / 4 * (case.info["sigma_used_in_rho"] / levels_of(case)[-1]) ** 2
    torch.testing.assert_close(result.image, op.prox((expected + 1) / 2, y, float(ratio)), atol=case.atol, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if "uniform" not in name])
def test_its_levels_are_the_published_quadratic_ones(shared, name):
    case = Case(shared, f"diffpir_vp_{name}")
    # The published cumulative product is float32.
    torch.testing.assert_close(vp_quad_sigmas(case.info["iter_num"]), levels_of(case), rtol=2e-4, atol=0)
