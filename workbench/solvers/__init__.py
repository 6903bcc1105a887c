"""Solvers: restore images from measurements. One registry serves the command line, pages, notebooks and pipelines."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

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
    "make_solver",
    "noise_gradient",
    "solve_fixed_point",
    "stationarity",
]


def make_solver(name: str, /, **settings: Any) -> Solver:
    """The solver ``name`` with ``settings``. Raises ValueError for an unknown name or setting, naming the nearest."""
    if name not in SOLVERS:
        raise ValueError(unknown("solver", name, SOLVERS))
    kind = SOLVERS[name]
    known = [field.name for field in fields(kind)]
    for setting in settings:
        if setting not in known:
            raise ValueError(unknown(f"setting of {name}", setting, known))
    return kind(**settings)


def describe_solvers() -> list[tuple[str, str, str]]:
    """(name, one line, paper) of every solver."""
    return [(name, kind.summary, kind.paper) for name, kind in SOLVERS.items()]
