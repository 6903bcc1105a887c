"""What a pipeline file may say, checked in full before anything runs.

    name: quick
    title: Real photos restored four ways
    published: [mupet-2]                        # tables of published.yaml for the report to show beside
    jobs:
      - notebook: restore                       # notebooks/jobs/restore.ipynb
        parameters: {size: 64, noise: 0.01}     # names and types of its `parameters` cell
        grid: {degradation: ["sr:4", "blur:2"]} # one job per combination
      - notebook: compare
        name: comparison
        needs: [other]                          # names of entries whose jobs must be done first
        cpus: 4                                 # and gpus, memory (GiB), timeout (seconds): of each job

papermill only warns of an unknown parameter and passes any type; here both are errors.
"""

import ast
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workbench.pipelines.identity import PACKAGE, Contents, code_of, code_version, hash_of, imported, value_of
from workbench.pipelines.published import NAME, Published, find_published, read_published
from workbench.pipelines.slips import written_twice, wrong
from workbench.text import unknown


class Entry(BaseModel):
    """One entry of ``jobs``: a notebook and the parameters of one job or, with ``grid``, of several."""

    model_config = ConfigDict(extra="forbid", strict=True)

    notebook: str
    name: str | None = None
    parameters: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    needs: list[str] = []
    timeout: float = Field(default=3600, gt=0, allow_inf_nan=False, description="seconds a job may take")
    cpus: int | None = Field(default=None, ge=1, description="also its threads")
    gpus: int | None = Field(default=None, ge=0)
    memory: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="GiB")


class PipelineFile(BaseModel):
    """A whole pipeline file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    description: str = ""
    note: str = Field(default="", description="what a reader of the report must bear in mind, such as its scale")
    published: list[str] = Field(default=[], description="ids of the papers' tables that the report shows beside")
    reference: str = Field(default="", description="the method that the report compares others with; the best if empty")
    jobs: list[Entry] = Field(min_length=1)


SHIPPED = PACKAGE.parent / "notebooks" / "jobs"  # where the package runs from its repository


@dataclass(frozen=True)
class Job:
    """A notebook and one set of parameters.

    Attributes:
        id: notebook name and a hash of what decides its result, see ``identity``, and the jobs it needs; its folder.
        label: what tells it from the other jobs, for people.
        needs: ids of the jobs that must be done first, by entry name.
        timeout: seconds.
        defaults: of the notebook's parameters.
        files: hashes of what the parameters name, and of the notebook's code.
        resources: what the entry says of cpus, gpus and memory (GiB).
    """

    id: str
    notebook: Path
    parameters: dict[str, Any]
    label: str
    needs: dict[str, list[str]]
    timeout: float
    defaults: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline; ``jobs`` are in an order in which every job follows those it needs."""

    name: str
    title: str
    description: str
    note: str
    jobs: list[Job]
    code: str
    published: list[Published] = field(default_factory=list)
    reference: str = ""


def load_pipeline(
    path: str | Path,
    notebooks: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    kept: Path | None = None,
    dry: bool = False,
) -> Pipeline:
    """Read and check a pipeline file.

    Args:
        notebooks: folder of the job notebooks; by default the nearest ``notebooks/jobs`` above ``path``, else ours.
        changes: parameters to set in every job whose notebook has them.
        kept: a file that keeps the hashes of the files that parameters name, see :class:`Contents`.
        dry: write nothing, not even ``kept``.

    Raises:
        ValueError: one line that says what is wrong and where, with the nearest name for an unknown one.
    """
    path = Path(path)
    file = _read(path)
    folder = Path(notebooks).resolve() if notebooks else _nearest_notebooks(path.resolve())
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of job notebooks")
    for name, value in (changes or {}).items():
        parameters = [_known_parameters(entry, folder) for entry in file.jobs]
        if not any(name in known for known in parameters):
            raise ValueError(f"{path}: {unknown('parameter', name, sorted(set().union(*parameters)))}")
        for entry, known in zip(file.jobs, parameters, strict=True):
            if name in known:
                entry.parameters = {**entry.parameters, name: value}
    code, contents = code_version(), Contents(Path.cwd(), kept)
    named: dict[str, list[str]] = {}
    jobs: list[Job] = []
    for index, entry in enumerate(file.jobs, start=1):
        where = f"{path}: job {index} ({entry.notebook})"
        new = _expand(entry, folder, named, contents, where)
        for job in new:
            if any(job.id == other.id for other in jobs):
                raise ValueError(f"{where}: the same notebook and parameters as an earlier job ({job.label})")
            jobs.append(job)
        if entry.name is not None:
            if entry.name in named:
                raise ValueError(f"{where}: the name {entry.name!r} is taken by an earlier job")
            named[entry.name] = [job.id for job in new]
    if not dry:
        contents.save()
    published = _published(file.published, path, folder)
    methods = sorted({name for job in jobs for name in job.parameters.get("methods", ())})
    if file.reference and not any(f"{file.reference}, ".startswith(f"{name}, ") for name in methods):
        raise ValueError(f"{path}: reference: {unknown('method', file.reference, methods)}")
    return Pipeline(file.name, file.title, file.description, file.note, jobs, code, published, file.reference)


