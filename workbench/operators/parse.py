"""Operators from short texts such as ``sr:4`` or ``blur:20,1``, for the command line, pipelines and the demo."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.operators.base import Operator
from workbench.operators.blur import Blur
from workbench.operators.color import Grayscale
from workbench.operators.compose import Compose
from workbench.operators.hadamard import WalshHadamard
from workbench.operators.inpainting import Identity, Inpainting
from workbench.operators.jpeg import JPEG
from workbench.operators.kernels import FILE, file_coils, file_kernel, gaussian_kernel, motion_kernel
from workbench.operators.masks import block_mask, file_mask, random_mask, scratches_mask, stripes_mask, text_mask
from workbench.operators.mri import MaskedFourier, MultiCoil, cartesian_mask
from workbench.operators.own import operator_from
from workbench.operators.separable import Separable, decimation
from workbench.operators.super_resolution import KERNELS, SuperResolution, named_kernel
from workbench.own import imported, install, named
from workbench.text import require, unknown

# Larger than any photo here; keeps a slip such as blur:1e9 from filling the memory.
LARGEST = 1000


@dataclass(frozen=True)
class _Problem:
    """What a builder gets: the arguments after the name, the image's (C, H, W), the source of random choices."""

    arguments: list[str]
    shape: tuple[int, ...]
    generator: torch.Generator | None

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[1], self.shape[2]

    def number(self, index: int, low: float, high: float, default: float | None = None) -> float:
        """Argument ``index`` as a number in [low, high]."""
        if index >= len(self.arguments) and default is not None:
            return default
        text = self.arguments[index] if index < len(self.arguments) else ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            where = " at this size" if high == min(self.size) else ""
            raise ValueError(f"needs a number from {low:g} to {high:g}{where}, got {text!r}")
        return value

    def whole(self, index: int, low: int, high: int) -> int:
        """Argument ``index`` as a whole number in [low, high]."""
        if (value := self.number(index, low, high)) != int(value):
            raise ValueError(f"needs a whole number, got {self.arguments[index]!r}")
        return int(value)


def _super_resolution(problem: _Problem) -> Operator:
    factor = problem.whole(0, 1, min(problem.size))
    kernel = problem.arguments[1] if len(problem.arguments) > 1 else "bicubic"
    if FILE.match(kernel):
        blurred, remark = _kernel(problem, kernel)
        if any(side % factor for side in problem.size):
            raise ValueError(f"with a kernel file it needs sides that are multiples of {factor}")
        return _remarked(SuperResolution(factor, blurred), remark)
    if kernel not in KERNELS:
        raise ValueError(unknown("kernel", kernel, KERNELS))
    sigma = problem.number(2, 0.01, LARGEST) if len(problem.arguments) > 2 else None
    if sigma is not None and kernel != "gaussian":
        raise ValueError(f"only a gaussian kernel takes a standard deviation, got {kernel}")
    if any(side % factor for side in problem.size):
        return Separable(*(decimation(side, factor, kernel, sigma) for side in problem.size))
    return SuperResolution(factor, kernel if sigma is None else named_kernel(kernel, factor, sigma))


def _blur(problem: _Problem) -> Operator:
    if problem.arguments and FILE.match(problem.arguments[0]):
        kernel, remark = _kernel(problem, problem.arguments[0])
        return _remarked(Blur(kernel), remark)
    along = problem.number(0, 0.01, LARGEST)
    across = problem.number(1, 0.01, LARGEST, default=along)
    taps = problem.whole(2, 1, LARGEST) if len(problem.arguments) > 2 else None
    return Blur(gaussian_kernel((along, across), size=taps))


def _kernel(problem: _Problem, name: str) -> tuple[torch.Tensor, str]:
    kernel, remark = file_kernel(name)
    if any(taps > side for taps, side in zip(kernel.shape, problem.size, strict=True)):
        sides = ["x".join(map(str, size)) for size in (kernel.shape, problem.size)]
        raise ValueError(f"the kernel has {sides[0]} pixels, the image {sides[1]}: is it a kernel?")
    return kernel, remark


def _remarked(op: Operator, remark: str) -> Operator:
    op.remark = remark
    return op


def _motion(problem: _Problem) -> Operator:
    return Blur(motion_kernel(problem.whole(0, 1, LARGEST), problem.number(1, -360, 360, default=45)))


def _inpaint(problem: _Problem) -> Operator:
    return Inpainting(random_mask(problem.size, problem.number(0, 0, 1), problem.generator))


def _block(problem: _Problem) -> Operator:
    return Inpainting(block_mask(problem.size, problem.whole(0, 1, min(problem.size))))


