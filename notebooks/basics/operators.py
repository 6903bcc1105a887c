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
# An operator is the $A$ of $y = A x + \sigma\,\varepsilon$. Solvers use five calls, methods of `workbench.operators.base:Operator`:
#
# | call | what it gives |
# | --- | --- |
# | `op(x)` | $A x$ |
# | `op.adjoint(y)` | $A^\top y$, with $\langle A x, y\rangle = \langle x, A^\top y\rangle$ |
# | `op.pinv(y)` | $A^+ y$, the pseudo-inverse |
# | `op.prox(z, y, w)` | $\arg\min_x \tfrac12\|A x - y\|^2 + \tfrac w2\|x - z\|^2$, a compromise between the data and $z$ |
# | `op.project_null(x)` | $(I - A^+ A)\,x$, what the measurement does not see |
#
# The last three are one map, $A^\top (A A^\top + w)^{-1}$, `workbench.operators.base:Operator.damped_pinv`.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.operators import FunctionOperator, Inpainting, SpectralOperator
from workbench.operators.masks import block_mask
from workbench.operators.parse import describe_operators
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade, measured, restore
from workbench.solvers import DDNM, HQS, DiffPIR
from workbench.widgets import operator_explorer

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
photo = sample_photo("astronaut", size=128)

# %% [markdown]
# ## A gallery
# Every degradation has a short name, which the command line and the pipelines use too.

# %%
for syntax, meaning in describe_operators():
    print(f"{syntax:27} {meaning}")

# %%
names = ["sr:4", "blur:2", "motion:9", "inpaint:0.8", "block:48", "text", "gray", "oldphoto", "hadamard:0.5", "jpeg:10"]
pictures = {name: degrade(photo, name, seed=0).picture for name in names}
for half in (names[:5], names[5:]):
    show({name: pictures[name] for name in half}, height=1.7)
    plt.show()

# %% [markdown]
# Move the controls (in JupyterLab; elsewhere you see a still). The curve is the factor by which each frequency is weakened;
# where it is near 0, $A^+ y$ enlarges the noise. Set the noise to 0: the picture comes back. Widen the blur: the curve falls
# earlier, and less comes back. Choose *Missing pixels*: all factors are 0 or 1, so nothing is enlarged, and nothing filled in.

# %%
operator_explorer(photo, "blur:1.5", noise=0.01)

# %% [markdown]
# ## What an operator must fulfil
# The adjoint passes the dot-product test (`workbench.operators.base:Operator.adjointness_error`), and $A A^+ A = A$: measuring
# the pseudo-inverse's answer gives the measurement again. Both hold up to rounding. JPEG is no matrix: its `adjoint` and `pinv`
# are stand-ins, and solvers that need a linear operator refuse it.

# %%
x = photo.double()
for name in ("sr:4", "inpaint:0.8", "gray", "hadamard:0.5"):
    op = degrade(photo, name, seed=0).op
    again = (op(op.pinv(op(x))) - op(x)).abs().max()
    error = op.adjointness_error(photo.shape, generator(0), torch.float64)
    print(f"{name:14} adjoint {'ok' if error < 1e-12 else error}   A A+ A = A {'ok' if again < 1e-10 else again}")
    assert error < 1e-12
    assert again < 1e-10
assert not degrade(photo, "jpeg:10").op.linear

# %% [markdown]
# ## The proximal step
# A small weight follows the data, a large one the image `z`. Here `z` is grey and the data miss a block, so the weight
# matters only outside the block: inside, the result is `z`. For a mask the formula is simple: where a pixel is known, the
# result is $(y + w z) / (1 + w)$, so at weight 1 halfway between the two.

# %%
hole = Inpainting(block_mask((128, 128), 48))
y, grey = hole(photo), torch.full_like(photo, 0.5)
show({f"weight {w:g}": hole.prox(grey, y, w) for w in (0.01, 0.3, 1.0, 10.0)})
plt.show()
known = hole(torch.ones_like(photo)) > 0
torch.testing.assert_close(hole.prox(grey, y, 1.0)[known], (y + grey)[known] / 2)
torch.testing.assert_close(hole.prox(grey, y, 1.0)[~known], grey[~known])

# %% [markdown]
# ## Seen and unseen
# Any image splits into a part that the measurement fixes and a part that it does not see. Restoring means inventing the
# second.

