"""Many photos, restored with the same options: ``workbench restore FOLDER --out DIR``.

Every photo gives what it gives alone. What cannot be read or restored is named, and the others go on. After an
interruption the same call does what is missing: a photo is done once its pictures are written, and then a line of
``DIR/records.jsonl`` that says so.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from workbench.data.listing import Source, stamp_of
from workbench.models import Prior
from workbench.operators.kernels import FILE as KERNEL_FILE
from workbench.operators.parse import file_in, is_own
from workbench.own import imported, named, source_of, told
from workbench.photo_file import Photo, read_photo
from workbench.plots import contact_sheet
from workbench.random import noise_source
from workbench.recipe import Recipe, fit_prior, load_method_prior, measure, result_size, run_method
from workbench.records import RECORDS, Record, Records, save_picture, solver_settings, with_samples, write_table
from workbench.restore import Result, solver_of
from workbench.solvers.base import Solver
from workbench.text import printable

TOGETHER, PIXELS_TOGETHER = 16, 512 * 512  # neighbours of one size are restored at once: so many, of so many pixels
NAMED, ON_A_SHEET = 10, 40
COLUMNS = (
    *("file", "state", "reason", "size", "psnr", "ssim", "lpips", "effnet", "consistency"),
    *("evaluations", "seconds", "message", "remark"),
)
Batch = list[tuple[Source, Photo]]


def restore_photos(
    photos: Sequence[Source],
    recipe: Recipe,
    out: Path,
    devices: Sequence[torch.device],
    size: int | None = None,
    bits: int = 8,
) -> tuple[str, bool]:
    """Restore ``photos`` by the one method of ``recipe`` into ``out``; with ``summary.csv`` and sheets of thumbnails.

    Args:
        devices: see :func:`workbench.recipe.load_method_prior`.
        size, bits: see ``read_photo`` and ``save_picture``.

    Returns:
        A line on what became of them, and whether all are restored.

    Raises:
        ValueError: before the first photo: options that are wrong for every photo, or ``out`` holds results of others.
    """
    (method,) = recipe.methods
    solver, prior = solver_of(method.solver, method.settings), load_method_prior(method, devices)
    _check(recipe, solver, prior)
    options = recipe.model_dump(include={"degrade", "operator", "noise", "seed", "samples"})
    options |= method.model_dump(include={"solver", "prior", "prior_settings", "tile"}) | {"size": size, "bits": bits}
    options |= {f"{method.solver} {name}": value for name, value in solver_settings(solver).items()}
    spec = recipe.operator or recipe.degrade
    file = file_in(spec) or ""
    array = None if Path(file).expanduser().is_file() else KERNEL_FILE.match(file)  # kernels.npz:NAME
    mask = Path(array["path"] if array else file).expanduser()
    own = [spec] * is_own(spec) + [str(recipe.noise)] * named(str(recipe.noise))
    code = [source for source in (source_of(solver), *(imported(text)[1] for text in own)) if source]
    options |= {"code": code} if code else {}
    ours = (*(name for photo in photos for name in photo.written), "summary.csv", "contact.png")
    taken = [out / name for name in ours if (out / name).exists()]
    if taken and not (out / RECORDS).exists():
        raise ValueError(f"{taken[0]} is there, and none of these results: choose another --out")
    records = Records(out, options | {"weights": prior.source, "mask or kernel": stamp_of(mask)})
    missing = [photo for photo in photos if not records.hold(photo.name, photo.stamp, photo.written)]

    def restored(files: Sequence[Photo]) -> Result:
        images = torch.cat([file.image for file in files]).to(devices[0])
        fitted = fit_prior(prior, method.tile, *result_size(recipe, *images.shape[-2:]))
        return run_method(measure(recipe, images, fitted), method, fitted)

    with tqdm(total=len(photos), initial=len(photos) - len(missing), unit="photo") as bar:

        def keep(record: Record) -> None:
            records.add(record)
            bar.update()
            if record["state"] != "done":
                tqdm.write(f"{record['state']}: {record['file']}: {record['reason']}", file=sys.stderr)

        for batch in _batches(missing, size, recipe, keep):
            for record in _finish(batch, restored, out, bits):
                keep(record)
    rows = [records.of[photo.name] | {"file": printable(photo.name)} for photo in photos]
    write_table(rows, COLUMNS, out / "summary.csv")
    done = [photo for photo, row in zip(photos, rows, strict=True) if row["state"] == "done"]
    _write_sheets(done, out, size)
    return _line(rows, len(photos) - len(missing), out), len(done) == len(photos)


def _batches(
    photos: Sequence[Source], size: int | None, recipe: Recipe, skip: Callable[[Record], None]
) -> Iterator[Batch]:
    """``photos`` with what their files hold, neighbours of one size together; what cannot be read is skipped."""

    def readable() -> Iterator[tuple[Source, Photo]]:
        for photo in photos:
            try:
                yield photo, read_photo(photo.path, size, name=photo.name)
            except ValueError as error:
                reason = str(error).removeprefix(f"{photo.name}: ")
                skip({"file": photo.name, "state": "skipped", "reason": reason})

    alike = recipe.samples == 1 and recipe.noise != "auto"
    for sides, group in groupby(readable(), lambda each: each[1].levels.shape[:2]):
        most = min(TOGETHER, PIXELS_TOGETHER // math.prod(result_size(recipe, *sides))) if alike else 1
        while batch := list(islice(group, max(1, most))):
            yield batch


def _finish(batch: Batch, restored: Callable[[Sequence[Photo]], Result], out: Path, bits: int) -> list[Record]:
    """Restore a batch and write the pictures: the records. What fails as a whole is tried photo by photo."""
    try:
        return _write(batch, restored([file for _, file in batch]), out, bits)
    except Exception as error:
        # torch says RuntimeError when memory is short.
        reason = told(error, ValueError, RuntimeError, MemoryError, OSError) or "out of memory"
    if len(batch) == 1:
        return [{"file": batch[0][0].name, "state": "failed", "reason": reason}]
    return [record for each in batch for record in _finish([each], restored, out, bits)]


def _write(batch: Batch, result: Result, out: Path, bits: int) -> list[Record]:
    """Write the images of ``result``, one of each photo or several of the only one: the records."""
    images, records, written = iter(result.image.split(1)), iter(result.records), []
    for photo, file in batch:
        for name in photo.written:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            save_picture(next(images), out / name, file.alpha, bits, file.exif)
        record = with_samples(list(islice(records, len(photo.written))))
        if len(batch) > 1 and record["message"]:
            record["message"] = f"{len(batch)} photos together: {record['message']}"
        facts = {"file": photo.name, "state": "done", "stamp": photo.stamp, "written": photo.written}
        written.append(facts | record | {"remark": file.remark})
    return written


def _check(recipe: Recipe, solver: Solver, prior: Prior) -> None:
    """Raise ValueError for options that are wrong whatever the photo: two sizes are refused in the same words."""
    said = set()
    for side in (64, 128):
        try:
            measured = measure(recipe, torch.zeros(1, 3, side, side))
            fitted = fit_prior(prior, recipe.methods[0].tile, side, side)
            solver.problem(measured.y, measured.op, fitted, 0.0, noise_source(None))
        except ValueError as error:
            said.add(str(error))
    if len(said) == 1:
        raise ValueError(said.pop())


def _write_sheets(photos: Sequence[Source], out: Path, size: int | None) -> None:
    """Write contact.png, contact-2.png, ...: ``photos`` beside their restorations."""
    for number, first in enumerate(range(0, len(photos), ON_A_SHEET), start=1):
        some = photos[first : first + ON_A_SHEET]
        files = (((each.path, size), (out / each.written[0], None)) for each in some)
        pairs = ([Image.fromarray(read_photo(*file, flat=True).levels) for file in both] for both in files)
        sheet = contact_sheet([printable(each.name) for each in some], pairs)
        sheet.save(out / ("contact.png" if number == 1 else f"contact-{number}.png"))


def _line(rows: Sequence[Record], before: int, out: Path) -> str:
    """How many photos were restored, and what became of the others."""
    states = Counter(row["state"] for row in rows)
    said = [f"{states['done']} restored" + (f" ({before} of them before)" if before else "")]
    said += [f"{states[state]} {state}" for state in ("skipped", "failed") if states[state]]
    others = [f"{row['file']} ({row['reason']})" for row in rows if row["state"] != "done"]
    others[NAMED:] = [f"and {len(others) - NAMED} more"] if len(others) > NAMED else []
    return f"{', '.join(said)}{': ' if others else ''}{', '.join(others)}; written to {out}"
