# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Operators: how a photo is degraded
#
# **Aim.** See which degradations there are, what a solver asks of them, and write one of your own.
#
# An operator is the $A$ of $y = A x + \sigma\,\varepsilon$. Solvers use five calls:
#
# | call | what it gives |
# | --- | --- |
# | `op(x)` | $A x$ |
# | `op.adjoint(y)` | $A^\top y$, with $\langle A x, y\rangle = \langle x, A^\top y\rangle$ |
# | `op.pinv(y)` | $A^+ y$, the pseudo-inverse |
# | `op.prox(z, y, w)` | $\arg\min_x \tfrac12\|A x - y\|^2 + \tfrac w2\|x - z\|^2$, a compromise between the data and $z$ |
# | `op.project_null(x)` | $(I - A^+ A)\,x$, what the measurement does not see |

# %%
import matplotlib.pyplot as plt
import torch

from workbench.images import sample_photo
from workbench.operators import Inpainting, SpectralOperator
from workbench.operators.masks import block_mask
from workbench.operators.parse import describe_operators
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade

photo = sample_photo("astronaut", size=64)

# %% [markdown]
# ## A gallery
# Every degradation has a short name, which the command line and the pipelines use too.

# %%
for syntax, meaning in describe_operators():
    print(f"{syntax:27} {meaning}")

# %%
names = ["sr:4", "blur:2", "motion:9", "inpaint:0.8", "block:24", "text", "gray", "oldphoto", "hadamard:0.5", "jpeg:10"]
pictures = {name: degrade(photo, name, seed=0).picture for name in names}
for half in (names[:5], names[5:]):
    show({name: pictures[name] for name in half}, height=1.7)
    plt.show()

# %% [markdown]
# ## What an operator must fulfil
# The adjoint passes the dot-product test, and $A A^+ A = A$: measuring the pseudo-inverse's answer gives the measurement
# again. Both hold up to rounding.

# %%
x = photo.double()
for name in ("sr:4", "inpaint:0.8", "gray", "hadamard:0.5"):
    op = degrade(photo, name, seed=0).op
    again = (op(op.pinv(op(x))) - op(x)).abs().max()
    error = op.adjointness_error(photo.shape, generator(0), torch.float64)
    print(f"{name:14} adjoint {'ok' if error < 1e-12 else error}   A A+ A = A {'ok' if again < 1e-10 else again}")
    assert error < 1e-12
    assert again < 1e-10

# %% [markdown]
# ## The proximal step
# A small weight follows the data, a large one the image `z`. Here `z` is grey and the data miss a block, so the weight
# matters only outside the block: inside, the result is `z`.

# %%
hole = Inpainting(block_mask((64, 64), 24))
y, grey = hole(photo), torch.full_like(photo, 0.5)
show({f"weight {w:g}": hole.prox(grey, y, w) for w in (0.01, 0.3, 1.0, 10.0)})
plt.show()

# %% [markdown]
# ## Seen and unseen
# Any image splits into a part that the measurement fixes and a part that it does not see. Restoring means inventing the
# second.

# %%
op = degrade(photo, "sr:4").op
unseen = op.project_null(photo)
show({"photo": photo, "seen": photo - unseen, "unseen + 1/2": unseen + 0.5})
plt.show()
print("measurement of the unseen part:", round(float(op(unseen).abs().max()), 5))

# %% [markdown]
# ## Your own operator
# Give its transform and its singular values; everything above follows. This one weakens high frequencies of
# the rows, like a cheap analogue video link: the transform is the cosine transform along the width.


# %%
class VideoLink(SpectralOperator):
    """Cosine coefficients along the width, damped by exp(-(k / cut)^2)."""

    def __init__(self, width: int, cut: float) -> None:
        super().__init__()
        k, n = torch.arange(width).double()[:, None], torch.arange(width).double()[None]
        basis = torch.cos(torch.pi * k * (n + 0.5) / width) * (2 / width) ** 0.5
        basis[0] /= 2**0.5
        self.register_buffer("basis", basis)
        self.register_buffer("damping", torch.exp(-((k[:, 0] / cut) ** 2)))

    def analysis(self, x):
        return x @ self.basis.to(x).T

    def synthesis(self, c):
        return c @ self.basis.to(c)

    data_analysis, data_synthesis = analysis, synthesis

    def singular_values(self, x):
        return self.damping.to(x).view(1, 1, 1, -1)


link = VideoLink(width=64, cut=12)
print("adjoint ok:", link.adjointness_error((1, 3, 64, 64), generator(0), torch.float64) < 1e-12)
noisy = link(photo) + 0.01 * torch.randn(photo.shape, generator=generator(0))
show({"photo": photo, "measured": noisy, "pinv": link.pinv(noisy), "prox": link.prox(noisy, noisy, 0.02)})
plt.show()

# %% [markdown]
# The pseudo-inverse amplifies the noise; the proximal step does not. Any solver of the *quickstart* works with it too.
#
# ## What to try
# - Other settings: `sr:4:average`, `blur:20,1,9`, `jpeg:5`.
# - `mask:FILE`: a picture of the photo's size in which you painted white what is to be filled; `oldphoto:FILE`: grey too.
# - A mask per image: `Inpainting(mask)` with a mask of shape `(B, 1, H, W)`.
# - `FunctionOperator` makes an operator of any function; its adjoint comes from automatic differentiation.
