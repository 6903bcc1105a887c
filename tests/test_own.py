"""Solvers, operators and priors from outside the package: by the name of their code, registered, or as objects."""

import json
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import Tensor

from tests.own_code import DAPS, OTHERS, hash_of
from tests.own_code import mine as mine
from workbench import own, solvers
from workbench.demo.controls import CONTROLS
from workbench.demo.page import fitting
from workbench.demo.problem import Limits, Problem, Row, methods_of
from workbench.demo.session import Sessions
from workbench.images import sample_photo
from workbench.models import available_priors, load, load_prior
from workbench.models.load import describe_priors
from workbench.operators import FunctionOperator, Operator
from workbench.operators.parse import OPERATORS, describe_operators, known_operators, parse_operator
from workbench.restore import degrade, observe, restore
from workbench.solvers import (
    SOLVERS,
    DiffPIR,
    Sampler,
    Solver,
    base,
    known_solvers,
    make_solver,
)
from workbench.terminal import card_lines


def test_the_command_line_runs_all_three_by_name_and_records_their_code(mine, run):
    options = ["--solver", "my.py:Mine", "--set", "steps=3", "--prior", "others.py:grey", "--prior-set", "sigma_max=60"]
    options += ["--degrade", "others.py:every_second", "--noise", "0.01"]
    code, _, errors = run("restore", "cat.png", *options)
    assert code == 0, errors
    record = json.loads((mine / "restored" / "metrics.json").read_text())
    assert (record["solver"], record["operator"]) == ("my.py:Mine", "others.py:every_second")
    assert record["solver_settings"] == {"steps": 3, "trust": 0.5, "kind": "torch.float32"}
    assert record["solver_source"] == {"file": "my.py", "sha256": hash_of(mine / "my.py")}
    assert record["operator_source"] == {"file": "others.py", "sha256": hash_of(mine / "others.py")}
    assert record["prior"] == "grey"
    assert record["prior_source"] == {
        "code": "others.py:grey",
        "code_sha256": hash_of(mine / "others.py"),
        "code_settings": '{"sigma_max": 60}',
    }
    assert record["evaluations"] == 3
    assert run("restore", "cat.png", "--solver", "pinv")[0] == 0
    record = json.loads((mine / "restored" / "metrics.json").read_text())
    assert record["solver_source"] == record["operator_source"] == {}


WRONG = {
    "none.py:Mine": "none.py:Mine: none.py: no such file or directory",
    "my.py:Mine2": "my.py:Mine2: unknown name 'Mine2', did you mean 'Mine'\\? There are: Mine",
    "others.py:hlf": "unknown name 'hlf', did you mean 'half'",  # an object of a class of this package
    "broken.py:Mine": r"broken.py:Mine: ZeroDivisionError: division by zero \(broken.py, line 3\)",
    "syntax.py:Mine": r"syntax.py:Mine: SyntaxError: .*\(syntax.py, line 2\)",
    "nopackage:Mine": "unknown solver 'nopackage:Mine'",
}


def test_code_that_cannot_be_used_is_refused_in_a_line(mine):
    (mine / "broken.py").write_text("a = 0\n\nb = 1 / a\n")
    (mine / "syntax.py").write_text("a = 0\nb = = 1\n")
    for name, message in WRONG.items():
        with pytest.raises(ValueError, match=message) as error:
            make_solver(name)
        assert "\n" not in str(error.value)


BAD = """
from workbench.models.prior import Prior

class Bad(Prior):
    def denoise(self, x, sigma):
        return x + {}["a"]

bad = Bad()
bad.checked = True
"""


@pytest.mark.parametrize("names", [("bad.py:Mine", "others.py:grey"), ("my.py:Mine", "bad.py:bad")])
def test_what_code_of_ones_own_raises_is_one_line_and_fails_photos_one_by_one(run, mine, names):
    (mine / "bad.py").write_text(DAPS.replace("    x = p.grey", "    x = {}['a'] + p.grey") + BAD)
    arguments = ("--solver", names[0], "--prior", names[1], "--degrade", "others.py:half")
    code, _, said = run("restore", "cat.png", *arguments)
    assert (code, "workbench: KeyError: 'a' (bad.py, line " in said) == (2, True)
    code, said, _ = run("restore", "cat.png", "cat.png", *arguments, "--out", "many")
    assert (code, "KeyError: 'a' (bad.py, line " in said) == (1, True)


