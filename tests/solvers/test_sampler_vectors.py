"""Published samplers reproduced: VE DiffPIR, DDNM, score_sde's predictor-corrector, DDIM.

Everything runs in the package's own convention ([0, 1] images, variance exploding); stored [-1, 1] states, schedules
and noise are translated here. Slips of the published code are injected or named, never modes of the package.
"""

from __future__ import annotations

import pytest
import torch
from solver_problems import Case, FunctionPrior, ddnm_levels, ddnm_operator, replay
from torch import Tensor

from workbench.operators.base import Operator
from workbench.solvers import DDIM, DDNM, DiffPIR, PredictorCorrector


def ddnm_noise(case: Case):
    """Stored draws, the start translated: x_T / sqrt(abar_T) = 2 (1/2 + sigma_T n) - 1."""
    t = case.info["skip"] * (case.info["T_sampling"] - 1)
    scale = 2 * ddnm_levels(case)[0] * case["schedule/alphas_cumprod"][t].double().sqrt()
    start = (case["x_T"].double() / scale).float()
    if "noise" not in case:
        return replay([start, *torch.zeros(case.info["T_sampling"], *start.shape)])
    pairs = case["schedule/time_pairs"].tolist()
    down = [after < now for now, after in pairs]
    # On the way back the published code draws at every step and uses the last draw only.
    used = [noise for noise, here, then in zip(case["noise"], down, [*down[1:], True], strict=True) if here or then]
    return replay([start, *used])


DDNM_CASES = [
    "_svd_color_T20_eta085_tinynet",
    "_svd_inpaint_T100_eta0",
    "_svd_inpaint_T20_eta085",
    "_svd_inpaint_T20_travel_l5_r2",
    "_svd_sr4_T100_eta085",
    "_svd_sr4_T20_eta0",
    "plus_svd_denoise_T20_sy01",
    "plus_svd_inpaint_T20_sy01",
]


@pytest.mark.parametrize("name", DDNM_CASES)
def test_ddnm_reproduces(shared, name):
    case = Case(shared, f"ddnm{name}")
    op, y = ddnm_operator(case)
    info = case.info
    solver = DDNM(
        steps=info["T_sampling"],
        eta=info["eta"],
        schedule=ddnm_levels(case),
        travel_length=info["travel_length"],
        travel_repeat=info["travel_repeat"],
    )
    result = solver(y, op, case.vp_prior(), sigma_noise=info["sigma_y_used"] / 2, noise=ddnm_noise(case))
    torch.testing.assert_close(2 * result.image - 1, case["output_x"], atol=case.atol, rtol=0)


def ddnm_plus_dense(case: Case, matrix: Tensor) -> Tensor:
    """DDNM+ as the paper has it (section 3.3), on [-1, 1] images in VP coordinates with a dense SVD, in float64."""
    info, alpha_bar = case.info, torch.cat([case["schedule/alphas_cumprod"].double(), torch.ones(1).double()])
    u, values, vh = torch.linalg.svd(matrix)
    s = torch.cat([values, values.new_zeros(matrix.shape[1] - len(values))])
    seen, level, eta = s > 0, info["sigma_y_used"], info["eta"]
    y_bar = torch.zeros(2, len(s), dtype=torch.float64)
    y_bar[:, : len(values)] = case["y"].double() @ u / values
    x = case["x_T"].double()
    for (t, after), noise in zip(case["schedule/time_pairs"].tolist(), case["noise"].double(), strict=True):
        a, b = alpha_bar[t].sqrt(), alpha_bar[after].sqrt()
        e = case.vp_noise(x, torch.full((2,), t))
        clean = ((x - (1 - a**2).sqrt() * e) / a).flatten(1) @ vh.T
        sigma = (1 - b**2).sqrt()
        reached = seen & (sigma * s >= b * level)
        pull = torch.where(reached, 1.0, s * sigma * (1 - eta**2) ** 0.5 / (b * level)) * seen
        left = (sigma**2 - (b * level / s.clamp(min=1e-9)) ** 2).clamp(min=0).sqrt()
        fresh = torch.where(reached, left, sigma * eta)
        drift = torch.where(seen, 0.0, sigma * (1 - eta**2) ** 0.5)
        coefficients = b * (clean + pull * (y_bar - clean))
        coefficients = coefficients + fresh * (noise.flatten(1) @ vh.T) + drift * (e.flatten(1) @ vh.T)
        x = (coefficients @ vh).view_as(x)
    return x


def test_ddnm_plus_on_super_resolution_is_the_paper_s_form(shared):
    """The published code multiplies noise and eps by V without V^T (svd_operators.py:579-617): its result depends on an
    arbitrary basis: the stored output is another image. Against the paper's form by a dense SVD instead."""
    case = Case(shared, "ddnmplus_svd_sr4_T20_sy01")
    op, y = ddnm_operator(case)
    solver = DDNM(20, case.info["eta"], ddnm_levels(case))
    image = solver(y, op, case.vp_prior(), sigma_noise=0.1, noise=ddnm_noise(case)).image
    basis = torch.eye(768, dtype=torch.float64).view(768, 3, 16, 16)
    expected = ddnm_plus_dense(case, op(basis).flatten(1).T).float()
    torch.testing.assert_close(2 * image - 1, expected, atol=case.atol, rtol=0)
    assert (case["output_x"] - expected).abs().max() > 0.1


