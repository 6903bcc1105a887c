# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Train a prior by denoising score matching
#
# The U-Net of the shipped prior `photo`, with EDM preconditioning, learns to denoise photos at every noise level. The run lives in a folder,
# stops and goes on at any time, and ends in one file that `load_prior` reads. The defaults are a demonstration of
# two minutes on the photos that come with scikit-image; a real prior needs your photos and patience.

# %% tags=["parameters"]
data: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
weights: list[float] = []  # share of each source; empty: equal
scales: list[list[float]] = []  # smallest and largest random zoom of each source; empty: 0.5 to 1
size: int = 32  # side of the crops
batch_size: int = 16
widths: list[int] = [32, 48, 64]  # channels per level, the first at half resolution; `photo` has 64, 96, 128
blocks: list[int] = [3, 1, 1]  # residual blocks per level; `photo` has 5, 2, 2
heads: int = 0  # of the attention at the coarsest level; `photo` has 4
sigma_max: float = 80.0
steps: int = 300
learning_rate: float = 0.002
warmup: int = 100
optimiser: str = "muon"  # for the convolutions, Adam for the rest; or "adam" for all
precision: str = "no"  # or "bf16"
save_every: int = 100
sample_every: int = 0
workers: int = 2
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = ""  # a run in this folder goes on where it stopped; empty: runs/train_prior, or the job's in a pipeline

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from workbench.models import EDMPrecond, UNet, UNetConfig, save_prior
from workbench.pipelines import folder_of, training_photos, write_result
from workbench.solvers import DDIM
from workbench.trainers import DSM, TrainSettings, train, training_card

run = Path(folder or folder_of("train_prior", "resume"))
photos, sources = training_photos(
    data, run, size=size, batch_size=batch_size, weights=weights, scales=scales, seed=seed
)

# %% [markdown]
# ## What the network sees

# %%
batch = next(iter(photos)).images[:8]
figure, axes = plt.subplots(2, len(batch), figsize=(1.3 * len(batch), 2.8))
for image, (top, bottom) in zip(batch, axes.T, strict=True):
    noisy = image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    for axis, shown in ((top, image), (bottom, noisy)):
        axis.imshow(shown.clamp(0, 1).permute(1, 2, 0))
        axis.axis("off")
figure.suptitle("Crops, and the same at σ = 0.1")
plt.show()

# %% [markdown]
# ## Train

# %%
torch.manual_seed(seed)
network = UNet(UNetConfig(widths=tuple(widths), blocks=tuple(blocks), heads=heads))
prior = EDMPrecond(network, sigma_max=sigma_max, multiple=network.multiple)
print(f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} million parameters")


def sampler(averaged, generator):
    like = next(averaged.parameters())
    return DDIM(steps=50)(averaged, (16, 3, size, size), generator=generator, like=like).image


settings = TrainSettings(
    steps=steps,
    learning_rate=learning_rate,
    warmup=warmup,
    optimiser=optimiser,
    precision=precision,
    seed=seed,
    log_every=max(1, min(100, steps // 10)),
    save_every=save_every,
    sample_every=sample_every,
    workers=workers,
)
averaged, progress = train(prior, DSM(), photos, settings, run, sampler=sampler, max_seconds=max_seconds or None)

# %% [markdown]
# ## The loss, and samples of the averaged prior

# %%
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
samples = sampler(averaged.to("cpu"), torch.Generator().manual_seed(seed)).clamp(0, 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
left.plot([line["images"] for line in log], [line["loss"] for line in log])
left.set(xlabel="images", ylabel="loss (eq. 5, EDM weight)")
right.imshow(torch.cat([torch.cat(list(row), 2) for row in samples.view(4, 4, 3, size, size)], 1).permute(1, 2, 0))
right.set_title("samples")
right.axis("off")
plt.show()

# %% [markdown]
# ## Save
# `load_prior(run / "prior.safetensors")` reads it; `scripts/publish_prior.py` measures it and writes its card.

# %%
card = {"summary": "trained by notebooks/jobs/train_prior", **training_card(progress, run, sources)}
save_prior(averaged, run / "prior.safetensors", card=card, dtype=torch.float16)
write_result({"step": progress.step, "images": progress.images, "seconds": progress.seconds, "log": log})
