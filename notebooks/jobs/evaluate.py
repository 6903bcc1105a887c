# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Evaluate on a large test set, a shard at a time
#
# Restores shard number `shard` of `shards` of a test set and keeps what the whole set's figures need: each image's
# scores, and the sums that a Fréchet distance needs of each set. Images are read, restored and let go a batch at a time.
# `merge` puts the shards together (docs/sharded_evaluation.md).

# %% tags=["parameters"]
photos: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
count: int = 5  # images of the whole test set, each of a photo of its own
first: int = 0  # images to pass over: sets for choosing settings and for testing must not overlap
size: int = 32  # side of the images in pixels
cut: str = "fit"  # the centre square, resized, or "halve": photos of twice the size
degradation: str = "sr:4"  # as `workbench operators` lists them
noise: float | str = 0.01  # standard deviation, pixel values from 0 to 1; or poisson:30, poisson-gauss:GAIN,SIGMA
solver: str = "diffpir"  # what all priors take part in
solvers: dict[str, str] = {}  # label -> another solver, such as {RED: red}
steps: int = 20  # of solvers that are not set otherwise
priors: dict[str, str] = {"prior": "photo"}  # label -> what `load_prior` takes; the last against the others
prior_settings: dict[str, dict] = {}  # label -> such as {"weights": "raw"}
settings: dict[str, dict] = {}  # label -> settings of the solver, such as {zeta: 0.6, sigma_start: 1.0}
published_task: str = ""  # the row of a published table to show beside, such as 4xSR
with_fid: bool = True  # also compare the restored images with the originals as sets
judge: bool = False  # also the slower metrics, which no prior was trained on
pictures: int = 6  # of the first images
seed: int = 0
batch: int = 16  # images at a time
shard: int = 0  # of 0 to shards - 1
shards: int = 1
device: str = "cpu"

# %%
import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import save_file

from workbench.data.evaluation import evaluation_batches
from workbench.evaluation.fid import effnet_unavailable, fid_unavailable, moments
from workbench.evaluation.metrics import METRICS
from workbench.evaluation.statistics import missing_metrics
from workbench.images import finite_images, save_image
from workbench.models import load_prior
from workbench.pipelines import folder_of, input_path, input_source, progress, write_result
from workbench.pipelines.cells import input_operator
from workbench.plots import show, strip
from workbench.records import environment, solver_settings
from workbench.restore import degrade, restore, solver_of, steps_of
from workbench.text import check_labels

# Names and numbers are checked before the slow part, cheapest first.
batches = math.ceil(count / batch)
if not (count > 0 and batch > 0 and 0 <= shard < shards <= batches):
    raise ValueError(f"expected 0 <= shard < shards <= {batches} (batches of the set), got shard {shard} of {shards}")
if not priors:
    raise ValueError("priors is empty: give at least one, such as {prior: photo}")
if taken := {"original", "degraded"}.intersection(priors):
    raise ValueError(f"priors: {taken.pop()!r} stands for the photos themselves, choose another label")
for what, given in {"settings": settings, "prior_settings": prior_settings, "solvers": solvers}.items():
    check_labels(what, given, "prior", priors)
kinds = {label: solvers.get(label, solver) for label in priors}
made = {label: solver_of(kind, {**steps_of(kind, steps), **settings.get(label, {})}) for label, kind in kinds.items()}
networks = {
    label: load_prior(input_source(source), device=device, **prior_settings.get(label, {}))
    for label, source in priors.items()
}
for label, network in networks.items():
    print(f"{label}: {network.summary()}")

# %% [markdown]
# ## This shard
# A shard is a run of whole batches of the set, so that a batch holds the same images however many shards there are: its
# last bits depend on that. Missing pixels, noise and the solver's draws depend on `seed` and the image's number in the
# set, which it keeps also where a photo before it cannot be read.

