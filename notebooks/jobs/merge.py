# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Merge the shards of an evaluation
#
# The scores of all images in the order of their numbers, and the sums of the Fréchet distances: the figures are those of
# one job over the whole test set (docs/sharded_evaluation.md). Run by a pipeline, after the shards that it `needs`.

# %% tags=["parameters"]
entry: str = "shards"  # the entry of `evaluate` whose jobs are the shards

# %%
import json
import shutil
from collections import Counter

import numpy as np
from safetensors.torch import load_file

from workbench.evaluation.fid import distance
from workbench.evaluation.metrics import FIGURES
from workbench.evaluation.statistics import summarise_values
from workbench.pipelines import folder_of, needed, write_result
from workbench.reports.comparison import with_margin

found = [(json.loads((folder / "result.json").read_text()), folder) for folder in needed(entry)]
found.sort(key=lambda each: each[0]["parameters"]["shard"])
parts, folders = [part for part, _ in found], [folder for _, folder in found]
given = [{key: value for key, value in part["parameters"].items() if key != "shard"} for part in parts]
if differing := sorted({key for each in given for key in each if each[key] != given[0][key]}):
    raise ValueError(f"{entry}: the shards are not of one evaluation, they differ in {', '.join(differing)}")
shards = given[0]["shards"]
counts = Counter(part["parameters"]["shard"] for part in parts)
if missing := [shard for shard in range(shards) if not counts[shard]]:
    raise ValueError(f"{entry}: of {shards} shards there is no number {', '.join(map(str, missing))}")

# %% [markdown]
# ## Figures
# Means with 95 % confidence intervals (Student's t over the images) and paired changes of the last prior. They need each
# image's scores, since differences are taken image by image.

# %%
numbers = np.concatenate([np.load(folder / "numbers.npy") for folder in folders])
scores = np.concatenate([np.load(folder / "scores.npy") for folder in folders])
assert (np.diff(numbers) > 0).all()
if not len(numbers):
    said = "; ".join(each for part in parts for each in part["skipped"])
    raise ValueError(f"none of the photos can be read and restored: {said}")
labels = list(parts[0]["shard"]["priors"])
keys = parts[0]["shard"]["metrics"]
measured = [place for place in range(len(keys)) if not np.isnan(scores[:, :, place]).any()]
summary = summarise_values(
    {label: {keys[metric]: scores[:, place, metric] for metric in measured} for place, label in enumerate(labels)}
)
kind = parts[0]["shard"]["set_distance"] if given[0]["with_fid"] else ""
if kind and len(numbers) > 1:
    sums = {}
    for folder in folders:
        for label, own in load_file(folder / "sums.safetensors").items():
            sums[label] = sums.get(label, 0) + own
    for label in labels:
        value = distance(sums[label], sums["original"])
        summary["means"][label][kind] = {"mean": value, "low": None, "high": None, "n": len(numbers)}

# %%
for label, own in summary["means"].items():
    print(label, ", ".join(f"{FIGURES[key].title} {with_margin(one, FIGURES[key])}" for key, one in own.items()))

# %%
for strip in parts[0]["shard"]["strips"]:
    shutil.copy(folders[0] / strip["file"], folder_of("merge") / strip["file"])
taken = ("noise", "size", "steps", "first", "seed", "published_task")
comparison = {
    **{key: given[0][key] for key in taken},
    "operator": given[0]["degradation"],
    "count": len(numbers),
    "photos": given[0]["photos"] or ["sample photos"],
    "priors": parts[0]["shard"]["priors"],
    "missing": {key: why for part in parts for key, why in part["shard"]["missing"].items()},
    "environment": parts[0]["shard"]["environment"],
    "rows": [],
    "strips": parts[0]["shard"]["strips"],
    **summary,
}
write_result({"comparison": comparison, "shards": shards})
