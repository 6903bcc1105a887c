"""Job notebooks as scripts and by hand: parameters, errors that name what is wrong, and a folder of their own."""

import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import matplotlib
import pytest
import torch

from tests.pipelines.small_project import NOTEBOOKS
from workbench.models import load_prior
from workbench.pipelines.script import run_script

SMALL = ["size=16", "batch_size=2", "steps=2", "workers=0"]


def test_a_training_notebook_runs_as_a_script(tmp_path):
    """As on a machine that only trains, without the libraries of pipelines and notebooks."""
    program = """import sys
sys.modules |= dict.fromkeys(("papermill", "pydantic", "gradio", "lpips", "diffusers"))  # cannot be imported
from pathlib import Path
from workbench.pipelines.script import run_script
run_script(Path(sys.argv[1]), sys.argv[2:])
"""
    given = ["alpha=0.0", "steps=2", "batch_size=2", "workers=0", "folder=run", "scales=[[0.5, 1.0]]"]
    command = [sys.executable, "-c", program, str(NOTEBOOKS / "train_mupet.py"), *given]
    environment = {"MPLBACKEND": "Agg", "PYTHONPATH": str(NOTEBOOKS.parents[1]), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert load_prior(tmp_path / "run" / "prior.safetensors").card["steps"] == 2


def test_wrong_parameters_are_refused_and_errors_name_the_line(tmp_path):
    job = tmp_path / "job.py"
    job.write_text('# %% tags=["parameters"]\na = 1\n\n# %%\nb = a\nraise RuntimeError(b)\n')
    for pair, message in (("aa=1", "unknown parameter 'aa', did you mean"), ("a", "parameters expects NAME=VALUE")):
        with pytest.raises(ValueError, match=message):
            run_script(job, [pair])
    with pytest.raises(RuntimeError) as raised:
        run_script(job, ["a=5"])
    assert raised.value.args == (5,)
    assert raised.traceback[-1].lineno == 5
    job.write_text('# %% tags=["parameters"]\na = 1\nb: list[str] = []\nc: float | str = 0.5\n\n# %%\ne = c\n')
    for pair, message in {
        "b=[x, y]": r"""job.py: b must be list\[str\], got '\[x, y\]'; write it as in 'b=\["a", "b"\]'""",
        "a=many": "job.py: a must be int, got 'many'; write it as in a=3",
        "c=[]": r"c must be float \| str, got \[\]; write it as in c=0.5",
    }.items():
        with pytest.raises(ValueError, match=message):
            run_script(job, [pair])
    for pair, value in {"c=1": 1, "c=poisson:30": "poisson:30", "b=['x']": 0.5}.items():
        assert run_script(job, [pair])["e"] == value
    job.write_text("# %%\nx = 1\n")
    with pytest.raises(ValueError, match="expected a cell with tags"):
        run_script(job, ["x=1"])


def by_hand(folder: Path, name: str, *parameters: str) -> None:
    matplotlib.use("Agg")
    with chdir(folder):
        run_script(NOTEBOOKS / f"{name}.py", parameters)
    matplotlib.pyplot.close("all")


def test_two_training_notebooks_run_one_after_the_other_in_one_folder(tmp_path: Path) -> None:
    by_hand(tmp_path, "train_prior", *SMALL, "widths=[8, 8]", "blocks=[1, 1]", "save_every=1", "sample_every=1")
    made = "runs/train_prior/prior.safetensors"
    trained = load_prior(tmp_path / made)
    assert trained.card["images"] == 4
    assert trained(torch.rand(1, 3, 24, 20), 0.1).shape == (1, 3, 24, 20)
    assert len([*tmp_path.glob("runs/train_prior/**/samples/*.png")]) == 2
    by_hand(tmp_path, "train_mupet", *SMALL, f"prior={made!r}", "alpha=0.0")
    by_hand(tmp_path, "train_mupet", *SMALL, f"prior={made!r}", "alpha=0.0")  # goes on: nothing is left to do
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]
    assert load_prior(tmp_path / "runs" / "train_mupet" / "prior.safetensors").card["from"] == made
    with pytest.raises(ValueError, match=r"runs/train_mupet holds a run with other settings.*Give another folder"):
        by_hand(tmp_path, "train_mupet", *SMALL, f"prior={made!r}", "alpha=0.0", "learning_rate=0.1")


def test_values_that_a_job_does_not_know_are_told(tmp_path: Path) -> None:
    for name, parameters, says in (
        ("restore", ["photos=['cat']"], "photos: expected NAME:SIZE, such as cat:64, got 'cat'"),
        ("train_mtdeq", [*SMALL, "task=completions"], "unknown task 'completions', did you mean 'completion'"),
    ):
        with pytest.raises(ValueError, match=says):
            by_hand(tmp_path, name, *parameters)


def test_pictures_go_into_a_folder_that_git_ignores_unless_none_are_asked_for(tmp_path: Path) -> None:
    for pictures in (0, 1):
        by_hand(tmp_path, "restore", "photos=['cat:16']", "methods=['pinv']", f"pictures={pictures}")
        assert bool([*tmp_path.rglob("*.png")]) == bool(pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


OWN = """
import torch
from workbench.models import Prior

class Shrinking(Prior):
    def __init__(self):
        super().__init__(sigma_max=10.0)
        self.share = torch.nn.Parameter(torch.tensor(0.9))

    def denoise(self, x, sigma):
        return 0.5 + (x - 0.5) * self.share / (1 + sigma.view(-1, 1, 1, 1) ** 2)
"""


def test_a_prior_of_ones_own_without_a_network_inside_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    run_script(NOTEBOOKS / "train_mtdeq.py", ["prior=own.py:Shrinking", "folder=run", "max_steps=2", *SMALL])
    tuned = load_prior(tmp_path / "run" / "prior.safetensors", trust_code=True)
    assert float(tuned.share) != pytest.approx(0.9, abs=1e-7)


@pytest.mark.parametrize("notebook", ["train_mtdeq", "train_mupet", "train_reg"])
def test_a_prior_that_could_not_be_saved_is_refused_before_it_is_trained(notebook, tmp_path, monkeypatch):
    diffusers = pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    net = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        resnet_time_scale_shift="scale_shift",
    )
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()).save_pretrained("theirs")
    with pytest.raises(ValueError, match="can save adapters"):
        run_script(NOTEBOOKS / f"{notebook}.py", ["prior=diffusers:theirs", "folder=run", *SMALL])
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
