"""A visitor's blur kernel: uploaded, and read within limits."""

import math
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from workbench import photo_file
from workbench.demo.photo import FORMATS, NoAddresses
from workbench.operators.kernels import file_kernel

SUFFIXES = (".png", ".npy", ".npz", ".mat")
LARGEST = 1_000_000  # bytes of a file, and of the arrays that it packs


class KernelFile(NoAddresses, gr.File):
    """A file as it came: Gradio's own reading would leave an empty one behind each time."""

    def preprocess(self, payload: ListFiles | FileData | None) -> str | None:
        """The file's path."""
        return payload.path if isinstance(payload, FileData) else None


def take_kernel(file: str | Path, folder: Path, max_pixels: int) -> Path:
    """A copy of the kernel in ``file``, in ``folder``: kernel.png, kernel.npy, ...

    Raises:
        ValueError: another kind of file, one that is too large, or not one kernel in it; in a line that names it.
    """
    file = Path(file)
    kind, size = file.suffix.lower(), file.stat().st_size
    if kind not in SUFFIXES:
        raise ValueError(f"{file.name}: expected a kernel as {', '.join(SUFFIXES)}")
    with suppress(Exception):  # whatever parsing hits: the reader says it below
        size = max(size, _unpacked(file))
    if size > LARGEST:
        raise ValueError(f"{file.name}: {size / 1e6:.1f} MB, a kernel has at most {LARGEST / 1e6:g} MB")
    if kind == ".png":  # so that the next reader finds nothing for which Pillow starts a program
        photo_file.read_photo(file, max_pixels=max_pixels, formats=FORMATS, name=file.name)
    try:
        file_kernel(str(file))
    except ValueError as error:
        raise ValueError(f"upload a file that holds one kernel: {str(error).replace(f'{file.parent}/', '')}") from None
    return Path(shutil.copyfile(file, folder / f"kernel{kind}"))


def _unpacked(file: Path) -> int:
    """Bytes of the arrays in ``file`` where it packs them: a small file may say that a large area is black."""
    if file.suffix.lower() == ".npz":
        with zipfile.ZipFile(file) as package:
            return sum(part.file_size for part in package.infolist())
    if file.suffix.lower() == ".mat":
        from scipy.io import whosmat

        return sum(8 * math.prod(shape) for _, shape, _ in whosmat(file))
    return 0
