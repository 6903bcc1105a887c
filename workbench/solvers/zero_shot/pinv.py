"""The pseudo-inverse baseline."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from workbench.solvers.base import Iterate, Problem, Sampler


@dataclass(frozen=True)
class PseudoInverse(Sampler, name="pinv"):
    """``A^+ y``: what the data say and nothing else. Asks no prior, draws no noise, amplifies that of ``y``."""

    summary: ClassVar[str] = "baseline: pseudo-inverse, no prior"
    paper: ClassVar[str] = "Moore-Penrose"
    linear: ClassVar[bool] = False  # a non-linear operator has a stand-in
    needs_prior: ClassVar[bool] = False

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        image = p.op.pinv(p.y)
        yield Iterate(image, None, image, 1, evaluations=0)
