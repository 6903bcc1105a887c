# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train a denoiser at equilibria (MTDEQ)
#
# A Gaussian denoiser goes on learning on inverse problems: Willingham et al., *Prior for Multi-Task Inverse Problems in
# Image Reconstruction Using Deep Equilibrium Models*, Algorithm 1. `task` chooses the paper's priors: all tasks, or a
# single one. With `weight` 0 and `denoising` 1 it is the control of a fair comparison: a Gaussian denoiser trained for as
# many steps on the same photos and noise levels. The run lives in a folder, stops and goes on at any time, and ends in one
# file that `load_prior` reads.

# %% tags=["parameters"]
prior: str = "photo"  # what to start from: anything `load_prior` takes
data: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
weights: list[float] = []  # share of each source; empty: equal
scales: list[list[float]] = []  # smallest and largest random zoom of each source; empty: 0.5 to 1
size: int = 32  # side of the crops; 128 in the paper
batch_size: int = 4  # images; 16 in the paper
task: str = "multi"  # "multi", or one of the paper's single tasks: "completion", "super-resolution"
per_image: int = 0  # N, degradations of each image; 0: the paper's, 5 for "multi" and 1 for single tasks
weight: float = 1.0  # of the loss at the equilibria
denoising: float = 0.0  # weight of a Gaussian denoising loss beside
memory: int = 1  # of the Anderson acceleration; 0 iterates plainly, as published
max_steps: int = 25  # network evaluations of an equilibrium at most; 350 in the paper
steps: int = 40
learning_rate: float = 1e-4
decay: float = 0.25  # of the learning rate, in every tenth of the run as published; 1: constant
ema_decay: float = 0.99
precision: str = "no"  # or "bf16"
save_every: int = 100
workers: int = 2
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = ""  # a run in this folder goes on where it stopped; empty: runs/train_mtdeq, or the job's in a pipeline

# %%
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from workbench.models import check_saves, load_prior, save_prior
from workbench.models.networks.unet import UNet, grown
from workbench.operators.base import column
from workbench.pipelines import folder_of, input_source, training_photos, write_result
from workbench.random import Draws
from workbench.solvers import ForwardBackward
from workbench.text import check_labels
from workbench.trainers import MTDEQ, StepDecay, TrainSettings, train, training_card

run = Path(folder or folder_of("train_mtdeq", "resume"))
photos, sources = training_photos(
    data, run, size=size, batch_size=batch_size, weights=weights, scales=scales, seed=seed
)
network = load_prior(input_source(prior))
check_saves(network)
if isinstance(getattr(network, "net", None), UNet):
    network.net = grown(network.net, direct=True)  # an output that the noise level does not scale
paper = {
    "multi": MTDEQ(),
    "completion": MTDEQ.single("completion"),
    "super-resolution": MTDEQ.single("super-resolution"),
}
check_labels("train_mtdeq", [task], "task", paper)
objective = replace(
    paper[task],
    per_image=per_image or paper[task].per_image,
    fixed_point=ForwardBackward(memory=memory, max_steps=max_steps),
    weight=weight,
    denoising=denoising,
)
print(network.summary())

# %% [markdown]
# ## What the network learns on
# Measurements at the size of the image, and the equilibria of eq. (3) before training. The network is moved so that
# equilibria come closer to the originals.

# %%
images = next(iter(photos)).images[:2].repeat_interleave(4, 0)
draws = Draws(torch.Generator().manual_seed(seed))
op = objective.degradations.sample(len(images), (size, size), draws)
sigma = torch.tensor(objective.noise)[(draws.uniform(len(images)) * len(objective.noise)).long()]
y = op(images) + column(sigma, images) * draws.normal(*images.shape)
start = op.first_estimate(y)


def equilibria(denoiser) -> torch.Tensor:
    return objective.fixed_point(y, op, denoiser, sigma_noise=sigma, initial=start).image


before = equilibria(network)

# %% [markdown]
# ## Train

# %%
settings = TrainSettings(
    steps=steps,
    learning_rate=learning_rate,
    warmup=0,
    schedule=StepDecay(decay, every=max(1, steps // 10)),
    betas=(0.9, 0.999),
    ema_decay=ema_decay,
    precision=precision,
    seed=seed,
    log_every=max(1, min(50, steps // 10)),
    save_every=save_every,
    workers=workers,
)
averaged, progress = train(network, objective, photos, settings, run, max_seconds=max_seconds or None)

# %%
after = equilibria(averaged.cpu())
rows = {"original": images, "measurement": start, "before": before, "after": after}
figure, axes = plt.subplots(len(rows), len(images), figsize=(1.5 * len(images), 6.2))
for axis_row, (label, shown) in zip(axes, rows.items()):
    for axis, image, clean in zip(axis_row, shown, images):
        axis.imshow(image.clamp(0, 1).permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
        error = float((image.clamp(0, 1) - clean).square().mean())
        axis.set_xlabel(f"{-10 * np.log10(error):.1f} dB" if error else "", fontsize=8)
    axis_row[0].set_ylabel(label)
for axis, (kind, *parameters), level in zip(axes[0], op.kinds, sigma.tolist()):
    name = kind.replace("super-resolution", "super-res.").replace("pixels", "missing")
    axis.set_title(f"{name} {' '.join(f'{p:g}' for p in parameters)}\nnoise {level:.3f}", fontsize=8)
plt.show()

# %% [markdown]
# ## The loss, and what the equilibria cost

# %%
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
shown = [name for name in ("equilibrium", "denoising", "evaluations", "converged") if name in log[-1]]
figure, axes = plt.subplots(1, len(shown), figsize=(3.4 * len(shown), 3), squeeze=False)
for axis, name in zip(axes[0], shown):
    axis.plot([line["step"] for line in log], [line[name] for line in log])
    axis.set(
        title={"converged": "share converged", "evaluations": "evaluations per equilibrium"}.get(name, f"{name} loss"),
        xlabel="step",
    )
figure.tight_layout()
plt.show()
print(f"{progress.lost_steps} steps skipped, {progress.seconds:.0f} s")

# %% [markdown]
# ## Save
# `load_prior(run / "prior.safetensors")` reads it.

# %%
kind = (
    f"trained at equilibria (MTDEQ, {task})" if weight else "Gaussian denoising continued, the control of an MTDEQ run"
)
card = {"summary": f"{kind}, from {prior}", "from": prior, **training_card(progress, run, sources)}
save_prior(averaged, run / "prior.safetensors", card=card, dtype=torch.float16)
write_result({"step": progress.step, "images": progress.images, "seconds": progress.seconds, "log": log})
