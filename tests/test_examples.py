"""The examples of docs/bring_your_own.md: the page shows the files, and each does what it says."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from tests.pipelines.small_project import NOTEBOOKS, run_to_report
from workbench.images import sample_photo
from workbench.models import Prior, check_prior, load_prior
from workbench.operators import check_operator
from workbench.pipelines.schema import load_pipeline
from workbench.restore import degrade, restore
from workbench.solvers import make_solver

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "bring_your_own.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def prior_of(name: str) -> Prior:
    return load_prior(name)


def test_the_page_shows_the_files() -> None:
    shown = sorted(re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.S))
    assert shown == sorted(file.read_text(encoding="utf-8") for file in EXAMPLES.iterdir() if file.is_file())
    assert all(text.count("\n") <= 40 for text in shown)


def test_the_page_names_what_exists() -> None:
    named = set(re.findall(r"examples/(\w+\.\w+)(?::(\w+))?", PAGE))
    assert {file for file, _ in named} == {file.name for file in EXAMPLES.iterdir() if file.is_file()}
    for file, name in named:
        text = (EXAMPLES / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^(def {name}\(|class {name}\(|{name} = )", text, re.M), (file, name)


def test_the_prior_is_one_and_gains_most_where_noise_is() -> None:
    prior, photo = load_prior("examples/my_prior.py:wiener"), sample_photo("cat", 64)
    check_prior(prior)
    assert (prior.name, prior.data_range) == ("wiener", (-1, 1))
    for sigma in (0.1, 0.5):
        noisy = photo + sigma * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
        assert (prior(noisy, sigma) - photo).square().mean() < 0.4 * sigma**2
    torch.testing.assert_close(prior(photo, 0.0), photo)
    assert load_prior("examples/my_prior.py:wiener", falloff=2.0).source["code_settings"] == '{"falloff": 2.0}'


@pytest.mark.parametrize("spec", ["bayer.py:mosaic", "knee.py:knee", "exposure.py:camera"])
def test_an_operator_is_one_and_is_undone(spec: str) -> None:
    given = degrade(sample_photo("cat", 32), f"examples/{spec}", 0.02)
    check_operator(given.op, (1, 3, 32, 32))
    restored, *baselines = (
        restore(given, make_solver("hqs"), prior_of("photo")).records[0]["psnr"],
        restore(given, make_solver("pinv"), prior_of("photo")).records[0]["psnr"],
        -10 * float((given.op.adjoint(given.y) - sample_photo("cat", 32)).square().mean().log10()),
    )
    assert restored > max(baselines) + 2


def test_the_sampler_restores() -> None:
    for spec, prior in (("bayer.py:mosaic", "photo"), ("knee.py:knee", "examples/my_prior.py:wiener")):
        given = degrade(sample_photo("cat", 32), f"examples/{spec}", 0.05)
        records = [
            restore(given, make_solver(name, **settings), prior_of(prior)).records[0]
            for name, settings in (("examples/my_daps.py:MyDAPS", {"steps": 20}), ("pinv", {}))
        ]
        assert records[0]["evaluations"] == 20
        assert records[0]["psnr"] > records[1]["psnr"] + 2


def test_the_table_comes_out(tmp_path: Path) -> None:
    """Smaller than on the page: two photos of 32x32, few steps, one operator; axes, seeds and methods as they are."""
    content = yaml.safe_load((EXAMPLES / "table.yaml").read_text(encoding="utf-8"))
    assert len(load_pipeline(EXAMPLES / "table.yaml").jobs) == 8
    (job,) = content["jobs"]
    job["parameters"] |= {"photos": ["cat:32", "coffee:32"]}
    job["parameters"]["settings"] = {"diffpir": {"steps": 5}, "MyDAPS": {"steps": 5}}
    job["grid"]["degradation"] = job["grid"]["degradation"][:1]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(content))
    ran = run_to_report(load_pipeline(tmp_path / "table.yaml", NOTEBOOKS), tmp_path / "out")
    tex = (tmp_path / "out" / "table.tex").read_text()
    assert "bayer.py:mosaic, 32$\\times$32, 2 photos, 2 seeds" in tex
    assert "Paired difference from diffpir" in tex
    table = (tmp_path / "out" / "table.csv").read_text()
    assert str(ROOT) not in table
    assert {"prior.code_sha256", "solver.sha256", "operator.sha256"} <= set(table.partition("\n")[0].split(","))
    assert "The prior wiener" in ran.page.text
    assert "examples/my_prior.py:wiener" in ran.page.text


def test_the_noise_of_a_sensor_is_weighed() -> None:
    photo, prior = sample_photo("cat", 64), load_prior("photo")
    given = degrade(photo, "denoise", "examples/sensor.py:sensor")
    known = restore(given, make_solver("hqs"), prior).image
    white = make_solver("hqs")(given.y, given.op, prior, sigma_noise=float((given.y - photo).std())).image
    errors = [(image - photo).square().mean((0, 1, 3)) for image in (known, white)]
    assert errors[0][:48].mean() < 0.7 * errors[1][:48].mean()
    assert errors[0].mean() < errors[1].mean()
    assert given.noise.name == "examples/sensor.py:sensor"
