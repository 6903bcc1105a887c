"""What the parameters of the shipped notebooks name, looked up before the first job starts.

A misspelt method of the last job would be found after hours. Left to the job: what only one's own code, the file of a
network or a photo can tell.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from workbench.data import Photos
from workbench.data.sources import open_source
from workbench.exam import make_candidate, make_task
from workbench.images import SAMPLES
from workbench.measurement import degrade
from workbench.models import LoRA, Prior, Unfolding, load_prior
from workbench.operators import Operator
from workbench.operators.parse import is_own
from workbench.own import named
from workbench.pipelines.schema import SHIPPED, Job
from workbench.restore import solver_of
from workbench.solvers import ForwardBackward
from workbench.solvers.base import Solver
from workbench.text import check_labels, require
from workbench.trainers import MTDEQ, UD2M, Consistency, ReG, TrainSettings
from workbench.trainers.mtdeq import SINGLE
from workbench.trainers.ud2m import FAMILIES

# What the notebooks that train make of their parameters by the same names.
TRAINING = {
    "train_ud2m": (Unfolding, UD2M),
    "train_mtdeq": (MTDEQ, ForwardBackward),
    "train_reg": (ReG,),
    "train_consistency": (Consistency,),
}


def check_values(job: Job) -> None:
    """Raise ValueError, with the job's label, for a name or number in its parameters that its notebook would refuse."""
    if job.notebook.parent != SHIPPED:
        return
    given = job.defaults | job.parameters
    try:
        priors = _priors(given)
        solvers = list(_solvers(given, priors))
        if "sampler" in given:
            _exam(given)
        if "learning_rate" in given:
            _training(job.notebook.stem, given)
        for size in _sizes(given):
            for op in _operators(given, size):
                for label, solver in solvers:
                    solver.check_suits(op, priors.get(label, priors.get("")))
    except ValueError as error:
        raise ValueError(f"{job.label}: {error}") from None


def _exam(given: Mapping[str, Any]) -> None:
    for name in given["tasks"]:
        make_task(name)
    require(given["repetitions"] >= 20, "repetitions", "at least 20", given["repetitions"])
    if not named(given["sampler"]):
        make_candidate(given["sampler"], given["learned"], **given["settings"])


def _training(notebook: str, given: Mapping[str, Any]) -> None:
    zero = {
        "per_image": given.get("per_image") or 1,
        "noise": tuple(given.get("noise", ())),
    }  # what 0 and lists stand for
    known = {**given, **{name: value for name, value in zero.items() if name in given}}
    for spec in given["data"]:
        _source("data", spec)
    stand_ins = [[spec] for spec in given["data"] or ["samples"]]
    numbers = {name: given[name] for name in ("size", "batch_size", "seed")}
    Photos(stand_ins, **numbers, weights=given["weights"] or None, scales=given.get("scales") or (0.5, 1.0))
    kinds = [TrainSettings, *TRAINING.get(notebook, ()), *([LoRA] if given.get("rank") else [])]
    for kind in kinds:
        kind(**{field.name: known[field.name] for field in fields(kind) if field.name in known})
    for name, labels in {"family": FAMILIES, "task": ["multi", *SINGLE]}.items():
        check_labels(name, [given[name]] if name in given else [], name, labels)


def _sizes(given: Mapping[str, Any]) -> set[int]:
    """Of the photos of an evaluation, which are there."""
    sizes = set()
    for entry in given.get("photos", []):
        name, _, size = (entry, "", given["size"]) if "size" in given else entry.rpartition(":")
        if not name or not str(size).isdigit():
            raise ValueError(f"photos: expected NAME:SIZE, such as cat:64, got {entry!r}")
        if "cut" in given:  # of an evaluation's sources samples are none
            _source("photos", name)
        elif name not in SAMPLES and not Path(name).exists():
            raise ValueError(f"photos: {name}: no such file")
        sizes.add(int(size))
    return sizes or ({given["size"]} if "size" in given else set())


def _source(parameter: str, spec: str) -> None:
    """A folder, an array, shards or a data set; nothing is fetched, nor what may be long to read."""
    if spec.startswith("hf:") or any(sign in spec for sign in "{*"):
        return
    if not Path(spec).exists():
        raise ValueError(f"{parameter}: {spec}: no such file")
    if Path(spec).suffix not in (".npz", ".tar"):
        open_source(spec)


def _operators(given: Mapping[str, Any], size: int) -> Iterator[Operator]:
    spec = given.get("degradation")
    if spec and not is_own(spec) and not named(str(given["noise"])):
        yield degrade(torch.full((1, 3, size, size), 0.5), spec, given["noise"], given["seed"]).op


def _priors(given: Mapping[str, Any]) -> dict[str, Prior | None]:
    """Those shipped, by label, or "" where there is but one; None for what only the job loads."""
    if "priors" not in given:
        return {"": _prior(given["prior"], given.get("prior_settings", {}))} if "prior" in given else {}
    check_labels("prior_settings", given["prior_settings"], "prior", given["priors"])
    return {label: _prior(name, given["prior_settings"].get(label, {})) for label, name in given["priors"].items()}


def _prior(source: str, settings: dict[str, Any]) -> Prior | None:
    if ":" in source or Path(source).expanduser().exists():
        return None
    return load_prior(source, **settings) if settings else _shipped(source)


_shipped = lru_cache(load_prior)


def _solvers(given: Mapping[str, Any], priors: Mapping[str, Any]) -> Iterator[tuple[str, Solver]]:
    """By the label of a method or a prior, or ""; with each value that the job tries."""
    labels = given.get("methods", priors if "priors" in given else [""])
    solvers, settings = given.get("solvers", {}), given.get("settings", {})
    settings = {"": settings} if labels == [""] else settings
    for label in labels:
        kind = solvers.get(label) or given.get("solver") or (label if "methods" in given else "")
        if kind and not named(kind):
            own = settings.get(label, {})
            yield label, solver_of(kind, own)
            for name, values in (given.get("values") or given.get("grid") or {}).items():
                for value in values:
                    yield label, solver_of(kind, own | {name: value})
    for what, names in {"solvers": solvers, "settings": settings}.items():
        check_labels(what, names, "method" if "methods" in given else "prior", labels)
