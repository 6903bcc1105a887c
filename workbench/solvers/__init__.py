"""Solvers: restore images from measurements. One registry serves the command line, pages, notebooks and pipelines."""

from dataclasses import fields
from typing import Any

from workbench.models.prior import KINDS
from workbench.own import imported, install, named
from workbench.solvers.base import SOLVERS, Callback, Iterate, Problem, Restoration, Sampler, Solver, Step
from workbench.solvers.deqir.noise import OptimiseNoise, noise_gradient
from workbench.solvers.deqir.solver import DeqIR
from workbench.solvers.feed_forward import FeedForward
from workbench.solvers.few_step.cm4ir import CM4IR
from workbench.solvers.few_step.consistency import ConsistencyEditing
from workbench.solvers.few_step.latino import LATINO
from workbench.solvers.few_step.ud2m import UD2M
from workbench.solvers.fixed_point.gradient import Exact, JacobianFree, Neumann, attach_gradient, implicit_fixed_point
from workbench.solvers.fixed_point.map import MapByAdam, MapByGradient, MapByProx, MapRule, stationarity
from workbench.solvers.fixed_point.rules import Adam, Anderson, Broyden, Picard
from workbench.solvers.fixed_point.solve import FixedPointResult, solve_fixed_point
from workbench.solvers.plug_and_play.admm import ADMM
from workbench.solvers.plug_and_play.forward_backward import ForwardBackward
from workbench.solvers.plug_and_play.hqs import HQS
from workbench.solvers.plug_and_play.red import RED
from workbench.solvers.plug_and_play.reg import PnPReG
from workbench.solvers.prior_samples import DDIM, EDM, Consistency, PredictorCorrector, Trajectory
from workbench.solvers.zero_shot.daps import DAPS
from workbench.solvers.zero_shot.ddnm import DDNM, DDNMPlus
from workbench.solvers.zero_shot.ddrm import DDRM
from workbench.solvers.zero_shot.diffpir import DiffPIR
from workbench.solvers.zero_shot.dps import DPS
from workbench.solvers.zero_shot.mmps import MMPS
from workbench.solvers.zero_shot.pigdm import PiGDM
from workbench.solvers.zero_shot.pinv import PseudoInverse
from workbench.solvers.zero_shot.repaint import ILVR, RePaint
from workbench.text import unknown

__all__ = [
    "ADMM",
    "CM4IR",
    "DAPS",
    "DDIM",
    "DDNM",
    "DDRM",
    "DPS",
    "EDM",
    "HQS",
    "ILVR",
    "LATINO",
    "MMPS",
    "RED",
    "SOLVERS",
    "UD2M",
    "Adam",
    "Anderson",
    "Broyden",
    "Callback",
    "Consistency",
    "ConsistencyEditing",
    "DDNMPlus",
    "DeqIR",
    "DiffPIR",
    "Exact",
    "FeedForward",
    "FixedPointResult",
    "ForwardBackward",
    "Iterate",
    "JacobianFree",
    "MapByAdam",
    "MapByGradient",
    "MapByProx",
    "MapRule",
    "Neumann",
    "OptimiseNoise",
    "PiGDM",
    "Picard",
    "PnPReG",
    "PredictorCorrector",
    "Problem",
    "PseudoInverse",
    "RePaint",
    "Restoration",
    "Sampler",
    "Solver",
    "Step",
    "Trajectory",
    "attach_gradient",
    "describe_solvers",
    "implicit_fixed_point",
    "known_solvers",
    "make_solver",
    "noise_gradient",
    "runs_with",
    "solve_fixed_point",
    "solver_class",
    "stationarity",
]


def known_solvers() -> dict[str, type[Solver]]:
    """``SOLVERS``, with those that installed packages register."""
    return install("solvers", SOLVERS, lambda name, text: solver_class(text))


def solver_class(name: str) -> type[Solver]:
    """The class of the solver ``name``, or that of one's own, ``FILE.py:NAME`` or ``package.module:NAME``.

    Raises:
        ValueError: an unknown name, with the nearest; code that fails; what is no solver whose settings are fields.
    """
    if name not in SOLVERS and not named(name) and name not in known_solvers():
        raise ValueError(f"{unknown('solver', name, SOLVERS)}; or give FILE.py:NAME")
    kind = SOLVERS[name] if name in SOLVERS else imported(name)[0]
    if not (isinstance(kind, type) and issubclass(kind, Solver)):
        got = getattr(kind, "__name__", type(kind).__name__)
        raise ValueError(f"{name}: expected a class derived from Solver or Sampler, got {got}")
    own, notes = vars(kind), vars(kind).get("__annotations__", {}).values()
    if "__dataclass_fields__" not in own and ("__init__" in own or any("ClassVar" not in str(note) for note in notes)):
        raise ValueError(f"{name} is no dataclass, so it has no settings: put @dataclass(frozen=True) above its class")
    return kind


def make_solver(name: str, /, **settings: Any) -> Solver:
    """The solver ``name`` with ``settings``. Raises ValueError for an unknown name or setting, naming the nearest."""
    kind = solver_class(name)
    known = [field.name for field in fields(kind)]
    for setting in settings:
        if setting not in known:
            raise ValueError(unknown(f"setting of {name}", setting, known))
    try:
        return kind(**settings)
    except TypeError as error:  # a setting without default, a method that is missing
        raise ValueError(f"{name}: {error}") from error


def describe_solvers() -> list[tuple[str, str, str]]:
    """(name, one line, paper) of every solver."""
    kinds = {name: solver_class(name) for name in known_solvers()}
    return [(name, kind.summary or "no summary", kind.paper) for name, kind in kinds.items()]


def runs_with(name: str) -> str:
    """What the solver ``name`` runs with, a few words: which operators, which prior, and whether it takes a start."""
    kind = solver_class(name)
    prior = KINDS[kind.prior_kind][1].partition(",")[0] if kind.needs_prior else "no prior"
    operators = "linear operators" if kind.linear else "all operators, JPEG too"
    return f"{operators}, {prior}{', --initial' if kind.takes_initial else ''}"
