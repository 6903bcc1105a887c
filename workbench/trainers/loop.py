"""The one training loop: several processes, mixed precision, averages, exact resume, logs, sample grids.

Everything random is a function of (seed, step, place in the global batch) and everything scheduled a function of the
step. So a checkpoint is weights, averages, optimiser and the step, a run that was killed gives the same weights as one
that was not, and several processes take the steps that one takes with their batches together, up to rounding.
"""

import copy
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from workbench.data import CropPool, Photos, loader
from workbench.data.photos import Batch
from workbench.limits import Count, Limit, Limited, NotNegative, Positive, Whole, one_of
from workbench.models.prior import Prior
from workbench.models.wrappers import existing_device
from workbench.text import fits, require, require_kind
from workbench.trainers.dsm import Objective
from workbench.trainers.run import Progress, Run, Window, log
from workbench.trainers.task import Averages, Context, Task, single

Sampler = Callable[[dict[str, nn.Module], torch.Generator], Tensor]
LOST_IN_A_ROW = 20  # steps
SCHEDULES = Limit("cosine, constant or a function of the step", lambda v: callable(v) or v in ("cosine", "constant"))


@dataclass(frozen=True)
class TrainSettings(Limited):
    """What a run is, all of it recorded in ``settings.json``.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate is a function of step / steps.
        learning_rate: base rate, with a linear rise over ``warmup`` steps; a task has base rates of its own.
        schedule: "cosine" (from step 0, to 2 %) or "constant", times the warm-up; or any function of the step that
            gives the factor of the base rate.
        optimiser: "adam", or "muon" for the convolutions and Adam for the rest (see ``muon``).
        ema_decay: averages follow ``min(ema_decay, (1 + n) / (10 + n))`` at update n, as score_sde's; or any function
            of the step that gives the decay.
        clip: gradient norm limit.
        accumulate: batches per optimiser step.
        precision: "no" (float32) or "bf16" (autocast).
        seed: of weights' noise and levels; the photos have their own.
        log_every, save_every, sample_every: in steps; 0 for no sample grids.
        workers: loader processes.
    """

    steps: Count
    learning_rate: NotNegative = 1e-3
    warmup: Whole = 500
    schedule: Annotated[str | Callable[[int], float], SCHEDULES] = "cosine"
    optimiser: Annotated[str, one_of(("adam", "muon"))] = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float | Callable[[int], float] = 0.9995
    clip: Positive = 1.0
    accumulate: Count = 1
    precision: Annotated[str, one_of(("no", "bf16"))] = "no"
    seed: int = 0
    log_every: Count = 100
    save_every: Count = 1000
    sample_every: Whole = 0
    workers: Whole = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "betas", tuple(self.betas))
        shares = self.betas if callable(self.ema_decay) else (*self.betas, self.ema_decay)
        fits = all(0 <= share <= 1 for share in shares) and max(self.betas) < 1
        require(fits, "betas and ema_decay", "two shares below 1, and one up to 1", f"{self.betas}, {self.ema_decay}")

    def factor(self, step: int) -> float:
        """What base rates are multiplied by at step ``step`` (from 0)."""
        if callable(self.schedule):
            return self.schedule(step)
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        decay = 0.51 + 0.49 * math.cos(math.pi * step / self.steps) if self.schedule == "cosine" else 1.0
        return warm * decay

    def rate(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        return self.learning_rate * self.factor(step)


def train(
    prior: Prior,
    objective: Objective,
    photos: Photos | CropPool,
    settings: TrainSettings,
    folder: str | Path,
    *,
    sampler: Callable[[Prior, torch.Generator], Tensor] | None = None,
    max_seconds: float | None = None,
    progress_bar: bool = True,
    device: str | torch.device | None = None,
) -> tuple[Prior, Progress]:
    """Train ``prior`` in ``folder``, or go on where the run in that folder stopped: :func:`train_task` of one turn.

    Args:
        prior: an adapter around a network; it is trained in place.
        sampler: draws images (B, C, H, W) from the averaged prior for the sample grids.
        max_seconds, progress_bar, device: of :func:`train_task`.

    Returns:
        The averaged (EMA) prior in eval mode, and the progress.
    """
    require_kind(settings, TrainSettings, "settings", "TrainSettings(steps=100)")
    require(isinstance(photos, Photos | CropPool), "photos", "Photos or a CropPool", type(photos).__name__)
    draw = None if sampler is None else lambda modules, generator: sampler(modules["prior"], generator)
    task = single(prior, objective, settings)
    options = {"max_seconds": max_seconds, "progress_bar": progress_bar, "device": device}
    averages, progress = train_task(task, photos, settings, folder, sampler=draw, **cast(Any, options))
    return cast(Prior, averages["prior"]), progress


def train_task(
    task: Task,
    photos: Photos | CropPool,
    settings: TrainSettings,
    folder: str | Path,
    *,
    sampler: Sampler | None = None,
    max_seconds: float | None = None,
    progress_bar: bool = True,
    device: str | torch.device | None = None,
) -> tuple[dict[str, nn.Module], Progress]:
    """Run ``task`` in ``folder``, or go on where the run in that folder stopped.

    The folder gets ``settings.json`` before the first step, ``log.jsonl`` (one line per ``log_every`` steps),
    TensorBoard files, ``samples/*.png`` and ``checkpoint.pt`` (replaced atomically).

    Args:
        photos: batch_size images per process and accumulation step; rank, ranks and start are set here.
        sampler: draws images (B, C, H, W) from the averaged modules for the sample grids.
        max_seconds: stop cleanly, with a checkpoint, after this long (a time slice of a longer run).
        device: where to train; by default the GPU if there is one, each process its own.

    Returns:
        The modules with averaged weights in eval mode, and the progress.

    Raises:
        ValueError: the folder holds a run with other settings, data or starting weights (they are named).
        FloatingPointError: a loss or its gradient is no longer finite, or 20 steps in a row were skipped because no
            sample could be used (``LOST`` of ``dsm``); the last checkpoint is kept.
    """
    from accelerate import Accelerator

    require(fits(max_seconds, float | None), "max_seconds", "a number of seconds, or None", repr(max_seconds))
    # Without being told, accelerate does not join processes that have no GPU: each would train by itself.
    accelerator = Accelerator(cpu="WORLD_SIZE" in os.environ and not torch.cuda.is_available())
    device = accelerator.device if device is None else existing_device(device)
    run = Run(Path(folder), settings, task, photos, accelerator)
    for module in task.modules.values():
        module.train(any(p.requires_grad for p in module.parameters())).to(device)
    averages = Averages(task, settings.ema_decay)
    progress = run.resume(task, averages)
    modules = {
        name: DistributedDataParallel(module) if run.ranks > 1 and task.trained()[name] else module
        for name, module in task.modules.items()
    }
    groups = [group for steppers in task.optimisers.values() for stepper in steppers for group in stepper.param_groups]
    for group in groups:
        group.setdefault("initial_lr", group["lr"])

    photos = photos.from_batch(progress.step * settings.accumulate, run.rank, run.ranks)
    batches = loader(photos, workers=settings.workers, pin_memory=device.type == "cuda")
    bar = tqdm(total=settings.steps, initial=progress.step, unit="step", disable=not (progress_bar and run.main))
    started, before, waited = time.monotonic(), progress.seconds, 0.0
    windows = {name: Window(accelerator, device) for name, _ in task.turns}
    while progress.step < settings.steps:
        for group in groups:
            group["lr"] = group["initial_lr"] * settings.factor(progress.step)
        waiting = time.monotonic()
        parts = [next(batches) for _ in range(settings.accumulate)]
        waited += time.monotonic() - waiting
        for batch in parts:
            progress.images += len(batch.images) * accelerator.num_processes
            progress.skipped += len(batch.skipped)
            for entry in batch.skipped:
                log.warning("skipped %s", entry)
        lost = _step(task, modules, parts, settings, run, progress.step, averages, windows, device)
        if lost:
            progress.lost_steps += 1
            progress.lost_in_a_row += 1
            if progress.lost_in_a_row >= LOST_IN_A_ROW:
                raise FloatingPointError(_advice(progress))
        else:
            progress.lost_in_a_row = 0
            averages.update()
        progress.step += 1
        progress.seconds = before + time.monotonic() - started
        bar.update()

        late = max_seconds is not None and _any(time.monotonic() - started > max_seconds, accelerator, device)
        last = progress.step == settings.steps or late
        saving = progress.step % settings.save_every == 0 or last
        logging = progress.step % settings.log_every == 0 or last
        if saving or logging:  # what is not finite must not reach the checkpoint
            means = _means(windows)
            for name in (name for name in means if name.endswith("loss") and not math.isfinite(means[name])):
                raise FloatingPointError(
                    f"the {name} or its gradient is {means[name]} at step {progress.step}; the last checkpoint is kept"
                )
        if logging:
            share = waited / max(time.monotonic() - started, 1e-9)
            run.log(progress, {**means, "learning_rate": groups[0]["lr"]}, share)
            bar.set_postfix(
                {k: f"{v:.4f}" for k, v in means.items() if k.endswith("loss")} | {"waiting": f"{share:.0%}"}
            )
            for window in windows.values():
                window.clear()
        if sampler is not None and settings.sample_every and progress.step % settings.sample_every == 0:
            run.grid(progress, sampler, _averaged(task, averages), device)
        if saving:
            run.save(progress, task, averages)
        if late:
            break
    bar.close()
    run.close()
    accelerator.wait_for_everyone()  # what the main one wrote is there for all
    return _averaged(task, averages), progress


def _step(
    task: Task,
    modules: dict[str, nn.Module],
    parts: list[Batch],
    settings: TrainSettings,
    run: Run,
    step: int,
    averages: Averages,
    windows: dict[str, Window],
    device: torch.device,
) -> bool:
    """All turns of one step: forward, backward, clip, step. Whether one of them could use no sample."""
    lost = False
    for turn, (name, loss_of) in enumerate(task.turns):
        for part, batch in enumerate(parts):
            with ExitStack() as stack:
                draws = stack.enter_context(run.drawing(device, step, part, turn))
                for module in modules.values() if part + 1 < len(parts) else ():
                    if isinstance(module, DistributedDataParallel):  # gradients are shared once per step
                        stack.enter_context(module.no_sync())
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                    loss, values = loss_of(modules, batch.to(device), draws, Context(step, averages.calls()))
                (loss / settings.accumulate).backward()
            windows[name].add(loss, values, settings.accumulate)
        lost = not _stepped(task, name, windows[name], settings.clip) or lost
    return lost


def _stepped(task: Task, turn: str, window: Window, clip: float) -> bool:
    """Step the optimisers of a turn, unless no sample of it could be used; says whether."""
    # A finite loss can have a gradient that is not; the weights are lost then, so it counts as a lost loss.
    window.check(torch.nn.utils.clip_grad_norm_(task.parameters(turn), clip))
    lost = window.step_is_lost()
    for stepper in () if lost else task.optimisers[turn]:
        stepper.step()
    for module in task.modules.values():  # also what a turn left in the modules of others
        module.zero_grad(set_to_none=True)
    return not lost


def _means(windows: dict[str, Window]) -> dict[str, float]:
    """What the windows say; with several turns their names stand before it."""
    if len(windows) == 1:
        return next(iter(windows.values())).means()
    return {f"{turn}/{name}": value for turn, window in windows.items() for name, value in window.means().items()}


def _any(here: bool, accelerator: Any, device: torch.device) -> bool:
    """Whether it holds in any process: clocks differ, and one that stopped alone would leave the others waiting."""
    if accelerator.num_processes == 1:
        return here
    return bool(accelerator.reduce(torch.tensor(float(here), device=device), "sum") > 0)


def _advice(progress: Progress) -> str:
    return (
        f"no sample of {LOST_IN_A_ROW} steps in a row could be used (step {progress.step}): the fixed points diverge; "
        "the last checkpoint is kept. Lower the learning rate, raise the smallest noise level, or start from a prior "
        "that denoises well"
    )


def _averaged(task: Task, averages: Averages) -> dict[str, nn.Module]:
    copies = {name: copy.deepcopy(module) for name, module in task.modules.items()}
    for name, module in copies.items():
        module.load_state_dict(averages.values[name], strict=False)
        module.eval().requires_grad_(False)
    return copies