# %%
ends = [first + min(count, batch * (batches * edge // shards)) for edge in (shard, shard + 1)]
numbers = range(*ends)
specs = [spec if spec.startswith("hf:") else str(input_path(spec)) for spec in photos]
operator = input_operator(degradation)
keys = [key for key in METRICS if judge or not METRICS[key].judge]
kind = "fid" if fid_unavailable() is None else "frechet_effnet" if effnet_unavailable() is None else ""
print(f"images {numbers.start} to {numbers.stop - 1}, set distance: {(with_fid and kind) or 'none'}")

# %% [markdown]
# ## Restore
# Of each image its scores are kept, eight bytes each; of each set the sums of its features. An image of which one prior
# makes NaN or infinite values is named and left out of all.

# %%
rows, found, sums, shown, reasons, broken = [], [], {}, {}, {}, []
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", "left out")
    parts = evaluation_batches(specs, numbers, batch=batch, size=size, cut=cut, seed=seed)
    for own, originals in parts:
        degraded = degrade(originals.to(device), operator, noise, seed, numbers=own)
        results = {label: restore(degraded, made[label], networks[label], name=label, judge=judge) for label in priors}
        images = {"original": degraded.original} | {label: result.image for label, result in results.items()}
        finite = {label: finite_images(each).cpu() for label, each in images.items()}
        usable = torch.stack(list(finite.values())).all(0)
        broken += [
            f"number {own[place]}: {label} gave NaN or infinite values"
            for label, each in finite.items()
            for place in (~each).nonzero().flatten().tolist()
        ]
        if not bool(usable.any()):
            continue
        own = [number for number, each in zip(own, usable.tolist()) if each]
        images = {label: each[usable.to(each.device)] for label, each in images.items()}
        if with_fid and kind:
            for label, each in images.items():
                sums[label] = sums.get(label, 0) + moments(each, kind)
        records = [[r for r, each in zip(result.records, usable.tolist()) if each] for result in results.values()]
        found += own
        rows.append(np.array([[[record[key] for key in keys] for record in image] for image in zip(*records)], float))
        reasons |= missing_metrics([record for each in records for record in each])
        if not shown:
            seen = degraded.picture[usable.to(degraded.y.device)]
            picture = torch.nn.functional.interpolate(seen, size=(size, size), mode="nearest")
            shown = {"original": images["original"], "degraded": picture} | images
            shown = {label: each[:pictures].cpu() for label, each in shown.items()}
        progress(own[-1] + 1 - numbers.start, len(numbers))
skipped = [*(str(each.message).removeprefix("left out: ") for each in said), *broken]
print(*(f"left out: {each}" for each in skipped), sep="\n")
if not found and shards == 1:
    raise ValueError(f"none of the photos can be read and restored: {'; '.join(skipped)}")

# %%
scores = np.concatenate([np.empty((0, len(priors), len(keys))), *rows])  # images, labels, metrics; NaN: not measured
np.save(folder_of("evaluate") / "numbers.npy", np.array(found, int))
np.save(folder_of("evaluate") / "scores.npy", scores)
save_file({label: each.cpu() for label, each in sums.items()}, folder_of("evaluate") / "sums.safetensors")
means = {label: dict(zip(keys, scores[:, place].mean(0).tolist())) for place, label in enumerate(priors) if found}
means = {label: {key: value for key, value in own.items() if not math.isnan(value)} for label, own in means.items()}
for label, own in means.items():
    print(label, ", ".join(f"{METRICS[key].title} {value:.{METRICS[key].digits}f}" for key, value in own.items()))

# %%
files = []
if shard == 0 and pictures and shown:
    show(shown, [f"number {number}" for number in found[:pictures]], height=1.3)
    plt.show()
    for number, (title, row) in enumerate(shown.items()):
        files.append({"title": title, "file": f"strip-{number}.png"})
        save_image(strip(row), folder_of("evaluate") / files[-1]["file"])

# %%
facts = {
    label: {
        "name": network.name,
        "summary": network.summary(),
        "solver": kinds[label],
        "settings": solver_settings(made[label]),
    }
    for label, network in networks.items()
}
common = {"priors": facts, "missing": reasons, "environment": environment(torch.device(device))}
write_result(
    {"shard": {**common, "metrics": keys, "set_distance": kind, "means": means, "strips": files}, "skipped": skipped}
)