def _mask(problem: _Problem) -> Operator:
    name = "".join(problem.arguments)
    if not name:
        raise ValueError("needs the file of a mask: white is filled, black is kept")
    return Inpainting(file_mask(os.path.expanduser(name), problem.size))


def _gray(problem: _Problem) -> Operator:
    return Grayscale([1 / problem.shape[0]] * problem.shape[0])


def _old_photo(problem: _Problem) -> Operator:
    scratched = None if problem.arguments else scratches_mask(problem.size, generator=problem.generator)
    return Compose(_mask(problem) if scratched is None else Inpainting(scratched), _gray(problem))


def _hadamard(problem: _Problem) -> Operator:
    return WalshHadamard(problem.size, problem.number(0, 1e-6, 1), problem.generator)


def _mri(problem: _Problem) -> Operator:
    acceleration, further = problem.number(0, 1, problem.size[1]), problem.arguments[1:]
    named = bool(further) and FILE.match(further[0]) is not None
    centre = problem.number(1, 0, 1 / acceleration) if further and not named else None
    mask = cartesian_mask(problem.size, acceleration, centre, problem.generator)
    return MultiCoil(mask, file_coils(further[0])) if named else MaskedFourier(mask)


def _jpeg(problem: _Problem) -> Operator:
    if problem.shape[0] != 3:
        raise ValueError(f"needs an RGB image, got {problem.shape[0]} channels")
    return JPEG(problem.whole(0, 1, 100))


@dataclass(frozen=True)
class Entry:
    """An operator: how it is written, what it does, and how it is built.

    Attributes:
        syntax: NAME[:ARGUMENT[:ARGUMENT]]; a lone argument FILE is a file name, which may hold any character.
        kernel: the number of the argument in whose place a file of a kernel or of coils may stand; None: none.
    """

    syntax: str
    description: str
    build: Callable[[_Problem], Operator]
    kernel: int | None = None

    @property
    def file(self) -> bool:
        """Whether its argument is the file of a mask."""
        return "FILE" in self.syntax

    def arguments(self, spec: str) -> list[str]:
        """The arguments in ``spec``; commas and colons of a file name, always the last one, do not split it."""
        words = re.split("[:,]", spec.strip())[1:]
        # What would be a file name, from its place on, as it is written.
        place = self.kernel or 0
        last = re.split("[:,]", spec.strip(), maxsplit=place + 1)[place + 1 :]
        named = self.file or (self.kernel is not None and bool(last) and FILE.match(last[0]) is not None)
        return [*words[:place], *last] if named else words


_ENTRIES = (
    Entry(
        "sr:FACTOR[:KERNEL[,SIGMA]]",
        "super-resolution, any size; KERNEL bicubic, average, gaussian (SIGMA in pixels, or FACTOR/2) or a file",
        _super_resolution,
        kernel=1,
    ),
    Entry(
        "blur:SIGMA[,SIGMA2[,TAPS]]",
        "Gaussian blur, in pixels; two: along rows, along columns; TAPS: side of the kernel; or in place of these a "
        "kernel from a file: .png, .npy, .npz:NAME, .mat:NAME",
        _blur,
        kernel=0,
    ),
    Entry("motion:LENGTH[,ANGLE]", "straight motion blur, in pixels; ANGLE in degrees, 45 if not given", _motion),
    Entry("inpaint:SHARE", "random pixels missing; SHARE from 0 to 1", _inpaint),
    Entry("block:SIDE", "a square of SIDE pixels missing in the middle", _block),
    Entry("text", "pixels missing under written text", lambda p: Inpainting(text_mask(p.size))),
    Entry("stripes", "diagonal stripes missing", lambda p: Inpainting(stripes_mask(p.size))),
    Entry("mask:FILE", "pixels missing where the picture FILE is white", _mask),
    Entry("gray", "colours missing (mean of the channels)", _gray),
    Entry(
        "oldphoto[:FILE]",
        "colours missing, and pixels under random scratches, or where the picture FILE is white",
        _old_photo,
    ),
    Entry("hadamard:SHARE", "compressed sensing: SHARE of the Walsh-Hadamard coefficients", _hadamard),
    Entry(
        "mri:ACCELERATION[,CENTRE]",
        "magnetic resonance: one of ACCELERATION columns of the Fourier transform, at random but for the share CENTRE; "
        "or in place of that complex maps (J, H, W) of several coils from a file: .npy, .npz:NAME, .mat:NAME",
        _mri,
        kernel=1,
    ),
    Entry("jpeg:QUALITY", "JPEG compression; QUALITY from 1 to 100 (not linear)", _jpeg),
    Entry("denoise", "nothing but the noise", lambda p: Identity()),
    Entry("none", "nothing: the photo is taken as it is", lambda p: Identity()),
)
OPERATORS = {re.split(r"[:\[]", entry.syntax)[0]: entry for entry in _ENTRIES}


