# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Compare priors in one solver
#
# One degradation, several priors, the same measurements and the same noise for all: MUPET's Table II in DiffPIR, MTDEQ's
# tables in ADMM. Every prior has its own settings, and may have a solver of its own. With `grid`, every combination is
# tried for every prior instead and the best is reported, which is how the paper chose them: on other images than it
# tested on (`first`).

# %% tags=["parameters"]
photos: list[str] = []  # folders, .npz/.npy, shards-{00..05}.tar, hf:NAME; empty: the sample photos
count: int = 8  # images
first: int = 0  # images to pass over: sets for choosing settings and for testing must not overlap
size: int = 32  # side of the images in pixels
cut: str = "tiles"  # "tiles" of photos, or "halve" or "fit" whole ones
short_side: int = 128  # photos are resized to this before they are cut into tiles; 0: not
degradation: str = "sr:4"  # as `workbench operators` lists them
noise: float | str = 0.01  # standard deviation, pixel values from 0 to 1; or poisson:30, poisson-gauss:GAIN,SIGMA
solver: str = "diffpir"  # what all priors take part in
solvers: dict[str, str] = {}  # label -> another solver, such as {RED: red}
steps: int = 60  # of solvers that are not set otherwise
priors: dict[str, str] = {"prior": "photo"}  # label -> what `load_prior` takes; the last against the others
prior_settings: dict[str, dict] = {}  # label -> such as {"weights": "raw"}
settings: dict[str, dict] = {}  # label -> settings of the solver, such as {zeta: 0.6, sigma_start: 1.0}
grid: dict[str, list] = {}  # setting -> values to try
published_task: str = ""  # the row of a published table to show beside, such as 4xSR
pictures: int = 6  # of the first images
samples: int = 0  # draw so many from the posterior of the first image, and the map of their standard deviation
seed: int = 0
batch: int = 16
device: str = "cpu"

# %%
import warnings

import matplotlib.pyplot as plt
import torch

from workbench.data.evaluation import evaluation_photos, photo_of
from workbench.evaluation.statistics import (
    METRICS,
    best_combinations,
    combinations,
    mean_interval,
    measured_metrics,
    missing_metrics,
    summarise,
)
from workbench.images import finite_images, save_image
from workbench.models import load_prior
from workbench.pipelines import folder_of, input_path, input_source, progress, write_result
from workbench.pipelines.cells import Cells, input_operator
from workbench.plots import show, strip
from workbench.records import environment, solver_settings
from workbench.restore import degrade, restore, solver_of, steps_of
from workbench.restore import samples as repeated
from workbench.text import check_labels

# Names are checked before the slow part, cheapest first.
if not priors:
    raise ValueError("priors is empty: give at least one, such as {prior: photo}")
if taken := {"original", "degraded"}.intersection(priors):
    raise ValueError(f"priors: {taken.pop()!r} stands for the photos themselves, choose another label")
check_labels("settings", settings, "prior", priors)
check_labels("prior_settings", prior_settings, "prior", priors)
check_labels("solvers", solvers, "prior", priors)
choices = combinations(grid)
kinds = {label: solvers.get(label, solver) for label in priors}
made = {
    label: [solver_of(kind, {**steps_of(kind, steps), **settings.get(label, {}), **choice}) for choice in choices]
    for label, kind in kinds.items()
}
networks = {
    label: load_prior(input_source(source), device=device, **prior_settings.get(label, {}))
    for label, source in priors.items()
}
for label, network in networks.items():
    print(f"{label}: {network.summary()}")

# %% [markdown]
# ## Photos and their measurements
# Each image has its own missing pixels and its own noise, drawn from `seed` and its number. What cannot be read is named,
# and the next photo takes its place.

# %%
specs = [spec if spec.startswith("hf:") else str(input_path(spec)) for spec in photos]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", "left out")
    originals, names = evaluation_photos(
        specs, count=count, first=first, size=size, cut=cut, short_side=short_side, seed=seed
    )
skipped = [str(each.message).removeprefix("left out: ") for each in said]
print(*(f"left out: {each}" for each in skipped), sep="\n")
operator = input_operator(degradation)
batches = [
    degrade(part.to(device), operator, noise, seed, numbers=range(first + start, first + start + len(part)))
    for start, part in zip(range(0, count, batch), originals.split(batch))
]
print(f"{count} images of {size}x{size}, number {first} to {first + count - 1}, {degradation}, noise {noise}")

# %% [markdown]
# ## Restore
# The last prior in the last place: it is the one compared with all others. In a pipeline, what an earlier job restored
# from the same image in the same way is taken from there. An image of which one prior makes NaN or infinite values is
# named and left out of all; settings of a `grid` that do so have no figures.

