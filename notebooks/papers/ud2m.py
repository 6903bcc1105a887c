# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # UD²M: a Langevin sampler, unfolded and distilled
#
# *Learning few-step posterior samplers by unfolding and distillation of diffusion models.* Three ideas stand on one
# another: Langevin sampling of a posterior; LATINO, which lets a consistency model take the prior's step; and UD²M,
# which unfolds a few steps of LATINO into one network and trains it. Everything runs here with the shipped networks, in
# a minute. Names such as `workbench.models.unfolded:two_centres` say where an equation is implemented
# (module:function).

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.models.unfolded import two_centres
from workbench.operators import FunctionOperator
from workbench.plots import show
from workbench.restore import degrade, restore, samples
from workbench.solvers import UD2M, make_solver

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
plt.rcParams["figure.dpi"] = 90

# %% [markdown]
# ## From Langevin to LATINO
#
# Langevin sampling of $p(x \mid y)$ takes steps $x \leftarrow x + \tau \nabla \log p(y \mid x) + \tau \nabla \log p(x)
# + \sqrt{2\tau}\, \varepsilon$. LATINO (eq. 5, `workbench.solvers.few_step.latino:LATINO`) splits them. The likelihood
# gets an implicit step, which is a proximal step. The prior gets noise of standard deviation $t$, and a consistency
# model $f$, which follows the probability-flow ODE back to clean images. For small $t$ the ODE goes $\tfrac12 t^2
# \nabla \log p(x)$, so noise and jump together are a Langevin step with $\tau = t^2/2$: the likelihood's step $\delta$
# has to be just as long.
#
# On two correlated numbers, the first of which is measured, everything is known: prior $N(0, C)$,
# $f(x, t) = (C (C + t^2)^{-1})^{1/2} x$.

# %%
C = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
A, sigma, y = torch.tensor([[1.0, 0.0]], dtype=torch.float64), 0.3, torch.tensor([0.9], dtype=torch.float64)
eye = torch.eye(2, dtype=torch.float64)
posterior = torch.linalg.inv(torch.linalg.inv(C) + A.T @ A / sigma**2)
mean = posterior @ A.T @ y / sigma**2


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.sqrt() @ vectors.T


def latino(t, delta, steps, count=2000):
    """Samples of the recursion (count, 2)."""
    g = torch.Generator().manual_seed(0)
    jump = root(C) @ torch.linalg.inv(root(C + t**2 * eye))
    pull = torch.linalg.inv(eye + delta / sigma**2 * A.T @ A)
    x = torch.zeros(count, 2, dtype=torch.float64)
    for _ in range(steps):
        x = (x + delta / sigma**2 * (A.T @ y)) @ pull.T
        x = (x + t * torch.randn(x.shape, generator=g, dtype=torch.float64)) @ jump.T
    return x


figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
circle = torch.stack([torch.linspace(0, 2 * np.pi, 100).cos(), torch.linspace(0, 2 * np.pi, 100).sin()]).double()
ellipse = mean[:, None] + 2 * root(posterior) @ circle
for axis, share in zip(axes, (0.125, 0.5, 2.0)):
    found = latino(0.2, share * 0.2**2, 400)
    axis.plot(*found.T, ".", markersize=1)
    axis.plot(*ellipse, "k", linewidth=1)
    ratio = float(torch.cov(found.T).trace() / posterior.trace())
    axis.set(title=f"$\\delta = {share:g}\\,t^2$: variance × {ratio:.2f}", xlabel="measured")
    assert (ratio > 1.2, abs(ratio - 1) < 0.1, ratio < 0.9)[(0.125, 0.5, 2.0).index(share)]
axes[0].set_ylabel("not measured")
plt.show()
for t in (0.2, 0.1, 0.05):
    ratio = float(torch.cov(latino(t, 0.5 * t**2, int(16 / t**2)).T).trace() / posterior.trace())
    print(f"δ = t²/2, t = {t:<4}: variance × {ratio:.2f}")
assert abs(ratio - 1) < 0.05

# %% [markdown]
# The ellipse holds two standard deviations of the posterior. Too short a step for the likelihood leaves the samples too
# wide, too long a one makes them too narrow; at $\delta = t^2/2$ only the error of a finite $t$ is left, and it goes
# away with $t$. UD²M does not rely on this: its network is trained, so that it can make up for large steps.

