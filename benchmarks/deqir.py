"""How soon is DeqIR's parallel iteration at the image of the sequential chain, and what does it cost?

    python benchmarks/deqir.py [--prior photo] [--steps 20 100] [--data FOLDER_OR_TAR ...] [--count 32] [--size 32]

For every task and number of levels T: the iterations and the network evaluations per photo until the image is within
1 % of the sequential one (mean of the photos' relative distances), for the package's default and for the published
scheme (eq. 9, Anderson with m = 5 from x_T in every state, which evaluates all T states in every iteration), and the
ratio of the evaluations. Without ``--data`` on tiles of the natural sample photos. Nothing here is a time: iterations
are what a device with room for T states waits for, evaluations are the work.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.data.evaluation import evaluation_photos
from workbench.models import Prior, load_prior
from workbench.operators import Operator, parse_operator
from workbench.random import generator, stream
from workbench.solvers import DDNM, DeqIR
from workbench.solvers.base import Step

TASKS = ("sr:4", "blur:1.5", "inpaint:0.5", "gray")
WITHIN = 0.01


@dataclass(frozen=True)
class Run:
    """Distances to the sequential image after each iteration, and evaluations per photo until then."""

    errors: list[float]
    evaluations: list[float]

    def reached(self) -> int | None:
        """Iterations until the image is within 1 % and stays there."""
        late = [k for k, error in enumerate(self.errors) if error > WITHIN]
        first = late[-1] + 2 if late else 1
        return first if first <= len(self.errors) else None


def run(solver: DeqIR, y: Tensor, op: Operator, prior: Prior, noise: float, target: Tensor) -> Run:
    errors, evaluations = [], []

    def watch(step: Step) -> None:
        difference = (step.image - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
        errors.append(float(difference.mean()))
        evaluations.append(float(step.evaluations.double().mean()))

    solver(y, op, prior, sigma_noise=noise, generator=seeds(len(y)), callback=watch)
    return Run(errors, evaluations)


def seeds(count: int) -> list[torch.Generator]:
    return [stream(0, "benchmark", index) for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--eta", type=float, default=DeqIR().eta)
    parser.add_argument("--data", nargs="+", default=[])
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--cut", default="tiles", help="how photos are cut, see workbench/data/evaluation.py")
    parser.add_argument("--most", type=int, default=25, help="iterations at most")
    parser.add_argument("--skip-published", action="store_true")
    given = parser.parse_args()
    prior = load_prior(given.prior)
    photos, _ = evaluation_photos(given.data, count=given.count, size=given.size, cut=given.cut)
    print(f"{len(photos)} photos {given.size}x{given.size}, {prior.name}, eta {given.eta:g}, noise {given.noise:g}")
    print("task          T   default: iterations  evaluations   published: iterations  evaluations   ratio")
    for steps in given.steps:
        for task in given.tasks:
            op = parse_operator(task, tuple(photos.shape[1:]), generator(0))
            y = op(photos)
            y = y + given.noise * torch.randn(y.shape, generator=generator(1))
            sequential = DDNM(steps, given.eta)
            target = sequential(y, op, prior, sigma_noise=given.noise, generator=seeds(len(y))).image
            common = {"steps": steps, "eta": given.eta, "tolerance": 0.0, "iterations": min(steps, given.most)}
            ours = run(DeqIR(**common), y, op, prior, given.noise, target)
            k = ours.reached()
            line = f"{task:12} {steps:3} {k or '-':20} {ours.evaluations[k - 1] if k else float('nan'):12.0f}"
            if not given.skip_published:
                plain = run(DeqIR(**common, prediction="published"), y, op, prior, given.noise, target).reached()
                spent = plain * steps if plain else float("nan")
                ratio = ours.evaluations[k - 1] / spent if k else float("nan")
                line += f" {plain or '-':23} {spent:12.0f} {100 * ratio:6.0f}%"
            print(line, flush=True)
            print("    distance, %:", " ".join(f"{100 * error:.2f}" for error in ours.errors[:8]), flush=True)


if __name__ == "__main__":
    main()
