# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # One solver, one setting at a time
#
# Each setting takes its values in turn while the others keep theirs: how the quality depends on it, and what it costs.
# DeqIR's Figure 8 is such a sweep of its levels, iterations and share of fresh noise.

# %% tags=["parameters"]
photos: list[str] = ["astronaut", "cat"]  # NAME of a sample photo, or PATH (from where the run is started)
size: int = 64  # centre square, resized to this
degradation: str = "blur:20,1,9"  # as `workbench operators` lists them
noise: float | str = 0.0  # standard deviation, pixel values from 0 to 1; or poisson:30, poisson-gauss:GAIN,SIGMA
solver: str = "deqir"
settings: dict = {}  # where they differ from the defaults; what the others keep
values: dict[str, list] = {"steps": [5, 20], "iterations": [3, 15], "eta": [0.15, 0.85]}  # setting -> values
prior: str = "photo"  # anything that `load_prior` takes
prior_settings: dict = {}  # such as {"weights": "raw"}
seed: int = 0
device: str = "cpu"

# %%
from statistics import fmean

import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import as_text
from workbench.images import SAMPLES, load_image, sample_photo
from workbench.models import load_prior
from workbench.pipelines import folder_of, input_path, input_source, progress, write_result
from workbench.records import solver_settings
from workbench.restore import degrade, restore, solver_of
from workbench.text import require

base = solver_of(solver, settings)
require(bool(values) and all(values.values()), "values", "lists of a value or more by setting", values)
tried = [(name, value, solver_of(solver, {**settings, name: value})) for name in values for value in values[name]]
network = load_prior(input_source(prior), device=device, **prior_settings)
print(network.summary())

# %%
originals = torch.cat([sample_photo(n, size) if n in SAMPLES else load_image(input_path(n), size) for n in photos])
degraded = degrade(originals.to(device), degradation, noise, seed, network)
with torch.no_grad():  # before the clock runs: the first answer also sets up the device
    network(torch.full((1, 3, size, size), 0.5, device=device), torch.tensor(1.0, device=device))

# %% [markdown]
# ## Restore

# %%
FIGURES = ("psnr", "ssim", "lpips", "effnet", "evaluations", "iterations", "seconds")
rows, done = [], {}
for count, (name, value, one) in enumerate(tried):
    if one not in done:  # the base itself stands in every setting
        done[one] = restore(degraded, one, network, name=solver).records
    records = done[one]
    columns = {key: [record[key] for record in records] for key in FIGURES}
    means = {key: None if None in found else fmean(found) for key, found in columns.items()}
    rows.append({"setting": name, "value": value, **means})
    quality = as_text(means["psnr"], "psnr")
    print(f"{name:12} {value!s:6} {quality:>6} dB  {means['evaluations']:5.0f} evaluations")
    progress(count + 1, len(tried))

# %% [markdown]
# ## PSNR over each setting

# %%
figure, axes = plt.subplots(1, len(values), figsize=(3.4 * len(values), 2.8), squeeze=False, layout="constrained")
for axis, name in zip(axes[0], values):
    own = [row for row in rows if row["setting"] == name and row["psnr"] is not None]
    axis.plot([str(row["value"]) for row in own], [row["psnr"] for row in own], "o-", markersize=3)
    kept = [row for row in own if row["value"] == getattr(base, name)]
    axis.plot([str(row["value"]) for row in kept], [row["psnr"] for row in kept], "o", markersize=8)
    axis.set(xlabel=name, ylabel="PSNR, dB")
    axis.grid(alpha=0.3)
figure.savefig(folder_of("sweep_solver") / "sweep.png", dpi=110)
plt.show()

# %%
facts = {"solver": solver, "operator": degradation, "noise": noise, "photos": photos, "size": size}
facts |= {"count": len(photos), "prior": network.summary(), "settings": solver_settings(base), "plot": "sweep.png"}
reason = done[tried[0][2]][0].get("lpips_reason")
write_result({"sweep": {**facts, "rows": rows, "lpips_reason": reason}})
