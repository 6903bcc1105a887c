"""Time and memory of a training step of UD2M: low-rank layers in attention, in all layers, and all weights.

    python benchmarks/adapters.py
    python benchmarks/adapters.py --device cuda --size 128 --batch 16

One process, the three in turn, ratios to all weights. Memory is what optimiser and gradients add to the weights (AdamW
keeps two numbers and a gradient per trained weight), and on a GPU also the peak of a step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from workbench.data.photos import Batch
from workbench.models import LoRA, Unfolded, Unfolding, load_prior
from workbench.random import Draws, generator
from workbench.trainers import UD2M, Context, Task, TrainSettings
from workbench.trainers.ud2m import FAMILIES

KINDS = {"attention": LoRA(5), "all layers": LoRA(5, "all"), "all weights": None}


def step(task: Task, images: torch.Tensor, seed: int) -> float:
    """Seconds of the generator's turn: forward, backward, optimiser."""
    loss_of = dict(task.turns)["generator"]
    if images.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    draws = Draws(torch.Generator(images.device).manual_seed(seed))
    loss, _ = loss_of(task.modules, Batch(images, []), draws, Context(0, {}))
    loss.backward()
    for stepper in task.optimisers["generator"]:
        stepper.step()
        stepper.zero_grad(set_to_none=True)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()

    shape = (arguments.batch, 3, arguments.size, arguments.size)
    images = torch.rand(shape, generator=generator(0)).to(arguments.device)
    objective = UD2M(FAMILIES["universal"](), distance="none", perceptual=0.0, adversarial=0.0)
    tasks, seconds, peaks = {}, {name: [] for name in KINDS}, {}
    for name, lora in KINDS.items():
        network = Unfolded(load_prior("photo"), Unfolding(), lora).to(arguments.device)
        tasks[name] = objective.task(network, TrainSettings(steps=1))
    for seed in range(arguments.steps + 1):
        for name, task in tasks.items():
            if images.is_cuda:
                torch.cuda.reset_peak_memory_stats()
            taken = step(task, images, seed)
            if seed:  # the first one also sets up
                seconds[name].append(taken)
            peaks[name] = torch.cuda.max_memory_allocated() / 2**20 if images.is_cuda else 0.0
    counts = {name: sum(p.numel() for p in task.parameters("generator")) for name, task in tasks.items()}
    whole = statistics.median(seconds["all weights"])
    print(f"UD2M step, {arguments.batch} crops of {arguments.size}x{arguments.size}, {arguments.device}")
    for name in KINDS:
        taken, added = statistics.median(seconds[name]), 12 * counts[name] / 2**20
        peak = f", peak {peaks[name]:.0f} MiB" if peaks[name] else ""
        print(
            f"{name:12} {counts[name]:9,} trained ({100 * counts[name] / counts['all weights']:.2f} %), {taken:.3f} s "
            f"({taken / whole:.2f}), optimiser and gradients {added:.2f} MiB{peak}"
        )


if __name__ == "__main__":
    main()
