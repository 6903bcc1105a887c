"""How the package reproduces each kind of stored case: a function from the case to pairs (ours, stored).

Everything runs in the package's own convention ([0, 1] images, variance exploding); stored [-1, 1] states, schedules
and noise are translated here. Slips of the published code are injected or named, never modes of the package.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.solvers.published_cases import Case, ddrm_operator
from tests.solvers.solver_problems import Factors, FunctionPrior, Recorder, replay
from workbench.models.prior import Prior
from workbench.operators import Operator
from workbench.solvers import DDIM, DDNM, DDRM, DiffPIR, MapByAdam, Picard, PredictorCorrector, solve_fixed_point
from workbench.solvers.base import Restoration

Pairs = list[tuple[Tensor, Tensor]]


def ddnm_levels(case: Case) -> list[float]:
    """The published steps: t = (T - 1) s, ..., s, 0, and then no noise."""
    return [*case.levels(torch.arange(case.info["T_sampling"] - 1, -1, -1) * case.info["skip"]).tolist(), 0.0]


def ddnm_draws(case: Case) -> list[Tensor]:
    """The start and the stored draws; without any (eta 0) zeros."""
    info = case.info
    start = case.unit(case["x_T"], info["skip"] * (info["T_sampling"] - 1))
    if "noise" not in case:
        return [start, *torch.zeros(info["T_sampling"], *start.shape)]
    if "schedule/time_pairs" not in case:
        return [start, *case["noise"]]
    down = [after < now for now, after in case["schedule/time_pairs"].tolist()]
    # On the way back the published code draws at every step and uses the last draw only.
    return [start, *(n for n, here, then in zip(case["noise"], down, [*down[1:], True], strict=True) if here or then)]


def ddnm(case: Case) -> Pairs:
    info = case.info
    travel = {name: info.get(name, 1) for name in ("travel_length", "travel_repeat")}
    solver = DDNM(info["T_sampling"], info["eta"], ddnm_levels(case), **travel)
    run = {"sigma_noise": info["sigma_y_used"] / 2, "noise": replay(ddnm_draws(case))}
    return [(2 * solver(case.measurement(), case.operator(), case.vp_prior(), **run).image - 1, case["output_x"])]


def slips_of_simplified_ddnm(abar: float, sigma_y: float) -> tuple[float, float]:
    """Its ``lambda_t`` and ``gamma_t``: it writes ``sigma_t = sqrt(1 - abar^2)`` where the paper has ``sqrt(1 - abar)``
    and tests ``sigma_t >= abar sigma_y`` in place of ``sqrt(abar) sigma_y`` (guided_diffusion/diffusion.py:356-384)."""
    sigma = math.sqrt(max(0.0, 1 - abar**2))
    if sigma >= abar * sigma_y:
        return 1.0, math.sqrt(sigma**2 - (abar * sigma_y) ** 2)
    return sigma / (abar * sigma_y), 0.0


class Shortened(Operator):
    """``op`` whose projections go a part of the way, another one at each call."""

    def __init__(self, op: Operator, parts: list[float]) -> None:
        super().__init__()
        self.op, self.parts = op, iter(parts)
        self.forward, self.adjoint = op.forward, op.adjoint
        self.image_shape, self.measurement_shape = op.image_shape, op.measurement_shape

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        return z + next(self.parts) * (self.op.prox(z, y, weight) - z)


def ddnm_simplified(case: Case) -> Pairs:
    """The operator's projection is shortened by ``lambda_t``. The published code multiplies noise that is scaled
    already by ``gamma_t``: the noise source, which knows what the prior saw, makes that of ``keep e + eta n``."""
    steps, eta, levels = case.info["T_sampling"], case.info["eta"], ddnm_levels(case)
    slips = [slips_of_simplified_ddnm(1 / (1 + 4 * s**2), case.info["sigma_y_used"]) for s in levels[1:]]
    start, *stored = ddnm_draws(case)
    # eta 0 draws nothing that reaches the image: a small eta lets the injected part through.
    ours = max(eta, 1e-3)
    keep, wanted = math.sqrt(1 - ours**2), math.sqrt(1 - eta**2)
    prior = Recorder(case.vp_prior())

    def draw(like: Tensor) -> Tensor:
        if not prior.calls:
            return start.to(like)
        k = len(prior.calls) - 1
        gamma, (x, sigma, clean) = slips[k][1], prior.calls[-1]
        seen = (x - clean) / sigma.view(-1, 1, 1, 1)
        return ((gamma * wanted - keep) * seen + gamma * eta * stored[k]) / ours

    op = Shortened(case.operator(), [part for part, _ in slips])
    result = DDNM(steps, ours, levels)(case.measurement(), op, prior, noise=draw)
    return [(2 * result.image - 1, case["output_x"])]


def ddrm_levels(case: Case) -> list[float]:
    return [*case.levels(case["schedule/timesteps_visited"]).tolist(), 0.0]


def ddrm_draws(case: Case, op: Factors, y: Tensor, levels: list[float], noise: float) -> list[Tensor]:
    """Stored are three draws per step, in the basis of the published operators; ours is one per step, in the order of
    the coefficients, put together from the three by the case a coefficient is in."""
    top, grey = levels[0], op.analysis(torch.full((2, *op.shape), 0.5).double())
    reached = op.values * top > noise
    inverse = torch.where(reached, 1 / op.values.clamp(min=1e-30), 0.0)
    spread = (top**2 - (noise * inverse) ** 2).clamp(min=0).sqrt()
    mean = torch.where(reached, op.data_analysis(y.double()) * inverse, grey)
    # Published: the start is divided by sigma_T, not multiplied by sqrt(abar_T): the state is 1/sqrt(1 - abar_T) too
    # large. It is drawn in the layout of coefficients, whatever x_T's shape.
    too_large = (1 + 1 / (2 * top) ** 2) ** 0.5
    wanted = grey + too_large * (mean - grey + spread * case["x_T"].double().flatten(1))
    draws = [(wanted - mean) / spread]
    for k, level in enumerate(levels[1:]):
        seen = torch.nn.functional.pad(case["noise_y"][k], (0, grey.shape[1] - case["y_0"].shape[1]))
        after = (op.values * level < noise) & (op.values > 0)
        rest = torch.where(after, case["noise_after_scattered"][k], case["noise_full"][k])
        draws.append(torch.where(op.values * level > noise, seen, rest))
    return [draw.view(2, *op.shape) for draw in draws]


def solve_ddrm(case: Case, prior: Prior) -> tuple[Factors, Tensor, Restoration]:
    op = ddrm_operator(case)
    y = (case["y_0"] + op(torch.ones(2, *op.shape))) / 2
    levels, noise = ddrm_levels(case), case.info["sigma_0_used"] / 2
    solver = DDRM(20, case.info["eta"], case.info["etaB"], levels)
    return op, y, solver(y, op, prior, sigma_noise=noise, noise=replay(ddrm_draws(case, op, y, levels, noise)))


def ddrm(case: Case) -> Pairs:
    return [(2 * solve_ddrm(case, case.vp_prior())[2].image - 1, case["output_x"])]


def mupet_prox(op: Operator, z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """MUPET's data step (MAP_tst_utils.py:9): gradient descent, stopped early by one rule for the batch."""
    x = z
    for _ in range(100):
        change = 0.3 * (op.adjoint(op(x) - y) + weight.view(-1, 1, 1, 1) * (x - z))
        x = x - change
        if change.square().mean() <= 1e-5:
            break
    return x


