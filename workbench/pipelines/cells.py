"""Restorations that are there already: one more method, photo or seed computes only that.

A cell is one photo restored in one way, the file ``cells/HASH.safetensors`` of the run: the image as it came out, and
its record. The hash is of all that decides it: see :meth:`Cells._keys`. Cells may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.measurement import Degraded, degrade
from workbench.models.prior import Prior
from workbench.pipelines.identity import Contents, own_path
from workbench.pipelines.job import this_job
from workbench.records import Record, solver_settings, tiles_of
from workbench.restore import Result, restore
from workbench.solvers.base import Restoration, Solver
from workbench.text import replacing


class Cells:
    """The store of the run that the notebook belongs to; opened by hand, a notebook has none and computes everything.

    Attributes:
        computed, kept: how many images were restored, and how many were there.
    """

    def __init__(self) -> None:
        job = this_job()
        self.computed = self.kept = 0
        self._folder = Path(job["cells"]) if "cells" in job else None
        self._code = job.get("code")
        self._contents = Contents(Path(job.get("started_in", "")))
        self._priors: dict[Prior, str] = {}

    @property
    def counts(self) -> dict[str, int]:
        """``computed`` and ``kept``, for the result of the job."""
        return {"computed": self.computed, "kept": self.kept}

    def restore(
        self,
        degraded: Degraded,
        solver: Solver,
        prior: Prior,
        *,
        name: str = "",
        judge: bool = False,
        given: Any = None,
    ) -> Result:
        """What :func:`workbench.restore.restore` returns, on the CPU; the images that are there are not restored again.

        Each record also says when it was ``finished``; ``seconds`` are those of then. Measurements without an original,
        several samples of one, and parts written in the notebook itself are restored but not kept.

        Args:
            given: how the prior was asked for: its source and settings.
        """
        keys = self._keys(degraded, solver, prior, judge, given)
        found = [self._read(key) for key in keys]
        missing = [place for place, cell in enumerate(found) if cell is None]
        if missing:
            part = degraded
            if degraded.original is not None and len(missing) < len(keys):
                numbers = [degraded.numbers[place] for place in missing]
                part = degrade(degraded.original[missing], degraded.spec, degraded.noise, degraded.seed, None, numbers)
            result = restore(part, solver, prior, name=name, judge=judge)
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            for place, image, record in zip(missing, result.image.cpu().split(1), result.records, strict=True):
                found[place] = image, record | {"finished": now}
                self._write(keys[place], image, record | {"finished": now})
        self.computed += len(missing)
        self.kept += len(keys) - len(missing)
        cells = [cell for cell in found if cell is not None]
        records = [record | {"solver": name} for _, record in cells]
        spent, taken = (torch.tensor([record[key] for record in records]) for key in ("evaluations", "iterations"))
        return Result(degraded, Restoration(torch.cat([image for image, _ in cells]), spent, taken), records)

    def _keys(self, degraded: Degraded, solver: Solver, prior: Prior, judge: bool, given: Any) -> Sequence[str]:
        """The name of each image's cell: the original's pixels and number, degradation, noise, seed and solver with all
        settings, the prior with its weights, how it was asked for and cut into tiles, device, and all code. Empty for
        what cannot be kept."""
        code = self._own_code(solver, degraded.op, *prior.modules())
        if self._folder is None or degraded.original is None or degraded.solver_seeds is not None or code is None:
            return [""] * len(degraded.y)
        common = {
            "code": [self._code, code, self._contents.named(degraded.spec)],
            "degraded": [degraded.spec, degraded.noise, degraded.seed],
            "solver": [type(solver).__qualname__, solver_settings(solver)],
            "prior": [prior.name, prior.source, given, self._weights(prior), tiles_of(prior)],
            "run": [degraded.y.device.type, str(degraded.y.dtype), judge],
        }
        start = json.dumps(common, sort_keys=True, default=str)
        return [
            hashlib.sha256(f"{start} {number} {_bytes_of(image)} {tuple(image.shape)}".encode()).hexdigest()
            for number, image in zip(degraded.numbers, degraded.original, strict=True)
        ]

    def _own_code(self, *things: object) -> str | None:
        """The hash of the code outside of package and libraries that these are made of; None: it has no file."""
        modules = [sys.modules.get(name) for name in sorted({type(thing).__module__ for thing in things})]
        files = [getattr(module, "__file__", None) for module in modules]
        return None if None in files else self._contents.code(*filter(None, (own_path(Path(f)) for f in files if f)))

    def _weights(self, prior: Prior) -> str:
        if prior not in self._priors:
            named = [*prior.named_parameters(), *prior.named_buffers()]
            self._priors[prior] = str([(name, _bytes_of(tensor)) for name, tensor in named])
        return self._priors[prior]

    def _read(self, key: str) -> tuple[Tensor, Record] | None:
        if not key or self._folder is None:
            return None
        try:
            with safe_open(self._folder / f"{key}.safetensors", "pt") as cell:
                return cell.get_tensor("image"), json.loads(cell.metadata()["record"])
        except (OSError, SafetensorError):  # there is none, or the power failed
            return None

    def _write(self, key: str, image: Tensor, record: Record) -> None:
        if key and self._folder is not None:
            self._folder.mkdir(exist_ok=True)
            with replacing(self._folder / f"{key}.safetensors") as file:
                save_file({"image": image.contiguous()}, file, {"record": json.dumps(record)})


def _bytes_of(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()
