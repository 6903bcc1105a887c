"""The one training loop: accelerate for devices, processes and precision; EMA; exact resume; logs; sample grids.

Everything random is a function of (seed, step, place in the global batch) and everything scheduled a function of the
step. So a checkpoint is weights, averages, optimiser and the step, a run that was killed gives the same weights as one
that was not, and several processes take the steps that one takes with their batches together, up to rounding.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from workbench.data import CropPool, Photos, loader
from workbench.models.prior import Prior
from workbench.random import Draws
from workbench.trainers.dsm import Objective
from workbench.trainers.muon import optimisers
from workbench.trainers.run import Progress, Run, Window

Sampler = Callable[[Prior, torch.Generator], Tensor]
LOST_IN_A_ROW = 20  # steps


@dataclass(frozen=True)
class TrainSettings:
    """What a run is, all of it recorded in ``settings.json``.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate is a function of step / steps.
        learning_rate: peak, after ``warmup`` steps of linear increase.
        schedule: "cosine" (to 2 % of the peak) or "constant".
        optimiser: "adam", or "muon" for the convolutions and Adam for the rest (see ``muon``).
        ema_decay: averages follow ``min(ema_decay, (1 + n) / (10 + n))`` at update n, as score_sde's.
        clip: gradient norm limit.
        accumulate: batches per optimiser step.
        precision: "no" (float32) or "bf16" (autocast).
        seed: of weights' noise and levels; the photos have their own.
        log_every, save_every, sample_every: in steps; 0 for no sample grids.
        workers: loader processes.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 500
    schedule: str = "cosine"
    optimiser: str = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float = 0.9995
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "no"
    seed: int = 0
    log_every: int = 100
    save_every: int = 1000
    sample_every: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        known = {"schedule": ("cosine", "constant"), "precision": ("no", "bf16"), "optimiser": ("adam", "muon")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {' or '.join(map(repr, values))}, got {getattr(self, name)!r}")
        for name in ("steps", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        object.__setattr__(self, "betas", tuple(self.betas))

    def rate(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        decay = 0.51 + 0.49 * math.cos(math.pi * step / self.steps) if self.schedule == "cosine" else 1.0
        return self.learning_rate * warm * decay


Tensors = tuple[Tensor, ...] | list[Tensor]


def published_ema(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """score_sde's averaging: ``s -= (1 - d)(s - p)`` with ``d = min(decay, (1 + n) / (10 + n))``, n from 1."""

    @torch.no_grad()
    def average(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + n) / (10 + n)))

    return average


def train(
    prior: Prior,
    objective: Objective,
    photos: Photos | CropPool,
    settings: TrainSettings,
    folder: str | Path,
    *,
    sampler: Sampler | None = None,
    max_seconds: float | None = None,
    progress_bar: bool = True,
) -> tuple[Prior, Progress]:
    """Train ``prior`` in ``folder``, or go on where the run in that folder stopped.

    The folder gets ``settings.json`` before the first step, ``log.jsonl`` (one line per ``log_every`` steps),
    TensorBoard files, ``samples/*.png`` and ``checkpoint.pt`` (replaced atomically).

    Args:
        prior: an adapter around a network; it is trained in place.
        photos: batch_size images per process and accumulation step; rank, ranks and start are set here.
        sampler: draws images (B, C, H, W) from the averaged prior for the sample grids.
        max_seconds: stop cleanly, with a checkpoint, after this long (a time slice of a longer run).

    Returns:
        The averaged (EMA) prior in eval mode, and the progress.

    Raises:
        ValueError: the folder holds a run with other settings (they are named).
        FloatingPointError: the loss or its gradient is no longer finite, or 20 steps in a row were skipped because no
            sample could be used (``LOST`` of ``objectives``); the last checkpoint is kept.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=settings.precision)
    run = Run(Path(folder), settings, objective, photos, accelerator)
    device = accelerator.device
    prior.train().requires_grad_(True).to(device)
    steppers = optimisers(prior, settings.optimiser, settings.learning_rate, settings.betas)
    average = AveragedModel(prior, multi_avg_fn=published_ema(settings.ema_decay))
    average.n_averaged.fill_(1)  # it holds the initial weights: the first update averages and does not copy
    progress = run.resume(prior, average, steppers, device)
    model, *steppers = accelerator.prepare(prior, *steppers)

    photos = photos.from_batch(progress.step * settings.accumulate, run.rank, run.ranks)
    batches = loader(photos, workers=settings.workers, pin_memory=device.type == "cuda")
    bar = tqdm(
        total=settings.steps,
        initial=progress.step,
        unit="step",
        disable=not (progress_bar and accelerator.is_main_process),
    )
    started, before, waited = time.monotonic(), progress.seconds, 0.0
    window = Window(accelerator)
    while progress.step < settings.steps:
        for group in (group for stepper in steppers for group in stepper.param_groups):
            group["lr"] = settings.rate(progress.step)
        for part in range(settings.accumulate):
            waiting = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - waiting
            images = batch.images.to(device, non_blocking=True)
            progress.skipped += len(batch.skipped)
            run.report_skipped(batch.skipped)
            generator = torch.Generator(device).manual_seed(run.noise_seed(progress.step, part))
            with accelerator.autocast():
                draws = Draws(generator, run.rank, run.ranks)
                floor = {} if batch.floor is None else {"floor": batch.floor.to(device)}
                loss, values = objective(model, images, draws, **floor)
            accelerator.backward(loss / settings.accumulate)
            window.add(loss, values, settings.accumulate)
            progress.images += len(images) * accelerator.num_processes
        # A finite loss can have a gradient that is not; the weights are lost then, so it counts as a lost loss.
        norm = accelerator.clip_grad_norm_(model.parameters(), settings.clip)
        window.check(norm)
        if window.step_is_lost():
            progress.lose()
            if progress.lost_in_a_row >= LOST_IN_A_ROW:
                raise FloatingPointError(_advice(progress))
        else:
            progress.lost_in_a_row = 0
            for stepper in steppers:
                stepper.step()
            average.update_parameters(accelerator.unwrap_model(model))
        for stepper in steppers:
            stepper.zero_grad(set_to_none=True)
        progress.step += 1
        progress.seconds = before + time.monotonic() - started
        bar.update()

        late = max_seconds is not None and _any(time.monotonic() - started > max_seconds, accelerator)
        last = progress.step == settings.steps or late
        saving = progress.step % settings.save_every == 0 or last
        logging = progress.step % settings.log_every == 0 or last
        if saving or logging:  # what is not finite must not reach the checkpoint
            means = window.means()
            if not math.isfinite(means["loss"]):
                raise FloatingPointError(
                    f"the loss or its gradient is {means['loss']} at step {progress.step}; the last checkpoint is kept"
                )
        if logging:
            share = waited / max(time.monotonic() - started, 1e-9)
            run.log(progress, {**means, "learning_rate": settings.rate(progress.step - 1)}, share)
            bar.set_postfix(loss=f"{means['loss']:.4f}", waiting=f"{share:.0%}")
            window.clear()
        if sampler is not None and settings.sample_every and progress.step % settings.sample_every == 0:
            run.grid(progress, sampler, _averaged(average))
        if saving:
            run.save(progress, accelerator.unwrap_model(model), average, steppers)
        if late:
            break
    bar.close()
    run.close()
    return _averaged(average), progress


def _any(here: bool, accelerator: Any) -> bool:
    """Whether it holds in any process: clocks differ, and one that stopped alone would leave the others waiting."""
    if accelerator.num_processes == 1:
        return here
    return bool(accelerator.reduce(torch.tensor(float(here), device=accelerator.device), "sum") > 0)


def _advice(progress: Progress) -> str:
    return (
        f"no sample of {LOST_IN_A_ROW} steps in a row could be used (step {progress.step}): the fixed points diverge; "
        "the last checkpoint is kept. Lower the learning rate, raise the smallest noise level, or start from a prior "
        "that denoises well"
    )


def _averaged(average: AveragedModel) -> Prior:
    prior = copy.deepcopy(average.module)
    assert isinstance(prior, Prior)
    return prior.eval().requires_grad_(False)
