"""How the losses of few-step models are run on stored cases of the published code."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tests.solvers.few_step_runs import RANGE, TinyNet, grid
from tests.solvers.published_cases import Case
from tests.solvers.published_runs import Pairs
from workbench.models import ConsistencyModel, EDMPrecond, TrajectoryModel
from workbench.trainers import DSM
from workbench.trainers import Consistency as ConsistencyLoss
from workbench.trainers.trajectory import Trajectory, adaptive_weight, denoising


def consistency_loss(case: Case) -> Pairs:
    info = case.info
    kind = {"distillation loss": "distillation", "training loss": "training"}
    target = next((v for k, v in kind.items() if f"consistency {k}" in info["algorithm"]), "progressive")
    objective = ConsistencyLoss(target=target, weighting=info["weight_schedule"])
    student = ConsistencyModel(TinyNet(case, "net"), **RANGE)
    average = ConsistencyModel(TinyNet(case, "target"), **RANGE) if "target/emb" in case else student
    teacher = EDMPrecond(TinyNet(case, "teacher"), **RANGE) if "teacher/emb" in case else None
    levels = grid(case, info["num_scales"] + (target == "progressive")).float()
    images = (case["x_start"] + 1) / 2
    losses = objective.terms(student, average, teacher, images, case["noise"], levels, case["indices"])
    losses.mean().backward()
    pairs = [(losses, case["output_loss_per_sample"]), (losses.mean(), case["output_loss_mean"])]
    return pairs + student.net.gradients(case)


class StoredDraws:
    """The levels and the noise of a case, in place of drawn ones."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def normal(self, *shape: int) -> Tensor:
        return self.noise.view(shape)


@dataclass(frozen=True)
class DSMAtStoredLevels(DSM):
    stored: Tensor | None = None

    def levels(self, *_: object) -> Tensor:
        return self.stored


def denoising_loss(case: Case) -> Pairs:
    prior = EDMPrecond(TinyNet(case, "net"), **RANGE)
    images, noise, sigmas = (case["x_start"] + 1) / 2, case["noise"], case["sigmas"] / 2
    rows = [slice(i, i + 1) for i in range(len(images))]
    losses = [DSMAtStoredLevels(stored=sigmas[r])(prior, images[r], StoredDraws(noise[r]))[0] for r in rows]
    mean = DSMAtStoredLevels(stored=sigmas)(prior, images, StoredDraws(noise))[0]
    mean.backward()
    pairs = [(torch.stack(losses), case["output_loss_per_sample"]), (mean, case["output_loss_mean"])]
    return pairs + prior.net.gradients(case)


def trajectory_loss(case: Case) -> Pairs:
    info = case.info
    steps, levels = info["num_heun_step"], grid(case, info["start_scales"]).float()
    student, target = (TrajectoryModel(TinyNet(case, name), **RANGE) for name in ("net", "target"))
    teacher = EDMPrecond(TinyNet(case, "teacher"), **RANGE)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        wide = (interpolate(x, size=(224, 224), mode="bilinear") for x in (a, b))
        first, second = wide
        return (first - second).square().flatten(1).mean(1)

    power = info["weight_schedule_multiplier"] if info["weight_schedule"] == "uniform_g" else 0.0
    objective = Trajectory(distance=distance, power=power)
    images = (case["x_start"] + 1) / 2
    index = case["indices_t"]
    t = levels[index]
    noisy = images + t.view(-1, 1, 1, 1) * case["noise"]
    way = torch.stack([levels[index + n] for n in range(steps + 1)])
    losses = objective.consistency(student, target, teacher, noisy, way, levels[case["indices_s"].long()])
    total, pairs = losses.mean(), [(losses, case["output_ctm_loss_per_sample"])]
    if "dsm_sigmas" in case:
        second = denoising(student, images, case["dsm_noise"], case["dsm_sigmas"] / 2)
        weighted = second * adaptive_weight(losses.mean(), second.mean(), student.net.conv2_weight)
        pairs.append((weighted, case["output_dsm_loss_per_sample_times_adaptive_weight"]))
        total = total + weighted.mean()
    total.backward()
    return [*pairs, (total, case["output_total_loss"]), *student.net.gradients(case)]
