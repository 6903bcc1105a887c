"""Training the network of ``perceptual-tiny``: a classifier of labelled photos of one size, on a CPU core in minutes.

Everything random at a step is drawn from (seed, step), so a run that was ended at any time goes on from its last
checkpoint exactly as if it had not been.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from workbench.data.sources import Streamed, open_source
from workbench.perceptual.network import SMALLEST, PerceptualNetwork

CHECKPOINT = "perceptual.pt"
WARMUP = 0.2  # share of the steps in which the learning rate rises
MOMENTUM = 0.9
SMALLEST_CROP = 0.5  # of the photos' side


@dataclass(frozen=True)
class ClassifierSettings:
    """How to train.

    Attributes:
        epochs: passes over the photos; what is left of a pass after whole batches is dropped.
        size: side of the crops as the network sees them, in pixels.
        learning_rate: the largest of the run, reached after a fifth of it; cosine fall to zero afterwards.
        precision: "no" (float32) or "bf16" (autocast).
        save_every: steps between checkpoints.
    """

    epochs: int = 17
    size: int = 48
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    precision: str = "bf16"
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.save_every) < 1 or self.size < SMALLEST:
            raise ValueError(f"expected counts of at least 1 and crops of at least {SMALLEST} pixels, got {self}")
        if self.precision not in ("no", "bf16"):
            raise ValueError(f"expected precision 'no' or 'bf16', got {self.precision!r}")


def labelled_photos(
    specs: Sequence[str], classes: Sequence[str] | None = None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Photos of one size with the class that the first part of each file name says (``n03838899_8837.jpg``).

    Args:
        specs: sources as :func:`workbench.data.sources.open_source` takes them.
        classes: the known classes in the order of their numbers; None: those found, sorted.

    Returns:
        (images uint8 (N, 3, H, W), labels int64 (N,), classes).

    Raises:
        ValueError: no source, photos of several sizes, or a class that is not among ``classes``.
    """
    if not specs:
        raise ValueError("expected at least one source of labelled photos, such as tiny-imagenet/train-{00..05}.tar")
    opened = [open_source(spec) for spec in specs]
    samples = chain.from_iterable(
        source.stream(0, 0) if isinstance(source, Streamed) else (source[index] for index in range(len(source)))
        for source in opened
    )
    images, names = [], []
    for name, decode in samples:
        images.append(decode())
        names.append(name.replace(":", "/").rsplit("/", 1)[-1].split("_")[0])
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        raise ValueError(f"expected photos of one size, found {len(sizes)} sizes in {', '.join(specs)}")
    known = tuple(sorted(set(names)) if classes is None else classes)
    strange = sorted(set(names) - set(known))
    if strange:
        raise ValueError(
            f"{len(strange)} classes are not among the {len(known)} known ones, the first is {strange[0]!r}"
        )
    numbers = {name: number for number, name in enumerate(known)}
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor([numbers[name] for name in names]), known


@torch.no_grad()
def accuracy(network: PerceptualNetwork, images: Tensor, labels: Tensor, batch_size: int = 250) -> float:
    """Share of the uint8 images (N, 3, H, W) whose class has the highest score; ``network`` is in eval mode."""
    right = 0
    for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        right += int((network(batch.float() / 255).argmax(1) == truth).sum())
    return right / len(labels)


def train_classifier(
    images: Tensor,
    labels: Tensor,
    settings: ClassifierSettings,
    folder: str | Path,
    *,
    classes: int,
    max_seconds: float | None = None,
) -> tuple[PerceptualNetwork, dict[str, Any]]:
    """Train, or go on where the run in ``folder`` stopped.

    Args:
        images: uint8 (N, 3, H, W); labels: int64 (N,), below ``classes``.
        max_seconds: stop with a checkpoint after this long, to be continued.

    Returns:
        The network in eval mode, and the progress: ``step``, ``steps``, ``images``, ``seconds`` (of all runs together)
        and ``log``, a list of (step, mean loss since the entry before).

    Raises:
        ValueError: fewer photos than one batch, or a checkpoint of other settings.
    """
    each = len(images) // settings.batch_size
    if not each:
        raise ValueError(f"expected at least a batch of {settings.batch_size} photos, got {len(images)}")
    torch.manual_seed(settings.seed)
    network = PerceptualNetwork(classes).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=MOMENTUM, weight_decay=settings.weight_decay, nesterov=True
    )
    steps = settings.epochs * each
    step, earlier, log = 0, 0.0, []
    path = Path(folder) / CHECKPOINT
    if path.is_file():
        state = torch.load(path, weights_only=True)
        if state["settings"] != asdict(settings):
            raise ValueError(f"{path} is of a run with other settings: {state['settings']}")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        step, earlier, log = state["step"], state["seconds"], state["log"]
    started, losses = time.monotonic(), []
    while step < steps:
        batch = _crops(images, _chosen(step, len(images), settings), step, settings)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step / steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
            scores = network(batch.contiguous(memory_format=torch.channels_last))  # a third faster on CPUs
        truth = labels[_chosen(step, len(images), settings)]
        loss = cross_entropy(scores.float(), truth, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        losses.append(float(loss.detach()))
        late = max_seconds is not None and time.monotonic() - started > max_seconds
        if late or step == steps or step % settings.save_every == 0:
            log.append((step, sum(losses) / len(losses)))
            losses = []
            state = {"settings": asdict(settings), "step": step, "log": log}
            state |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            _save(state | {"seconds": earlier + time.monotonic() - started}, path)
        if late:
            break
    seconds = earlier + time.monotonic() - started
    progress = {"step": step, "steps": steps, "images": step * settings.batch_size, "seconds": seconds, "log": log}
    return network.eval(), progress


def _rate(done: float) -> float:
    """The learning rate as a share of the largest: a linear rise, then a cosine to zero; ``done`` is in [0, 1]."""
    if done < WARMUP:
        return 0.05 + 0.95 * done / WARMUP
    return 0.5 + 0.5 * math.cos(math.pi * (done - WARMUP) / (1 - WARMUP))


def _chosen(step: int, count: int, settings: ClassifierSettings) -> Tensor:
    """The numbers of the photos of this step: the part of its epoch's permutation."""
    epoch, place = divmod(step, count // settings.batch_size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1_000_003 * settings.seed + epoch))
    return order[place * settings.batch_size : (place + 1) * settings.batch_size]


def _crops(images: Tensor, chosen: Tensor, step: int, settings: ClassifierSettings) -> Tensor:
    """Mirrored crops in [0, 1]; one zoom for the batch (that keeps it one call), a place of its own for each photo."""
    rng = np.random.default_rng((settings.seed, step))
    height, width = images.shape[-2:]
    longest = min(height, width)
    side = int(rng.integers(max(1, round(SMALLEST_CROP * longest)), longest, endpoint=True))
    # Half of the batches keep their pixels: a network that only saw zoomed, so smoothed, photos is lost on sharp ones.
    if settings.size <= longest and rng.random() < 0.5:
        side = settings.size
    crops = []
    for index in chosen.tolist():
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = images[index, :, top : top + side, left : left + side]
        crops.append(crop.flip(-1) if rng.random() < 0.5 else crop)
    batch = torch.stack(crops).float() / 255
    return interpolate(batch, size=(settings.size, settings.size), mode="bilinear", antialias=True)


def _save(state: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)
