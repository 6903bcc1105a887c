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
# A prior is a denoiser $D(x, \sigma) \approx \mathbb E[x_0 \mid x_0 + \sigma\varepsilon = x]$ (`workbench.models.prior:Prior`). By
# Tweedie's formula it holds the score of the blurred image distribution,
# $$\nabla \log p_\sigma(x) = \frac{D(x,\sigma) - x}{\sigma^2},$$
# which is all that samplers and restoration methods need (`workbench.models.prior:Prior.score`).

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import GaussianMixturePrior, PlainDenoiser, load_prior
from workbench.operators.kernels import gaussian_kernel
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade, restore
from workbench.solvers import DDIM, EDM, DiffPIR, PredictorCorrector
from workbench.widgets import prior_inspector

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
prior = load_prior("photo")
print(
    f"channels {prior.channels}, noise {prior.sigma_min:g} to {prior.sigma_max:g}, sides in multiples of {prior.multiple}"
)
print(f"{sum(weights.numel() for weights in prior.parameters()) / 1e6:.1f} million weights")

# %% [markdown]
# ## Denoising
# The prior is given the noise level. Its answer is the mean of all photos that could have produced the noisy one, so it gets
# smoother as the noise grows. It gains more than 5 dB at every level.

# %%
photo = sample_photo("coffee", size=128)
levels = [0.05, 0.1, 0.2, 0.5, 1.0]
noise = torch.randn(photo.shape, generator=generator(0))
noisy = torch.cat([photo + sigma * noise for sigma in levels])
with torch.no_grad():
    denoised = prior(noisy, torch.tensor(levels))  # one noise level per image of the batch
photos = photo.expand_as(noisy)


def roughness(images):
    """Mean difference of neighbours in a row, (B,)."""
    return images.diff(dim=-1).abs().mean((1, 2, 3))


rough = roughness(denoised)
for k, (before, after) in enumerate(zip(psnr(noisy, photos, clip=True), psnr(denoised, photos))):
    print(
        f"sigma {levels[k]:4}: noisy {float(before):5.1f} dB, denoised {float(after):5.1f} dB, "
        f"difference of neighbours {float(rough[k]):.3f}"
    )
    assert after > before + 5
assert (rough.diff() < 0).all()
show(
    {f"{sigma:g}": torch.cat([noisy[k : k + 1], denoised[k : k + 1]]) for k, sigma in enumerate(levels)},
    ["noisy", "denoised"],
)
plt.show()

# %% [markdown]
# Move $\sigma$ (in JupyterLab; elsewhere you see a still): at 0.01 nothing seems to happen, at 1 a cup is left,
# at 10 two blots, at 50 a grey that is the mean of all photos. The button draws samples, which come [below](#Samples).

# %%
prior_inspector(prior, photo)

# %% [markdown]
# ## The score, where it can be drawn
# Pictures of 1x2 pixels are points of a plane. Let the "photos" be a mixture of three Gaussians there, whose denoiser is a
# formula (`workbench.models.mixture:GaussianMixturePrior`). Contours: the density of photos with noise, $p_\sigma$. Each arrow
# is a third of $\sigma^2$ times the score: it begins at $x$ and goes a third of the way to $D(x, \sigma)$.
#
# With little noise the arrows lead to the nearest kind of photo. With much noise there is one hill only, and all arrows lead
# near the mean of all photos, where there is no photo: why samplers begin with much noise and *lower* it.

