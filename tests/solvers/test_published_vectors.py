"""Results of published code reproduced: one table, and what stored results say beyond equality."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.solvers import published_runs as runs
from tests.solvers.published_cases import Case
from tests.solvers.solver_problems import Recorder, replay
from workbench.operators import Inpainting
from workbench.solvers import DDNM, DeqIR
from workbench.solvers.deqir.states import Chain
from workbench.solvers.schedules import vp_quad_sigmas, vp_sigmas

DDNM_CASES = [
    *("svd_color_T20_eta085_tinynet", "svd_inpaint_T100_eta0", "svd_inpaint_T20_eta085"),
    *("svd_inpaint_T20_travel_l5_r2", "svd_sr4_T100_eta085", "svd_sr4_T20_eta0"),
]
SIMPLIFIED = ["color_T20_eta085", "inpaint_T100_eta0", "inpaint_T20_eta085", "sr4_T20_eta085", "sr4_T20_sy01"]
DIFFPIR_VP = [
    *("deblur_N100_l7_z03", "deblur_N20_l1_z01_asym", "inpaint_N20_uniform_tinynet"),
    *("inpaint_box_N20_z03_noisy", "inpaint_random_N20_z1"),
]
DEQ_DDIM = ["T20", "T10_tinynet", "T20_m3_tol1e-4_40it"]
# How ours is run, the files, and the tolerance: None is the file's own, from runs of the published code.
TABLE: list[tuple[Callable[[Case], runs.Pairs], str, list[str], float | None]] = [
    (runs.ddnm, "ddnm_", DDNM_CASES, None),
    (runs.ddnm, "ddnmplus_svd_", ["denoise_T20_sy01", "inpaint_T20_sy01"], None),
    (runs.ddnm_simplified, "ddnm_simplified_", SIMPLIFIED, None),
    (runs.ddrm, "ddrm_", ["deno_T20", "inp_T20", "inp_T20_tinynet", "sr4_T20", "deblur_gauss_T20"], None),
    (runs.diffpir_ve, "diffpir_ve_", ["blur_it40_ms50", "inpaint_it50_ms1", "inpaint_onestep_tinynet"], None),
    (runs.diffpir_vp, "diffpir_vp_", DIFFPIR_VP, None),
    (runs.map_by_adam, "mupet_adam_", ["blur07_tinynet", "box_s02_32px", "inpaint_s005", "sr2"], None),
    # Adam's steps magnify the rounding of a blur by Fourier transforms, where the published one is a convolution.
    (runs.map_by_adam, "mupet_adam_", ["blur1_s002_60it"], 2e-5),
    (runs.map_by_annealed_adam, "mupet_map_eval_adam_", ["annealed_inpaint"], None),
    (runs.gradient_descent, "mupet_gd_", ["inpaint_bigstepfirst"], None),
    (runs.predictor_corrector, "score_sde_", ["pc_N30_cifar", "pc_N30_tinynet", "predictor_only_N40"], None),
    (runs.mupet_predictor_corrector, "mupet_pc_sampler_", ["N30"], None),
    # The file's own tolerance is that of DEQ-DDIM's mixing; sequential steps round to float32.
    (runs.ddim, "deq_ddim_anderson_", ["T20", "T20_m3_tol1e-4_40it"], 1e-5),
    # The tiny net's states grow to 5, and its prediction with them.
    (runs.ddim, "deq_ddim_anderson_", ["T10_tinynet"], 1e-4),
]
ROWS = [pytest.param(run, p + n, atol, id=f"{run.__name__}-{p}{n}") for run, p, names, atol in TABLE for n in names]


@pytest.mark.parametrize(("run", "name", "atol"), ROWS)
def test_the_published_result_is_reproduced(shared, run, name, atol):
    case = Case(shared, name)
    for ours, stored in run(case):
        torch.testing.assert_close(ours, stored, atol=case.atol if atol is None else atol, rtol=0)


def test_without_the_slips_of_simplified_ddnm_it_is_another_image(shared):
    case = Case(shared, f"ddnm_simplified_{SIMPLIFIED[-1]}")
    solver = DDNM(case.info["T_sampling"], case.info["eta"], runs.ddnm_levels(case))
    noise = replay(runs.ddnm_draws(case))
    plain = solver(case.measurement(), case.operator(), case.vp_prior(), noise=noise).image
    assert (2 * plain - 1 - case["output_x"]).abs().max() > 3e-4


def ddnm_plus_dense(case: Case, matrix: Tensor) -> Tensor:
    """DDNM+ as the paper has it (section 3.3), on [-1, 1] images in VP coordinates with a dense SVD, in float64."""
    info, alpha_bar = case.info, torch.cat([case["schedule/alphas_cumprod"].double(), torch.ones(1).double()])
    u, values, vh = torch.linalg.svd(matrix)
    s = torch.cat([values, values.new_zeros(matrix.shape[1] - len(values))])
    seen, level, eta, prior = s > 0, info["sigma_y_used"], info["eta"], case.vp_prior()
    y_bar = torch.zeros(2, len(s), dtype=torch.float64)
    y_bar[:, : len(values)] = case["y"].double() @ u / values
    x = case["x_T"].double()
    for (t, after), noise in zip(case["schedule/time_pairs"].tolist(), case["noise"].double(), strict=True):
        a, b = alpha_bar[t].sqrt(), alpha_bar[after].sqrt()
        image = 2 * prior((x / a + 1) / 2, case.levels(torch.tensor([t]))) - 1
        clean, e = image.flatten(1) @ vh.T, (x - a * image) / (1 - a**2).sqrt()
        sigma = (1 - b**2).sqrt()
        reached = seen & (sigma * s >= b * level)
        pull = torch.where(reached, 1.0, s * sigma * (1 - eta**2) ** 0.5 / (b * level)) * seen
        left = (sigma**2 - (b * level / s.clamp(min=1e-9)) ** 2).clamp(min=0).sqrt()
        fresh = torch.where(reached, left, sigma * eta)
        drift = torch.where(seen, 0.0, sigma * (1 - eta**2) ** 0.5)
        coefficients = b * (clean + pull * (y_bar - clean))
        coefficients = coefficients + fresh * (noise.flatten(1) @ vh.T) + drift * (e.flatten(1) @ vh.T)
        x = (coefficients @ vh).view_as(x)
    return x.float()


def test_ddnm_plus_on_super_resolution_is_the_paper_s_form(shared):
    """The published code multiplies noise and eps by V without V^T (svd_operators.py:579-617): its result depends on an
    arbitrary basis: the stored output is another image. Against the paper's form by a dense SVD instead."""
    case = Case(shared, "ddnmplus_svd_sr4_T20_sy01")
    basis = torch.eye(768, dtype=torch.float64).view(768, 3, 16, 16)
    expected = ddnm_plus_dense(case, case.operator()(basis).flatten(1).T)
    ((image, stored),) = runs.ddnm(case)
    torch.testing.assert_close(image, expected, atol=case.atol, rtol=0)
    assert (stored - expected).abs().max() > 0.1


