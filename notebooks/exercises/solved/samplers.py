# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Exercise: one step of DDNM, one step of DiffPIR
#
# **You need** the lessons [quickstart](../../basics/quickstart.ipynb) and
# [bring_your_own_solver](../../basics/bring_your_own_solver.ipynb). **You learn** how two samplers put the data into a chain of
# denoising steps, and compare your own with the package's, number by number.

# %%
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.limits import Count, Positive
from workbench.models import load_prior
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade
from workbench.solvers import DDNM, Iterate, Problem, Sampler

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
photo = sample_photo("cat", size=128)
degraded = degrade(photo, "sr:4", seed=0)  # no noise
op, y, prior = degraded.op, degraded.y, load_prior("photo")

# %% [markdown]
# ## 1. The data step of DDNM
# The clean image $c = D(x, \sigma)$ looks like a photo, but does not explain $y$. DDNM (Wang et al. 2023, eq. 10) keeps its part
# that the measurement does not see, and takes the rest from the data:
# $$\hat c = c - A^+ (A c - y).$$


# %% tags=["solution"] jupyter={"source_hidden": true}
def data_step(op, y, clean):
    """The image nearest to ``clean`` (B, C, H, W) that explains ``y`` exactly."""
    # Hint: op.pinv(y) is A^+ y.
    ### BEGIN SOLUTION
    return clean - op.pinv(op(clean) - y)
    ### END SOLUTION


# %%
grey = torch.full_like(photo, 0.5)
stepped = data_step(op, y, grey)
torch.testing.assert_close(op(stepped), y, atol=1e-5, rtol=0)  # it explains the data
torch.testing.assert_close(op.project_null(stepped), op.project_null(grey), atol=1e-5, rtol=0)  # the rest is untouched
torch.testing.assert_close(stepped, op.prox(grey, y, 0.0), atol=1e-5, rtol=0)  # the package's way to write it
print("data step ok")

# %% [markdown]
# ## 2. The whole step
# The state $x$ at level $\sigma$ holds noise $e = (x - c)/\sigma$. The next state, at level $\sigma' < \sigma$, is the corrected
# clean image with noise of that level, a part $\sqrt{1 - \eta^2}$ of it the old one and a part $\eta$ fresh:
# $$x' = \hat c + \sigma'\big(\sqrt{1-\eta^2}\;e + \eta\,\varepsilon\big).$$
# The package's is `workbench.solvers.null_space:transition`.


# %% tags=["solution"] jupyter={"source_hidden": true}
def ddnm_step(op, y, x, clean, fresh, sigma, lower, eta):
    """The state at level ``lower`` from the state ``x`` at ``sigma``; ``fresh`` is normal noise like ``x``."""
    # Hint: compute e from x and clean *before* clean is corrected.
    ### BEGIN SOLUTION
    seen = (x - clean) / sigma
    return data_step(op, y, clean) + lower * ((1 - eta**2) ** 0.5 * seen + eta * fresh)
    ### END SOLUTION


# %% [markdown]
# Your step in a chain of 20 levels, beside `workbench.solvers.zero_shot.ddnm:DDNM` with the same noise.

# %%
solver = DDNM(steps=20)
draw = generator(0)
problem = solver.problem(y, op, prior, 0.0, lambda like: torch.randn(like.shape, generator=draw))
with torch.no_grad():
    levels = problem.levels(solver.schedule, solver.steps)
    x = problem.grey + levels[0] * problem.draw(photo)
    for sigma, lower in pairwise(levels):
        x = ddnm_step(op, y, x, prior(x, sigma), problem.draw(photo), sigma, lower, solver.eta)
theirs = solver(y, op, prior, generator=generator(0)).image
off = float((x - theirs).abs().max())
print("the same picture as DDNM:", off < 1e-3)
assert off < 1e-3

# %% [markdown]
# ## 3. DiffPIR
# DiffPIR (Zhu et al. 2023) puts the data in by a proximal step, which allows for noise $\sigma_n$ in them, and adds the noise of
# the next level, a part $\zeta$ of its variance fresh:
# $$\hat c = \operatorname{prox}\big(c,\,y,\,\lambda\sigma_n^2/\sigma^2\big),\qquad
# x' = \hat c + \sigma'\big(\sqrt{1-\zeta}\;\hat e + \sqrt{\zeta}\,\varepsilon\big),\qquad \hat e = (x - \hat c)/\sigma .$$
# Note the hat on $e$: the noise is what remains after the data step. Write the loop of a solver (as in
# *bring_your_own_solver*); `op.prox(z, y, w)` is the proximal step.


# %% tags=["solution"] jupyter={"source_hidden": true}
@dataclass(frozen=True)
class MyDiffPIR(Sampler, name="my-diffpir"):
    """DiffPIR in its simplest form."""

    steps: Count = 20
    sigma_start: Positive = 3.0
    lambda_: Positive = 1.0
    zeta: Positive = 1.0

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        levels = p.levels("geometric", self.steps, self.sigma_start)
        x = p.grey + levels[0] * p.draw(p.grey)
        for sigma, lower in pairwise(levels):
            # Hint: four lines: the denoiser, the data step, the noise, the next x. p.sigma_noise is the noise of the data.
            ### BEGIN SOLUTION
            clean = p.prior(x, sigma)
            clean = p.op.prox(clean, p.y, self.lambda_ * (p.sigma_noise / sigma) ** 2)
            seen = (x - clean) / sigma
            x = clean + lower * ((1 - self.zeta) ** 0.5 * seen + self.zeta**0.5 * p.draw(x))
            ### END SOLUTION
            yield Iterate(x, sigma, x, self.steps)


# %% [markdown]
# It must explain the measurement up to its noise, and be better than the pseudo-inverse: more than 1 dB.

# %%
noisy = degrade(photo, "blur:2", noise=0.02, seed=0)
mine = MyDiffPIR()(noisy.y, noisy.op, prior, sigma_noise=0.02, generator=generator(0)).image
gap = float((noisy.op(mine) - noisy.y).square().mean().sqrt()) / 0.02
before, after = float(psnr(noisy.y, photo)), float(psnr(mine, photo))
show(
    {"photo": photo, "blurred": noisy.y, "my DiffPIR": mine},
    notes={"blurred": [f"{before:.1f} dB"], "my DiffPIR": [f"{after:.1f} dB"]},
)
plt.show()
print(f"off the measurement by {gap:.1f} times the noise")
assert 0.8 < gap < 1.2
assert after > before + 1