# %%
means = torch.tensor([[0.2, 0.8], [0.8, 0.3], [0.75, 0.85]]).view(3, 1, 1, 2)
spreads = torch.tensor(
    [[[0.006, 0.003], [0.003, 0.004]], [[0.004, -0.002], [-0.002, 0.008]], [[0.002, 0], [0, 0.002]]]
).double()
shares = torch.tensor([0.5, 0.3, 0.2])
mixture = GaussianMixturePrior(shares, means, spreads, sigma_min=0.002, sigma_max=100.0)
fine, coarse = (torch.linspace(-0.2, 1.2, count, dtype=torch.float64) for count in (141, 13))
cells = torch.cartesian_prod(fine, fine).flip(1)
starts = torch.cartesian_prod(coarse, coarse).flip(1)
figure, panels = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
for panel, sigma in zip(panels, (0.05, 0.2, 0.6)):
    blurred = GaussianMixturePrior(
        shares, means, spreads + sigma**2 * torch.eye(2, dtype=torch.float64)
    )  # photos with noise
    density = blurred.log_density(cells).exp().view(141, 141)
    score = mixture.score(starts.view(-1, 1, 1, 2), sigma).view(-1, 2)
    panel.contour(fine, fine, density / density.max(), levels=[0.03, 0.1, 0.3, 0.7], cmap="viridis", linewidths=1)
    panel.quiver(*starts.T, *(sigma**2 * score).T, angles="xy", scale_units="xy", scale=3, width=0.005, color="0.3")
    panel.set(title=f"sigma {sigma:g}", xlabel="left pixel", aspect="equal", xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
    points = starts.clone().requires_grad_()
    (slope,) = torch.autograd.grad(blurred.log_density(points).sum(), points)
    torch.testing.assert_close(score, slope)  # Tweedie's formula
panels[0].set_ylabel("right pixel")
plt.show()
ends = mixture(starts.view(-1, 1, 1, 2), 0.6).view(-1, 2)
middle = (shares.double()[:, None] * means.double().view(3, 2)).sum(0)
print(f"at sigma 0.6 all D(x) lie within {float((ends - middle).norm(dim=1).max()):.2f} of the mean of all photos")
assert (ends - middle).norm(dim=1).max() < 0.5

# %% [markdown]
# ## The score of a photo
# The three forms are one: `prior.score` and `prior.noise` follow from the denoiser. For pictures the arrow is a picture: what
# the prior would change. It is nearly minus the noise that was put there; what is missing is what the prior took for a part of
# the photo, and what it took for noise.

# %%
with torch.no_grad():
    x, sigma = noisy[2:3], levels[2]
    score, seen = prior.score(x, sigma), prior.noise(x, sigma)
    torch.testing.assert_close(score * sigma**2, denoised[2:3] - x)
    torch.testing.assert_close(seen, -score * sigma)
show(
    {
        "x": x,
        "D(x)": denoised[2:3],
        "sigma^2 score + 1/2": 0.5 + sigma**2 * score,
        "1/2 - noise": 0.5 - sigma * noise,
        "missing, x 2, + 1/2": 0.5 + 2 * (sigma**2 * score + sigma * noise),
    }
)
plt.show()
correlation = float(torch.corrcoef(torch.stack([seen.flatten(), noise.flatten()]))[0, 1])
print(f"correlation of the noise it sees with the true noise: {correlation:.2f}")
assert correlation > 0.95

# %% [markdown]
# ## Samples
# Starting from pure noise and denoising a little at a time draws from the prior itself (DDIM,
# `workbench.solvers.prior_samples:DDIM`). A network of 3.2 million weights knows colours, edges and textures, not objects.

# %%
assert round(sum(weights.numel() for weights in prior.parameters()) / 1e6, 1) == 3.2
draws = DDIM(steps=40)(prior, (4, 3, 128, 128), generator=generator(0))
show({f"sample {k + 1}": draws.image[k : k + 1] for k in range(4)})
plt.show()

# %% [markdown]
# ## Your own prior
# An adapter turns any denoiser into a prior (`workbench.models.adapters:PlainDenoiser`). Here a Gaussian filter that widens with
# the noise: all it assumes about photos is that they are smooth. The network is more than 4 dB better.


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
    with torch.no_grad():
        values = [float(psnr(p(photo + sigma * noise, sigma), photo)) for p in (filter_prior, prior)]
    print(f"sigma {sigma:4}: filter {values[0]:5.1f} dB, network {values[1]:5.1f} dB")
    assert values[1] > values[0] + 4

# %% [markdown]
# ## What to try
# Tried in the cells below, so change them.
#
# - Give the prior a wrong noise level: half of the true one leaves noise, twice as much removes detail. Either loses more
#   than 1 dB.
# - Other samplers from the same noise. `EDM()` ends at nearly the same picture as `DDIM`, as both follow the same differential
#   equation; `DDIM(steps=10)` at a smoother one; `DDIM(eta=1.0)` adds fresh noise on the way and ends elsewhere.
#   `PredictorCorrector` needs its thousand steps (minutes): after 100 it shows coloured noise.
# - The filter as a prior of `DiffPIR`: with half of the pixels missing it gains more than 10 dB, since smooth is a good first
#   guess; the network gains 5 dB more.

# %%
with torch.no_grad():
    asked = {level: prior(noisy[1:2], level) for level in (0.05, 0.1, 0.2)}  # the noise in it is 0.1
quality = {level: float(psnr(image, photo)) for level, image in asked.items()}
show(
    {f"told {level:g}": image for level, image in asked.items()},
    notes={f"told {k:g}": [f"{v:.1f} dB"] for k, v in quality.items()},
)
plt.show()
assert quality[0.1] > max(quality[0.05], quality[0.2]) + 1
assert roughness(asked[0.05]) > roughness(asked[0.1]) > roughness(asked[0.2])

# %%
samplers = {
    "DDIM, 40": DDIM(steps=40),
    "EDM, 18": EDM(),
    "DDIM, 10": DDIM(steps=10),
    "DDIM, eta 1": DDIM(steps=40, eta=1.0),
    "PC, 100": PredictorCorrector(steps=100, corrector_steps=0),
}
drawn = {name: sampler(prior, (1, 3, 64, 64), generator=generator(0)).image for name, sampler in samplers.items()}
show(drawn)
plt.show()
apart = {name: float((image - drawn["DDIM, 40"]).square().mean().sqrt()) for name, image in drawn.items()}
print("distance to DDIM, 40:", {name: round(value, 2) for name, value in apart.items()})
assert apart["EDM, 18"] < apart["DDIM, eta 1"] / 2
assert roughness(drawn["DDIM, 10"]) < roughness(drawn["DDIM, 40"])
assert roughness(drawn["PC, 100"]) > 2 * roughness(drawn["DDIM, 40"])

# %%
degraded = degrade(photo, "inpaint:0.5", noise=0.01, seed=0)
found = {"measured": float(psnr(degraded.y, photo))}
for p in (filter_prior, prior):
    result = restore(degraded, DiffPIR(steps=20, sigma_start=1.0), p)
    found[p.name] = result.records[0]["psnr"]
    print(f"{p.name:16} {found[p.name]:.1f} dB, measured {found['measured']:.1f} dB")
assert found["gaussian filter"] > found["measured"] + 10
assert found["photo"] > found["gaussian filter"] + 5
