# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # First lesson: what restoring a picture means
#
# **Aim.** From nothing to one restored photo: what a measurement is, why it cannot simply be undone, what a denoiser knows,
# and how the two together restore. You need a little linear algebra and a little Python.
#
# Run each cell with Shift+Enter. Every number in the text is checked by an `assert` in a cell.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade, restore
from workbench.solvers import HQS
from workbench.solvers.schedules import geometric_sigmas

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
torch.set_printoptions(precision=2, sci_mode=False, linewidth=100)

# %% [markdown]
# ## A measurement is a matrix and some noise
# Take a picture of one row and eight pixels, $x$: dark on the left, bright on the right. A lens that is out of focus shows
# in each pixel a mean of its neighbours. That is a matrix $A$ with eight rows: row $i$ says how much of every pixel of $x$ ends
# up in pixel $i$ of the measurement. The sensor adds noise $\varepsilon$ of standard deviation $\sigma$:
# $$y = A x + \sigma\,\varepsilon .$$

# %%
x = torch.tensor([0.1, 0.1, 0.2, 0.1, 0.9, 0.8, 0.9, 0.9], dtype=torch.float64)
n = len(x)
beside = torch.full((n - 1,), 0.25, dtype=torch.float64)
once = 0.5 * torch.eye(n, dtype=torch.float64) + torch.diag(beside, 1) + torch.diag(beside, -1)
once[0, 0] = once[-1, -1] = 0.75  # beyond the border the last pixel goes on
A = once @ once  # out of focus twice
sigma = 0.01
y = A @ x + sigma * torch.randn(n, generator=generator(0), dtype=torch.float64)
print(A)
print("x:", x, "\ny:", y)
torch.testing.assert_close(A.sum(1), torch.ones(n, dtype=torch.float64))  # every row is a mean

# %% [markdown]
# ## Why not just invert it?
# $A$ has an inverse, so $A^{-1} y$ is computed in one line. Without noise it gives $x$ back. With noise of one hundredth,
# which nobody would see, it gives something else.

# %%
exact = torch.linalg.solve(A, A @ x)
inverted = torch.linalg.solve(A, y)
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
for values, label, style in ((x, "x", "k-o"), (y, "y = A x + noise", "C0-o"), (inverted, "inverse of y", "C3--o")):
    axes.plot(range(1, n + 1), values, style, label=label, markersize=4)
axes.set(xlabel="pixel", ylabel="brightness")
axes.legend(frameon=False)
plt.show()
error = float((inverted - x).square().mean().sqrt())
print(f"error of the inverse, in units of the noise: {error / sigma:.0f}")
torch.testing.assert_close(exact, x)
assert error > 200 * sigma

# %% [markdown]
# The error is more than two hundred times the noise. The singular values of $A$ say why. They are the factors by which $A$ shrinks
# eight patterns, from the even grey (factor 1) to the finest zigzag (below 1/500). The inverse multiplies by one over
# the factor, and the noise contains all patterns.

# %%
factors = torch.linalg.svdvals(A)
print("factors:", factors)
print(f"the inverse enlarges the finest pattern {1 / factors[-1]:.0f} times")
assert abs(factors[0] - 1) < 1e-9
assert factors[-1] < 1 / 500

# %% [markdown]
# It can be worse: a sensor with half the pixels. Each of its four pixels is the mean of two. This matrix has no inverse:
# four equations, eight unknowns. Whatever is added to the one pixel of a pair and taken from the other leaves $y$ as it is.
# So many pictures explain one measurement, and the measurement cannot say which one it was.

# %%
half = torch.kron(torch.eye(4, dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64))
other = x + 0.1 * torch.tensor([1, -1, 1, -1, -1, 1, 1, -1], dtype=torch.float64)
print(half)
print("x:    ", x, "measured", half @ x)
print("other:", other, "measured", half @ other)
torch.testing.assert_close(half @ x, half @ other)

# %% [markdown]
# ## The same with a photo
# A photo of 128x128 pixels in three colours is a vector of 49,152 numbers. Its $A$ would have 2.4 billion entries, so it is
# not written down: an operator is an object that computes $A x$ (`workbench.operators.base:Operator`). `degrade` makes it
# from a short text, here a blur of two pixels, and adds the noise; `op.pinv` is the inverse as far as there is one.
#
# PSNR tells how near a picture is to the original, in decibels (dB): 20 is poor, 30 is good, 6 more is half the error.

# %%
photo = sample_photo("cat", size=128)
assert photo.numel() == 49_152
assert round(photo.numel() ** 2 / 1e9, 1) == 2.4
degraded = degrade(photo, "blur:2", noise=0.01, seed=0)
op, y = degraded.op, degraded.y
pictures = {"photo": photo, "measured": y, "inverse, no noise": op.pinv(op(photo)), "inverse": op.pinv(y)}
quality = {name: float(psnr(image, photo, clip=True)) for name, image in pictures.items() if name != "photo"}
show(pictures, notes={name: [f"{value:.1f} dB"] for name, value in quality.items()}, height=2.2)
plt.show()
assert quality["inverse, no noise"] > quality["measured"] + 8
assert quality["inverse"] < 10