def _known_parameters(entry: Entry, folder: Path) -> dict[str, Any]:
    """Of the notebook of an entry; none where there is no such notebook, which is said later."""
    notebook = folder / f"{entry.notebook}.ipynb"
    return notebook_parameters(notebook)[0] if notebook.is_file() else {}


def notebook_parameters(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """By name, types in the cell tagged ``parameters``, annotations or else of the defaults; and the defaults.

    ``papermill.inspect_notebook`` reads the same line by line and loses annotations such as ``int | None``.

    Raises:
        ValueError: not a notebook, or no such cell, or the cell is not Python.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        if len(sources) != 1:
            raise ValueError(f"expected one cell tagged 'parameters', found {len(sources)}")
        types: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        for node in ast.parse(sources[0]).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                types[node.target.id] = eval(ast.unparse(node.annotation), {"Any": Any, "Literal": Literal})
                defaults[node.target.id] = value_of(node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                defaults[node.targets[0].id] = default = ast.literal_eval(node.value)
                types[node.targets[0].id] = Any if default is None else type(default)
    except (KeyError, TypeError, ValueError, SyntaxError, NameError) as error:
        raise ValueError(f"{path}: not a job notebook ({error})") from None
    return types, defaults


def _read(path: Path) -> PipelineFile:
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if twice := written_twice(yaml.compose(text, yaml.SafeLoader)):
        raise ValueError(f"{path}: {twice}")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping with name, title and jobs, got {type(content).__name__}")
    try:
        return PipelineFile.model_validate(content)
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # misspelt, hence also missing
        if first["type"] == "extra_forbidden":
            model = Entry if first["loc"][0] == "jobs" else PipelineFile
            raise ValueError(f"{path}: {unknown('key', str(first['loc'][-1]), list(model.model_fields))}") from None
        raise ValueError(f"{path}: {wrong(first)}") from None


def _published(ids: list[str], path: Path, notebooks: Path) -> list[Published]:
    if not ids:
        return []
    file = find_published(path.resolve().parent, notebooks)
    if file is None:
        raise ValueError(f"{path}: published: there is no {NAME} beside or above the pipeline")
    tables = read_published(file)
    for name in ids:
        if name not in tables:
            raise ValueError(f"{path}: published: {unknown('table', name, list(tables))}")
    return [tables[name] for name in ids]


def _nearest_notebooks(path: Path) -> Path:
    folders = [parent / "notebooks" / "jobs" for parent in path.parents]
    return next((folder for folder in (*folders, SHIPPED) if folder.is_dir()), folders[0])


def _expand(entry: Entry, folder: Path, named: dict[str, list[str]], contents: Contents, where: str) -> list[Job]:
    notebook = folder / f"{entry.notebook}.ipynb"
    known = [file.stem for file in folder.glob("*.ipynb")]
    if entry.notebook not in known:  # a path would take the job's folder out of the results
        raise ValueError(f"{where}: {unknown('notebook', entry.notebook, known)}")
    types, defaults = notebook_parameters(notebook)
    for key in (*entry.parameters, *entry.grid):
        if key not in types:
            raise ValueError(f"{where}: {unknown('parameter', key, list(types))}")
    both = set(entry.parameters) & set(entry.grid)
    if both:
        raise ValueError(f"{where}: {', '.join(sorted(both))} stands in both parameters and grid")
    for need in entry.needs:
        if need not in named:
            raise ValueError(f"{where}: needs {unknown('earlier job', need, list(named))}")
    needs = {need: named[need] for need in entry.needs}
    read = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    cells = ["".join(cell["source"]) for cell in read if cell["cell_type"] == "code"]
    own = [contents.code(module) for text in cells for module in imported(text, folder)]
    code = [code_version(), [code for text in cells if (code := code_of(text)) != code_of("")], own]
    jobs = []
    for values in itertools.product(*entry.grid.values()):
        varied = dict(zip(entry.grid, values, strict=True))
        parameters = entry.parameters | varied
        for key, value in parameters.items():
            _check_type(key, value, types[key], where)
        short = (value if isinstance(value, str) else f"{key}={json.dumps(value)}" for key, value in varied.items())
        label = " ".join([entry.name or entry.notebook, *short])
        files = contents.named(defaults | parameters)
        name = f"{entry.notebook}-{hash_of([code, parameters, files, needs])[:12]}"
        files[notebook.name] = hash_of(code[1:])
        resources = entry.model_dump(include={"cpus", "gpus", "memory"}, exclude_none=True)
        jobs.append(Job(name, notebook, parameters, label, needs, entry.timeout, defaults, files, resources))
    if not jobs:
        raise ValueError(f"{where}: the grid has an empty list, so there is no job")
    return jobs


def _check_type(key: str, value: Any, expected: Any, where: str) -> None:
    try:
        TypeAdapter(expected).validate_python(value, strict=True)
        json.dumps(value, allow_nan=False)
    except (ValidationError, ValueError, TypeError):
        name = expected.__name__ if isinstance(expected, type) and not hasattr(expected, "__args__") else str(expected)
        # YAML 1.1 reads 1e-3 as text: say how to write it.
        number = isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", value, re.I)
        hint = " (YAML wants a dot in 1.0e-3)" if number else ""
        raise ValueError(f"{where}: parameter {key!r} must be {name}, got {value!r}{hint}") from None
