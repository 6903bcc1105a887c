# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Quickstart: restore a photo
#
# **Aim.** Degrade a photo in a known way and restore it with four methods.
#
# A measurement is $y = A x + \sigma\,\varepsilon$: the operator $A$ loses information, noise of standard deviation
# $\sigma$ is added. Many images $x$ explain $y$. A *prior* knows what photos look like; every method below finds an image
# that agrees with both.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.plots import show
from workbench.restore import degrade, restore
from workbench.solvers import DDNM, DeqIR, DiffPIR, PseudoInverse

photo = sample_photo("cat", size=128)
print("photo:", tuple(photo.shape), "values from", round(float(photo.min()), 2), "to", round(float(photo.max()), 2))

# %% [markdown]
# ## Degrade
# Four times fewer pixels each way, and a little noise. `sr:4` is short for an operator (see the notebook *operators*); the
# seed fixes everything that is random.

# %%
prior = load_prior("photo")
degraded = degrade(photo, "sr:4", noise=0.01, seed=0, prior=prior)
print("measurement:", tuple(degraded.y.shape))

# %% [markdown]
# ## Restore
# A solver is a set of settings. Calling it with a measurement, an operator and a prior gives the restored image and what it
# cost; `restore` also scores it against the original.

# %%
solvers = {
    "pinv": PseudoInverse(),
    "diffpir": DiffPIR(steps=30),
    "ddnm": DDNM(steps=30),
    "deqir": DeqIR(steps=15, iterations=10),
}
results = {name: restore(degraded, solver, prior, name=name) for name, solver in solvers.items()}
print(f"{'':8} {'PSNR':>8} {'SSIM':>6} {'evaluations':>12}")
for name, result in results.items():
    scores = result.records[0]
    print(f"{name:8} {scores['psnr']:5.1f} dB {scores['ssim']:6.2f} {scores['evaluations']:12}")

# %%
columns = {"original": photo, "degraded": degraded.picture, **{name: r.image for name, r in results.items()}}
notes = {name: [f"{r.records[0]['psnr']:.1f} dB"] for name, r in results.items()}
show(columns, notes=notes)
plt.show()

# %% [markdown]
# PSNR is highest for the image nearest to the original pixel by pixel. Samplers show *one* sharp image out of many that
# explain the measurement, so their PSNR can be lower than that of a blurry average, though they look better. Perceptual
# distances such as LPIPS measure that; `metrics.json` and the reports contain it if its weights are installed.
#
# ## Every restored image explains the measurement
# Degrading the restored image gives back what was measured, up to the noise.

# %%
for name, result in results.items():
    gap = (degraded.op(result.image) - degraded.y).square().mean().sqrt()
    print(f"{name:8} {float(gap):.2f}")
    assert gap < 0.05

# %% [markdown]
# ## Posterior samples
# Changing only the solver's seed gives another sample. Where samples differ, the measurement does not determine the image.

# %%
samples = torch.cat(
    [
        DDNM(steps=30)(
            degraded.y, degraded.op, prior, sigma_noise=0.01, generator=torch.Generator().manual_seed(k)
        ).image
        for k in range(4)
    ]
)
spread = samples.std(dim=0, keepdim=True).mean(dim=1, keepdim=True)
show({f"sample {k + 1}": samples[k : k + 1] for k in range(4)} | {"spread x 5": 5 * spread})
plt.show()
print("mean spread:", round(float(spread.mean()), 2))

# %% [markdown]
# ## What to try
# - Another photo: `sample_photo("coffee", 64)`, or `load_image("your.jpg", size=64)` from `workbench.images`.
# - Another degradation: `inpaint:0.8`, `block:24`, `blur:2`, `gray`.
# - `DiffPIR(zeta=0.3)`: less fresh noise in each step. `DDNM(eta=0.0)`: none.
# - On the command line: `workbench restore your.jpg --size 64 --degrade inpaint:0.8 --solver ddnm --out restored`.