def test_a_module_is_as_good_as_a_file_which_is_run_again_once_it_changed(mine):
    assert make_solver("workbench.solvers.zero_shot.diffpir:DiffPIR", steps=3) == DiffPIR(steps=3)
    first = type(make_solver("my.py:Mine"))
    assert type(make_solver("my.py:Mine")) is first
    (mine / "my.py").write_text(DAPS.replace("steps: Count = 4", "steps: Count = 7"))
    assert make_solver("my.py:Mine").steps == 7
    assert own.source_of(first()) != own.source_of(make_solver("my.py:Mine"))


def test_operators_by_name_and_as_objects(mine):
    photo = sample_photo("cat", 32)
    assert degrade(photo, "others.py:every_second").y.shape == (1, 3, 32, 16)
    assert degrade(photo, "others.py:lines").op.linear
    half = parse_operator("others.py:half", (3, 32, 32))
    assert half.source["file"] == "others.py"
    by_name, by_object = degrade(photo, "others.py:half"), degrade(photo, half)
    torch.testing.assert_close(by_name.y, by_object.y)
    assert (by_name.spec, by_object.spec) == ("others.py:half", "Inpainting")
    seen = degrade(photo, lambda shape: lambda x: 2 * x)
    torch.testing.assert_close(seen.y, 2 * photo)
    assert seen.spec == "<lambda>"
    taken = observe(photo, FunctionOperator(lambda x: torch.nn.functional.avg_pool2d(x, 2), (3, 64, 64)), 0.01)
    assert taken.op.image_shape(taken.y.shape) == (1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"'others.py:every_second' does not turn pictures into pictures"):
        observe(photo, "others.py:every_second")
    assert degrade(photo, pytest.importorskip("deepinv").physics.Decolorize()).spec == "Decolorize"
    json.dumps(restore(by_object, DiffPIR(steps=2), load_prior("others.py:grey")).records)


BAD_OPERATORS = {
    "others.py:fails": r"others.py:fails\(\(3, 64, 64\)\): RuntimeError: no way \(others.py, line \d+\)",
    "others.py:number": "others.py:number: expected an operator, a deepinv physics, .* got int",
    "others.py:half": r"others.py:half on images \(1, 3, 64, 64\): ",
    "blurr:2": "unknown operator 'blurr', did you mean 'blur'",
}


def test_operators_that_cannot_be_used_are_refused_in_a_line(mine):
    for spec, message in BAD_OPERATORS.items():
        with pytest.raises(ValueError, match=message) as error:
            degrade(sample_photo("cat", 64), spec)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"FunctionOperator on images .*expected images \(B, 3, 16, 16\)"):
        degrade(sample_photo("cat", 32), FunctionOperator(lambda x: x, (3, 16, 16)))


@pytest.fixture
def registered(mine, monkeypatch):
    """An installed package, as far as the package sees one: a solver, an operator, a prior and a broken solver."""
    (mine / "plugin_of_mine.py").write_text(DAPS + OTHERS)
    monkeypatch.syspath_prepend(mine)
    entries = {
        "solvers": {"theirs": "Mine", "diffpir": "Mine", "lost": "Gone", "away": "nowhere.x:Mine"},
        "operators": {"columns": "every_second", "sr": "every_second"},
        "priors": {"flat": "grey"},
    }

    def found(group):
        kind = group.removeprefix("workbench.")
        places = {key: value if ":" in value else f"plugin_of_mine:{value}" for key, value in entries[kind].items()}
        return [EntryPoint(key, place, group) for key, place in places.items()]

    before = [(known, dict(known)) for known in (SOLVERS, OPERATORS, CONTROLS)]
    monkeypatch.setattr(own, "entry_points", found)
    monkeypatch.setattr(own, "_installed", set())
    monkeypatch.setattr(load, "_REGISTERED", {})
    yield
    for known, content in before:
        known.clear()
        known.update(content)


def test_installed_packages_register_what_they_have(registered):
    with pytest.warns(UserWarning, match="unknown name 'Gone'|name is taken|nowhere") as said:
        assert make_solver("theirs", steps=3).steps == 3
    assert [str(each.message).partition(",")[0] for each in said] == ["diffpir", "lost", "away"]
    assert "No module named 'nowhere'" in str(said[-1].message)
    assert make_solver("diffpir") == DiffPIR()
    with pytest.warns(UserWarning, match="sr, operators of plugin_of_mine:every_second, left out: the name is taken"):
        assert ("columns", "Every second column.") in describe_operators()
    degraded = degrade(sample_photo("cat", 32), "columns")
    assert degraded.y.shape[-1] == 16
    assert degraded.op.source["file"] == "plugin_of_mine.py"
    assert available_priors()[-1] == describe_priors()[-1]["name"] == "flat"
    assert card_lines(describe_priors()[-1]) == ["flat  registered as plugin_of_mine:grey"]
    assert load_prior("flat").source["code"] == "plugin_of_mine:grey"


