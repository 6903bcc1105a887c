"""The other commands: pipelines run, jobs verified, priors listed, converted and published, samplers examined."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from workbench.terminal import card_lines, writable
from workbench.text import parse_settings

PRIOR = (
    "A shipped prior ('workbench models' lists them), a checkpoint FILE or FOLDER, hf:USER/NAME, diffusers:NAME, "
    "deepinv:NAME, spandrel:FILE, or your own FILE.py:NAME or package.module:NAME."
)
SET = typer.Option("--set", metavar="NAME=VALUE", help="A setting of the solver; may be repeated.", show_default=False)
PRIOR_SET = typer.Option(
    metavar="NAME=VALUE",
    help="A setting of the prior, such as weights=raw or head_channels=64; may be repeated.",
    show_default=False,
)


def models(
    prior: Annotated[
        str | None, typer.Argument(metavar="PRIOR", help=f"Say what this one is. {PRIOR}", show_default=False)
    ] = None,
    prior_set: Annotated[list[str] | None, PRIOR_SET] = None,
) -> None:
    """List the priors that come with the package, or say what a checkpoint is."""
    if prior is not None:
        from workbench.models import load_prior

        typer.echo(load_prior(prior, **parse_settings(prior_set or [], "--prior-set")).summary())
        return
    if prior_set:
        raise typer.BadParameter("--prior-set goes with a PRIOR, none is given")
    from workbench.models import describe_priors

    for card in describe_priors():
        typer.echo("\n".join(card_lines(card)))
    typer.echo(f"Or a {PRIOR.partition(', a ')[2]} 'workbench models PRIOR' says what one is.")


def convert(
    prior: Annotated[str, typer.Argument(metavar="PRIOR", help=PRIOR, show_default=False)],
    to: Annotated[Path, typer.Option(help="The file to write, NAME.safetensors.", show_default=False)],
    half: Annotated[bool, typer.Option(help="Store in half precision: half the size, rounded to 11 bits.")] = False,
    prior_set: Annotated[list[str] | None, PRIOR_SET] = None,
) -> None:
    """Write a published checkpoint as one file of this package, which holds its own configuration.

    The card in it names the original file and its SHA-256. Networks of diffusers and deepinv stay in their own formats.
    """
    if to.suffix != ".safetensors":
        raise typer.BadParameter(f"--to must end with .safetensors, got {to}")
    writable(to.parent)
    import torch

    from workbench.models import load_prior, save_prior

    network = load_prior(prior, **parse_settings(prior_set or [], "--prior-set"))
    card = {"summary": f"converted from {prior}", **network.card, "converted_from": network.source}
    save_prior(network, to, card=card, dtype=torch.float16 if half else torch.float32)
    typer.echo(f"{network.summary()}\nwritten to {to} ({to.stat().st_size / 1e6:.1f} MB)")


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of this package.", show_default=False)],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="On the Hub.", show_default=False)],
    private: Annotated[bool, typer.Option(help="Create the repository as a private one.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.", show_default=False)] = None,
) -> None:
    """Publish a prior and its card on the Hugging Face Hub; 'hf:USER/NAME' loads it again."""
    from workbench.models.hub import push as push_file

    typer.echo(push_file(file, repository, private=private, message=message))


def verify(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT",
            help="A job's folder or its result.json, or a folder of results with JOB.",
            show_default=False,
        ),
    ],
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Of each figure, relative to it.")] = 1e-4,
) -> None:
    """Run one job of a pipeline again, in a temporary folder, and say whether its result reproduces.

    To the bit, within the tolerance or not (exit code 1); and what differs from the record, from code to hardware.
    """
    from workbench.pipelines.verify import verify as run_again

    folder = result / "jobs" / job if job else result.parent if result.name == "result.json" else result
    good, said = run_again(folder, tolerance)
    typer.echo(said)
    raise typer.Exit(0 if good else 1)


def run(
    pipeline: Annotated[
        Path, typer.Argument(metavar="FILE", help="A pipeline file, such as pipelines/quick.yaml.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.  [default: results/NAME]", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Jobs at the same time.  [default: 1; slurm: all of them]", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, what is done and what it may cost; write nothing.")
    ] = False,
    engine: Annotated[Literal["dask", "slurm"], typer.Option(help="What runs the jobs (docs/batch.md).")] = "dask",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Of a Dask scheduler.  [default: workers in this process]",
            show_default=False,
        ),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of sbatch, such as partition=gpu; may be repeated.",
            show_default=False,
        ),
    ] = None,
    notebooks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the job notebooks.  [default: the nearest notebooks/jobs above the pipeline, else ours]",
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the jobs, such as photos='[\"set5\"]'. Repeat for more.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the jobs of a pipeline and write its report.

    Jobs that are done are kept until their files or code change. Ends with a table, and exit code 1 if any failed.
    """
    if (address and engine != "dask") or (slurm and engine != "slurm"):
        raise typer.BadParameter("--address goes with --engine dask, --slurm with --engine slurm")
    from workbench.pipelines import engines
    from workbench.pipelines.engine import run_pipeline, table
    from workbench.pipelines.job import is_done
    from workbench.pipelines.plan import what_would_run
    from workbench.pipelines.schema import load_pipeline

    hashes = (out or Path("results")).absolute() / ".hashes.json"
    plan = load_pipeline(pipeline, notebooks, parse_settings(change or []), hashes, dry_run)
    folder = out or Path("results") / plan.name
    if dry_run:
        typer.echo(what_would_run(plan, folder))
    if missing := [job for job in plan.jobs if not is_done(folder / "jobs" / job.id)]:
        from workbench.pipelines.values import check_values

        for job in missing:
            check_values(job)
    if dry_run:
        return
    from workbench.reports.report import write_report

    named = [re.sub("^[^=]*", lambda name: name[0].replace("-", "_"), each) for each in slurm or []]
    options = {"address": address} if engine == "dask" else {"options": parse_settings(named, "--slurm")}
    try:
        outcomes = run_pipeline(plan, folder, workers, partial(getattr(engines, engine), **options))
    except KeyboardInterrupt:
        typer.echo(f"What is done stays in {folder}: the same command goes on from there", err=True)
        raise
    report = write_report(plan, outcomes, folder)
    typer.echo(table(outcomes))
    typer.echo(f"Report: {report}")
    if any(outcome.state in ("failed", "skipped") for outcome in outcomes):
        raise typer.Exit(1)


