"""The repository around the package: environments in step, notebook pairs in sync, quick imports, files as promised."""

import ast
import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import program
from tests.operators.operator_cases import coil_maps
from tests.printed import Printed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_conda_users_get_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert sorted(re.split(r"[=<>]", entry)[0] for entry in plain) == ["pip", "python"]  # the rest: pyproject.toml
    version = next(entry.split("=")[-1] for entry in plain if entry.startswith("python"))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0")
    (line,) = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert re.fullmatch(r"-e \.\[(\w+)\]", line)[1] in PROJECT["optional-dependencies"]


def test_constraints_pin_every_direct_dependency_within_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    extras = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    wanted = [Requirement(text) for text in PROJECT["dependencies"] + extras]
    wanted = [requirement for requirement in wanted if requirement.name != PROJECT["name"]]
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(pins[name], prereleases=True), requirement


EXAMPLES = sorted(file for file in (ROOT / "workbench").rglob("*.py") if ">>> " in file.read_text("utf-8"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_in_docstrings(file: Path) -> None:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


def test_notebooks_and_their_text_twins_are_in_step():
    assert program("scripts", "check_notebooks").problems(ROOT / "notebooks") == []


def test_the_exercises_are_in_step_and_stop_where_the_student_begins():
    exercises = program("scripts", "exercises")
    assert exercises.problems() == []
    files = sorted((ROOT / "notebooks" / "exercises").glob("*.py"))
    assert len(files) == 4
    for file in files:
        names: dict = {}
        with pytest.raises(NotImplementedError, match="your turn"):
            exec(compile(file.read_text(encoding="utf-8"), file.name, "exec"), names)


def test_what_notebooks_link_to_is_there():
    for file in [*(ROOT / "notebooks").rglob("*.py"), ROOT / "notebooks" / "README.md"]:
        for target in re.findall(r"\]\(([\w./]+\.(?:ipynb|md))\)", file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


IMPORT = """
import sys, time, torch
begun = time.perf_counter()
import workbench, workbench.operators, workbench.solvers, workbench.models, workbench.restore, workbench.deepinv_bridge
print(time.perf_counter() - begun)
sys.exit(not {"diffusers", "huggingface_hub", "deepinv", "spandrel"}.isdisjoint(sys.modules))
"""


def test_imports_are_quick_and_bring_no_optional_library_and_the_command_line_no_torch():
    runs = [subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True) for _ in range(2)]
    assert all(run.returncode == 0 for run in runs)
    assert min(float(run.stdout) for run in runs) < 1.0
    code = "import sys, workbench.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_file_names_a_place_on_the_authors_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    texts = {".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".txt", ".cfg", ""}
    for name in tracked:
        path = ROOT / name
        if path.suffix in texts and path.is_file() and path != Path(__file__):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"/(home|Users|root)/\w", text), name


def test_the_readmes_examples_run(tmp_path, monkeypatch):
    from workbench.images import sample_photo, save_image
    from workbench.models import load_prior
    from workbench.operators import MultiCoil, cartesian_mask

    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md"))
    restoring, resonance, tuning, steering = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_photos").mkdir()
    for path in ("photo.jpg", "my_photos/one.png"):
        save_image(sample_photo("cat", 64), tmp_path / path)
    names: dict = {}
    # Shorter than in the README: what is tested are the names and the arguments.
    exec(restoring.replace("steps=20", "steps=4"), names)
    assert names["result"].image.shape == (1, 3, 128, 128)
    assert names["result"].records[0]["psnr"] > 5
    own: dict = {"mask": cartesian_mask((32, 32), 4), "maps": coil_maps(4, (32, 32)), "scale": 1.0}
    own["kspace"] = torch.view_as_complex(MultiCoil(own["mask"], own["maps"])(sample_photo("cat", 32)[:, :1]))
    exec(resonance.replace("steps=100", "steps=3"), own)
    assert own["result"].image.shape == (1, 3, 32, 32)
    exec(tuning.replace("steps=2000", "steps=2").replace("batch_size=16", "batch_size=2"), names)
    assert names["progress"].images == 4
    assert load_prior(tmp_path / "mine.safetensors")(sample_photo("cat", 32), 0.1).shape == (1, 3, 32, 32)
    exec(steering, names)
    losses = names["result"].residuals[0]
    assert losses.amin() < losses[0]


