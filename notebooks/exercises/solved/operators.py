# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Exercise: an operator and its adjoint
#
# **You need** the lesson [operators](../../basics/operators.ipynb). **You learn** to write a forward model, to find its adjoint on
# paper, and to test it before anything else uses it.
#
# The camera shakes by three pixels to the right while it takes the picture, on a torus (what leaves at the right comes back at
# the left):
# $$(A x)_{i,j} = \tfrac14 \sum_{k=0}^{3} x_{i,\,j-k}.$$

# %%
import matplotlib.pyplot as plt
import torch

from workbench.images import sample_photo
from workbench.operators.base import Operator
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade, restore

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
photo = sample_photo("rocket", size=128)

# %% [markdown]
# ## 1. Forward and adjoint
# Write both. The adjoint is defined by $\langle A x, y\rangle = \langle x, A^\top y\rangle$: every pixel of $x$ was spread over
# four pixels of $y$, so the adjoint collects from these four.


# %% tags=["solution"] jupyter={"source_hidden": true}
class Shake(Operator):
    """The mean of four shifts, (B, C, H, W) to (B, C, H, W)."""

    def forward(self, x):
        # Hint: x.roll(k, -1) moves the picture k pixels to the right.
        ### BEGIN SOLUTION
        return sum(x.roll(k, -1) for k in range(4)) / 4
        ### END SOLUTION

    def adjoint(self, y):
        # Hint: the same sum, with the shifts undone.
        ### BEGIN SOLUTION
        return sum(y.roll(-k, -1) for k in range(4)) / 4
        ### END SOLUTION


# %% [markdown]
# The check. Rounding is 1e-16 in double precision; a wrong adjoint is off by 0.01 or more.

# %%
shake = Shake()
dot = torch.zeros(1, 1, 1, 8)
dot[..., 2] = 1
torch.testing.assert_close(shake(dot)[0, 0, 0], torch.tensor([0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0]))
error = shake.adjointness_error((1, 3, 16, 16), generator(0), torch.float64)
print("adjoint ok:", error < 1e-12)
assert error < 1e-12

# %% [markdown]
# ## 2. The test itself
# `adjointness_error` is a few lines. Write them: draw $x$ and $y$ from normal noise, compare the two products, and divide by
# $\|A x\|\,\|y\|$, so that the number does not depend on the size of the picture.


# %% tags=["solution"] jupyter={"source_hidden": true}
def dot_test(op, shape, seed=0):
    """|<A x, y> - <x, A^T y>| / (|A x| |y|) for random x of ``shape`` and y of the shape of A x, in float64."""
    x = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    # Hint: (a * b).sum() is the product <a, b>; a.norm() is the length.
    ### BEGIN SOLUTION
    seen = op(x)
    y = torch.randn(seen.shape, generator=generator(seed + 1), dtype=torch.float64)
    gap = (seen * y).sum() - (x * op.adjoint(y)).sum()
    return float(gap.abs() / (seen.norm() * y.norm()))
    ### END SOLUTION


# %% [markdown]
# It must pass what is right and refuse what is wrong: the forward operator is not its own adjoint.


# %%
class Wrong(Shake):
    def adjoint(self, y):
        return self(y)


for name, op in {"shake": shake, "wrong": Wrong(), "sr:4": degrade(photo, "sr:4").op}.items():
    print(f"{name:6} passes: {dot_test(op, (1, 3, 16, 16)) < 1e-12}")
assert dot_test(shake, (1, 3, 16, 16)) < 1e-12
assert dot_test(degrade(photo, "sr:4").op, (1, 3, 16, 16)) < 1e-12
assert dot_test(Wrong(), (1, 3, 16, 16)) > 1e-3

# %% [markdown]
# ## 3. What does it not see?
# Give a picture `lost` of one row and eight pixels that is not zero and of which $A$ leaves nothing.

# %% tags=["solution"] jupyter={"source_hidden": true}
# Hint: which patterns have mean 0 over any four neighbours?
### BEGIN SOLUTION
lost = torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1]).view(1, 1, 1, 8)
### END SOLUTION

# %%
assert lost.shape == (1, 1, 1, 8)
assert lost.norm() > 0
assert shake(lost).abs().max() < 1e-6
print("unseen:", lost.flatten().tolist())

# %% [markdown]
# ## The reward
# Forward and adjoint are all that `Operator` wants. The pseudo-inverse and the proximal step come by conjugate gradients
# (`workbench.operators.base:Operator.damped_pinv`), and any solver restores with it. It gains more than 3 dB here.

# %%
from workbench.evaluation.metrics import psnr
from workbench.models import load_prior
from workbench.solvers import HQS

shaken = degrade(photo, shake, noise=0.01, seed=0)
result = restore(shaken, HQS(), load_prior("photo"))
before, after = float(psnr(shaken.y, photo)), result.records[0]["psnr"]
show(
    {"photo": photo, "shaken": shaken.y, "restored": result.image},
    notes={"shaken": [f"{before:.1f} dB"], "restored": [f"{after:.1f} dB"]},
)
plt.show()
assert after > before + 3