def mupet_one_step(op: Operator, z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return z - (1 / weight).clamp(max=1).view(-1, 1, 1, 1) * op.adjoint(op(z) - y)


def diffpir_ve(case: Case) -> Pairs:
    info, grey = case.info, torch.full_like(case["x_orig"], 0.5)
    start, initial = ("start_obsx0", case["getx0_y"]) if info["obsx0"] else ("start_unused_if_obsx0", grey)
    settings = {"steps": info["maxit"], "zeta": info["mixparam"], "lambda_": info["lamb"]}
    solver = DiffPIR(
        **settings | {"sigma_start": info["maxsig"], "sigma_end": info["minsig"]},
        data_step=mupet_one_step if info["onestepprox"] else mupet_prox,
    )
    prior = Recorder(case.ve_prior())
    noise = replay([case[f"noise_{start}"], *case["noise_eps"]])
    run = {"sigma_noise": info["noise_sigma"], "noise": noise, "initial": initial}
    image = solver(case["y"], case.operator(), prior, **run).image
    asked = torch.stack([sigma[0].double() for _, sigma, _ in prior.calls])
    return [(image, case["output"]), (asked, case["schedule/sigma_at_network_calls"])]


def diffpir_vp(case: Case) -> Pairs:
    """It clamps ``x0``: a wrapped prior does here. Its rho is [0, 1] noise over levels of [-1, 1] images: here
    ``lambda / 4``. It has no noise below 0.001. Its start is ``y``, as if that were a state of the diffusion: given as
    ``initial``, with the noise short by what y has. Its image is the state before the last network call; ours takes
    the data step once more."""
    info, levels, ratios = case.info, case.levels(case["schedule/t_i_visited"]), 2 * case.levels()
    deblur = info["task"] == "deblur"
    picture = 2 * case["y"] - 1 if deblur else case["y"]
    op, y = case.operator(), case["y"] if deblur else case.measurement()
    inner = case.vp_prior()
    prior = Recorder(FunctionPrior(lambda x, sigma: inner.denoise(x, sigma).clamp(0, 1)))
    nearest = int((ratios - 2 * info["noise_level_img"]).abs().argmin())
    start = picture.double() * (1 + ratios[nearest] ** 2).sqrt()
    short = (1 - (ratios[nearest] / (2 * levels[0])) ** 2).sqrt()
    noise = replay([(short * case["noise_init"]).float(), *case["noise_zeta"]])
    run = {"sigma_noise": info["sigma_used_in_rho"], "noise": noise, "initial": ((start + 1) / 2).float()}
    solver = DiffPIR(len(levels), info["zeta"], lambda_=info["lambda_"] / 4, schedule=levels.tolist())
    result = solver(y, op, prior, **run)
    state, _, last = prior.calls[-1]
    # The published Fourier step cancels in float32; both are stored.
    exact = "_exact_solver" if deblur else ""
    before = ((state - 0.5) / (1 + 4 * levels[-1] ** 2).sqrt() + 0.5).float()
    expected = case[f"output_x0_last_model_call{exact}"]
    ratio = float(solver.lambda_ * (info["sigma_used_in_rho"] / levels[-1]) ** 2)
    pairs = [(before, case[f"output_x_0_image01{exact}"]), (2 * last - 1, expected)]
    return [*pairs, (result.image, op.prox((expected + 1) / 2, y, ratio))]


def at_calls(case: Case, prior: Recorder) -> tuple[Tensor, Tensor]:
    states = torch.stack([prior.calls[i][0] for i in case["calls_index"].tolist()])
    return states, case["estimates_at_calls"]


def map_by_adam(case: Case) -> Pairs:
    """Published rules: bias correction one step late (errata 12), one stopping rule for the whole batch, the mean
    square of the step, the newest iterate as result. The package's own defaults differ."""
    info, op, prior = case.info, case.operator(), Recorder(case.ve_prior())
    start: dict[str, Callable[[], Tensor]] = {
        "randstart": lambda: 0.5 + case["noise_init"],
        "usex0": lambda: case["getx0_y"],
        "standard": lambda: op.adjoint(case["y"]),
    }
    rule = MapByAdam(info["stepsize"], info["convmarg_argument"] / info["sigma"], info["maxit"], whole_batch=True)
    assert (info["beta1"], info["beta2"], info["eps"]) == (*rule.method().betas, rule.method().epsilon)
    result = rule(case["y"], op, prior, sigma_noise=info["sigma"], initial=start[info["inittype"]]())
    assert len(prior.calls) == info["n_network_calls"]
    assert result.evaluations.tolist() == [info["returned_iterations"]] * 2
    assert result.converged.tolist() == [bool(info["returned_converged"])] * 2
    return [(result.image, case["output"]), at_calls(case, prior)]


def map_by_annealed_adam(case: Case) -> Pairs:
    """Adam with the level falling from step to step, no early stop."""
    info, prior = case.info, Recorder(case.ve_prior())
    anneal = {"sigma_start": info["maxsig"], "decay": info["fac"]}
    rule = MapByAdam(info["stepsize"], 0.0, info["maxit"], whole_batch=True, **anneal)
    result = rule(case["y"], case.operator(), prior, sigma_noise=info["sigma"], initial=case["getx0_y"])
    # The published evaluation also reports the iterate nearest to the truth, which a user does not have.
    iterates = torch.stack([*(x for x, _, _ in prior.calls), result.image])
    quality = -10 * (iterates.clamp(0, 1) - case["x_orig"]).square().mean((2, 3, 4)).log10().mean(1)
    torch.testing.assert_close(quality, case["psnr_per_iteration"], atol=1e-3, rtol=0)
    torch.testing.assert_close(result.residuals[0], case["mean_sq_update"], atol=1e-7, rtol=1e-3)
    best = (iterates[quality.argmax()], case["output_best_vs_gt"])
    return [(result.image, case["output_last"]), at_calls(case, prior), best]


def gradient_field(case: Case, prior: Prior) -> Callable[[Tensor, Tensor], Tensor]:
    """MUPET, eq. 3 with G = -s: A^T (A x - y) - sigma^2 score(x)."""
    op, sigma, y = case.operator(), case.info["sigma"], case["y"]
    return lambda x, rows: op.adjoint(op(x) - y[rows]) - sigma**2 * prior.score(x, sigma)


def gradient_descent(case: Case) -> Pairs:
    info, prior = case.info, Recorder(case.ve_prior())
    field, start = gradient_field(case, prior), case.operator().adjoint(case["y"])
    start = start - field(start, torch.arange(2))  # "bigstepfirst": one step of size 1.
    result = solve_fixed_point(
        lambda x, rows: x - info["stepsize"] * field(x, rows),
        start,
        method=Picard(),
        max_steps=info["maxit"],
        tolerance=info["convmarg_argument"],
        measure=lambda x, residual, proposal: (proposal - x).square().mean().expand(len(x)),  # one for the batch
        keep="last",
    )
    assert len(prior.calls) == info["n_network_calls"]
    assert result.evaluations.tolist() == [info["returned_iterations"]] * 2
    return [(result.value, case["output"]), at_calls(case, prior)]


def predictor_corrector(case: Case) -> Pairs:
    info, inner = case.info, case.ve_prior()
    ladder = case["schedule/discrete_sigmas_ascending"].flip(0)
    corrector = 1 if info["corrector"] == "langevin" else 0
    # Published: the network is told sigma(t) for t from 1 to 1e-5, a little off the ladder; both are stored.
    told = case["schedule/sigma_at_network_calls"][:: corrector + 1]

    class Published(FunctionPrior):
        def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return inner.score(x, told[(ladder - sigma).abs().argmin()])

    prior = Published(
        lambda x, sigma: inner(x, told[(ladder[None] - sigma[:, None]).abs().argmin(1)]),
        sigma_min=info["sigma_min"],
        sigma_max=info["sigma_max"],
    )
    start = case["noise_prior"] - 0.5 / info["sigma_max"]  # Published: starts around 0, not around mid-grey.
    sampler = PredictorCorrector(info["N"], info["snr"], corrector, batch_norms=True)
    return [(sampler(prior, start.shape, noise=replay([start, *case["noise"]])).image, case["output"])]


def mupet_predictor_corrector(case: Case) -> Pairs:
    """Published: no correction at the highest level, and one Langevin step for the whole batch, here one image."""
    inner, shape = case.ve_prior(), case["noise_start"].shape
    whole = (1, shape[0] * shape[1], *shape[2:])
    prior = FunctionPrior(
        lambda x, sigma: inner(x.view(shape), sigma.expand(shape[0])).view(whole),
        channels=whole[1],
        sigma_min=case.info["minsig"],
        sigma_max=case.info["maxsig"],
    )
    start, none = case["noise_start"].view(whole), torch.zeros(whole)  # a step along no noise has length 0
    drawn = [start, none, *case["noise"].view(-1, *whole), none]
    sampler = PredictorCorrector(case.info["noisenum"], case.info["snr"], case.info["itnum"])
    return [(sampler(prior, whole, noise=replay(drawn)).image.view(shape), case["output_lastden"])]


def ddim(case: Case) -> Pairs:
    """The sequential chain that DEQ-DDIM solves for."""
    t = case["schedule/timesteps_descending"]
    start = case.unit(case["x_T"], t[0])
    sampler = DDIM(len(t), schedule=[*case.levels(t).tolist(), 0.0])
    return [(2 * sampler(case.vp_prior(), start.shape, noise=replay([start])).image - 1, case["sequential_ddim_x0"])]