# %% [markdown]
# ## A proximal step with two centres
#
# UD²M samples $p(x_0 \mid y, x_t)$, where $x_t = x_0 + t \varepsilon$ is the state of a diffusion. So there are two
# measurements of $x_0$, and the proximal step from $x_k$ (eq. 6, `workbench.models.unfolded:two_centres`) minimises
# $\|Ax - y\|^2/2\sigma^2 + \|x - x_t\|^2/2t^2 + \|x - x_k\|^2/2\delta$. It is one `prox` with the weighted mean of
# the two centres. Two numbers again, the first of which is measured:

# %%
op = FunctionOperator(lambda x: x[..., :1, :1], (1, 1, 2))


def pair(a, b):
    return torch.tensor([a, b], dtype=torch.float64).view(1, 1, 1, 2)


x_k, x_t, measured = pair(0.2, 0.3), pair(0.5, 0.8), torch.full((1, 1, 1, 1), 0.9, dtype=torch.float64)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
for axis, t in zip(axes, (1.0, 0.2, 0.05)):
    level, noise = torch.tensor([t], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    found = two_centres(op, measured, noise, x_t, level, x_k, 0.2**2)
    stationary = (found - x_t) / t**2 + (found - x_k) / 0.2**2 + op.adjoint(op(found) - measured) / 0.1**2
    assert stationary.abs().max() < 1e-9  # the minimum of eq. 6
    axis.axvline(0.9, color="C2", linewidth=6, alpha=0.3, label="y")
    for point, name, marker in ((x_k, "$x_k$", "o"), (x_t, "$x_t$", "s"), (found, "step", "*")):
        axis.plot(*point.flatten(), marker, markersize=9, label=name)
    axis.set(title=f"t = {t:g}", xlim=(0, 1.1), ylim=(0, 1.1))
axes[0].legend()
plt.show()

# %% [markdown]
# Beside much noise ($t = 1$) the state $x_t$ says little, and the step goes from $x_k$ to the data. The less noise
# there is, the more $x_t$ decides, also along the axis that the measurement does not see.

# %% [markdown]
# ## The unfolded network
#
# `photo-ud2m` has K = 3 modules: proximal step, noise, network (eq. 7, `workbench.models.unfolded:Unfolded`). The
# network is `photo` with a low-rank adapter, the same in all modules. The sampler (Algorithm 1,
# `workbench.solvers.few_step.ud2m:UD2M`) starts from pure noise and visits N levels; at each one the network draws
# $x_0$, and the next state is drawn between the two. N levels take 3 N evaluations. Below the pictures: PSNR, and the
# distance of EfficientNet-Lite2, a network that judges photos (smaller is closer to the photo).

# %%
base, adapted = load_prior("photo"), load_prior("photo-ud2m")
print(adapted.unfolding)
print(adapted.lora)
photo = sample_photo("cat", 128)
blurry = degrade(photo, "sr:4", noise=0.025, seed=0)
few = restore(blurry, UD2M(3), adapted, judge=True)
many = restore(blurry, make_solver("diffpir", steps=60), base, judge=True)


def scores(restoration):
    """PSNR in dB, the judge's distance, and evaluations, of a restoration of one photo."""
    record = restoration.rows(["photo"])[0]
    return record["psnr"], record["effnet2"], record["evaluations"]


found = {f"UD2M, {scores(few)[2]} evaluations": few, f"DiffPIR, {scores(many)[2]} evaluations": many}
titles = {title: restoration.image for title, restoration in found.items()}
enlarged = torch.nn.functional.interpolate(blurry.picture, scale_factor=4, mode="nearest")
figures = {title: ["{:.2f} dB, distance {:.2f}".format(*scores(restoration))] for title, restoration in found.items()}
show({"photo": photo, "measured": enlarged, **titles}, notes=figures, height=2.2)
plt.show()
assert scores(few)[2] == 9
assert scores(few)[0] < scores(many)[0]
assert scores(few)[1] < scores(many)[1]

# %% [markdown]
# That is what UD²M trades: fewer evaluations and a picture that looks closer, for some PSNR. Over 24 photos it is so for
# super-resolution; on blur and missing pixels the judge cannot tell the two apart, and DiffPIR has 0.3 to 0.7 dB more
# (`docs/ud2m.md`).

# %% [markdown]
# ## N is free, K is not
#
# More levels cost more and change little (Table 3 of the paper); here one is as good as nine. K was fixed by training:
# the modules learned to make up for one another, so the sampler refuses another K.

# %%
levels = {steps: scores(restore(blurry, UD2M(steps), adapted, judge=True)) for steps in (1, 3, 9)}
for steps, (quality, distance, evaluations) in levels.items():
    print(f"N = {steps}: {evaluations:3} evaluations, {quality:.2f} dB, distance {distance:.2f}")
assert abs(levels[1][0] - levels[9][0]) < 0.3
assert abs(levels[1][1] - levels[9][1]) < 0.3
try:
    restore(blurry, UD2M(3, depth=5), adapted)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Rank
#
# An adapter of rank r (`workbench.models.lora:LoRA`) has $r (c_{in} k^2 + c_{out})$ weights per convolution. For
# attention layers alone these are the numbers of the paper's Table 8 in its networks; in a network as small as `photo`
# they are too few to change much ([docs/ud2m.md](../../docs/ud2m.md)), so the shipped adapter covers all layers.

# %%
from workbench.models import LoRA

total = sum(p.numel() for p in base.parameters())
for layers in ("attention", "all"):
    for rank in (2, 5, 20):
        weights = LoRA(rank, layers).layers_of(base.net).values()
        count = sum(rank * (m.weight[0].numel() + len(m.weight)) for m in weights)
        print(f"{layers:10} rank {rank:2}: {count:7} weights, {100 * count / total:.2f} % of {total}")

# %% [markdown]
# ## Noise that it was not trained with
#
# Operator and noise level enter by the proximal step, so they may differ from training (0.01 to 0.05 here). Differ, not
# by any amount: beside DiffPIR, in and beyond that range.

# %%
leads = []
for noise in (0.0125, 0.05, 0.1):
    one = degrade(photo, "sr:4", noise=noise, seed=0)
    ours = scores(restore(one, UD2M(3), adapted, judge=True))
    other = scores(restore(one, make_solver("diffpir", steps=60), base, judge=True))
    line = "{:.2f} dB, distance {:.2f}".format
    print(f"noise {noise:<6g}  UD2M {line(*ours[:2])}   DiffPIR {line(*other[:2])}")
    leads.append(other[1] - ours[1])
assert min(leads[:2]) > 0.1 > abs(leads[2])

# %% [markdown]
# In the range of training the judge prefers UD²M; at twice the strongest noise it sees no difference.

# %% [markdown]
# ## Samples and their spread
#
# Each run draws another sample of the posterior. Where they differ, the data leave the image open: here around the
# eyes. A spread is of use if it tells where the error is.

# %%
drawn = restore(samples(blurry, 4), UD2M(3), adapted).image
spread = drawn.std(dim=0, keepdim=True).mean(dim=1, keepdim=True)
error = (drawn.mean(dim=0, keepdim=True) - photo).abs().mean(dim=1, keepdim=True)
show(
    {
        **{f"sample {k + 1}": drawn[k : k + 1] for k in range(4)},
        "spread × 5": (5 * spread).expand(1, 3, -1, -1),
        "error of the mean × 5": (5 * error).expand(1, 3, -1, -1),
    },
    height=2,
)
plt.show()
maps = [torch.nn.functional.avg_pool2d(picture, 8).flatten() for picture in (spread, error)]
correlation = float(torch.corrcoef(torch.stack(maps))[0, 1])
print(f"correlation of spread and error, in blocks of 8 x 8: {correlation:.2f}")
print(f"spread {float(spread.mean()):.3f}, error of the mean {float(error.mean()):.3f}")
assert 0.1 < correlation < 0.9
assert spread.mean() < error.mean()

# %% [markdown]
# Both maps are bright around the eyes, but the spread is too small, and it misses the fine fur: four samples err
# together by more than they differ. Do not read it as an error bar (`notebooks/basics/uncertainty` makes one).
#
# ## What to try
#
# - `degrade(photo, "inpaint:0.8", noise=0.025, seed=0)` in the fourth section: with missing pixels DiffPIR has more
#   PSNR, and the judge sees no difference.
# - `degrade(photo, "block:24", noise=0.01, seed=0)` in the last: all four samples fill the hole with the same plain
#   patch, and the spread falls towards its middle, where least is known. No hole was in training; a small spread is no
#   proof.
# - `make_solver("latino")` with `load_prior("photo-cm")` in place of `UD2M(3)` and `adapted`: eq. 5 with a consistency
#   model that nobody trained for the task. Lower PSNR and a larger distance, at 8 evaluations.
# - `UD2M(3)` with `base`: refused, in a sentence, because `base` has no modules.
