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
# parameters; opened by hand it runs with these.

# %% tags=["parameters"]
photos: list[str] = [
    "astronaut:64",
    "cat:64",
]  # NAME:SIZE of a sample photo, or PATH:SIZE (from where the run is started); centre square
degradation: str = "sr:4"  # as `workbench operators` lists them
noise: float = 0.01  # standard deviation, pixel values from 0 to 1
methods: list[str] = ["pinv", "diffpir", "ddnm", "deqir"]
settings: dict[str, dict] = {}  # of methods that shall differ from their defaults
prior: str = "photo-dsm"  # anything that `load_prior` takes: a name, a file, diffusers:NAME, ...
prior_settings: dict = {}  # such as {"weights": "raw"}
seed: int = 0
device: str = "cpu"

# %%
import matplotlib.pyplot as plt
import torch

from workbench.images import SAMPLES, load_image, sample_photo, save_image
from workbench.metrics import as_text
from workbench.models import load_prior
from workbench.pipelines import input_path, input_source, progress, write_result
from workbench.plots import show
from workbench.restore import degrade, restore, solver_of

solvers = {name: solver_of(name, settings.get(name, {})) for name in methods}
network = load_prior(input_source(prior), device=device, **prior_settings)
print(network.summary())

# %% [markdown]
# ## Photos
# Photos of one size are restored in one batch. Each has its own noise from `seed`: the result is that of the photo
# by itself.

# %%
batches: dict[int, list[str]] = {}
for entry in photos:
    name, _, size = entry.rpartition(":")
    batches.setdefault(int(size), []).append(name)


def load(name, size):
    return sample_photo(name, size) if name in SAMPLES else load_image(input_path(name), size)


# %% [markdown]
# ## Degrade and restore

# %%
records, results = [], {}
done, total = 0, len(batches) * len(methods)
for size, names in batches.items():
    originals = torch.cat([load(name, size) for name in names]).to(device)
    degraded = degrade(originals, degradation, noise, seed, network)
    for method, solver in solvers.items():
        result = restore(degraded, solver, network, name=method)
        results[size, method] = result
        for index, name in enumerate(names):
            stem = f"{name.replace('/', '-')}-{size}"
            pictures = {"original": originals, "degraded": degraded.picture, method: result.image}
            for kind, images in pictures.items():
                save_image(images[index : index + 1], f"{stem}-{kind}.png")
            files = {
                "original": f"{stem}-original.png",
                "degraded": f"{stem}-degraded.png",
                "image": f"{stem}-{method}.png",
            }
            records.append({"photo": name, **files, **result.records[index]})
        done += 1
        progress(done, total)

# %% [markdown]
# ## Figures

# %%
for record in records:
    scores = f"{as_text(record['psnr'], 'psnr'):>6} dB  {as_text(record['ssim'], 'ssim')}"
    print(f"{record['photo']:12} {record['size'][0]:4} {record['solver']:10} {scores}")

# %%
for size, names in batches.items():
    first = results[size, methods[0]].degraded
    columns = {"original": first.original, "degraded": first.picture}
    columns |= {method: results[size, method].image for method in methods}
    show(columns, names)
    plt.show()

# %%
write_result({"records": records})
