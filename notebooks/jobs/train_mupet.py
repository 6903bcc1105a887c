# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tune a prior at MAP fixed points (MUPET)
#
# A prior that has learned to denoise goes on learning on inverse problems: Willingham et al., *Maximum A Posteriori
# Training of Diffusion Models for Image Restoration*, Algorithm 1. The run lives in a folder, stops and goes on at any
# time, and ends in one file that `load_prior` reads. With `alpha` 0 it is the control of a fair comparison: score
# matching alone, with the same photos, noise and noise levels, for the same number of steps.

# %% tags=["parameters"]
prior: str = "photo"  # what to start from: anything `load_prior` takes
data: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
weights: list[float] = []  # share of each source; empty: equal
scales: list[list[float]] = []  # smallest and largest random zoom of each source; empty: 0.5 to 1
size: int = 32  # side of the crops
batch_size: int = 16
alpha: float = 0.003  # weight of the fixed-point term in eq. (9), for effnet about the pull of score matching; 0: score matching alone
map: str = "prox"  # the gradient goes through the proximal map, or through the step of eq. (3): "gradient"
fixed_point: str = "prox"  # how x_g is found: "prox" (fast), or "adam" (published)
backward: str = "jacobian-free"  # or "neumann", "exact"
loss: str = "effnet"  # or "lpips" (with its weights), "absolute", "squared" (eq. 9; try alpha 0.05)
levels: str = "log-uniform"  # or "published", eq. (11)
sigma_max: float = 0.0  # of the levels; 0: the prior's
per: str = "image"  # one degradation and level per image, or per "batch" as published
steps: int = 60
learning_rate: float = 1e-4
ema_decay: float = 0.999
precision: str = "no"  # or "bf16"
save_every: int = 100
workers: int = 2
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = ""  # a run in this folder goes on where it stopped; empty: runs/train_mupet, or the job's in a pipeline

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from workbench.models import check_saves, load_prior, save_prior
from workbench.pipelines import folder_of, input_source, training_photos, write_result
from workbench.random import Draws
from workbench.solvers import Exact, JacobianFree, MapByAdam, Neumann
from workbench.text import check_labels
from workbench.trainers import MUPET, Degradations, TrainSettings, train, training_card

run = Path(folder or folder_of("train_mupet", "resume"))
photos, sources = training_photos(
    data, run, size=size, batch_size=batch_size, weights=weights, scales=scales, seed=seed
)
network = load_prior(input_source(prior))
check_saves(network)
check_labels("train_mupet", [fixed_point], "fixed_point", ["prox", "adam"])
check_labels("train_mupet", [backward], "backward", ["jacobian-free", "neumann", "exact"])
objective = MUPET(
    alpha=alpha,
    degradations=Degradations(per=per),
    fixed_point={"prox": MUPET().fixed_point, "adam": MapByAdam(whole_batch=per == "batch")}[fixed_point],
    map=map,
    backward={"jacobian-free": JacobianFree(), "neumann": Neumann(), "exact": Exact()}[backward],
    loss=loss,
    levels=levels,
    sigma_max=sigma_max or None,
)
print(network.summary())

# %% [markdown]
# ## What the network learns on
# One image of each degradation at σ = 0.05: the measurement (its adjoint image), and the fixed point of eq. (3). The
# network is moved so that fixed points come closer to the originals.

# %%
images = next(iter(photos)).images[:8]
draws = Draws(torch.Generator().manual_seed(seed))
op = objective.degradations.sample(len(images), (size, size), draws)
y = op(images) + 0.05 * draws.normal(*images.shape)
estimate = objective.fixed_point(y, op, network, sigma_noise=0.05)
figure, axes = plt.subplots(3, len(images), figsize=(1.5 * len(images), 4.8))
for column, (kind, *rows) in enumerate(zip(op.kinds, images, op.adjoint(y), estimate.image)):
    for axis, shown in zip(axes[:, column], rows):
        axis.imshow(shown.clamp(0, 1).permute(1, 2, 0))
        axis.axis("off")
    axes[0, column].set_title(kind[0].replace("super-resolution", "super-res."), fontsize=8)
figure.suptitle("Originals, measurements, fixed points")
plt.show()

# %% [markdown]
# ## Train

# %%
settings = TrainSettings(
    steps=steps,
    learning_rate=learning_rate,
    warmup=min(100, steps // 5),
    schedule="constant",
    betas=(0.9, 0.999),
    ema_decay=ema_decay,
    precision=precision,
    seed=seed,
    log_every=max(1, min(50, steps // 10)),
    save_every=save_every,
    workers=workers,
)
averaged, progress = train(network, objective, photos, settings, run, max_seconds=max_seconds or None)

# %% [markdown]
# ## The two terms of eq. (9), and what the fixed points cost

# %%
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
shown = [name for name in ("dsm", "map", "evaluations", "converged") if name in log[-1]]
figure, axes = plt.subplots(1, len(shown), figsize=(3.4 * len(shown), 3), squeeze=False)
for axis, name in zip(axes[0], shown):
    axis.plot([line["step"] for line in log], [line[name] for line in log])
    axis.set(
        title={"converged": "share converged", "evaluations": "evaluations per image"}.get(name, name), xlabel="step"
    )
figure.tight_layout()
plt.show()
print(f"{progress.lost_steps} steps skipped, {progress.seconds:.0f} s")

# %% [markdown]
# ## Save
# `load_prior(run / "prior.safetensors")` reads it.

# %%
kind = "fine-tuned by MUPET" if alpha else "score matching continued, the control of a MUPET run"
card = {"summary": f"{kind}, from {prior}", "from": prior, **training_card(progress, run, sources)}
save_prior(averaged, run / "prior.safetensors", card=card, dtype=torch.float16)
write_result({"step": progress.step, "images": progress.images, "seconds": progress.seconds, "log": log})
