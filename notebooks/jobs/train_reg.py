# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train the gradient of a regulariser (PnP-ReG)
#
# A denoiser and the gradient of the regulariser that it stands for learn together: Fermanian et al., *Learned Gradient of
# a Regularizer for Plug-and-Play Gradient Descent*. Both start from one prior. The run lives in a folder, stops and goes on
# at any time, and ends in two files: `regulariser.safetensors` is the prior for the solver `pnp-reg`, and knows one
# noise level, `level`; `denoiser.safetensors` is the denoiser that learned with it.

# %% tags=["parameters"]
prior: str = "photo"  # what both start from: anything `load_prior` takes
data: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
weights: list[float] = []  # share of each source; empty: equal
size: int = 32  # side of the crops
batch_size: int = 8
weight: float = 0.004  # of the regulariser's term
sigma_max: float = 0.196  # noise levels are uniform up to this; 50/255 as published
level: float = 0.03  # at which the regulariser's network is asked
learn_denoiser: bool = True
steps: int = 40
learning_rate: float = 1e-4
ema_decay: float = 0.99
precision: str = "no"  # or "bf16"
save_every: int = 100
workers: int = 2
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = ""  # a run in this folder goes on where it stopped; empty: runs/train_reg, or the job's in a pipeline

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from workbench.models import check_saves, load_prior, save_prior
from workbench.pipelines import folder_of, input_source, training_photos, write_result
from workbench.trainers import ReG, TrainSettings, train_task, training_card

run = Path(folder or folder_of("train_reg", "resume"))
photos, sources = training_photos(data, run, size=size, batch_size=batch_size, weights=weights, seed=seed)
network = load_prior(input_source(prior))
check_saves(network)
print(network.summary())

# %% [markdown]
# ## Train

# %%
objective = ReG(weight=weight, sigma_max=sigma_max, level=level, learn_denoiser=learn_denoiser)
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
trained, progress = train_task(
    objective.task(network, settings), photos, settings, run, max_seconds=max_seconds or None
)

# %%
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
plt.plot([line["step"] for line in log], [line["residual"] for line in log])
plt.xlabel("step")
plt.ylabel("mean of (σ² G(x) − removed noise)²")
plt.show()

# %% [markdown]
# ## Save
# `load_prior(run / "regulariser.safetensors")` reads the prior for `pnp-reg`.

# %%
for name, module in trained.items():
    card = {"summary": f"{name} of PnP-ReG, from {prior}, level {level:g}", "from": prior}
    card |= training_card(progress, run, sources)
    save_prior(module, run / f"{name}.safetensors", card=card, dtype=torch.float16)
write_result({"step": progress.step, "images": progress.images, "seconds": progress.seconds, "log": log})