def test_noise_free_ddrm_ends_with_the_data_which_the_published_code_drops(shared):
    """Its strict inequality takes every coefficient for unseen at the last step: the image is the prior's own. Ours is
    that image with the data put back."""
    case = Case(shared, "ddrm_sr4_T20_noisefree")
    prior = Recorder(case.vp_prior())
    op, y, result = runs.solve_ddrm(case, prior)
    torch.testing.assert_close(2 * prior.calls[-1][2] - 1, case["output_x"], atol=case.atol, rtol=0)
    pixels = (case["output_x"] + 1) / 2
    torch.testing.assert_close(op(result.image), y, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.image, pixels + op.pinv(y - op(pixels)), atol=case.atol, rtol=0)
    assert float((op(pixels) - y).abs().max()) > 1e-3


def test_levels_are_the_published_ones_in_the_unit_of_01_images(shared):
    # The published cumulative product is float32.
    for name in ("ddnm_svd_sr4_T20_eta0", "ddnm_svd_sr4_T100_eta085"):
        case = Case(shared, name)
        t = case["schedule/time_pairs"][:, 0]
        torch.testing.assert_close(vp_sigmas(len(t)), case.levels(t), rtol=2e-4, atol=0)
    case = Case(shared, "ddrm_sr4_T20")
    torch.testing.assert_close(vp_sigmas(20).tolist(), runs.ddrm_levels(case)[:-1], rtol=2e-4, atol=0)
    for name in DIFFPIR_VP:
        case = Case(shared, f"diffpir_vp_{name}")
        if case.info["skip_type"] == "quad":
            levels = case.levels(case["schedule/t_i_visited"])
            torch.testing.assert_close(vp_quad_sigmas(case.info["iter_num"]), levels, rtol=2e-4, atol=0)