# %%
op = degrade(photo, "sr:4").op
unseen = op.project_null(photo)
show({"photo": photo, "seen": photo - unseen, "unseen + 1/2": unseen + 0.5})
plt.show()
print("measurement of the unseen part is 0, up to rounding:", bool(op(unseen).abs().max() < 1e-5))
assert op(unseen).abs().max() < 1e-5

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


link = VideoLink(width=128, cut=24)
adjoint_error = link.adjointness_error((1, 3, 128, 128), generator(0), torch.float64)
print("adjoint ok:", adjoint_error < 1e-12)
assert adjoint_error < 1e-12
noisy = link(photo) + 0.01 * torch.randn(photo.shape, generator=generator(0))
columns = {"photo": photo, "measured": noisy, "pinv": link.pinv(noisy), "prox": link.prox(noisy, noisy, 0.02)}
quality = {name: float(psnr(image, photo, clip=True)) for name, image in columns.items() if name != "photo"}
show(columns, notes={name: [f"{value:.1f} dB"] for name, value in quality.items()})
plt.show()
assert quality["pinv"] < quality["measured"] < quality["prox"]

# %% [markdown]
# The pseudo-inverse amplifies the noise; the proximal step does not, but it has no idea of photos. A prior has: any solver takes
# the operator as it takes `sr:4`, and asks nothing of it but the calls in the table above.

# %%
prior = load_prior("photo")
seen = measured(link, noisy, noise=0.01, original=photo)
solvers = {"hqs": HQS(), "diffpir": DiffPIR(steps=20), "ddnm": DDNM(steps=20)}
restored = {name: restore(seen, solver, prior) for name, solver in solvers.items()}
found = {name: result.records[0]["psnr"] for name, result in restored.items()}
show(
    {"photo": photo, "measured": noisy, **{name: result.image for name, result in restored.items()}},
    notes={
        "measured": [f"{quality['measured']:.1f} dB"],
        **{name: [f"{value:.1f} dB"] for name, value in found.items()},
    },
)
plt.show()
for name, value in found.items():
    print(f"{name:8} {value:.1f} dB, measured {quality['measured']:.1f} dB, prox {quality['prox']:.1f} dB")
    assert value > quality["prox"] + 1

# %% [markdown]
# ## What to try
# - Other settings of the gallery, tried in the cell below: `sr:4:average` loses the same number of pixels by plain means,
#   `blur:20,1,9` blurs more along the rows than along the columns, `jpeg:5` leaves blocks of 8x8.
# - `VideoLink(128, cut=12)`: half the band. Less comes back, and still the picture is better than what was measured.
# - A mask per image: `Inpainting(mask)` with a mask of shape `(B, 1, H, W)`, as below.
# - `FunctionOperator` makes an operator of any function; its adjoint comes from automatic differentiation. Below, a mirror
#   image laid over the photo: the pseudo-inverse then is the mean of the photo and its mirror image, since nothing says which is
#   which.
# - `mask:FILE`: a picture of the photo's size in which you painted white what is to be filled; `oldphoto:FILE`: grey too.

# %%
show({name: degrade(photo, name, seed=0).picture for name in ("sr:4:average", "blur:20,1,9", "jpeg:5")})
plt.show()

narrow = VideoLink(128, cut=12)
less = degrade(photo, narrow, noise=0.01, seed=0)
found_less = restore(less, HQS(), prior).records[0]["psnr"]
print(
    f"cut 12: measured {float(psnr(less.y, photo)):.1f} dB, hqs {found_less:.1f} dB; cut 24: hqs {found['hqs']:.1f} dB"
)
assert psnr(less.y, photo) < found_less < found["hqs"]

two = Inpainting(torch.stack([block_mask((128, 128), 48), 1 - block_mask((128, 128), 48)]).view(2, 1, 128, 128))
seen_twice = two(photo.expand(2, -1, -1, -1))
show({"mask 1": seen_twice[:1], "mask 2": seen_twice[1:]})
plt.show()

ghost = FunctionOperator(lambda x: (x + x.flip(-1)) / 2, (3, 128, 128))
error = ghost.adjointness_error((1, 3, 128, 128), generator(0), torch.float64)
print("adjoint ok:", error < 1e-12)
assert error < 1e-12
torch.testing.assert_close(ghost.pinv(ghost(photo)), (photo + photo.flip(-1)) / 2, atol=1e-4, rtol=0)
