# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Distil a prior into a consistency model
#
# The student learns to go at once where the probability-flow ODE of its teacher goes in many steps: Song et al. 2023,
# *Consistency models*. It starts with the teacher's weights. The run lives in a folder, stops and goes on at any time,
# and ends in `prior.safetensors`, a prior for `latino`, `cm4ir` and `consistency`.
#
# With the target `progressive` (Salimans and Ho 2022) it stays a denoiser, whose every DDIM step between the `levels + 1`
# levels of its grid does for two of the teacher's. That is no consistency model, and its file does not say so: it is for
# the solvers that step as DDIM does. To halve again, make it the `prior` of the next run, with half of the levels.

# %% tags=["parameters"]
prior: str = "photo"  # the teacher: anything `load_prior` takes
start: str = ""  # a student to start from, of the target's kind; empty: the teacher's weights
data: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
weights: list[float] = []  # share of each source; empty: equal
scales: list[list[float]] = []  # photos of each source are resized by a factor between these
size: int = 32  # side of the crops
batch_size: int = 8
sigma_max: float = 0.0  # highest noise level of the student; 0: the teacher's
target: str = "distillation"  # "training" needs no teacher, "progressive" halves the teacher's steps (a denoiser)
levels: int = 18  # of the grid, at the first step; with "progressive" its steps
last_levels: int = 0  # at the last step; 0: the same
weighting: str = "uniform"
distance: str = "huber"  # "l2", "l1"
averaged: bool = True  # the target is the running average of the student
steps: int = 40
learning_rate: float = 1e-4
ema_decay: float = 0.99
precision: str = "no"  # or "bf16"
log_every: int = 20
save_every: int = 100
workers: int = 2
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = (
    ""  # a run in this folder goes on where it stopped; empty: runs/train_consistency, or the job's in a pipeline
)

# %%
import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from workbench.models import ConsistencyModel, check_saves, load_prior, save_prior
from workbench.pipelines import folder_of, input_source, training_photos, write_result
from workbench.plots import strip
from workbench.random import stream
from workbench.solvers import DDIM
from workbench.solvers import Consistency as Jumps
from workbench.text import require
from workbench.trainers import Consistency, Curriculum, TrainSettings, train_task, training_card

run = Path(folder or folder_of("train_consistency", "resume"))
photos, sources = training_photos(
    data, run, size=size, batch_size=batch_size, weights=weights, scales=scales, seed=seed
)
teacher = load_prior(input_source(prior))
progressive = target == "progressive"
if start:
    student = load_prior(input_source(start))
elif progressive:
    student = copy.deepcopy(teacher)
    require(0 <= sigma_max <= teacher.sigma_max, "sigma_max", f"what {teacher.name} knows", sigma_max)
    student.sigma_max = sigma_max or teacher.sigma_max
else:
    student = ConsistencyModel.start_from(copy.deepcopy(teacher), sigma_max or None)
check_saves(student)
print(teacher.summary())
print(student.summary())

# %% [markdown]
# ## Train

# %%
curriculum = Curriculum(first=levels, last=last_levels or None, steps=steps)
objective = Consistency(target=target, curriculum=curriculum, weighting=weighting, distance=distance, averaged=averaged)
settings = TrainSettings(
    steps=steps,
    learning_rate=learning_rate,
    warmup=min(50, steps),
    ema_decay=ema_decay,
    precision=precision,
    seed=seed,
    log_every=log_every,
    save_every=save_every,
    workers=workers,
)
grid = objective.grid(steps - 1, student.sigma_min, student.sigma_max).tolist()  # in the end
task = objective.task(student, None if target == "training" else teacher, settings)
modules, progress = train_task(task, photos, settings, run, max_seconds=max_seconds or None)
trained = modules["student"]
print(f"{progress.step} of {steps} steps, {progress.images} crops, {progress.seconds:.0f} s")

# %%
card = training_card(progress, run, sources)
title = f"Denoiser for {len(grid) - 1} DDIM steps, by progressive distillation" if progressive else "Consistency model"
save_prior(trained, run / "prior.safetensors", card={"title": title, **card})

# %%
records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
figure, axis = plt.subplots(figsize=(6, 3))
axis.plot([record["step"] for record in records], [record["loss"] for record in records])
axis.set(xlabel="step", ylabel="loss", yscale="log")
figure.tight_layout()

# %% [markdown]
# ## Images out of noise: one jump and four, or the steps that were learnt

# %%
if progressive:  # the last step ends at no noise in place of the lowest level
    samplers = {len(grid) - 1: DDIM(steps=len(grid) - 1, schedule=[*grid[:-1], 0.0])}
else:
    samplers = {jumps: Jumps(steps=jumps) for jumps in (1, 4)}
with torch.no_grad():
    for evaluations, sampler in samplers.items():
        sampled = sampler(trained, (6, trained.channels, size, size), generator=stream(seed, "sample"))
        figure, axis = plt.subplots(figsize=(8, 1.6))
        axis.imshow(strip(sampled.image.clamp(0, 1), columns=6)[0].permute(1, 2, 0))
        axis.set_axis_off()
        axis.set_title(f"{evaluations} evaluations" if evaluations > 1 else "1 evaluation")

# %%
write_result({"steps": progress.step, "images": progress.images, "seconds": progress.seconds, "log": records})
