"""How the package's few-step samplers and their losses are run on stored cases of the published code."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from tests.solvers.published_cases import Case
from tests.solvers.published_runs import Pairs
from tests.solvers.solver_problems import FunctionPrior, replay
from workbench.models import ConsistencyModel, EDMPrecond, GaussianPrior, Prior, TrajectoryModel
from workbench.operators import Blur, FunctionOperator, Inpainting, Operator, SuperResolution
from workbench.solvers import CM4IR, EDM, LATINO, Consistency, ConsistencyEditing
from workbench.solvers import Trajectory as TrajectorySampler
from workbench.solvers.prior_samples import PriorSampler
from workbench.solvers.schedules import karras_sigmas

RANGE = {"sigma_min": 0.001, "sigma_max": 40.0}  # 0.002 and 80 of images in [-1, 1]


class TinyNet(nn.Module):
    """The tiny network of a case, told ``1000 ln(t) / 4`` as published, and a second level if it has weights for it."""

    def __init__(self, case: Case, prefix: str) -> None:
        super().__init__()
        for name in ("conv1.weight", "conv1.bias", "emb", "emb_s", "conv2.weight", "conv2.bias"):
            if f"{prefix}/{name}" in case:
                self.register_parameter(name.replace(".", "_"), nn.Parameter(case[f"{prefix}/{name}"].clone()))

    def forward(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        hidden = conv2d(x, self.conv1_weight, self.conv1_bias, padding=1)
        hidden = hidden + self.emb.view(1, -1, 1, 1) * (0.25 * t.log()).view(-1, 1, 1, 1)
        if s is not None and hasattr(self, "emb_s"):
            hidden = hidden + self.emb_s.view(1, -1, 1, 1) * (0.25 * s.log()).view(-1, 1, 1, 1)
        return conv2d(silu(hidden), self.conv2_weight, self.conv2_bias, padding=1)

    def gradients(self, case: Case) -> Pairs:
        """What backward left beside what is stored."""
        named = {name.replace("_", ".", 1) if "conv" in name else name: p for name, p in self.named_parameters()}
        return [(p.grad, case[f"grad/{name}"]) for name, p in named.items() if f"grad/{name}" in case]


class ExactConsistency(FunctionPrior):
    """The consistency function of a Gaussian prior: from level t to ``end`` along its trajectories, in closed form."""

    kind = "consistency"

    def __init__(self, case: Case, end: float) -> None:
        model = GaussianPrior(case["prior/spectrum"] / 4, (case["prior/mean"] + 1) / 2)

        def jump(x: Tensor, sigma: Tensor) -> Tensor:
            levels = sigma.double().view(-1, 1, 1, 1) ** 2
            gain = ((model.spectrum + end**2) / (model.spectrum + levels)).sqrt()
            return (model.mean + model._filter(gain, x.double() - model.mean)).to(x.dtype)

        super().__init__(jump, **RANGE)


def consistency_prior(case: Case, end: float = 0.001) -> Prior:
    return ExactConsistency(case, end) if "prior/spectrum" in case else ConsistencyModel(TinyNet(case, "net"), **RANGE)


def denoiser(case: Case) -> Prior:
    if "prior/spectrum" in case:
        return GaussianPrior(case["prior/spectrum"] / 4, (case["prior/mean"] + 1) / 2, **RANGE)
    return EDMPrecond(TinyNet(case, "net"), **RANGE)


def grid(case: Case, count: int) -> Tensor:
    return karras_sigmas(count, 40.0, 0.001)


def draws(case: Case) -> list[Tensor]:
    return [case["noise_init"], *case.tensors.get("noise", [])]


def sampled(case: Case, sampler: PriorSampler, prior: Prior, noise: list[Tensor]) -> Tensor:
    return sampler(prior, noise[0].shape, noise=replay(noise)).image


def consistency(case: Case) -> Pairs:
    chosen = case.info["ts"] or [0]
    levels = grid(case, case.info["steps_in_the_grid"])[chosen]
    levels = levels[:-1] if len(levels) > 1 else levels
    sampler = Consistency(steps=len(levels), schedule=levels.tolist())
    return [
        (2 * sampled(case, sampler, consistency_prior(case), draws(case)[: len(levels)]) - 1, case["output_image_pm1"])
    ]


def edm(case: Case) -> Pairs:
    info = case.info
    sampler = EDM(info["steps"], "heun" in info["algorithm"], info["s_churn"], info["s_tmin"] / 2, info["s_tmax"] / 2)
    if info["s_churn"]:
        sampler = EDM(**{**vars(sampler), "churn_noise": info["s_noise"]})
    image = 2 * sampled(case, sampler, denoiser(case), draws(case)) - 1
    return [(image.clamp(-1, 1), case["output_image_pm1"])]


def trajectory(case: Case) -> Pairs:
    info = case.info
    levels = grid(case, info["steps"])[info["ts"]] if info["ts"] else grid(case, info["steps"] + 1)
    gamma = info["gamma"] if "gamma" in info["algorithm"] else 0.0
    sampler = TrajectorySampler(len(levels) - 1, gamma, levels[:-1].tolist())
    if "prior/spectrum" in case:
        model = GaussianPrior(case["prior/spectrum"] / 4, (case["prior/mean"] + 1) / 2)

        class Exact(TrajectoryModel):
            def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
                t, s = (level.double().view(-1, 1, 1, 1) ** 2 for level in (t, s))
                gain = ((model.spectrum + s) / (model.spectrum + t)).sqrt()
                return (model.mean + model._filter(gain, x.double() - model.mean)).to(x.dtype)

        prior: TrajectoryModel = Exact(lambda x, t, s: x, **RANGE)
    else:
        prior = TrajectoryModel(TinyNet(case, "net"), **RANGE)
    return [(2 * sampled(case, sampler, prior, draws(case)) - 1, case["output_x"])]


def editing(case: Case) -> Pairs:
    levels = grid(case, case.info["steps_in_the_grid"])[case.info["ts"]][:-1]
    x = (case["x_orig"] + 1) / 2
    if "op/mask" in case:
        op: Operator = Inpainting(case["op/mask"])
    else:
        op = SuperResolution(8, "average")
    solver = ConsistencyEditing(steps=len(levels), sigma_start=None, schedule=levels.tolist())
    found = solver(op(x), op, consistency_prior(case), noise=replay(draws(case)[: len(levels)]))
    return [(2 * found.image - 1, case["output_image_pm1"])]


def latino(case: Case) -> Pairs:
    a = case["schedule/alphas_cumprod"].double()[case["schedule/timesteps"].long()]
    levels = ((1 - a) / a).sqrt()
    sigma = case.info["problem"]["sigma_y"]
    latent = "ae/encoder" in case
    if latent:
        encoder, decoder, scale = case["ae/encoder"], case["ae/decoder"], 0.13025

        def encode(x: Tensor) -> Tensor:
            patches = nn.functional.pixel_unshuffle(2 * x - 1, 2)
            return scale * torch.einsum("lc,bchw->blhw", encoder, patches)

        def decode(z: Tensor) -> Tensor:
            patches = torch.einsum("cl,blhw->bchw", decoder, z / scale)
            return (nn.functional.pixel_shuffle(patches, 2) + 1) / 2

        net = TinyNet(case, "net")
        times = case["schedule/timesteps"]

        def jump(z: Tensor, level: Tensor) -> Tensor:
            index = int((levels - float(level[0])).abs().argmin())
            state = z * a[index].sqrt().to(z)
            share = (times[index] / 1000).to(z)
            hidden = conv2d(state, net.conv1_weight, net.conv1_bias, padding=1) + net.emb.view(1, -1, 1, 1) * share
            noise = conv2d(silu(hidden), net.conv2_weight, net.conv2_bias, padding=1) + 0.9 * state * share.sqrt()
            return (state - (1 - a[index]).sqrt().to(z) * noise) / a[index].sqrt().to(z)

        prior: Prior = FunctionPrior(jump, channels=4)
        prior.kind = "consistency"
        codec: dict[str, Callable[[Tensor], Tensor]] = {"encode": encode, "decode": decode}
    else:
        prior, codec = ExactConsistency(case, 0.0), {}
        levels = levels / 2
    y = case["y01"]
    if "op/mask" in case:
        op: Operator = Inpainting(case["op/mask"][None])
    elif y.shape[-1] < 32:
        op = reflected_decimation(case["op/kernel"], 16, (3, 64, 64))
    else:
        op = Blur(case["op/kernel"])
    # The stored gamma is the weight of the data beside 1/2 ||x - x'||^2, images in [-1, 1]: ours is its inverse.
    deltas = case["schedule/gamma_used"].double() * sigma**2 * (1 + 4 * levels**2) / levels**2
    solver = LATINO(steps=len(levels), schedule=levels.tolist(), delta=deltas.tolist(), prior_first=True, **codec)
    initial = (case["x_init_pm1"] + 1) / 2
    found = solver(y, op, prior, sigma_noise=sigma, initial=initial, noise=replay(draws(case)))
    return [(found.image.clamp(0, 1), case["output_image01"])]


def reflected_decimation(kernel: Tensor, factor: int, shape: tuple[int, int, int]) -> Operator:
    """deepinv's: correlation with a reflected border, then every ``factor``-th pixel from the first."""
    sides = kernel.shape[-2:]
    before = [side // 2 for side in sides]
    after = [side - 1 - b for side, b in zip(sides, before, strict=True)]
    weight = kernel.flip(-2, -1).expand(3, 1, *sides)

    def forward(x: Tensor) -> Tensor:
        wide = nn.functional.pad(x, (before[1], after[1], before[0], after[0]), mode="reflect")
        return conv2d(wide, weight.to(x), groups=3)[..., ::factor, ::factor]

    return FunctionOperator(forward, shape)


def cm4ir(case: Case) -> Pairs:
    info = case.info
    sigma = info["sigma_y01"]
    x_init = (case["x_init"] + 1) / 2
    if "op/mask" in case:
        op: Operator = Inpainting(case["op/mask"])
        hwc = torch.zeros(2, case["x_orig"][0].numel())
        hwc[:, case["op/kept_indices_hwc"]] = (case["y"] + 1) / 2
        y = hwc.view(2, *case["x_orig"].shape[2:], 3).permute(0, 3, 1, 2)
    elif "op/A_1d" in case:
        a = case["op/A_1d"]
        op = FunctionOperator(lambda x: a.to(x) @ x @ a.T.to(x), (3, 32, 32), tolerance=1e-7)
        # The rows of A do not quite add to 1: y of images in [-1, 1] is 2 y - A 1.
        y = (case["y"].view(2, 3, 8, 8) + op(torch.ones(2, 3, 32, 32))) / 2
    else:
        op = Blur(case["op/kernel"])
        y = (case["y"].view(2, 3, 16, 16) + op(torch.ones(2, 3, 16, 16))) / 2
    solver = CM4IR(
        steps=4,
        first=info["iN"],
        gamma=info["gamma"],
        eta=info["eta"],
        zeta=info["zeta"],
        deltas=info["deltas"],
        scaled_apart=info["deltas_injection_type"] == 0,
    )
    if "prior/spectrum" in case:
        exact = ExactConsistency(case, 0.001)
        probe = ConsistencyModel(lambda u, told: u, **RANGE)

        def network(u: Tensor, told: Tensor) -> Tensor:  # unwrapped from the parametrisation, at the level told
            skip, out, scale = probe.scalings(told.double().view(-1, 1, 1, 1))
            x = u.double() / scale
            f = 2 * exact.f((x + 1) / 2, told / 2) - 1
            return ((f - skip * x) / out).to(u.dtype)

        prior: Prior = ConsistencyModel(network, **RANGE)
    else:
        prior = consistency_prior(case)
    found = solver(y, op, prior, sigma_noise=sigma, initial=x_init, noise=replay(draws(case)))
    return [(2 * found.image - 1, case["output_image_pm1"])]
