"""Where the jobs of a pipeline run: workers of Dask, in this process or on a cluster, or job arrays of SLURM.

An engine checks the jobs against what there is, and then starts those it is given: it does not know which need which.
Each of its tasks is an :func:`attempt`, in the same results folder on every machine.
"""

import math
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from workbench.pipelines.attempt import LOCK, Outcome, attempt, lock_free, visible_gpus
from workbench.pipelines.identity import code_version
from workbench.pipelines.schema import Job

# Gives each job a handle with the methods done, result and cancel, as those of futures.
Start = Callable[[Sequence[Job]], Sequence[Any]]
Engine = Callable[[Sequence[Job], Path, Mapping[str, Any], int | None], AbstractContextManager[Start]]


@contextmanager
def dask(
    jobs: Sequence[Job], out: Path, facts: Mapping[str, Any], workers: int | None, address: str | None = None
) -> Iterator[Start]:
    """Workers of Dask distributed: ``workers`` threads (1) of this process, or those of the scheduler at ``address``.

    Raises:
        ValueError: no scheduler or no worker there, one that does not see ``out`` or has other code, or a job that
            needs more than any of them has.
    """
    from dask import config
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if address is None:
            # No processes and limits: this is a pool of threads that knows what each job needs. The pages that Dask
            # serves are empty, and for this machine alone.
            have = _this_machine() if any(job.resources for job in jobs) else {}
            pages = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
            options: dict[str, Any] = {"scheduler_kwargs": {"dashboard": False}, "resources": have, "memory_limit": 0}
            with config.set({f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")}):
                cluster = LocalCluster(1, threads_per_worker=workers or 1, processes=False, **pages, **options)
            address = stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(address, timeout=5))
        except (OSError, ValueError) as error:
            raise ValueError(f"no Dask scheduler at {address} ({error})") from None
        probe = out / f".probe-{uuid4()}"
        probe.touch()
        try:
            seen = client.run(look, probe, sorted({job.notebook for job in jobs}), facts["code"])
        finally:
            probe.unlink()
        if fault := next((f"worker {name}: {fault}" for name, (_, fault) in seen.items() if fault), ""):
            raise ValueError(fault)
        if not seen:
            raise ValueError(f"the Dask scheduler at {address} has no workers")
        check_resources(jobs, [have for have, _ in seen.values()])
        wanted = {job.id: {name: value for name, value in job.resources.items() if value} for job in jobs}
        yield lambda ready: [
            client.submit(_on_worker, job, out, facts, pure=False, resources=wanted[job.id] or None) for job in ready
        ]


def _on_worker(job: Job, out: Path, facts: Mapping[str, Any]) -> Outcome:
    from distributed import get_worker

    return attempt(job, out, facts, get_worker().state.nthreads)


def look(probe: Path, notebooks: Sequence[Path], code: str, dask_worker: Any = None) -> tuple[dict[str, float], str]:
    """What a worker has, and what keeps it from taking part in the run whose lock lies beside ``probe``."""
    fault = next((f"there is no {path} there" for path in (probe.parent, *notebooks) if not path.exists()), "")
    if not fault and not probe.exists():
        fault = f"its {probe.parent} is another folder than ours"
    if not fault and code_version() != code:
        fault = "other code of the package, or of what is registered with it, is installed there"
    if not fault:
        with (probe.parent / LOCK).open("a") as lock:
            fault = f"{probe.parent}: locks do not reach from machine to machine" if lock_free(lock) else ""
    return dict(dask_worker.state.total_resources), fault


def _this_machine() -> dict[str, float]:
    memory = psutil.virtual_memory().total / 2**30
    return {"cpus": float(os.cpu_count() or 1), "gpus": float(len(visible_gpus())), "memory": round(memory, 1)}


def check_resources(jobs: Sequence[Job], workers: Sequence[Mapping[str, float]]) -> None:
    """Raise ValueError for a job that needs more than any of the ``workers`` has."""

    def said(amounts: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in amounts.items()) or "none"

    for job in jobs:
        if not any(all(have.get(name, 0) >= value for name, value in job.resources.items()) for have in workers):
            known = " or ".join(sorted({said(have) for have in workers}))
            raise ValueError(f"{job.label}: needs {said(job.resources)}, and no worker has that (they have {known})")


@contextmanager
def slurm(
    jobs: Sequence[Job],
    out: Path,
    facts: Mapping[str, Any],
    workers: int | None,
    options: Mapping[str, Any] | None = None,
    cluster: str = "slurm",
) -> Iterator[Start]:
    """Arrays of SLURM jobs, at most ``workers`` (all) of an array at a time, written by submitit into ``out/slurm``.

    Args:
        options: of sbatch, by their long names: partition, account, time, ...
        cluster: "local" runs the arrays as processes of this machine, for trying it.

    Raises:
        ValueError: no SLURM here, or it refuses what a job asks for.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError("engine slurm needs submitit: pip install 'restoration-workbench[cluster]'") from None
    asked = {job.id: {**_sbatch(job), **(options or {})} for job in jobs}
    if cluster == "local":
        check_resources(jobs, [_this_machine()])
    else:
        _ask_slurm({str(asked[job.id]): (job, asked[job.id]) for job in jobs}.values())

    def start(ready: Sequence[Job]) -> list[Any]:
        handles: dict[str, Any] = {}
        for flags in {str(asked[job.id]): asked[job.id] for job in ready}.values():  # an array for those that ask alike
            executor = submitit.AutoExecutor(out / "slurm", cluster=cluster)
            executor.update_parameters(timeout_min=math.ceil(max(job.timeout for job in ready) / 60) + 1)
            executor.update_parameters(slurm_array_parallelism=workers or len(jobs), slurm_additional_parameters=flags)
            with executor.batch():
                alike = [job for job in ready if asked[job.id] == flags]
                handles |= {job.id: executor.submit(attempt, job, out, facts) for job in alike}
        return [handles[job.id] for job in ready]

    yield start


def _sbatch(job: Job) -> dict[str, Any]:
    """What a job asks of sbatch, by its option's long names."""
    asked: dict[str, Any] = {"job_name": job.notebook.stem, "time": math.ceil(job.timeout / 60) + 1}
    asked["cpus_per_task"] = int(job.resources.get("cpus", 1))
    asked |= {"gpus_per_node": int(job.resources["gpus"])} if job.resources.get("gpus") else {}
    return asked | ({"mem": f"{1024 * job.resources['memory']:.0f}MB"} if "memory" in job.resources else {})


def _ask_slurm(jobs: Iterable[tuple[Job, Mapping[str, Any]]]) -> None:
    """Raise ValueError if SLURM would not take one of ``jobs``, each with its options."""
    for job, asked in jobs:
        flags = [f"--{name.replace('_', '-')}" + f"={value}" * (value is not True) for name, value in asked.items()]
        try:
            answer = subprocess.run(["sbatch", "--test-only", *flags, "--wrap=true"], capture_output=True, text=True)
        except OSError:
            raise ValueError("engine slurm: there is no sbatch here, is this a machine of a SLURM cluster?") from None
        if answer.returncode:
            raise ValueError(f"{job.label}: SLURM refuses {' '.join(flags)}: {answer.stderr.strip()}")
