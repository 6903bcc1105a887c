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
# **Aim.** Degrade a photo in a known way and restore it with four methods. New to all this? Begin with the
# [first lesson](first_lesson.ipynb).
#
# A measurement is $y = A x + \sigma\,\varepsilon$: the operator $A$ loses information, noise of standard deviation
# $\sigma$ is added (`workbench.measurement:degrade`). Many images $x$ explain $y$. A *prior* knows what photos look like
# (`workbench.models.prior:Prior`); every method below looks for an image that agrees with both.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.plots import show
from workbench.restore import degrade, restore, samples
from workbench.solvers import DDNM, DeqIR, DiffPIR, PseudoInverse
from workbench.widgets import restoration_player

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
photo = sample_photo("coffee", size=128)
print("photo:", tuple(photo.shape), "values from", round(float(photo.min()), 2), "to", round(float(photo.max()), 2))

# %% [markdown]
# ## Degrade
# Four times fewer pixels each way, and a little noise. `sr:4` is short for an operator (see [operators](operators.ipynb));
# the seed fixes everything that is random.

# %%
prior = load_prior("photo")
sigma = 0.01
degraded = degrade(photo, "sr:4", noise=sigma, seed=0, prior=prior)
print("measurement:", tuple(degraded.y.shape))
assert photo.numel() == 16 * degraded.y.numel()

# %% [markdown]
# ## Restore
# A solver is a set of settings. Calling it with a measurement, an operator and a prior gives the restored image and what it
# cost; `restore` also scores it against the original.
#
# `pinv` is the pseudo-inverse $A^+ y$ and asks no prior. `diffpir` and `ddnm` go down 30 noise levels, one evaluation
# of the network each, one after the other. `deqir` finds the images of all of `ddnm`'s levels at once, as one fixed point: its
# iterations are few, but each asks the network about many levels, side by side.

# %%
solvers = {
    "pinv": PseudoInverse(),
    "diffpir": DiffPIR(steps=30),
    "ddnm": DDNM(steps=30),
    "deqir": DeqIR(steps=30),
}
results = {name: restore(degraded, solver, prior, name=name) for name, solver in solvers.items()}
scores = {name: result.records[0] for name, result in results.items()}
print(f"{'':8} {'PSNR':>8} {'SSIM':>6} {'evaluations':>12} {'one after the other':>20}")
for name, row in scores.items():
    depth = row["iterations"] if row["evaluations"] else 0
    print(f"{name:8} {row['psnr']:5.2f} dB {row['ssim']:6.3f} {row['evaluations']:12} {depth:20}")

# %%
columns = {"original": photo, "degraded": degraded.picture, **{name: r.image for name, r in results.items()}}
show(columns, notes={name: [f"{row['psnr']:.1f} dB"] for name, row in scores.items()})
plt.show()

# %% [markdown]
# `deqir` and `ddnm` show the same picture: with the same noise, the fixed point *is* DDNM's result, here up to its tolerance, a
# twentieth of the noise. It costs three to four times the evaluations, in less than a third of the rounds. That pays
# where a device evaluates many levels in the time of one, and where gradients through the chain are wanted; not on a laptop's
# processor.

# %%
apart = float((results["deqir"].image - results["ddnm"].image).square().mean().sqrt())
print(f"deqir and ddnm differ by {apart / sigma:.2f} of the noise")
assert apart < sigma / 20
assert 3 < scores["deqir"]["evaluations"] / scores["ddnm"]["evaluations"] < 4
assert scores["deqir"]["iterations"] < scores["ddnm"]["iterations"] / 3

# %% [markdown]
# How does `ddnm` get there? A callback keeps every step; move through them (in JupyterLab; elsewhere you see a still). It
# begins with noise, of which the prior makes blots; shapes come before details, and the PSNR rises with them.

# %%
steps = []
watched = restore(degraded, DDNM(steps=30), prior, callback=steps.append)
restoration_player(watched, steps)

# %%
rise = [float(psnr(step.image, photo)) for step in steps]
assert rise[0] < rise[9] < rise[19] < rise[29]
assert watched.records[0]["psnr"] == scores["ddnm"]["psnr"]

