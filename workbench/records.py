"""The files of a restoration, and what its record says beside the scores: versions, hardware, settings, tiles."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from workbench.evaluation.metrics import for_json, paper_scores
from workbench.images import is_grey, save_image
from workbench.machine import processor
from workbench.models.prior import Prior
from workbench.models.wrappers import TiledPrior
from workbench.operators.parse import shrink_factor
from workbench.photo_file import Photo
from workbench.text import replacing, write_json

if TYPE_CHECKING:
    from workbench.restore import Result

Record = dict[str, Any]
RECORDS = "records.jsonl"
NO_ORIGINAL = "no original to compare"
JSON = (bool, int, float, str, list, tuple, dict, type(None))

# What metrics.json holds of every further sample; the first has its whole record.
OF_EACH_SAMPLE = (
    *("solver_seed", "psnr", "ssim", "lpips", "effnet", "consistency"),
    *("evaluations", "iterations", "converged", "message"),
)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware that a figure depends on."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "workbench": version("restoration-workbench"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "processor": processor(),
        **gpu,
        "threads": torch.get_num_threads(),
    }


def solver_settings(solver: Any) -> dict[str, Any]:
    """All settings of a solver, defaults too, ready for JSON: what that does not have by its name, or as text."""
    values = ((field.name, getattr(solver, field.name)) for field in fields(solver))
    return {
        name: value if isinstance(value, JSON) else getattr(value, "__name__", str(value)) for name, value in values
    }


def tiles_of(prior: Prior) -> dict[str, Any]:
    """How the prior was cut into tiles, ready for JSON; ``tile`` 0 for none."""
    if isinstance(prior, TiledPrior):
        return {"tile": prior.tile, "overlap": prior.overlap}
    return {"tile": 0, "overlap": 0}


def save(result: Result, folder: Path, photo: Photo | None = None, bits: int = 8) -> None:
    """Write original.png and degraded.png of the first image of ``result``, and every image restored: restored.png,
    restored-2.png, ... metrics.json is the record of the first, with ``samples``, the scores of the others, if any;
    of super-resolution also with what papers on it count (``paper_scores``).

    Each file is replaced in one step, metrics.json last. What an earlier result left is removed, if its metrics.json is
    there: original.png where there is no original now, and further images. Pictures without colours become grey ones.

    Args:
        photo: the file that was restored: its alpha is that of original and restorations, its EXIF that of the latter.
        bits: of each channel.
    """
    exif, alpha = (b"", None) if photo is None else (photo.exif, photo.alpha)
    earlier = folder / "metrics.json"
    known = earlier.read_text(encoding="utf-8", errors="replace") if earlier.is_file() else NO_ORIGINAL
    if result.degraded.original is not None:
        save_picture(result.degraded.original[:1], folder / "original.png", alpha, bits)
    elif NO_ORIGINAL not in known:
        (folder / "original.png").unlink(missing_ok=True)
    save_picture(result.degraded.picture[:1], folder / "degraded.png", None, bits)
    names = ["restored.png", *(f"restored-{number}.png" for number in range(2, len(result.image) + 1))]
    for name, image in zip(names, result.image.split(1), strict=True):
        save_picture(image, folder / name, alpha, bits, exif)
    for file in folder.glob("restored-*.png") if earlier.is_file() else ():
        if re.fullmatch(r"restored-\d+\.png", file.name) and file.name not in names:
            file.unlink()
    write_json(folder / "metrics.json", with_samples(result.records) | _as_papers(result))


def with_samples(records: Sequence[Record]) -> Record:
    """The record of the first of several samples, with the scores of the others as its ``samples``, if any."""
    first, *others = records
    scores = [{key: record[key] for key in OF_EACH_SAMPLE} for record in others]
    return first | ({"samples": scores} if scores else {})


def _as_papers(result: Result) -> dict[str, Any]:
    """The ``paper_scores`` of the first image of super-resolution, cropped by its factor; of all else nothing."""
    original, crop = result.degraded.original, shrink_factor(result.degraded.spec)
    if original is None or crop == 1 or 2 * crop >= min(original.shape[-2:]):
        return {}
    found: dict[str, Any] = {}
    for key, value in paper_scores(result.image[:1], original[:1], crop, clip=True).items():
        found |= for_json(key, float(value))
    return found


def save_picture(image: Tensor, path: Path, alpha: Tensor | None, bits: int, exif: bytes = b"") -> None:
    """Write ``image`` (1, C, H, W) with the ``alpha`` (1, 1, h, w), resized to it."""
    if bool(is_grey(image)):
        image = image[:, :1]
    if alpha is not None:
        alpha = torch.nn.functional.interpolate(alpha, image.shape[-2:], mode="bicubic", antialias=True)
    save_image(image, path, alpha=alpha, bits=bits, exif=exif)


def replaces(photo: str | Path, folder: Path) -> bool:
    """Whether :func:`save` into ``folder`` would replace or remove the file ``photo`` itself."""
    place = Path(photo).resolve()
    name = re.fullmatch(r"(original|degraded|restored(-\d+)?)\.png", place.name)
    return name is not None and place.parent == folder.resolve()


class Records:
    """What became of each photo of a folder: a file of lines in JSON, first the options, then records.

    Attributes:
        of: the last record of each photo, by its name ``file``.

    Raises:
        ValueError: the file is of other options, by which something was restored, or another run is writing there,
            which this one keeps others from.
    """

    def __init__(self, out: Path, options: dict[str, Any]) -> None:
        self.out, self.path, self.of = out, out / RECORDS, dict[str, Record]()
        options = earlier = json.loads(_line(options))
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else ():
            try:
                entry = dict(json.loads(line))
            except (ValueError, TypeError):  # half a line: the end of an interrupted run
                continue
            if "file" in entry:
                self.of[entry["file"]] = entry
            else:
                earlier = entry
        if earlier != options:
            if any(record["state"] == "done" for record in self.of.values()):
                key = next(key for key in {**earlier, **options} if earlier.get(key) != options.get(key))
                came = f"{key} {earlier.get(key)}, not {options.get(key)}"
                raise ValueError(f"{out} holds results of other settings ({came}): choose another --out")
            self.of = {}  # by those settings nothing was restored
        out.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(out / ".lock", timeout=0)  # let go of with this object
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"{out}: another run is writing there") from None
        with replacing(self.path) as file:
            file.write_text("".join(map(_line, [options, *self.of.values()])), encoding="utf-8")

    def hold(self, name: str, stamp: str, written: list[str]) -> bool:
        """Whether the photo is done in that state of its file, and the pictures ``written`` are there."""
        record = self.of.get(name, {})
        same = record | {"state": "done", "stamp": stamp, "written": written} == record
        return same and all((self.out / each).is_file() for each in written)

    def add(self, record: Record) -> None:
        """Keep ``record``, also if the power fails next."""
        self.of[record["file"]] = record
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())


def write_table(records: Sequence[Record], columns: Sequence[str], path: Path) -> None:
    """Write ``columns`` of ``records`` as CSV; the size as HEIGHTxWIDTH, and nothing where there is nothing."""
    import pandas

    rows = [record | {"size": "x".join(map(str, record.get("size", [])))} for record in records]
    with replacing(path) as file:
        pandas.DataFrame(rows, columns=list(columns), dtype=object).to_csv(file, index=False)


def _line(content: Record) -> str:
    return json.dumps(content, default=str) + "\n"
