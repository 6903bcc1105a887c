# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train an unfolded posterior sampler (UD²M)
#
# A prior becomes a sampler of photos given data: K modules of LATINO share its network, low-rank layers are put into it,
# and those alone are trained, with a squared, a perceptual and an adversarial loss: *Learning few-step posterior samplers
# by unfolding and distillation of diffusion models*, section 3. The run lives in a folder, stops and goes on at any time,
# and ends in `prior.safetensors`, for the solver `ud2m`.

# %% tags=["parameters"]
prior: str = "photo"  # what is adapted: anything `load_prior` takes
initial: str = ""  # adapter file that training starts from, of the same rank and layers; its depth may differ
family: str = "super-resolution"  # "deblurring", "inpainting", "box", "jpeg" or "universal"
noise: list[float] = [0.025, 0.025]  # of the measurement: uniform between these
data: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
weights: list[float] = []  # share of each source; empty: equal
scales: list[list[float]] = []  # photos of each source are resized by a factor between these
size: int = 32  # side of the crops
batch_size: int = 4
depth: int = 3  # K
level: float = 0.1  # noise within the first module
last_level: float = 0.03  # and the last one
delta: float = 1.0  # step size of a data step, in units of the squared level
spread: float = 0.005  # variance of the first estimate
rank: int = 5  # of the low-rank layers; 0: all weights are trained
layers: str = "attention"  # the paper's, or "all"
squared: float = 1.0
perceptual: float = 0.1
adversarial: float = 1.0
penalty: float = 0.01
distance: str = "lpips"  # "effnet" where its weights are not at hand; "none"
width: int = 32  # of the discriminator
discriminator_rate: float = 1e-4
steps: int = 10
learning_rate: float = 1e-4
ema_decay: float = 0.99
precision: str = "no"  # or "bf16"
log_every: int = 20
save_every: int = 50
workers: int = 2
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = ""  # a run in this folder goes on where it stopped; empty: runs/train_ud2m, or the job's in a pipeline

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt

from workbench.models import LoRA, Unfolded, Unfolding, load_prior, save_adapter, start_from
from workbench.pipelines import folder_of, input_source, training_photos, write_result
from workbench.text import check_labels
from workbench.trainers import UD2M, TrainSettings, train_task, training_card
from workbench.trainers.ud2m import FAMILIES

check_labels("train_ud2m", [family], "family", FAMILIES)
run = Path(folder or folder_of("train_ud2m", "resume"))
photos, sources = training_photos(
    data, run, size=size, batch_size=batch_size, weights=weights, scales=scales, seed=seed
)
unfolding = Unfolding(depth=depth, level=level, last_level=last_level, delta=delta, spread=spread)
lora = LoRA(rank=rank, layers=layers) if rank else None
network = Unfolded(load_prior(input_source(prior)), unfolding, lora)
if initial:
    start_from(network, input_source(initial))
trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
print(network.summary())
print(f"{trained} of {sum(p.numel() for p in network.parameters())} weights are trained")

# %% [markdown]
# ## Train

# %%
objective = UD2M(
    problems=FAMILIES[family](),
    noise=tuple(noise),
    squared=squared,
    perceptual=perceptual,
    adversarial=adversarial,
    penalty=penalty,
    distance=distance,
    discriminator_rate=discriminator_rate,
    width=width,
)
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
modules, progress = train_task(
    objective.task(network, settings), photos, settings, run, max_seconds=max_seconds or None
)
print(f"{progress.step} of {steps} steps, {progress.images} crops, {progress.seconds:.0f} s")

# %%
records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
curves = [name for name in ("squared", "perceptual", "fooling", "certainty") if any(name in key for key in records[-1])]
figure, axes = plt.subplots(1, len(curves), figsize=(3 * len(curves), 2.6), squeeze=False, layout="constrained")
for name, axis in zip(curves, axes[0]):
    key = next(key for key in records[-1] if key.rpartition("/")[2] == name)
    axis.plot([record["step"] for record in records], [record[key] for record in records])
    axis.set(xlabel="step", title=name)

# %% [markdown]
# ## Save
# `load_prior(run / "prior.safetensors")` reads it for the solver `ud2m`. The file holds the low-rank layers alone.

# %%
card = {
    "summary": f"unfolded network of UD2M for {family}, from {prior}",
    "from": prior,
    "loss": {"lpips": "LPIPS", "effnet": "EfficientNet-Lite0, a stand-in for LPIPS", "none": "none"}[distance],
    **training_card(progress, run, sources),
}
save_adapter(modules["generator"], run / "prior.safetensors", base=input_source(prior), card=card)
write_result({"step": progress.step, "images": progress.images, "seconds": progress.seconds, "log": records})
