"""The folder of a training run: settings, checkpoint, logs, sample grids."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.data import CropPool, Photos
from workbench.random import Draws
from workbench.text import json_lines, replacing, require, require_kind
from workbench.trainers.dsm import LOST

if TYPE_CHECKING:
    from workbench.trainers.loop import Sampler, TrainSettings
    from workbench.trainers.task import Averages, Task

log = logging.getLogger(__name__)

# What a resumed run may change: it does not touch the weights.
FREE = {"settings.log_every", "settings.save_every", "settings.sample_every", "settings.workers"}
PARTS = {"modules", "averages", "updates", "optimisers", "progress"}  # of a checkpoint


@dataclass
class Progress:
    """Where a run stands: steps, clean images seen by all processes, seconds of training, images that could not be
    decoded (counted by the main process), and steps that left the weights alone because no sample could be used, in all
    and up to now in a row.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    skipped: int = 0
    lost_steps: int = 0
    lost_in_a_row: int = 0


class Window:
    """What happened since the last line of the log: means over steps, accumulation parts and processes."""

    def __init__(self, accelerator: Any, device: torch.device) -> None:
        self.accelerator, self.device = accelerator, device
        self.clear()

    def clear(self) -> None:
        self.loss = torch.zeros((), device=self.device)
        self.sums: dict[str, Tensor] = {}
        self.parts, self.steps = 0, 0
        self._lost: list[Tensor] = []

    def add(self, loss: Tensor, values: dict[str, Tensor], accumulate: int) -> None:
        """One batch: its loss, of which ``accumulate`` make a step, and what the objective logs."""
        self.loss += loss.detach() / accumulate
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(self.loss)) + value.detach()
        self.parts += 1
        if LOST in values:
            self._lost.append(values[LOST].detach())

    def check(self, norm: Tensor) -> None:
        """End a step whose gradient has the length ``norm``: one that is not finite makes the loss NaN."""
        self.loss += torch.where(norm.isfinite(), 0.0, math.nan)
        self.steps += 1

    def step_is_lost(self) -> bool:
        """Whether no sample of the step that ended could be used, in any process."""
        if not self._lost:
            return False
        share = torch.stack(self._lost).float().mean()
        self._lost = []
        if self.accelerator.num_processes > 1:
            share = self.accelerator.reduce(share, "mean")
        return bool(share >= 1)

    def means(self) -> dict[str, float]:
        """``loss`` per step, and the mean of every logged value."""
        names = sorted(self.sums)
        stacked = torch.stack([self.loss / self.steps, *(self.sums[name] / self.parts for name in names)])
        reduced = self.accelerator.reduce(stacked, "mean").tolist()
        return dict(zip(["loss", *names], reduced, strict=True))


