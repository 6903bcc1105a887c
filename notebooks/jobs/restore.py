# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Restore photos with several methods
#
# One degradation, one noise level, all methods, any number of photos. A pipeline runs this notebook with its own
# parameters; opened by hand it runs with these. A method is a solver by its name, or by a label of its own, so that one
# solver can take part with several settings.

# %% tags=["parameters"]
photos: list[str] = [
    "astronaut:64",
    "cat:64",
]  # NAME:SIZE of a sample photo, or PATH:SIZE (a photo or a folder, from where the run is started); centre square
degradation: str = "sr:4"  # as `workbench operators` lists them
noise: float | str = 0.01  # standard deviation, pixel values from 0 to 1; or poisson:30, poisson-gauss:GAIN,SIGMA
methods: list[str] = ["pinv", "diffpir", "ddnm", "deqir"]
solvers: dict[str, str] = {}  # label -> solver, of methods that go by a label, such as {DeqIR-10: deqir}
settings: dict[str, dict] = {}  # of methods that shall differ from their defaults
prior: str = "photo"  # anything that `load_prior` takes: a name, a file, diffusers:NAME, ...
prior_settings: dict = {}  # such as {"weights": "raw"}
published_task: str = ""  # what to show of a published table: its columns that begin so (SR x4), or all (deqir-3)
with_fid: bool = False  # also compare the photos with the originals as sets
pictures: int = 1000  # of the first photos of a size, for the report
batch: int = 64  # photos at a time
seed: int = 0
device: str = "cpu"

# %%
import matplotlib.pyplot as plt
import torch

from workbench.data.sources import Folder
from workbench.evaluation.metrics import as_text
from workbench.images import SAMPLES, finite_images, load_image, sample_photo, save_image
from workbench.models import load_prior
from workbench.pipelines import folder_of, input_path, input_source, progress, write_result
from workbench.pipelines.cells import Cells, input_operator
from workbench.plots import show
from workbench.restore import degrade, solver_of
from workbench.text import check_labels

if not photos or batch < 1:
    raise ValueError(f"expected photos, and a batch of at least 1, got {len(photos)} and {batch}")
if not methods or len(set(methods)) != len(methods):
    raise ValueError(f"methods: expected at least one, each once, got {', '.join(methods) or 'none'}")
if taken := {"original", "degraded"}.intersection(methods):
    raise ValueError(f"methods: {taken.pop()!r} stands for the photos themselves, choose another label")
check_labels("solvers", solvers, "method", methods)
check_labels("settings", settings, "method", methods)
kinds = {label: solvers.get(label, label) for label in methods}
made = {label: solver_of(kind, settings.get(label, {})) for label, kind in kinds.items()}
network = load_prior(input_source(prior), device=device, **prior_settings)
print(network.summary())

# %% [markdown]
# ## Photos
# Photos of one size are restored in batches. Each photo has missing pixels and noise of its own, drawn from `seed` and
# its number in the list, whatever the batch size: one more at the end changes none of the others. What cannot be read
# is named and left out.

# %%
sizes: dict[int, list[tuple[int, str]]] = {}  # number and name of each photo
total = 0
for entry in photos:
    name, _, size = entry.rpartition(":")
    if not name or not size.isdigit():
        raise ValueError(f"photos: expected NAME:SIZE, such as cat:64, got {entry!r}")
    folder = input_path(name)
    if name not in SAMPLES and not folder.exists():
        raise ValueError(f"photos: {folder}: no such file")
    files = [f"{name}/{file.relative_to(folder)}" for file in Folder(folder).files] if folder.is_dir() else [name]
    sizes.setdefault(int(size), []).extend(enumerate(files, start=total))
    total += len(files)

skipped: list[str] = []


def load(name, size):
    """The photo, or None if it cannot be read."""
    try:
        return sample_photo(name, size) if name in SAMPLES else load_image(input_path(name), size)
    except ValueError as error:
        skipped.append(str(error))
        print(f"left out: {error}")