# %% [markdown]
# Without noise the inverse is sharp. The inverse of the noisy measurement is nothing but noise. Yet we see at once that it is no photo, and that the measured
# picture is a blurred one. We know what photos look like. The computer has to know it, too.
#
# ## What a denoiser knows
# A denoiser is a network that was shown many photos with noise and learned to give the photos back. It is told the
# noise level: `prior(x, sigma)`. Removing noise is only possible for one who knows what is not noise. To see that, we give it
# the same pixels in a random order.

# %%
prior = load_prior("photo")
noise = 0.1 * torch.randn(photo.shape, generator=generator(1))
order = torch.randperm(128 * 128, generator=generator(2))
shuffled = photo.flatten(2)[..., order].view(photo.shape)
clean = torch.cat([photo, shuffled])
noisy = clean + noise
with torch.no_grad():
    denoised = prior(noisy, 0.1)
before, after = psnr(noisy, clean), psnr(denoised, clean)
show(
    {"clean": clean, "with noise": noisy, "denoised": denoised},
    ["photo", "shuffled"],
    {"with noise": [f"{v:.1f} dB" for v in before], "denoised": [f"{v:.1f} dB" for v in after]},
    height=2.2,
)
plt.show()
print(
    f"gain on the photo {float(after[0] - before[0]):.1f} dB, on the shuffled pixels {float(after[1] - before[1]):.1f} dB"
)
assert after[0] > before[0] + 10
assert after[1] < before[1] + 5

# %% [markdown]
# On the photo it gains more than 10 dB, on the shuffled pixels less than 5: it knows edges, surfaces and fur, and there are
# none. What it knows is called a **prior**: what is known of $x$ *before* anything is measured. In symbols, the denoiser's
# answer $D(x, \sigma)$ is the mean of all photos that could lie behind the noisy picture (`workbench.models.prior:Prior`),
# and the step from $x$ to $D(x, \sigma)$ leads towards what looks like a photo. A *diffusion* model is such a denoiser,
# trained for every noise level from almost none to nothing but noise.
#
# ## One restoration
# Two wishes, one step for each, in turn:
#
# 1. *look like a photo*: $z = D(x, \sigma)$, the denoiser takes what remains of the error for noise;
# 2. *explain the measurement*: $x = \arg\min_x \tfrac12\|A x - y\|^2 + \tfrac w2\|x - z\|^2$, the picture nearest to $z$ that
#    agrees with $y$. The weight $w$ says how much $z$ is trusted. `op.prox(z, y, w)` computes it
#    (`workbench.operators.base:Operator.prox`), without dividing by small numbers.
#
# The level $\sigma$ starts high, where the denoiser changes much, and falls to that of the measurement.

# %%
image, shown = y, {"measured": y}
levels = geometric_sigmas(8, 0.2, 0.01).tolist()
with torch.no_grad():
    for step, level in enumerate(levels, start=1):
        z = prior(image, level)
        image = op.prox(z, y, 0.25 * (0.01 / level) ** 2)
        if step in (1, 4, 8):
            shown[f"step {step}"] = image
shown["photo"] = photo
found = {name: float(psnr(picture, photo)) for name, picture in shown.items() if name != "photo"}
show(shown, notes={name: [f"{value:.1f} dB"] for name, value in found.items()}, height=2.2)
plt.show()
assert found["step 1"] < found["measured"]
assert found["step 8"] > found["measured"] + 4

# %% [markdown]
# The first step makes it worse: $w$ is small, so $z$ hardly counts and the noise comes back enlarged, as in the inverse. The
# next denoiser takes it out, $w$ grows, and the last picture is more than 4 dB nearer to the photo than the measurement, and
# sharp. This loop of three lines is a published method, half-quadratic
# splitting (`workbench.solvers.plug_and_play.hqs:HQS`). In the workbench it is one call, which also counts and scores:

# %%
result = restore(degraded, HQS(), prior)
scores = result.records[0]
print(f"{scores['psnr']:.1f} dB after {scores['evaluations']} calls of the denoiser")
assert scores["psnr"] > found["measured"] + 4
residual = (op(result.image) - y).square().mean().sqrt() / 0.01
print(f"blurred again, it differs from the measurement by {float(residual):.1f} times the noise")
assert 0.8 < residual < 1.2

# %% [markdown]
# Blurred again, the restored picture differs from the measurement by the noise and no more: it *explains* it. So do
# others. Where the measurement is silent, what you see is what the prior holds for likely, and not what was there.
#
# ## What to try
# The cell below does it; change it.
# - Less noise, `noise=0.001`: more detail comes back.
# - A stronger blur, `"blur:4"`: less is left to restore from, the result is smoother.
# - Half of the pixels missing, `"inpaint:0.5"`: nothing is inverted, but 50 % must be guessed, and can be.

# %%
for spec, level in (("blur:2", 0.01), ("blur:2", 0.001), ("blur:4", 0.01), ("inpaint:0.5", 0.01)):
    again = degrade(photo, spec, noise=level, seed=0)
    value = restore(again, HQS(), prior).records[0]["psnr"]
    print(f"{spec:12} noise {level:5}: measured {float(psnr(again.picture, photo)):4.1f} dB, restored {value:4.1f} dB")
    assert value > psnr(again.picture, photo) + 1

# %% [markdown]
# Next: [quickstart](quickstart.ipynb) restores with four methods; [operators](operators.ipynb) and [priors](priors.ipynb)
# take up the two halves of this lesson. The [path](../README.md) through all notebooks has the rest.
