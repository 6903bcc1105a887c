# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Exercise: the score from a denoiser
#
# **You need** the lesson [priors](../../basics/priors.ipynb). **You learn** Tweedie's formula on a case where everything is
# known, and to sample with nothing but a denoiser.
#
# Let "photos" be single numbers, drawn from a normal distribution with mean $m$ and standard deviation $s$. Add noise of
# standard deviation $\sigma$: $x = x_0 + \sigma\varepsilon$.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import torch

from workbench.models import GaussianPrior, load_prior
from workbench.random import generator

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
m, s = 0.4, 0.2
x = torch.linspace(-1, 2, 61, dtype=torch.float64)

# %% [markdown]
# ## 1. The denoiser
# The best guess of $x_0$ given $x$ is $\mathbb E[x_0 \mid x]$. For two Gaussians it is the mean of $m$ and $x$, weighted by
# their precisions $1/s^2$ and $1/\sigma^2$. Write it.


# %% tags=["solution"] jupyter={"source_hidden": true}
def denoise(x, sigma):
    """E[x0 | x], like ``x``."""
    # Hint: with sigma = 0 it is x, with large sigma it is m.
    ### BEGIN SOLUTION
    return m + s**2 / (s**2 + sigma**2) * (x - m)
    ### END SOLUTION


# %% [markdown]
# The package has the same for textures (`workbench.models.gaussian:GaussianPrior`); of one pixel, it is our case.

# %%
exact = GaussianPrior(torch.full((1, 1, 1), s**2), torch.tensor([m]))
for sigma in (0.05, 0.2, 1.0):
    torch.testing.assert_close(denoise(x, sigma), exact(x.view(-1, 1, 1, 1), sigma).flatten(), atol=1e-6, rtol=0)
print("denoiser ok")

# %% [markdown]
# ## 2. The score
# Tweedie's formula: $\nabla\log p_\sigma(x) = (D(x, \sigma) - x) / \sigma^2$. Write it for any denoiser
# (`workbench.models.prior:Prior.score` is the package's).


# %% tags=["solution"] jupyter={"source_hidden": true}
def score(denoiser, x, sigma):
    """The gradient of log p_sigma at ``x``, like ``x``."""
    # Hint: one line, as in the text.
    ### BEGIN SOLUTION
    return (denoiser(x, sigma) - x) / sigma**2
    ### END SOLUTION


# %% [markdown]
# Noisy numbers are normal too, with variance $s^2 + \sigma^2$. So the score is known, by automatic differentiation of the
# logarithm of the density.

# %%
for sigma in (0.05, 0.2, 1.0):
    points = x.clone().requires_grad_()
    log_density = -((points - m) ** 2) / (2 * (s**2 + sigma**2))  # up to a constant
    (slope,) = torch.autograd.grad(log_density.sum(), points)
    torch.testing.assert_close(score(denoise, x, sigma), slope)
    plt.plot(x, score(denoise, x, sigma), label=f"sigma {sigma:g}")
plt.gcf().set_size_inches(5, 2.6)
plt.gca().set(xlabel="x", ylabel="score", ylim=(-30, 30))
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# The more noise, the flatter the score: it still points to $m$, but says less and less about where.
#
# ## 3. Sampling
# Start from noise of a high level and go down, $\sigma_0 > \sigma_1 > \dots > 0$. Each step keeps the share of the noise that
# belongs to the next level (DDIM without fresh noise, `workbench.solvers.prior_samples:DDIM`):
# $$x_{k+1} = D(x_k, \sigma_k) + \frac{\sigma_{k+1}}{\sigma_k}\,\big(x_k - D(x_k, \sigma_k)\big).$$


# %% tags=["solution"] jupyter={"source_hidden": true}
def ddim(denoiser, x, levels):
    """From ``x`` at level ``levels[0]`` to the last level, which may be 0."""
    for sigma, lower in pairwise(levels):
        # Hint: ask the denoiser once, then the formula.
        ### BEGIN SOLUTION
        clean = denoiser(x, sigma)
        x = clean + lower / sigma * (x - clean)
        ### END SOLUTION
    return x


# %%
levels = [*torch.logspace(1, -2, 200, dtype=torch.float64).tolist(), 0.0]
start = m + levels[0] * torch.randn(20_000, generator=generator(0), dtype=torch.float64)
drawn = ddim(denoise, start, levels)
print(f"mean {float(drawn.mean()):.2f}, standard deviation {float(drawn.std()):.2f}")
assert abs(drawn.mean() - m) < 0.01
assert abs(drawn.std() - s) < 0.01

# %% [markdown]
# Mean 0.4 and standard deviation 0.2: from a denoiser alone, the distribution it was made for.
#
# ## The reward
# The same function draws pictures, if the denoiser is `photo`.

# %%
from workbench.plots import show

prior = load_prior("photo")
start = 0.5 + 80 * torch.randn(4, 3, 64, 64, generator=generator(1))
with torch.no_grad():
    pictures = ddim(prior, start, [*torch.logspace(1.903, -2.3, 40).tolist(), 0.0])
show({f"sample {k + 1}": pictures[k : k + 1] for k in range(4)})
plt.show()
assert 0 < pictures.mean() < 1
assert pictures.std() < 0.5