# %% [markdown]
# ## Degrade and restore
# The prior is asked once before the clock runs: its first answer also sets up the device. In a pipeline, what an earlier
# job restored from the same photo in the same way is taken from there. Where a method gives NaN or infinite values, the
# photo has no score and no picture of that method, and the report says so.

# %%
batches = [(size, part[i : i + batch]) for size, part in sizes.items() for i in range(0, len(part), batch)]
cells, operator = Cells(), input_operator(degradation)
with torch.no_grad():
    network(torch.full((1, 3, batches[0][0], batches[0][0]), 0.5, device=device), torch.tensor(1.0, device=device))

records, sets, shown, read = [], {}, dict.fromkeys(sizes, 0), {size: [] for size in sizes}
done, total = 0, len(batches) * len(methods)
for size, part in batches:
    loaded = [(number, name, load(name, size)) for number, name in part]
    loaded = [each for each in loaded if each[2] is not None]
    if not loaded:
        total -= len(made)
        continue
    numbers, names, images = zip(*loaded)
    read[size] += names
    originals = torch.cat(images).to(device)
    degraded = degrade(originals, operator, noise, seed, network, numbers)
    drawn = max(0, min(pictures - shown[size], len(names)))  # photos of this batch whose pictures are kept
    stems = [f"{number}-{name.rpartition('/')[2]}-{size}" for number, name in zip(numbers, names)]
    sets.setdefault((size, "original"), []).append(originals.cpu())
    sets.setdefault((size, "degraded"), []).append(degraded.picture.cpu())
    for number, (method, solver) in enumerate(made.items()):
        result = cells.restore(degraded, solver, network, name=method, given=[prior, prior_settings])
        sets.setdefault((size, method), []).append(result.image.cpu())
        finite = finite_images(result.image)
        for index, (name, stem) in enumerate(zip(names, stems)):
            files = {}
            if not finite[index]:
                skipped.append(f"{name} by {method}: the restored image has NaN or infinite values")
                print(f"left out: {skipped[-1]}")
            elif index < drawn:
                files = {"original": f"{stem}-original.png", "degraded": f"{stem}-degraded.png"}
                files["image"] = f"{stem}-method{number}.png"  # a label may hold what a file name cannot
                for kind, images in (("original", originals), ("degraded", degraded.picture), ("image", result.image)):
                    save_image(images[index : index + 1], folder_of("restore") / files[kind])
            facts = {"photo": name, "solver_kind": kinds[method], "published_task": published_task}
            records.append({**facts, **files, **result.records[index], "operator": degradation})
        done += 1
        progress(done, total)
    shown[size] += drawn
if not records:
    raise ValueError(f"photos: none can be read: {'; '.join(skipped)}")
sets = {key: torch.cat(images) for key, images in sets.items()}
print("{computed} restorations computed, {kept} kept".format(**cells.counts))

# %%
if with_fid:
    from workbench.evaluation.fid import fid_record  # slow to import

    distances = {
        (size, method): fid_record(sets[size, method], sets[size, "original"])
        for size in sizes
        for method in methods
        if read[size]
    }
    records = [record | distances[record["size"][0], record["solver"]] for record in records]

# %% [markdown]
# ## Figures

# %%
for record in records:
    scores = f"{as_text(record['psnr'], 'psnr'):>6} dB  {as_text(record['ssim'], 'ssim')}"
    print(f"{record['photo']:12} {record['size'][0]:4} {record['solver']:10} {scores}")

# %%
for size, names in read.items():
    if not shown[size]:
        continue
    count = min(shown[size], 8)
    firsts = {kind: sets[size, kind][:count] for kind in ("original", "degraded", *methods)}
    show({kind: images.nan_to_num(0.5, 0.5, 0.5) for kind, images in firsts.items()}, names[:count])
    plt.show()

# %%
write_result({"records": records, "skipped": skipped, "cells": cells.counts})
