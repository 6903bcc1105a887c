"""Restorations that are there already: one more method, photo or seed computes only that.

A cell is one photo restored in one way, the file ``cells/HASH.safetensors`` of the run: the image as it came out, and
its record. Cells may be deleted at any time.
"""

import json
import os
import sys
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.measurement import Degraded, degrade
from workbench.models.prior import Prior
from workbench.noise import Noise
from workbench.operators.parse import OPERATORS, file_in, known_operators, operator_name
from workbench.own import named
from workbench.pipelines.identity import Contents, hash_of, own_path
from workbench.pipelines.job import input_path, input_source, this_job
from workbench.records import Record, solver_settings, tiles_of
from workbench.restore import Result, restore
from workbench.solvers.base import Restoration, Solver
from workbench.text import replacing


def input_operator(spec: str) -> str:
    """An operator as ``degrade`` takes it; the file of a mask or kernel, or of its code, is an :func:`input_path`."""
    if operator_name(spec) not in OPERATORS:
        return input_source(spec)
    file = file_in(spec)
    return f"{spec.strip().removesuffix(file)}{input_path(os.path.expanduser(file))}" if file else spec


class Cells:
    """The store of the run that the notebook belongs to; opened by hand, a notebook has none and computes everything.

    Attributes:
        counts: how many images were ``computed``, and how many ``kept`` from before.
    """

    def __init__(self) -> None:
        self._job = this_job()
        self._contents = Contents(input_path(""))
        self._weights: dict[Prior, str] = {}
        self.counts = {"computed": 0, "kept": 0}

    def restore(
        self, degraded: Degraded, solver: Solver, prior: Prior, *, name: str, judge: bool = False, given: Any
    ) -> Result:
        """What :func:`workbench.restore.restore` returns, on the CPU; images that are there are not restored again.

        Each record also says when it was ``finished``; ``seconds`` are those of then. Measurements without an original,
        samples of one measurement, those of an operator that has no name, only an object, and what is made by code
        without a file are restored but not kept.

        Args:
            given: how the prior was asked for: its source and settings.
        """
        files = self._files(degraded, solver, prior, judge, given)
        found = [_read(file) for file in files]
        missing = [place for place, cell in enumerate(found) if cell is None]
        if missing:
            part = degraded
            if degraded.original is not None and len(missing) < len(files):
                numbers = [degraded.numbers[place] for place in missing]
                part = degrade(degraded.original[missing], degraded.spec, degraded.noise, degraded.seed, None, numbers)
            result = restore(part, solver, prior, name=name, judge=judge)
            now = {"finished": datetime.now().astimezone().isoformat(timespec="seconds")}
            for place, image, record in zip(missing, result.image.cpu().split(1), result.records, strict=True):
                found[place] = image, record | now
                if file := files[place]:
                    file.parent.mkdir(exist_ok=True)
                    with replacing(file) as half:
                        save_file({"image": image.contiguous()}, half, {"record": json.dumps(record | now)})
        self.counts["computed"] += len(missing)
        self.counts["kept"] += len(files) - len(missing)
        images, records = zip(*filter(None, found), strict=True)
        spent, taken = (torch.tensor([record[key] for record in records]) for key in ("evaluations", "iterations"))
        restoration = Restoration(torch.cat(images), spent, taken)
        return Result(degraded, restoration, [record | {"solver": name} for record in records])

    def _files(self, degraded: Degraded, solver: Solver, prior: Prior, judge: bool, given: Any) -> list[Path | None]:
        """Each image's cell, named by a hash of all that decides it; None for what cannot be kept."""
        modules = {type(thing).__module__ for thing in (solver, degraded.op, *prior.modules())}
        sources = [getattr(sys.modules.get(name), "__file__", None) for name in sorted(modules)]
        noise: Any = degraded.noise
        if isinstance(noise, Noise):
            noise = [str(noise), noise.gain, _hash(torch.as_tensor(noise.sigma))]
        written = operator_name(degraded.spec) in known_operators() or named(degraded.spec)
        kept = "cells" in self._job and written and not degraded.solver_seeds and None not in sources
        if degraded.original is None or not kept:
            return [None] * len(degraded.y)
        if prior not in self._weights:
            tensors = [*prior.named_parameters(), *prior.named_buffers()]
            self._weights[prior] = hash_of([(name, _hash(tensor)) for name, tensor in tensors])
        own = [path for source in sources if source and (path := own_path(Path(source)))]
        common = [
            [self._job["code"], self._contents.code(*own), self._contents.named([degraded.spec, str(degraded.noise)])],
            [degraded.spec, noise, degraded.seed],
            [type(solver).__qualname__, solver_settings(solver)],
            [prior.name, prior.source, given, self._weights[prior], tiles_of(prior)],
            [degraded.y.device.type, str(degraded.y.dtype), judge],
        ]
        names = [
            hash_of([common, number, list(image.shape), _hash(image)])
            for number, image in zip(degraded.numbers, degraded.original, strict=True)
        ]
        return [Path(self._job["cells"]) / f"{name}.safetensors" for name in names]


def _read(file: Path | None) -> tuple[Tensor, Record] | None:
    with suppress(OSError, SafetensorError):  # there is none, or the power failed
        if file is not None:
            with safe_open(file, "pt") as cell:
                return cell.get_tensor("image"), json.loads(cell.metadata()["record"])
    return None


def _hash(tensor: Tensor) -> str:
    return sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
