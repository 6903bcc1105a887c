"""An exam for samplers: their samples beside posteriors that are known exactly, also those of several modes.

``sit(make_candidate("ddrm"), make_task("mixture-inpaint"))`` gives the figures, ``workbench exam ddrm`` prints them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.exam.figures import Grade, Share, check_samples, grade, table
from workbench.exam.tasks import TASKS, Task, make_task
from workbench.models.consistency import Flow
from workbench.models.prior import Prior
from workbench.own import named
from workbench.random import stream
from workbench.solvers import known_solvers, make_solver
from workbench.text import fits, require, require_kind, unknown

__all__ = ["CONTROLS", "TASKS", "Candidate", "Grade", "Share", "Task", "make_candidate", "make_task", "sit", "table"]

IMAGES = 2000  # per call of a solver: what guidance through a prior keeps for its gradient fits into 2 GB

Answer = tuple[Tensor, int]


@dataclass(frozen=True)
class Candidate:
    """Who sits the exam. ``draw(task, prior, y, count, generator)`` gives ``count`` samples (B, count, n) for each of
    the measurements ``y`` (B, ...), and the evaluations of the prior spent on one."""

    name: str
    draw: Callable[[Task, Prior, Tensor, int, torch.Generator], Answer]


def _exact(task: Task, prior: Prior, y: Tensor, count: int, generator: torch.Generator) -> Answer:
    return task.reference(y, count, generator).samples, 0


def _point(task: Task, prior: Prior, y: Tensor, count: int, generator: torch.Generator) -> Answer:
    mean = task.reference(y, count, generator).mean
    return mean[:, None].expand(-1, count, -1), 0


# Known answers: the true posterior, which must pass, and its mean alone, which must fail.
CONTROLS = {"exact": Candidate("exact", _exact), "point": Candidate("point", _point)}


def make_candidate(name: str, learned: bool = False, **settings: Any) -> Candidate:
    """The solver ``name`` with ``settings``, or a control, which cannot sit with a ``learned`` prior.

    Raises ValueError for that, and for what does not exist."""
    if name in CONTROLS:
        require(not learned, "learned", f"false for the control {name}, which asks no prior", learned)
        if settings:
            raise ValueError(f"the control {name} has no settings, got {', '.join(settings)}")
        return CONTROLS[name]
    if not named(name) and name not in known_solvers():
        raise ValueError(unknown("solver", name, [*known_solvers(), *CONTROLS]))
    solver = make_solver(name, **settings)
    if solver.prior_kind in ("unfolded", "network"):
        raise ValueError(f"{name} needs a network that was trained for photos; the exam has priors of its own")

    def draw(task: Task, prior: Prior, y: Tensor, count: int, generator: torch.Generator) -> Answer:
        copies = y.float().repeat_interleave(count, 0)
        parts, spent, price = [], 0, 1
        if solver.prior_kind == "consistency":  # not distilled: the sampler alone is judged
            prior = Flow(prior)
            price = prior.evaluations
        for part in copies.split(IMAGES):
            result = solver(part, task.op, prior, sigma_noise=task.sigma_noise, generator=generator)
            parts.append(result.image.flatten(1))
            spent = max(spent, price * int(result.evaluations.max()))
        return torch.cat(parts).view(len(y), count, -1), spent

    return Candidate(name, draw)


def sit(
    candidate: Candidate,
    task: Task,
    *,
    repetitions: int = 400,
    samples: int = 19,
    seed: int = 0,
    learned: Prior | None = None,
) -> Grade:
    """The figures of ``candidate`` on ``task``.

    Args:
        repetitions: independent images and measurements; their number sets the width of the intervals, for coverage
            of 90 % about ``± 0.6 / sqrt(repetitions)``.
        samples: of each measurement: 19, 39, 59, ...
        learned: a prior to use instead of the task's exact one; truth and posterior stay the same, so that what it adds
            is its own error.

    Raises:
        ValueError: fewer than 20 repetitions, another number of samples, and as the solver.
    """
    require_kind(candidate, Candidate, "candidate", 'make_candidate("ddrm")')
    require_kind(task, Task, "task", 'make_task("mixture-blur")')
    require(fits(repetitions, int) and repetitions >= 20, "repetitions", "a whole number, at least 20", repetitions)
    check_samples(samples)
    x, y = task.measure(repetitions, stream(seed, "exam", task.name))
    exact = task.reference(y, 2 * samples, stream(seed, "exam", task.name, "reference"))
    drawn, spent = candidate.draw(task, learned or task.prior, y, samples, stream(seed, "exam", task.name, "draws"))
    kind = "exact" if learned is None else "learned"
    return grade(task, x, y, drawn, exact, sampler=candidate.name, prior=kind, evaluations=spent, seed=seed)
