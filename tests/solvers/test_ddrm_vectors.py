"""Published DDRM reproduced; its slips injected from outside: a scaled start, a wrong spectrum, a lost last step.

Stored are [-1, 1] images and three draws per step, in the basis of the published operators; here it is one draw per
step, in the order of the coefficients, put together from the three by the case a coefficient is in.
"""

from __future__ import annotations

import pytest
import torch
from solver_problems import Case, Factors, FunctionPrior, replay
from torch import Tensor

from workbench.solvers import DDRM
from workbench.solvers.schedules import vp_sigmas

SHAPE = (3, 16, 16)
N = 768


def factors(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """U, singular values and V of the published operators on flattened CHW images, in their layouts."""
    task, eye = case.info["task"], torch.eye(N)
    if task == "deno":
        return eye, torch.ones(N), eye
    if task == "inp":
        kept, missing = case["op/kept_indices_hwc"], case["op/missing_indices_hwc"]
        hwc = eye.view(N, *SHAPE).permute(2, 3, 1, 0).reshape(N, N)  # row: HWC position, column: CHW position
        return torch.eye(len(kept)), torch.ones(len(kept)), hwc[torch.cat([kept, missing])].T
    if task == "sr4":
        blocks = eye.view(N, 3, 4, 4, 4, 4).permute(1, 2, 4, 3, 5, 0).reshape(48, 16, N)
        rotated = torch.einsum("bpn,pk->bkn", blocks, case["op/V_small"])
        v = torch.cat([rotated[:, 0], rotated[:, 1:].reshape(-1, N)]).T
        return case["op/U_small"] * torch.eye(48), case["op/singulars_small"].expand(48), v
    order = case["op/perm"]

    def basis(small: Tensor) -> Tensor:
        planes = torch.einsum("ip,jq->pqij", small, small).reshape(256, 16, 16)[order]
        return torch.einsum("kij,cd->kcdij", planes, torch.eye(3)).reshape(N, N).T

    # Zeros take the branch of badly seen components there; the smallest numbers do here.
    return basis(case["op/U_small"]), case["op/singulars_as_used"].clamp(min=1e-30), basis(case["op/V_small"])


def levels_of(case: Case) -> list[float]:
    alpha_bar = case["schedule/alphas_cumprod"].double()[case["schedule/timesteps_visited"]]
    return [*(((1 - alpha_bar) / alpha_bar).sqrt() / 2).tolist(), 0.0]


def stored_draws(case: Case, op: Factors, y: Tensor, levels: list[float], noise: float) -> list[Tensor]:
    """The draws of our solver that give the published states; [0, 1] levels and noise."""
    top, m = levels[0], case["y_0"].shape[1]
    data = op.data_analysis(y.double())
    reached = op.values * top > noise
    inverse = torch.where(reached, 1 / op.values.clamp(min=1e-30), 0.0)
    spread = (top**2 - (noise * inverse) ** 2).clamp(min=0).sqrt()
    mean = torch.where(reached, data * inverse, op.analysis(torch.full((2, *SHAPE), 0.5).double()))
    # Published: the start is divided by sigma_T, not multiplied by sqrt(abar_T): the state is 1/sqrt(1 - abar_T) too
    # large. It is drawn in the layout of coefficients, whatever x_T's shape.
    grey = op.analysis(torch.full((2, *SHAPE), 0.5).double())
    too_large = (1 + 1 / (2 * top) ** 2) ** 0.5
    wanted = grey + too_large * (mean - grey + spread * case["x_T"].double().flatten(1))
    draws = [(wanted - mean) / spread]
    for k, level in enumerate(levels[1:]):
        before = op.values * level > noise
        seen = torch.nn.functional.pad(case["noise_y"][k], (0, N - m))
        after = (op.values * level < noise) & (op.values > 0)
        rest = torch.where(after, case["noise_after_scattered"][k], case["noise_full"][k])
        draws.append(torch.where(before, seen, rest))
    return [draw.view(2, *SHAPE) for draw in draws]


def solve(case: Case, **options):
    op = Factors(*factors(case), SHAPE)
    y = (case["y_0"] + op(torch.ones(2, *SHAPE))) / 2
    levels, noise = levels_of(case), case.info["sigma_0_used"] / 2
    solver = DDRM(20, case.info["eta"], case.info["etaB"], levels)
    prior = options.pop("prior", case.vp_prior())
    result = solver(y, op, prior, sigma_noise=noise, noise=replay(stored_draws(case, op, y, levels, noise)), **options)
    return op, y, result


@pytest.mark.parametrize("name", ["deno_T20", "inp_T20", "inp_T20_tinynet", "sr4_T20", "deblur_gauss_T20"])
def test_ddrm_reproduces(shared, name):
    case = Case(shared, f"ddrm_{name}")
    _, _, result = solve(case)
    torch.testing.assert_close(2 * result.image - 1, case["output_x"], atol=case.atol, rtol=0)


def test_noise_free_ddrm_ends_with_the_data_which_the_published_code_drops(shared):
    """Its strict inequality takes every coefficient for unseen at the last step: the image is the prior's own. Ours is
    that image with the data put back."""
    case = Case(shared, "ddrm_sr4_T20_noisefree")
    seen, inner = [], case.vp_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(inner.denoise(x, sigma))
        return seen[-1]

    op, y, result = solve(case, prior=FunctionPrior(denoise))
    torch.testing.assert_close(2 * seen[-1] - 1, case["output_x"], atol=case.atol, rtol=0)
    pixels = (case["output_x"] + 1) / 2
    expected = pixels + op.pinv(y - op(pixels))
    torch.testing.assert_close(op(result.image), y, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.image, expected, atol=case.atol, rtol=0)
    assert float((op(pixels) - y).abs().max()) > 1e-3


def test_its_steps_are_the_vp_schedule(shared):
    case = Case(shared, "ddrm_sr4_T20")
    # The published cumulative product is float32.
    torch.testing.assert_close(vp_sigmas(20).tolist(), levels_of(case)[:-1], rtol=2e-4, atol=0)