# %% [markdown]
# PSNR is highest for the image nearest to the original pixel by pixel. Samplers show *one* sharp image out of many that
# explain the measurement, so their PSNR can be lower than that of a blurry average, though they look better. Perceptual
# distances such as LPIPS measure that; `metrics.json` and the reports contain it if its weights are installed.
#
# ## Does the restored image explain the measurement?
# Degrading it again must give back what was measured, but not the noise in it. The original itself is off by the
# noise, so 1.0 is right in the table. `pinv` is at 0: it explains the noise too.

# %%
gaps = {}
for name, image in {"original": photo, **{name: r.image for name, r in results.items()}}.items():
    gaps[name] = float((degraded.op(image) - degraded.y).square().mean().sqrt()) / sigma
    print(f"{name:8} off by {gaps[name]:.2f} times the noise")
assert gaps["pinv"] < 0.01
assert all(0.8 < gaps[name] < 1.2 for name in ("original", "diffpir", "ddnm", "deqir"))

# %% [markdown]
# That is no law. At levels below the noise of the data, `ddnm` and `deqir` believe the prior more than the measurement
# (`workbench.solvers.null_space`), and the prior smooths what it does not know. With half the levels, or with most pixels
# missing, they are off by more:

# %%
missing = degrade(photo, "inpaint:0.8", noise=sigma, seed=0)
for title, problem, steps in (("sr:4, 15 levels", degraded, 15), ("inpaint:0.8, 30 levels", missing, 30)):
    image = restore(problem, DDNM(steps=steps), prior).image
    measured = problem.op(torch.ones_like(photo)) > 0  # not the missing pixels
    gap = float((problem.op(image) - problem.y)[measured].square().mean().sqrt()) / sigma
    print(f"ddnm, {title}: off by {gap:.2f} times the noise")
    assert gap > 1.2

# %% [markdown]
# ## Posterior samples
# Changing only the solver's seed gives another sample. Where samples differ, the measurement does not determine the image.
# Whether the spread is the right one is the question of [uncertainty](uncertainty.ipynb).

# %%
drawn = restore(samples(degraded, 4), DDNM(steps=30), prior).image
spread = drawn.std(dim=0, keepdim=True).mean(dim=1, keepdim=True)
show({f"sample {k + 1}": drawn[k : k + 1] for k in range(4)} | {"spread x 5": 5 * spread})
plt.show()
print("mean spread:", round(float(spread.mean()), 2))

# %% [markdown]
# ## What to try
# The cell below is a start; change it. What comes out:
#
# - Another degradation. `blur:2`, `block:48` and `inpaint:0.8` gain more than 5 dB over the measurement. `gray` gains or loses
#   less than 1: colours are guessed, and a wrong guess is no nearer than grey.
# - `DiffPIR(zeta=0.3)`, less fresh noise in each step, and `DDNM(eta=0.0)`, none: lower here, as the errors of early steps stay.
# - Another photo: `sample_photo("cat", 128)`, or `load_image("your.jpg", size=128)` from `workbench.images`.
# - On the command line: `workbench restore your.jpg --size 128 --degrade inpaint:0.8 --solver ddnm --out restored`.

# %%
gains = {}
for spec in ("blur:2", "block:48", "inpaint:0.8", "gray"):
    problem = degrade(photo, spec, noise=sigma, seed=0)
    found = restore(problem, DiffPIR(steps=30), prior).records[0]["psnr"]
    without = float(psnr(problem.picture.expand_as(photo), photo))
    gains[spec] = found - without
    print(f"{spec:12} without a prior {without:4.1f} dB, diffpir {found:4.1f} dB")
assert all(gains[spec] > 5 for spec in ("blur:2", "block:48", "inpaint:0.8"))
assert abs(gains["gray"]) < 1
for name, solver in (("diffpir", DiffPIR(steps=30, zeta=0.3)), ("ddnm", DDNM(steps=30, eta=0.0))):
    found = restore(degraded, solver, prior).records[0]["psnr"]
    print(f"{name:8} with less fresh noise {found:4.1f} dB, not {scores[name]['psnr']:4.1f} dB")
    assert found < scores[name]["psnr"]