class Run:
    """Reads and writes the folder; with several processes only the main one writes."""

    def __init__(
        self, folder: Path, settings: TrainSettings, task: Task, photos: Photos | CropPool, accelerator: Any
    ) -> None:
        self.folder, self.seed, self.main = folder, settings.seed, accelerator.is_main_process
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes
        described = {
            **{f"settings.{name}": value for name, value in asdict(settings).items()},
            **task.described,
            "start": task.digest(),
            **{f"photos.{name}": value for name, value in photos.described().items()},
            "photos.batch": photos.batch_size * self.ranks,
        }
        # Functions (a schedule, a step of a fixed point) are recorded by their names.
        self._settle(json.loads(json.dumps(described, default=lambda value: getattr(value, "__name__", str(value)))))
        self.writer: Any = None
        if self.main:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                log.warning("tensorboard is not installed: %s has the same numbers", folder / "log.jsonl")
            else:
                self.writer = SummaryWriter(str(folder / "tensorboard"))

    def _settle(self, described: dict[str, Any]) -> None:
        """Record the settings before the first step, or compare them with those of the run that is continued."""
        file = self.folder / "settings.json"
        if self._checkpoint.is_file():
            try:
                found = json.loads(file.read_text())
                require_kind(found, dict, "its content", "what a run writes")
            except (OSError, ValueError) as error:
                raise ValueError(f"{file} is missing or damaged ({error}): give another folder") from None
            free = FREE | ({"photos.contents"} - set(found))  # runs of before it was recorded
            differing = [
                f"{name} was {found.get(name)!r} and is {described.get(name)!r}"
                for name in sorted((set(found) | set(described)) - free)
                if found.get(name) != described.get(name)
            ]
            if differing:
                raise ValueError(
                    f"{self.folder} holds a run with other settings: {'; '.join(differing)}. "
                    "Give another folder, or delete this one to start over"
                )
        elif self.main:
            if self.folder.exists() and not self.folder.is_dir():
                raise ValueError(f"{self.folder} is no folder: a run needs one of its own")
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(described, indent=1))

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @contextmanager
    def drawing(self, device: torch.device, step: int, part: int, turn: int) -> Iterator[Draws]:
        """The random numbers of one global batch, and torch's own (dropout's) seeded with them and given back after."""
        seed = self.noise_seed(step, part, turn)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed + self.rank)
            yield Draws(torch.Generator(device).manual_seed(seed), self.rank, self.ranks)

    def noise_seed(self, step: int, part: int, turn: int = 0) -> int:
        """Seed of the random numbers of one global batch: distinct for every (seed, step, accumulation part, turn)."""
        mixed = 0
        for value in (self.seed, step, part, *([turn] if turn else [])):
            mixed = (mixed * 1_000_003 + value + 1) % 2**63
        return mixed

    def resume(self, task: Task, averages: Averages) -> Progress:
        """Load the checkpoint, if there is one, into them; return the progress."""
        if not self._checkpoint.is_file():
            return Progress()
        # Everything by way of the CPU: a second copy of the optimisers' states may not fit on the device.
        try:
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            require(isinstance(state, dict) and set(state) >= PARTS, "its content", "a checkpoint of a run", "another")
        except Exception as error:  # of many kinds
            text = f"{self._checkpoint} cannot be read ({str(error).splitlines()[0]}): delete it to start over"
            raise ValueError(text) from None
        for name, module in task.modules.items():
            module.load_state_dict(state["modules"][name], strict=False)
            for key, value in state["averages"][name].items():
                averages.values[name][key].copy_(value)
        averages.updates = state["updates"]
        for turn, steppers in task.optimisers.items():
            for stepper, part in zip(steppers, state["optimisers"][turn], strict=True):
                stepper.load_state_dict(part)
        progress = Progress(**state["progress"])
        if self.main:
            self._cut_log(progress.step)
        return progress

    def _cut_log(self, step: int) -> None:
        """Drop log lines of steps that a killed run took after its last checkpoint: they come again."""
        file = self.folder / "log.jsonl"
        if file.is_file():
            kept = [line for line in json_lines(file) if line.get("step", math.inf) <= step]
            with replacing(file) as temporary:
                temporary.write_text("".join(f"{json.dumps(line)}\n" for line in kept))

    def save(self, progress: Progress, task: Task, averages: Averages) -> None:
        """Replace the checkpoint atomically."""
        if not self.main:
            return
        state = {
            "modules": {name: own | dict(task.modules[name].named_buffers()) for name, own in task.trained().items()},
            "averages": averages.values,
            "updates": averages.updates,
            "optimisers": {turn: [one.state_dict() for one in steppers] for turn, steppers in task.optimisers.items()},
            "progress": asdict(progress),
        }
        with replacing(self._checkpoint) as file:
            torch.save(state, file)

    def log(self, progress: Progress, values: dict[str, float], waiting: float) -> None:
        """One line of ``log.jsonl`` and the same numbers for TensorBoard. ``waiting``: share of time without data."""
        if not self.main:
            return
        line = {**asdict(progress), **values, "waiting": round(waiting, 4)}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, progress.step)
            self.writer.add_scalar("data/waiting", waiting, progress.step)
            self.writer.add_scalar("data/skipped", progress.skipped, progress.step)

    def grid(self, progress: Progress, sampler: Sampler, modules: dict[str, nn.Module], device: torch.device) -> None:
        """Draw samples, always from the same noise, and write them as one picture."""
        if not self.main:
            return
        from torchvision.utils import make_grid, save_image

        with torch.no_grad():
            images: Tensor = sampler(modules, torch.Generator(device).manual_seed(0)).clamp(0, 1).float().cpu()
        picture = make_grid(images, nrow=max(1, round(len(images) ** 0.5)), padding=1)
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        save_image(picture, folder / f"{progress.step:07}.png")
        if self.writer is not None:
            self.writer.add_image("samples", picture, progress.step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def training_card(progress: Progress, folder: str | Path, data: list[str]) -> dict[str, Any]:
    """The facts of a run that belong into a checkpoint's card: data, length, time, hardware, settings."""
    settings = json.loads((Path(folder) / "settings.json").read_text())
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "data": ", ".join(data),
        "steps": progress.step,
        "images": progress.images,
        "seconds": round(progress.seconds),
        "hardware": f"{hardware}, torch {torch.__version__}",
        "training": settings,
    }