def published_prox(batch_limit: int = 100):
    """MUPET's data step (MAP_tst_utils.py:9): gradient descent, stopped early by one rule for the batch."""

    def step(op, z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        x = z
        for _ in range(batch_limit):
            change = 0.3 * (op.adjoint(op(x) - y) + weight.view(-1, 1, 1, 1) * (x - z))
            x = x - change
            if change.square().mean() <= 1e-5:
                break
        return x

    return step


def published_one_step(op, z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return z - (1 / weight).clamp(max=1).view(-1, 1, 1, 1) * op.adjoint(op(z) - y)


class Plain(Operator):
    """A and A^T alone, from functions."""

    def __init__(self, forward, adjoint) -> None:
        super().__init__()
        self.functions = (forward, adjoint)

    def forward(self, x: Tensor) -> Tensor:
        return self.functions[0](x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.functions[1](y)


@pytest.mark.parametrize("name", ["blur_it40_ms50", "inpaint_it50_ms1", "inpaint_onestep_tinynet"])
def test_diffpir_reproduces(shared, name):
    from test_mupet_vectors import operator

    case = Case(shared, f"diffpir_ve_{name}")
    info = case.info
    start = case["noise_start_obsx0"] if info["obsx0"] else case["noise_start_unused_if_obsx0"]
    initial = case["getx0_y"] if info["obsx0"] else torch.full_like(case["x_orig"], 0.5)
    solver = DiffPIR(
        steps=info["maxit"],
        zeta=info["mixparam"],
        sigma_start=info["maxsig"],
        sigma_end=info["minsig"],
        lambda_=info["lamb"],
        data_step=published_one_step if info["onestepprox"] else published_prox(),
    )
    result = solver(
        case["y"],
        Plain(*operator(case)),
        case.ve_prior(),
        sigma_noise=info["noise_sigma"],
        noise=replay([start, *case["noise_eps"]]),
        initial=initial,
    )
    torch.testing.assert_close(result.image, case["output"], atol=case.atol, rtol=0)
    assert result.evaluations.tolist() == [info["maxit"]] * 2
    levels = solver.levels(torch.full((2,), info["noise_sigma"]), case.ve_prior())
    torch.testing.assert_close(levels[:, 0].double(), case["schedule/sigma_at_network_calls"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["pc_N30_cifar", "pc_N30_tinynet", "predictor_only_N40"])
def test_predictor_corrector_reproduces(shared, name):
    case = Case(shared, f"score_sde_{name}")
    info = case.info
    ladder = case["schedule/discrete_sigmas_ascending"].flip(0)
    corrector = 1 if info["corrector"] == "langevin" else 0
    # Published: the network is told sigma(t) for t from 1 to 1e-5, a little off the ladder; both are stored.
    told = case["schedule/sigma_at_network_calls"][:: corrector + 1]
    inner = case.ve_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return inner.denoise(x, told[(ladder[None] - sigma[:, None]).abs().argmin(1)])

    class Published(FunctionPrior):
        def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            level = told[(ladder - sigma).abs().argmin()]
            return (inner.denoise(x, level.expand(len(x))) - x) / level**2

    prior = Published(denoise, sigma_min=info["sigma_min"], sigma_max=info["sigma_max"])
    start = case["noise_prior"] - 0.5 / info["sigma_max"]  # Published: starts around 0, not around mid-grey.
    result = PredictorCorrector(info["N"], info["snr"], corrector, batch_norms=True)(
        prior, start.shape, noise=replay([start, *case["noise"]])
    )
    torch.testing.assert_close(result.image, case["output"], atol=case.atol, rtol=0)


@pytest.mark.parametrize("name", ["T20", "T10_tinynet", "T20_m3_tol1e-4_40it"])
def test_ddim_reproduces_the_sequential_chain_of_deq_ddim(shared, name):
    case = Case(shared, f"deq_ddim_anderson_{name}")
    alpha_bar = case["schedule/alphas_cumprod"].double()
    t = case["schedule/timesteps_descending"]
    levels = [*(((1 - alpha_bar[t]) / alpha_bar[t]).sqrt() / 2).tolist(), 0.0]
    start = (case["x_T"].double() / (2 * levels[0] * alpha_bar[t[0]].sqrt())).float()
    result = DDIM(len(t), schedule=levels)(case.vp_prior(), start.shape, noise=replay([start]))
    expected = case["sequential_ddim_x0"]
    # The tiny net's states grow to 5, and its prediction with them: float32 rounding through 10 steps.
    torch.testing.assert_close(2 * result.image - 1, expected, atol=1e-4 if "tinynet" in name else 1e-5, rtol=0)
