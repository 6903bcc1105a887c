# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Uncertainty: what a posterior is, and whether a sampler draws from it
#
# **Aim.** See a posterior with two modes, the samples of four methods over it, and measure whether their intervals hold what
# they promise.
#
# A measurement $y = Ax + \sigma_n\varepsilon$ leaves many images possible. How probable each of them is, after the
# measurement, is said by Bayes' theorem: the **posterior** is the prior times the likelihood of the data,
# $$p(x \mid y) \;\propto\; p(x)\,\exp\!\Big(-\tfrac{1}{2\sigma_n^2}\|Ax - y\|^2\Big),$$
# which `workbench.models.mixture:GaussianMixturePrior.posterior` computes.
# A restoration by sampling should be a draw from it. Whether it is cannot be seen on photos, whose prior nobody knows. It
# can be seen where the prior is a formula.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.posterior import dense_matrix
from workbench.exam import CONTROLS, make_candidate, make_task, sit
from workbench.models import GaussianMixturePrior
from workbench.operators import FunctionOperator
from workbench.random import generator
from workbench.solvers import make_solver

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it

# %% [markdown]
# ## An image of two pixels
# The prior is a mixture of three Gaussians over images of 1x2 pixels. The measurement is their mean, with noise. It rules
# out the third mode, and leaves two.

# %%
means = torch.tensor([[0.2, 0.8], [0.8, 0.3], [0.75, 0.85]]).view(3, 1, 1, 2)
spreads = torch.tensor([[[0.006, 0.003], [0.003, 0.004]], [[0.004, -0.002], [-0.002, 0.008]], [[0.002, 0], [0, 0.002]]])
prior = GaussianMixturePrior(torch.tensor([0.5, 0.3, 0.2]), means, spreads, sigma_min=0.002, sigma_max=100.0)
op = FunctionOperator(lambda x: x.mean(-1, keepdim=True), (1, 1, 2))
y, noise = torch.full((1, 1, 1, 1), 0.52, dtype=torch.float64), 0.05
exact = prior.posterior(dense_matrix(op, prior.shape), y, noise)
print("weights of the modes, prior:    ", [round(w, 2) for w in prior.log_weights.exp().tolist()])
print("weights of the modes, posterior:", [round(w, 2) for w in exact.log_weights[0].exp().tolist()])
print("posterior mean:", [round(m, 2) for m in exact.mean[0].tolist()])
assert exact.log_weights[0].exp()[2] < 0.01
assert exact.log_weights[0].exp()[:2].min() > 0.3

# %% [markdown]
# Contours of the prior (grey) and of the posterior (colours). The mean, which a method trained on the mean square error
# gives, lies between the modes, where no image does.

# %%
axis = torch.linspace(0, 1, 121, dtype=torch.float64)
cells = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)
prior_log = prior.log_density(cells)
posterior_log = prior_log - (cells.mean(1) - y.item()) ** 2 / (2 * noise**2)


def contours(axes):
    for values, style in ((prior_log, {"colors": "0.75"}), (posterior_log, {"cmap": "viridis"})):
        density = (values - values.max()).exp().view(121, 121)
        axes.contour(axis, axis, density, levels=[0.03, 0.1, 0.3, 0.7], linewidths=1, **style)
    axes.set(xlabel="left pixel", ylabel="right pixel", aspect="equal", xlim=(0, 1), ylim=(0, 1))


figure, axes = plt.subplots(figsize=(4.2, 4), layout="constrained")
contours(axes)
axes.plot(*exact.mean[0], "x", color="crimson", markersize=9, label="posterior mean")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Four methods
# Each restores the same measurement 400 times with the prior's exact denoiser, so that every difference is the method's own.
# `ddrm` and `diffpir` were made to restore well in few steps. `daps` and `mmps` were made to sample; `daps` is told that
# this denoiser is exact (`count_noise=False`), its default is for networks.

# %%
samples = {"exact": exact.sample(400, generator(0))[0]}
copies = y.expand(400, 1, 1, 1).contiguous()
for name, settings in {"ddrm": {}, "diffpir": {}, "daps": {"count_noise": False}, "mmps": {}}.items():
    result = make_solver(name, **settings)(copies, op, prior, sigma_noise=noise, generator=generator(1))
    samples[f"{name}, {int(result.evaluations[0])} evaluations"] = result.image.flatten(1)
figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), sharey=True, layout="constrained")
for axes_of, (title, points) in zip(axes, samples.items()):
    contours(axes_of)
    axes_of.scatter(*points.T, s=4, color="black", alpha=0.5, linewidths=0)
    axes_of.set_title(title, fontsize=10)
    axes_of.set_ylabel("right pixel" if axes_of is axes[0] else "")
plt.show()
ratios = {}
for title, points in samples.items():
    left = float((points[:, 0] < 0.38).double().mean())
    ratios[title.split(",")[0]] = ratio = float(points.var(0).sum() / exact.variance.sum())
    print(f"{title:28} share in the left mode {left:.2f}, variance / true variance {ratio:.2f}")
assert all(abs(ratios[name] - 1) < 0.1 for name in ("exact", "daps", "mmps"))
assert all(ratios[name] < 0.95 for name in ("ddrm", "diffpir"))