def test_the_demo_lists_them_and_visitors_name_no_code(registered, tmp_path):
    with pytest.warns(UserWarning, match="left out"):
        assert "columns" in known_operators()
    with pytest.warns(UserWarning, match="left out"):
        assert "theirs" in known_solvers()
    sessions = Sessions(Limits(), {name: name for name in available_priors()}, None)
    assert fitting(sessions.usual_priors(), "diffpir", "flat") == "flat"
    assert methods_of([Row("theirs", "flat", "steps=2")], sessions.prior_titles(), Limits())[0].solver == "theirs"
    for text in ("plugin_of_mine:half", f"{tmp_path}/others.py:half"):
        with pytest.raises(ValueError, match="unknown operator"):
            Problem(photo="cat.png", degradation=text).spec(None)
    with pytest.raises(ValueError, match="unknown solver"):
        methods_of([Row("my.py:Mine", "flat")], sessions.prior_titles(), Limits())
    assert Problem(photo="cat.png", degradation="columns").spec(None) == "columns"


RECIPE = {
    "photo": "cat.png",
    "degrade": "others.py:half",
    "methods": [{"solver": "my.py:Mine", "prior": "others.py:grey", "settings": {"steps": 2}}],
}


def test_a_recipe_says_so_when_its_code_changed(mine, run):
    arguments = ("restore", "there/run.json")
    (mine / "there").mkdir()
    for name in ("my.py", "others.py", "cat.png", "helpers_of_mine.py"):
        (mine / name).rename(mine / "there" / name)
    (mine / "there" / "run.json").write_text(json.dumps(RECIPE))
    code, _, errors = run(*arguments)
    assert (code, "runs the code others.py:half, " in errors, "--trust-code" in errors) == (2, True, True)
    code, _, errors = run(*arguments, "--trust-code")
    assert code == 0, errors
    record = json.loads(next(mine.glob("restored/*/metrics.json")).read_text())
    (mine / "there" / "run.json").write_text(json.dumps(RECIPE | {"results": [record]}))
    assert "not what" not in run(*arguments, "--trust-code")[1]
    with (mine / "there" / "my.py").open("a") as file:
        file.write("# another word\n")
    assert "the code or weights of solver" in run(*arguments, "--trust-code")[1]


def test_solvers_that_are_none_get_a_sentence(monkeypatch, run):
    monkeypatch.setattr(base, "SOLVERS", dict(SOLVERS))
    monkeypatch.setattr(solvers, "SOLVERS", base.SOLVERS)

    class Loose(Solver, name="loose"):
        steps: int = 3

        def run(self, p, callback=None): ...

    code, _, errors = run("solvers")
    assert (code, errors.count("\n")) == (2, 1)
    assert "loose is no dataclass, so it has no settings: put @dataclass(frozen=True) above its class" in errors
    with pytest.raises(ValueError, match="class Mine: 'diffpir' is a solver of this package, choose another name"):
        type("Mine", (Sampler,), {}, name="diffpir")


class Careless(Operator):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(0.5)

    def adjoint(self, y: Tensor) -> Tensor:
        return 0.5 * y


def test_an_operator_that_writes_into_the_photos_is_refused_before_it_does() -> None:
    photos = torch.rand(1, 3, 16, 16)
    before = photos.clone()
    with pytest.raises(ValueError, match="writes into its input"):
        degrade(photos, Careless())
    assert torch.equal(photos, before)


def test_folders_notice_other_code(mine, run):
    (mine / "photos").mkdir()
    (mine / "cat.png").rename(mine / "photos" / "cat.png")
    names = ("--solver", "my.py:Mine", "--prior", "others.py:grey", "--degrade", "others.py:half")
    arguments = ("restore", "photos", "--out", "out", *names)
    assert [run(*arguments)[0], run(*arguments)[0]] == [0, 0]
    with (mine / "my.py").open("a") as file:
        file.write("# another word\n")
    code, _, errors = run(*arguments)
    assert (code, "holds results of other settings" in errors) == (2, True)


def test_modules_beside_a_file_are_imported_by_either_form(mine):
    (mine / "near").mkdir()
    (mine / "near" / "part.py").write_text("def half(shape):\n    return lambda x: x / 2\n")
    for line in (
        "from .part import half as named",
        "from . import part\nnamed = part.half",
        "from part import half as named",
    ):
        (mine / "near" / "op.py").write_text(line)
        assert degrade(sample_photo("cat", 8), "near/op.py:named").op.seen_size == (3, 8, 8)