def _registered(name: str, text: str) -> Entry:
    about = (imported(text)[0].__doc__ or f"registered as {text}").strip().splitlines()[0]
    return Entry(name, about, lambda problem: operator_from(text, problem.shape))


def known_operators() -> dict[str, Entry]:
    """``OPERATORS``, with those that installed packages register."""
    return install("operators", OPERATORS, _registered)


def is_own(spec: object) -> bool:
    """Whether ``spec`` is an object, FILE.py:NAME or package.module:NAME, and none of ``OPERATORS``."""
    return not isinstance(spec, str) or (operator_name(spec) not in known_operators() and named(spec))


def parse_operator(spec: Any, image_shape: Sequence[int], generator: torch.Generator | None = None) -> Operator:
    """The operator written ``spec`` for images of ``image_shape`` (C, H, W), or one's own, see :func:`operator_from`.

    ``generator`` draws lost pixels, scratches and transforms' patterns. Masks in files are white where pixels are lost.

    The tasks of DeqIR, DDNM and DDRM: ``sr:2``, ``sr:4``, ``sr:32``, ``blur:10,10,5`` (Gaussian, 10 pixels cut to 5
    taps, so nearly a box), ``blur:20,1,9`` (anisotropic), ``text``, ``stripes``, ``gray``, ``oldphoto``. Blur is
    circular here; theirs sees zeros beyond the border, and their code loses the last tap of an odd kernel.

    Raises:
        ValueError: one line that names the valid names, or what the arguments should be, or why the size does not fit.
    """
    shape = tuple(image_shape)
    require(len(shape) == 3 and min(shape) >= 1, "image_shape", "(C, H, W)", shape)
    if is_own(spec):
        return operator_from(spec, shape)
    name = operator_name(spec)
    if name not in OPERATORS:
        raise ValueError(f"{unknown('operator', name, OPERATORS)}; or give FILE.py:NAME")
    entry, arguments = OPERATORS[name], OPERATORS[name].arguments(spec)
    try:
        most = len(re.findall("[:,]", entry.syntax))
        if not entry.file and len(arguments) > most:
            raise ValueError(f"takes at most {most} arguments, got {len(arguments)}")
        if entry.kernel is not None and any(map(FILE.match, arguments[entry.kernel : -1])):
            raise ValueError(f"nothing may follow the name of a file, got {arguments[-1]!r}")
        op = entry.build(_Problem(arguments, shape, generator))
        mask = op.outer if isinstance(op, Compose) else op
        if isinstance(mask, Inpainting) and not bool(mask.mask.any()):
            raise ValueError("all pixels are lost: nothing is left to restore from")
        return op
    except ValueError as error:
        other = entry.kernel is not None and re.search(r"(?i)\.(?!(png|npy|npz|mat)$)[a-z]+$", spec.strip())
        hint = "; a file there ends with .png, .npy, .npz or .mat" if other else ""
        raise ValueError(f"{spec.strip()!r} ({entry.syntax}): {error}{hint}") from None


def operator_name(spec: str) -> str:
    """The name in front of the arguments."""
    return re.split("[:,]", spec.strip(), maxsplit=1)[0]


def file_in(spec: str) -> str | None:
    """The file that ``spec`` names, the end of it, or None."""
    entry = OPERATORS.get(operator_name(spec))
    last = (entry.arguments(spec) if entry else [])[-1:]
    return last[0] if entry and last and (entry.file or (entry.kernel is not None and FILE.match(last[0]))) else None


def shrink_factor(spec: str) -> int:
    """How many times smaller the operator written ``spec`` makes pictures: the factor of ``sr``; 1 for all others, and
    where there is no valid factor, of which :func:`parse_operator` says what is wrong."""
    name, *arguments = spec.strip().replace(",", ":").split(":")
    try:
        factor = float(arguments[0]) if name == "sr" and arguments else 1.0
    except ValueError:
        return 1
    return int(factor) if factor >= 1 and factor.is_integer() else 1


def describe_operators() -> list[tuple[str, str]]:
    """(how it is written, one line that says what it does) for every operator that :func:`parse_operator` knows."""
    return [(entry.syntax, entry.description) for entry in known_operators().values()]