def exam(
    solver: Annotated[
        str,
        typer.Argument(
            metavar="SOLVER",
            help="One of 'workbench solvers', or FILE.py:NAME; or a control: exact (passes), point (fails).",
            show_default=False,
        ),
    ],
    set_: Annotated[list[str] | None, SET] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Such as mixture-blur; may be repeated.  [default: all]", show_default=False),
    ] = None,
    repetitions: Annotated[
        int, typer.Option(min=20, help="Images and measurements of each task; 400 settle 3 % of coverage.")
    ] = 100,
    learned: Annotated[
        bool, typer.Option(help="Also with a small network trained on the task's prior, whose errors add up.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Fixes everything.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures there, as JSON.", show_default=False)
    ] = None,
) -> None:
    """Compare a sampler's samples with posteriors that are known exactly, also those of several modes.

    Coverages are those of intervals of 50 and 90 %. docs/exam.md says what the figures are.
    """
    settings = parse_settings(set_ or [])
    if out is not None:
        writable(out.parent)
        if out.is_dir():
            raise typer.BadParameter(f"--out is a file, {out} is a folder")
    from dataclasses import asdict

    from tqdm import tqdm

    from workbench.exam import TASKS, make_candidate, make_task, sit, table
    from workbench.exam.learned import learn
    from workbench.text import write_json

    candidate = make_candidate(solver, learned, **settings)
    tasks = [make_task(name) for name in dict.fromkeys(task or TASKS)]
    grades = []
    for each in tqdm(tasks, desc=solver, unit="task"):
        priors = [None, learn(each.prior, seed=seed)] if learned else [None]
        grades += [sit(candidate, each, repetitions=repetitions, seed=seed, learned=prior) for prior in priors]
    typer.echo(table(grades))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, [asdict(grade) | {"passed": grade.passed} for grade in grades])
