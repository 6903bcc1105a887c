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

# %%
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import matplotlib.pyplot as plt
import torch

from workbench.images import sample_photos
from workbench.limits import Count, NotNegative, Positive
from workbench.models import load_prior
from workbench.plots import show
from workbench.restore import degrade, restore
from workbench.solvers import SOLVERS, DiffPIR, Iterate, Problem, Sampler, make_solver
from workbench.solvers.base import initial_image
from workbench.solvers.schedules import geometric_sigmas

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
        sigma_start: first denoising level; they fall geometrically to the noise of the measurement (or 0.01).
        lambda_: weight of the prior.
    """

    summary: ClassVar[str] = "plug-and-play: alternates denoising and a proximal step, without fresh noise"
    paper: ClassVar[str] = "Zhang et al. 2021 (DPIR)"
    linear: ClassVar[bool] = False  # any operator with a proximal step

    steps: Count = 8
    sigma_start: Positive = 0.2
    lambda_: NotNegative = 0.25

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        noise = p.sigma_noise.clamp(min=0.01)
        x = initial_image(p.op, p.y, noise)
        for sigma in geometric_sigmas(self.steps, self.sigma_start, float(noise.min())).tolist():
            z = p.prior(x, sigma)
            x = p.op.prox(z, p.y, self.lambda_ * (noise / sigma) ** 2)
            yield Iterate(x, sigma, x, self.steps)


print("registered:", "my-hqs" in SOLVERS, "as", make_solver("my-hqs", steps=5))

# %% [markdown]
# ## Run it
# Scores, cost and the command line come with it. Wrong input is refused by the base class.

# %%
prior = load_prior("photo")
photos = sample_photos(64, ("cat", "coffee"))
degraded = degrade(photos, "blur:2", noise=0.02, seed=0)
columns, notes = {"original": photos, "blurred": degraded.picture}, {}
for label, solver in {"my-hqs, 8 steps": HalfQuadraticSplitting(), "diffpir, 8 steps": DiffPIR(steps=8)}.items():
    result = restore(degraded, solver, prior)
    columns[label] = result.image
    notes[label] = [f"{record['psnr']:.1f} dB" for record in result.records]
show(columns, ["cat", "coffee"], notes)
plt.show()
better = restore(degraded, HalfQuadraticSplitting(), prior).records[0]["psnr"] > 20
print("evaluations:", result.records[0]["evaluations"], "  sharper than the measurement:", better)
try:
    HalfQuadraticSplitting()(degraded.y, degraded.op, prior, sigma_noise=-1.0)
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# ## Check it against what must hold
# For noise-free data and a mask, the proximal step of weight near 0 leaves the known pixels as they are.

# %%
masked = degrade(photos, "inpaint:0.5", seed=0)
image = HalfQuadraticSplitting()(masked.y, masked.op, prior).image
off = (masked.op(image) - masked.y).abs().max()
print("known pixels kept to 0.02:", bool(off < 0.02))
torch.testing.assert_close(image, HalfQuadraticSplitting()(masked.y, masked.op, prior).image)  # no randomness

# %% [markdown]
# ## In a file
# Put the class into a file, without a name to register, and every command and pipeline takes it:
# `workbench restore photo.jpg --solver my_solver.py:HalfQuadraticSplitting --set steps=12`. Priors and operators of your own are
# named in the same way. `docs/bring_your_own.md` has what each must keep to, and examples.
#
# ## What to try
# - `lambda_`: 0.1 trusts the data more, 1 the prior.
# - ADMM: a dual variable $u$, `z = p.prior(x + u, sigma)`, `x = p.op.prox(z - u, ...)`, `u = u + x - z`.
# - `workbench.evaluation.posterior` compares a sampler with the exact posterior of a Gaussian prior.
