"""Runs of a few seconds; also a program: ``small_run.py PHOTOS RUNS`` does one after the other.

RUNS is a JSON list of mappings with ``folder``, ``objective`` (dsm, mupet or mtdeq) and options of ``small_run``. It
prints nothing; the weights of an averaged prior go to ``weights.pt`` in the folder of the run, and how often gradients
were shared among processes to ``shared.txt``.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from workbench.data import Photos
from workbench.models import EDMPrecond, NCSNpp, NCSNppConfig, Prior
from workbench.solvers import ForwardBackward
from workbench.trainers import DSM, MTDEQ, MUPET, Objective, Progress, TrainSettings, loop, train

CONFIG = NCSNppConfig(
    width=8, multipliers=(1, 2), blocks=1, attention_levels=(), middle_attention=False, fir=False, fourier_scale=1.0
)


OBJECTIVES = {
    "dsm": DSM(),
    "mupet": MUPET(levels="log-uniform", map="prox"),
    "mtdeq": MTDEQ(per_image=2, fixed_point=ForwardBackward(memory=1, max_steps=4)),
}


def small_prior(dropout: float = 0.0) -> Prior:
    torch.manual_seed(1)
    net = NCSNpp(replace(CONFIG, dropout=dropout))
    return EDMPrecond(net, sigma_max=10.0, multiple=net.multiple)


def small_run(
    folder: Path,
    photos: Path,
    *,
    steps: int = 12,
    batch: int = 4,
    objective: Objective | None = None,
    stop_after: float | None = None,
    dropout: float = 0.0,
    **changes,
) -> tuple[Prior, Progress]:
    options = {"warmup": 2, "log_every": 4, "save_every": 1, "workers": 0} | changes
    settings = TrainSettings(steps=steps, **options)
    return train(
        small_prior(dropout),
        objective or DSM(),
        Photos(photos, size=8, batch_size=batch),
        settings,
        folder,
        max_seconds=stop_after,
        progress_bar=False,
    )


class Counting(DistributedDataParallel):
    """Counts what is shared; everything of such small networks fits into one message."""

    shared = 0

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.register_comm_hook(None, self.share)

    @classmethod
    def share(cls, state, bucket):
        cls.shared += 1
        return allreduce_hook(None, bucket)


if __name__ == "__main__":
    torch.set_num_threads(1)
    loop.DistributedDataParallel = Counting
    for run in json.loads(sys.argv[2]):
        Counting.shared = 0
        target, objective = Path(run.pop("folder")), OBJECTIVES[run.pop("objective")]
        prior, _ = small_run(target, Path(sys.argv[1]), objective=objective, **run)
        torch.save(prior.state_dict(), target / "weights.pt")
        (target / "shared.txt").write_text(str(Counting.shared))
