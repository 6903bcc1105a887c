# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Bring your own solver
#
# **Aim.** Write a restoration method in its equations, register it, and run it on photos beside the others.
#
# Half-quadratic splitting is the classic plug-and-play scheme. It minimises
# $\tfrac12\|Ax - y\|^2 + \lambda\,\sigma_n^2 R(x)$ by splitting $x$ from a copy $z$, and alternates a denoising step and a
# proximal step while the coupling grows:
# $$z_k = D(x_k, \sigma_k),\qquad
# x_{k+1} = \arg\min_x \tfrac12\|Ax - y\|^2 + \tfrac{\lambda\,\sigma_n^2}{2\,\sigma_k^2}\|x - z_k\|^2 .$$
#
# The two steps are `workbench.models.prior:Prior` and `workbench.operators.base:Operator.prox`. The package has this method too
# (`workbench.solvers.plug_and_play.hqs:HQS`); here it is written from the start.

# %%
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photos
from workbench.limits import Count, NotNegative, Positive
from workbench.models import load_prior
from workbench.plots import show
from workbench.restore import degrade, restore
from workbench.solvers import SOLVERS, DiffPIR, Iterate, Problem, Sampler, make_solver
from workbench.solvers.schedules import geometric_sigmas

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it

# %% [markdown]
# ## The solver
# A solver is a frozen dataclass of settings, whose types also say what is allowed (`Count`: at least 1). `iterate` is a
# generator that yields after every network evaluation: the image, the noise level, what a viewer sees meanwhile, and how
# many iterations there will be. The base class checks the arguments, draws noise, counts evaluations, calls the callback
# and builds the result. `p` is the problem: `p.y`, `p.op`, `p.prior`, `p.sigma_noise` (one level per image) and
# `p.draw(like)`, a source of noise. The name in the first line registers the class in this notebook.


# %%
@dataclass(frozen=True)
class HalfQuadraticSplitting(Sampler, name="my-hqs"):
    """Plug-and-play half-quadratic splitting (Zhang et al. 2021, DPIR), deterministic.

    Attributes:
        steps: iterations, one network evaluation each.
        sigma_start: first denoising level; they fall geometrically to the noise of the measurement, at least 0.01.
        lambda_: weight of the prior.
    """

    summary: ClassVar[str] = "plug-and-play: alternates denoising and a proximal step, without fresh noise"
    paper: ClassVar[str] = "Zhang et al. 2021 (DPIR)"
    linear: ClassVar[bool] = False  # any operator with a proximal step

    steps: Count = 8
    sigma_start: Positive = 0.2
    lambda_: NotNegative = 0.25

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        x = p.first_estimate("data")
        lowest = max(float(p.sigma_noise.min()), 0.01)
        for sigma in geometric_sigmas(self.steps, self.sigma_start, lowest).tolist():
            z = p.prior(x, sigma)
            x = p.op.prox(z, p.y, self.lambda_ * (p.sigma_noise / sigma) ** 2)
            yield Iterate(x, sigma, x, self.steps)


print("registered:", "my-hqs" in SOLVERS, "as", make_solver("my-hqs", steps=5))

# %% [markdown]
# ## Run it
# Scores, cost and the command line come with it. Wrong input is refused by the base class.

# %%
prior = load_prior("photo")
photos = sample_photos(128, ("cat", "coffee"))
degraded = degrade(photos, "blur:2", noise=0.02, seed=0)
columns, scores = (
    {"original": photos, "blurred": degraded.picture},
    {"blurred": psnr(degraded.picture, photos).tolist()},
)
for label, solver in {"my-hqs, 8 steps": HalfQuadraticSplitting(), "diffpir, 8 steps": DiffPIR(steps=8)}.items():
    result = restore(degraded, solver, prior)
    columns[label] = result.image
    scores[label] = [record["psnr"] for record in result.records]
show(columns, ["cat", "coffee"], {label: [f"{value:.1f} dB" for value in values] for label, values in scores.items()})
plt.show()
gains = [after - before for after, before in zip(scores["my-hqs, 8 steps"], scores["blurred"])]
print("evaluations:", result.records[0]["evaluations"], "  gains in dB:", [round(gain, 1) for gain in gains])
assert min(gains) > 3
try:
    HalfQuadraticSplitting()(degraded.y, degraded.op, prior, sigma_noise=-1.0)
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# ## Check it against what must hold
# For noise-free data the weight of the proximal step is 0: known pixels come back as they are, up to rounding. And there is
# no randomness: a second run gives the same picture.

# %%
masked = degrade(photos, "inpaint:0.5", seed=0)
image = HalfQuadraticSplitting()(masked.y, masked.op, prior).image
off = (masked.op(image) - masked.y).abs().max()
print("known pixels kept:", bool(off < 1e-6))
assert off < 1e-6
torch.testing.assert_close(image, HalfQuadraticSplitting()(masked.y, masked.op, prior).image)

# %% [markdown]
# ## In a file
# Put the class into a file, without a name to register, and every command and pipeline takes it:
# `workbench restore photo.jpg --solver my_solver.py:HalfQuadraticSplitting --set steps=12`. Priors and operators of your own are
# named in the same way. `docs/bring_your_own.md` has what each must keep to, and examples.
#
# ## What to try
# - `lambda_`: 0.03 trusts the data more and lets their noise in, 1 the prior more and is smoother. With 0.03 the result, blurred
#   again, is nearer to the measurement; with 1 it is further off. Tried below.
# - ADMM: a dual variable $u$, `z = p.prior(x + u, sigma)`, `x = p.op.prox(z - u, ...)`, `u = u + x - z`. Below, in three more
#   lines than above. With few steps and falling levels it comes out a little below the splitting.
# - `workbench.evaluation.posterior` compares a sampler with the exact posterior of a Gaussian prior.


# %%
@dataclass(frozen=True)
class MyADMM(HalfQuadraticSplitting, name="my-admm"):
    """The same with a dual variable."""

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        x = p.first_estimate("data")
        u = torch.zeros_like(x)
        lowest = max(float(p.sigma_noise.min()), 0.01)
        for sigma in geometric_sigmas(self.steps, self.sigma_start, lowest).tolist():
            z = p.prior(x + u, sigma)
            x = p.op.prox(z - u, p.y, self.lambda_ * (p.sigma_noise / sigma) ** 2)
            u = u + x - z
            yield Iterate(x, sigma, x, self.steps)


tries = {f"lambda {value:g}": HalfQuadraticSplitting(lambda_=value) for value in (0.03, 0.25, 1.0)} | {"admm": MyADMM()}
gaps, found = {}, {}
for label, solver in tries.items():
    result = restore(degraded, solver, prior)
    gaps[label] = float((degraded.op(result.image) - degraded.y).square().mean().sqrt()) / 0.02
    found[label] = [record["psnr"] for record in result.records]
    print(
        f"{label:11} {[round(v, 1) for v in found[label]]} dB, off the measurement by {gaps[label]:.2f} times the noise"
    )
assert gaps["lambda 0.03"] < gaps["lambda 0.25"] < gaps["lambda 1"]
assert sum(found["admm"]) < sum(found["lambda 0.25"])