# %% [markdown]
# ## Coverage
# "The left pixel lies between 0.14 and 0.86 with 90 % probability" can be tested, but not on one image. Draw an image from the prior, measure it,
# sample its posterior, and look whether the truth lies in the interval from the 5th to the 95th percentile of the samples. Do
# so many times: in 90 % of them it must. With 19 samples the interval leaves out the lowest and the highest: the truth is as
# likely to fall on any of the 20 places between and beside them.


# %%
def intervals(scale, count=30):
    """Truth and 19 samples of the left pixel, for ``count`` images; ``scale`` makes the samples too narrow or too wide."""
    truths = prior.sample(count, generator(2))
    measured = op(truths)
    measured = measured + noise * torch.randn(measured.shape, generator=generator(3), dtype=measured.dtype)
    posterior = prior.posterior(dense_matrix(op, prior.shape), measured, noise)
    draws = posterior.sample(19, generator(4))
    return truths.flatten(1)[:, 0], (posterior.mean[:, None] + scale * (draws - posterior.mean[:, None]))[..., 0]


ends = exact.sample(20_000, generator(0))[0][:, 0].quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
torch.testing.assert_close(ends, torch.tensor([0.14, 0.86], dtype=torch.float64), atol=0.01, rtol=0)
figure, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True, layout="constrained")
for axes_of, (title, scale) in zip(axes, {"samples of the posterior": 1.0, "samples half as wide": 0.5}.items()):
    truth, draws = intervals(scale)
    low, high = draws.sort(1).values[:, [1, -2]].T
    inside = (truth > low) & (truth < high)
    for k in range(len(truth)):
        colour = "steelblue" if inside[k] else "crimson"
        axes_of.plot([k, k], [low[k], high[k]], color=colour)
        axes_of.plot(k, truth[k], ".", color=colour)
    axes_of.set(title=title, xlabel="image", xticks=[], ylabel="left pixel" if axes_of is axes[0] else "")
    many, drawn = intervals(scale, 2000)
    rank = (drawn < many[:, None]).sum(1)
    coverage = float(((rank > 0) & (rank < 19)).double().mean())
    print(f"{title}: coverage of the 90 % interval {coverage:.2f}")
    assert abs(coverage - 0.9) < 0.02 if scale == 1 else coverage < 0.5
plt.show()

# %% [markdown]
# ## The exam
# `workbench exam SOLVER` (`workbench.exam:sit`) does this on images of 8x8 pixels and on signals with edges, for random directions, for every pixel
# and for the region of highest posterior density, which also sees several modes. `exact` and `point` (the posterior mean as
# the only sample) are controls: one must pass, the other must fail.

# %%
task = make_task("mixture-average")
print(f"{task.name}: {task.about}")
grades = {}
for candidate in (
    CONTROLS["exact"],
    CONTROLS["point"],
    make_candidate("ddrm"),
    make_candidate("mmps", steps=20, churn=0),
):
    grades[candidate.name] = sit(candidate, task, repetitions=60)
    print(f"{candidate.name:6} {'pass' if grades[candidate.name].passed else 'fail'}")
assert grades["exact"].passed
assert not grades["point"].passed
assert not grades["ddrm"].passed
assert grades["mmps"].passed

# %% [markdown]
# Ranks of the truth among the samples, along random directions (simulation-based calibration). Samples of the posterior give
# an even histogram, samples that are too narrow a valley.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 2.2), layout="constrained")
for axes_of, (name, grade) in zip(axes, grades.items()):
    places = torch.tensor(grade.ranks).view(5, 4).sum(1)  # 20 places, in groups of 4
    axes_of.bar(range(5), places, width=0.95)
    axes_of.axhline(12, color="black", linewidth=0.8)
    axes_of.set(title=name, xlabel="rank", xticks=[])
plt.show()

# %% [markdown]
# ## What to try
# The cells below do it; change them.
#
# - `from workbench.exam import table` and `print(table(list(grades.values())))`: all figures (`docs/exam.md`).
# - Another measurement: `y = 0.8` leaves another mode, the third, with more than 99 %. Noise of 0.2 instead of 0.05 leaves all
#   three; the third keeps less than half of its weight in the prior, 0.2.
# - `make_solver("daps", steps=50, inner=5, count_noise=False)`, the published inner steps: here its variance is
#   right within a tenth. In the exam, on images of 8x8 pixels, it is too wide by half or more (`docs/exam.md`): one
#   problem is no proof.

# %%
for value, level in ((0.52, 0.05), (0.8, 0.05), (0.52, 0.2)):
    other = prior.posterior(dense_matrix(op, prior.shape), torch.full_like(y, value), level)
    weights = other.log_weights[0].exp()
    print(f"y = {value}, noise {level}: weights", [round(w, 2) for w in weights.tolist()])
    if value == 0.8:
        assert weights[2] > 0.99
    elif level == 0.2:
        assert 0.05 < weights[2] < 0.1

# %%
result = make_solver("daps", steps=50, inner=5, count_noise=False)(
    copies, op, prior, sigma_noise=noise, generator=generator(1)
)
ratio = float(result.image.flatten(1).var(0).sum() / exact.variance.sum())
print(f"daps, {int(result.evaluations[0])} evaluations: variance / true variance {ratio:.2f}")
assert abs(ratio - 1) < 0.1