def test_every_erratum_cited_is_on_its_page():
    page = (ROOT / "docs" / "errata.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^(\d+)\. ", page, re.M))
    cited = set()
    for folder in ("workbench", "notebooks", "tests", "docs"):
        for file in (ROOT / folder).glob("**/*.*"):
            if file.suffix in (".py", ".md"):
                for group in re.findall(
                    r"errat(?:a|um) (\d+(?:(?:,| and| to) \d+)*)", file.read_text(encoding="utf-8")
                ):
                    cited |= set(re.findall(r"\d+", group))
    assert cited
    assert cited <= known


def test_the_readme_says_what_exists():
    """Links point to files that are there, and the commands it shows are commands there are."""
    from workbench.cli import app

    readme = ""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        readme += text
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    used = set(re.findall(r"\.venv/bin/workbench (\w+)", readme))
    assert used
    assert used <= known
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"make (\w+)", readme)) <= targets


def test_what_benchmarks_and_scripts_import_from_the_package_is_there():
    missing = []
    for file in [
        path for folder in ("benchmarks", "scripts", "pipelines/gpu") for path in (ROOT / folder).glob("*.py")
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workbench"):
                module = importlib.import_module(str(node.module))
                missing += [f"{file.name}: {node.module}.{a.name}" for a in node.names if not _has(module, a.name)]
    assert missing == []


def _has(module: ModuleType, name: str) -> bool:
    return hasattr(module, name) or importlib.util.find_spec(f"{module.__name__}.{name}") is not None


LESSONS = sorted((ROOT / "notebooks").rglob("*.py"))
NAMED = re.compile(r"`(workbench(?:\.\w+)+)(?::(\w+)((?:\.\w+)*))?`")


def test_the_functions_that_lessons_name_exist() -> None:
    named = {lesson: NAMED.findall(lesson.read_text(encoding="utf-8")) for lesson in LESSONS}
    assert all(found or lesson.parent.name != "papers" for lesson, found in named.items())
    for module, name, rest in {found for each in named.values() for found in each}:
        found = importlib.import_module(module)
        if not name:
            continue
        found = getattr(found, name)
        for attribute in rest.split(".")[1:]:
            found = getattr(found, attribute)
        source = getattr(found, "__module__", module)
        assert source == module, f"{name} is imported into {module}, its source is {source}"


def test_two_processors_may_print_figures_that_differ_in_the_last_place() -> None:
    for stored, printed, same in (
        ("gain +0.04 ± 0.18", "gain +0.05 ± 0.17", True),
        ("1000 evaluations", "1010 evaluations", True),
        ("1000 evaluations", "1030 evaluations", False),
        ("residual 2.0e-05", "residual 2.1e-05", False),
        ("blue 0.6", "blue 0.59", True),
        ("25.0 dB", "24.7 dB", False),
        ("gain +0.04", "gain -0.04", False),
        ("8 photos", "8 images", False),
    ):
        assert (Printed(stored) == Printed(printed)) is same
        assert (Printed(stored) != Printed(printed)) is not same


# What a module of the package imports when it is imported lies in its own layer or below it.

LAYERS = (  # from the bottom; the packages of one layer do not import one another
    {"text", "random", "photo_file", "noise_level", "machine"},
    {"images", "limits", "own"},
    {"operators"},
    {"models"},
    {"data", "evaluation", "deepinv_bridge"},
    {"solvers"},
    {"trainers", "fitting", "plots"},
    {"records", "exam", "noise"},
    {"measurement"},
    {"restore", "provenance"},
    {"recipe", "pipelines"},
    {"reports", "demo", "terminal", "folder", "widgets"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
PACKAGE = ROOT / "workbench"
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(file: Path) -> set[str]:
    """The parts of the package that ``file`` imports at its top level; imports inside functions and those for type
    checkers alone come later, when everything is there."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("workbench.")}


def test_nothing_imports_upwards():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for other in imports(file) if own != "__init__" else ():
            if other != own and LEVEL[other] >= LEVEL[own]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {other}")
    assert wrong == []


def test_every_part_has_a_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} == set(LEVEL)