# %%
runs = [(label, choice, one) for label in priors for choice, one in zip(choices, made[label])]
tried, images = [], {}  # rows of each run; restored images of the last run of each prior
done, cells, broken = 0, Cells(), set()
for label, choice, one in runs:
    given = [priors[label], prior_settings.get(label, {})]
    rows, restored = [], []
    for degraded in batches:
        result = cells.restore(degraded, one, networks[label], name=label, judge=True, given=given)
        part = names[len(rows) : len(rows) + len(degraded.y)]
        rows += [{"prior": label, **row} for row in result.rows(part)]
        lost = [name for name, finite in zip(part, finite_images(result.image).tolist()) if not finite]
        if lost:
            settled = ", ".join(f"{key} {value}" for key, value in choice.items())
            skipped.append(f"{', '.join(lost)}: {label}{settled and f' ({settled})'} gave NaN or infinite values")
            print(f"left out: {skipped[-1]}")
        broken.update(lost)
        restored.append(result.image.cpu().nan_to_num(0.5, 0.5, 0.5))
        done += 1
        progress(done, len(runs) * len(batches))
    tried.append(rows)
    images[label] = torch.cat(restored)[:pictures]
print("{computed} restorations computed, {kept} kept".format(**cells.counts))
if not grid:
    tried = [[row for row in rows if row["photo"] not in broken] for rows in tried]
    if not tried[0]:
        raise ValueError(f"no image can be compared: {'; '.join(skipped)}")

# %% [markdown]
# ## Figures
# Means with 95 % confidence intervals (Student's t over the photos; tiles of one photo count as one). A paired change
# compares the two priors image by image, so that what differs between images cancels.

# %%
averages = [
    {
        "prior": label,
        "settings": {**settings.get(label, {}), **choice},
        **{key: mean_interval([row[key] for row in rows]).mean for key in measured_metrics(rows)},
    }
    for (label, choice, _), rows in zip(runs, tried)
]
for average in averages:
    figures = (f"{METRICS[key].title} {average[key]:.{METRICS[key].digits}f}" for key in METRICS if key in average)
    print(average["prior"], average["settings"], ", ".join(figures))

# %%
every = [row for rows in tried for row in rows]
common = {
    "operator": degradation,
    "noise": result.records[0]["noise"],  # as records have it, however it was written
    "size": size,
    "steps": steps,
    "count": count,
    "first": first,
    "seed": seed,
    "published_task": published_task,
    "photos": photos or ["sample photos"],
    "priors": {
        label: {
            "name": network.name,
            "summary": network.summary(),
            "solver": kinds[label],
            "settings": solver_settings(made[label][0]),
        }
        for label, network in networks.items()
    },
    "missing": missing_metrics([row for row in every if row["photo"] not in broken]),
    "environment": environment(torch.device(device)),
}
if grid:
    result = {"search": {**common, "grid": grid, "tried": averages, "best": best_combinations(averages, list(priors))}}
else:
    bare = [{key: value for key, value in row.items() if not key.endswith("_reason")} for row in every]
    summary = summarise(every, list(priors), clusters=[photo_of(row["photo"]) for row in tried[0]])
    result = {"comparison": {**common, "count": len(tried[0]), "rows": bare, **summary}}

# %%
for change in result.get("comparison", {}).get("changes", []):
    interval, metric = change["difference"], METRICS[change["metric"]]
    bounds = "" if interval["low"] is None else f" ({interval['low']:+.4f} to {interval['high']:+.4f})"
    print(
        f"{change['prior']} - {change['against']}, {metric.title}: {interval['mean']:+.4f}{bounds} {change['verdict']}"
    )

# %% [markdown]
# ## The first images

# %%
files = []
if not grid:
    result["comparison"]["strips"] = files
if pictures and not grid:
    degraded = torch.cat([degraded.picture.cpu() for degraded in batches])[:pictures]
    degraded = torch.nn.functional.interpolate(degraded, size=(size, size), mode="nearest")
    shown = {"original": originals[:pictures], "degraded": degraded, **images}
    show(shown, names[:pictures], height=1.3)
    plt.show()
    for number, (title, row) in enumerate(shown.items()):
        files.append({"title": title, "file": f"strip-{number}.png"})
        save_image(strip(row), folder_of("compare_priors") / files[-1]["file"])

# %% [markdown]
# ## Samples of the first image
# At the right the standard deviation over the samples, mean of the channels: white is 0.2.

# %%
if samples > 1 and not grid:
    one = repeated(degrade(originals[:1].to(device), operator, noise, seed, numbers=(first,)), samples)
    for number, label in enumerate(priors):
        drawn = restore(one, made[label][0], networks[label]).image.cpu()
        if not bool(finite_images(drawn).all()):
            skipped.append(f"samples by {label}: NaN or infinite values")
            continue
        spread = drawn.std(dim=0).mean(dim=0)
        picture = strip(torch.cat([drawn, (spread / 0.2).expand(1, 3, -1, -1)]))
        title = f"{label}: {samples} samples, and their standard deviation (mean {float(spread.mean()):.3f}; white 0.2)"
        files.append({"title": title, "file": f"samples-{number}.png"})
        save_image(picture, folder_of("compare_priors") / files[-1]["file"])
        plt.figure(figsize=(8, 1.6))
        plt.imshow(picture[0].permute(1, 2, 0).clamp(0, 1))
        plt.title(title, fontsize=9)
        plt.axis("off")
        plt.show()

# %%
write_result({**result, "skipped": skipped, "cells": cells.counts})
