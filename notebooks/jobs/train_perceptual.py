# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Train the network of perceptual-tiny
#
# A small classifier of labelled photos; the features of its five stages make the distance `perceptual_tiny`. The run
# lives in a folder, stops and goes on at any time, and ends in one file that `PerceptualTiny` reads. It needs photos
# whose file names begin with their class, such as those of tiny-imagenet: there are no defaults for them. With 30,000
# photos of 64x64 the defaults take some 20 minutes of one core; the network that comes with the package was
# trained like this, its card (docs/metrics/perceptual-tiny.md) says how well.

# %% tags=["parameters"]
data: list[str] = []  # required: tiny-imagenet/train-{00..05}.tar or folders, files named CLASS_anything.jpg
validation: list[str] = []  # the same, of photos that are not in data; empty: no accuracy
epochs: int = 17
size: int = 48  # side of the crops
batch_size: int = 128
learning_rate: float = 0.1
weight_decay: float = 0.0005
label_smoothing: float = 0.1
precision: str = "bf16"  # or "no"
save_every: int = 100
max_seconds: float = 0.0  # stop cleanly after this long, to be continued; 0: no limit
seed: int = 0
folder: str = "resume"  # a run in this folder goes on where it stopped; a pipeline keeps this one

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from workbench.perceptual.file import save_network
from workbench.perceptual.training import ClassifierSettings, accuracy, labelled_photos, train_classifier
from workbench.pipelines import input_path, write_result

images, labels, classes = labelled_photos([str(input_path(spec)) for spec in data])
print(f"{len(images):,} photos {tuple(images.shape[1:])} of {len(classes)} classes")

# %%
figure, axes = plt.subplots(1, min(8, len(images)), figsize=(10, 1.6), squeeze=False)
for axis, image, label in zip(axes[0], images, labels):
    axis.imshow(image.permute(1, 2, 0))
    axis.set_title(classes[label], fontsize=7)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Train

# %%
settings = ClassifierSettings(
    epochs=epochs,
    size=size,
    batch_size=batch_size,
    learning_rate=learning_rate,
    weight_decay=weight_decay,
    label_smoothing=label_smoothing,
    precision=precision,
    save_every=save_every,
    seed=seed,
)
run = Path(folder)
network, progress = train_classifier(
    images, labels, settings, run, classes=len(classes), max_seconds=max_seconds or None
)
print(f"step {progress['step']} of {progress['steps']}, {progress['seconds'] / 60:.1f} minutes")

# %%
steps, losses = zip(*progress["log"])
plt.figure(figsize=(5, 3))
plt.plot(steps, losses)
plt.xlabel("step")
plt.ylabel("cross entropy, smoothed labels")
plt.show()

# %% [markdown]
# ## Save
# `scripts/publish_perceptual.py` measures the file, checks how it ranks known distortions, and writes its card.

# %%
card = {
    "summary": "classifier of photos, trained by notebooks/jobs/train_perceptual",
    "data": f"{len(images):,} photos {images.shape[-1]}x{images.shape[-2]} of {len(classes)} classes: "
    + ", ".join(Path(spec).name for spec in data),
    "crops": size,
    "epochs": epochs,
    "images": progress["images"],
    "steps": progress["step"],
    "seconds": round(progress["seconds"]),
    "precision": precision,
    "torch": torch.__version__,
    "classes": list(classes),
}
save_network(network, run / "perceptual-tiny.safetensors", card)
result = {name: card[name] for name in ("images", "steps", "seconds")} | {"log": progress["log"]}
if validation:
    result["accuracy"] = accuracy(
        network, *labelled_photos([str(input_path(spec)) for spec in validation], classes)[:2]
    )
    print(f"accuracy {result['accuracy']:.1%}")
write_result(result)