class DeqDdim:
    """DEQ-DDIM's parallel iteration (Pokle et al. 2022) by DeqIR's published map with nothing measured.

    States k = 1 ... T (k DDIM steps from x_T) are rows (T, B, n) in VP coordinates on [-1, 1]. Its Anderson mixing,
    with weights of its own for every state and a ridge in the published units, mixes what the chain proposes and hands
    it back."""

    def __init__(self, case: Case) -> None:
        t = case["schedule/timesteps_descending"]
        self.case, self.total = case, len(t)
        self.scales = [*(2 * case["schedule/alphas_cumprod"].double()[t].sqrt()).tolist(), 2.0]
        unit, nothing = case.unit(case["x_T"], t[0]), Inpainting(torch.zeros(1, 1, 16, 16))
        schedule = [*case.levels(t).tolist(), 0.0]
        solver = DeqIR(self.total, eta=0.0, memory=0, prediction="published", schedule=schedule)
        noise = replay([unit, *torch.zeros(self.total, *unit.shape)])
        problem = solver.problem(torch.zeros_like(unit), nothing, case.vp_prior(), 0.0, noise)
        self.chain: Chain = solver.chain(problem, keep=True)

    def rows(self) -> Tensor:
        states = [(self.chain.states[s] - 0.5) * self.scales[s] for s in range(1, self.total + 1)]
        return torch.stack(states).flatten(2)

    def map(self, x: Tensor) -> Tensor:
        """F(x) (T, B, n)."""
        for s in range(1, self.total + 1):
            self.chain.states[s] = x[s - 1].view_as(self.chain.states[s]) / self.scales[s] + 0.5
        # All states are iterated again and again, as published, the exact ones as well.
        self.chain.front.zero_()
        self.chain.iterate(torch.ones_like(self.chain.front, dtype=torch.bool), 0.0)
        return self.rows()

    def solve(self) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """Iterates, their images under F and the residuals of every call (ddim_anderson.py:40, :120)."""
        info = self.case.info
        xs, outputs, residuals = [self.case["x_T"].flatten(1).expand(self.total, -1, -1)], [], []
        while True:
            outputs.append(self.map(xs[-1]))
            residuals.append(float((outputs[-1] - xs[-1]).norm() / (1e-5 + outputs[-1].norm())))
            # The first output is the second iterate; it is not tested.
            if len(xs) >= info["max_iter"] or (len(xs) > 2 and residuals[-1] < info["tol"]):
                return xs, outputs, residuals
            if len(xs) == 1:
                xs.append(outputs[0])
                continue
            moves = torch.stack([f - x for f, x in zip(outputs, xs, strict=True)], 2)[:, :, -info["m"] :]
            # The weights of smallest mixed move that sum to 1, up to a factor: the solution of (G + ridge) w = 1.
            system = moves @ moves.mT + info["lam"] * torch.eye(moves.shape[2])
            weights = torch.linalg.solve(system, torch.ones(*moves.shape[:3], 1))[..., 0]
            weights = weights / weights.sum(2, keepdim=True)
            xs.append(torch.einsum("tbm,tbmn->tbn", weights, torch.stack(outputs[-info["m"] :], 2)))


@pytest.mark.parametrize("name", DEQ_DDIM)
def test_deq_ddim_s_map_and_mixing_go_the_published_way(shared, name):
    case = Case(shared, f"deq_ddim_anderson_{name}")
    published = DeqDdim(case)
    start = published.rows()
    # Algorithm 1: x_T in every state. Ours is scaled to unit variance first: 1 / sqrt(1 - abar_T), up to 1.4e-4 more.
    torch.testing.assert_close(start, case["x_T"].flatten(1).expand_as(start), atol=1e-5, rtol=2e-4)
    published.chain.states[0] = 0.5 + case["x_T"] / published.scales[0]
    xs, outputs, residuals = published.solve()

    def last_three(x: Tensor, stored: Tensor) -> Tensor:
        return x[-3:].transpose(0, 1).reshape_as(stored)

    # Sums over states of size 80 in our coordinates, in float32.
    torch.testing.assert_close(last_three(outputs[0], case["first_F"]), case["first_F"], atol=2e-4, rtol=1e-5)
    assert len(residuals) == case.info["n_function_calls"]
    # The mixing divides by residuals that shrink: rounding of 1e-6 of the network moves the path by 1 %.
    calls = case["normalized_residual_per_call"][:6].float()
    torch.testing.assert_close(torch.tensor(residuals[:6]), calls, rtol=0.03, atol=0)
    torch.testing.assert_close(last_three(xs[2], case["call2_X"]), case["call2_X"], atol=case.atol, rtol=0.01)
    # Published: the result is the last iterate, not its image under the map.
    torch.testing.assert_close(xs[-1][-1].view_as(case["output_x0"]), case["output_x0"], atol=case.atol, rtol=0)
