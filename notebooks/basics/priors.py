# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Priors: what photos look like
#
# **Aim.** See what a diffusion prior knows: denoising at any noise level, the score behind it, and samples from pure noise.
#
# A prior is a denoiser $D(x, \sigma) \approx \mathbb E[x_0 \mid x_0 + \sigma\varepsilon = x]$. By Tweedie's formula it
# holds the score of the blurred image distribution,
# $$\nabla \log p_\sigma(x) = \frac{D(x,\sigma) - x}{\sigma^2},$$
# which is all that samplers and restoration methods need.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import PlainDenoiser, load_prior
from workbench.operators.kernels import gaussian_kernel
from workbench.plots import show
from workbench.random import generator
from workbench.solvers import DDIM

prior = load_prior("photo")
print(
    f"channels {prior.channels}, noise {prior.sigma_min:g} to {prior.sigma_max:g}, sides in multiples of {prior.multiple}"
)
print(f"{sum(weights.numel() for weights in prior.parameters()) / 1e6:.1f} million weights")

# %% [markdown]
# ## Denoising
# The prior is given the noise level. Its answer is the mean of all photos that could have produced the noisy one, so it gets
# smoother as the noise grows.

# %%
photo = sample_photo("coffee", size=64)
levels = [0.05, 0.1, 0.2, 0.5, 1.0]
noise = torch.randn(photo.shape, generator=generator(0))
noisy = torch.cat([photo + sigma * noise for sigma in levels])
with torch.no_grad():
    denoised = prior(noisy, torch.tensor(levels))  # one noise level per image of the batch
photos = photo.expand_as(noisy)
for sigma, before, after in zip(levels, psnr(noisy, photos, clip=True), psnr(denoised, photos)):
    print(f"sigma {sigma:4}: noisy {float(before):5.1f} dB, denoised {float(after):5.1f} dB")
    assert after > before + 3
show(
    {f"{sigma:g}": torch.cat([noisy[k : k + 1], denoised[k : k + 1]]) for k, sigma in enumerate(levels)},
    ["noisy", "denoised"],
)
plt.show()

# %% [markdown]
# ## The score
# The three forms are one: `prior.score` and `prior.noise` follow from the denoiser. The noise it sees in a picture is close
# to the noise that was put there.

# %%
with torch.no_grad():
    x, sigma = noisy[2:3], levels[2]
    torch.testing.assert_close(prior.score(x, sigma) * sigma**2, prior(x, sigma) - x)
    seen = prior.noise(x, sigma)
print(
    "correlation with the true noise:",
    round(float(torch.corrcoef(torch.stack([seen.flatten(), noise.flatten()]))[0, 1]), 2),
)

# %% [markdown]
# ## Samples
# Starting from pure noise and denoising a little at a time (DDIM) draws from the prior itself. A small network trained on
# small photos knows colours, edges and textures, not objects.

# %%
draws = DDIM(steps=40)(prior, (5, 3, 32, 32), generator=generator(0))
show({f"sample {k + 1}": draws.image[k : k + 1] for k in range(5)})
plt.show()
print("values:", round(float(draws.image.mean()), 1), "+-", round(float(draws.image.std()), 1))

# %% [markdown]
# ## Your own prior
# An adapter turns any denoiser into a prior. Here a Gaussian filter that widens with the noise: all it assumes about photos
# is that they are smooth.


# %%
def smooth(x, sigma):
    rows = []
    for image, level in zip(x, sigma):
        kernel = gaussian_kernel(0.3 + 3 * float(level)).to(x)[None, None].expand(3, 1, -1, -1)
        side = kernel.shape[-1] // 2
        padded = torch.nn.functional.pad(image[None], [side] * 4, mode="reflect")
        rows.append(torch.nn.functional.conv2d(padded, kernel, groups=3))
    return torch.cat(rows)


filter_prior = PlainDenoiser(smooth, sigma_min=0.001, sigma_max=3.0, name="gaussian filter")
for sigma in (0.05, 0.2):
    values = [float(psnr(p(photo + sigma * noise, sigma), photo)) for p in (filter_prior, prior)]
    print(f"sigma {sigma:4}: filter {values[0]:5.1f} dB, network {values[1]:5.1f} dB")

# %% [markdown]
# ## What to try
# - Give the prior a wrong noise level: too low leaves noise, too high removes detail.
# - `PredictorCorrector` instead of `DDIM`; another size than 32x32.
# - The filter as a prior of `DiffPIR` in the *quickstart*.
