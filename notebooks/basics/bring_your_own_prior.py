# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Bring your own prior
#
# **Aim.** Restore a photo with three networks from three places, one line each: a published checkpoint file, a diffusers
# repository, a denoiser of deepinv. Then the way back: our operators and priors inside deepinv's own samplers.
#
# Published weights are large and have to be downloaded, so small stand-ins in the same formats take their place here:
# `photo-ddpm`, a network of 2.7 million weights in the layout of the published DDPM files, trained on photos of 32x32 pixels.
# Its results say nothing about the originals. BM3D is the original: it has no weights.
#
# A network of your own, from your own code, is in `docs/bring_your_own.md`.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from workbench.deepinv_bridge import denoiser_for_deepinv, operator_from_deepinv, physics_for_deepinv
from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import PlainDenoiser, load_prior, save_prior
from workbench.models.diffusers_export import save_diffusers
from workbench.operators import Blur
from workbench.operators.kernels import gaussian_kernel
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade, restore
from workbench.solvers import DDNM, DeqIR, DiffPIR

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The stand-ins
# A bare state dict, as the authors of DDPM publish theirs, and a repository folder as diffusers writes it. For the published
# networks, use the names `"ema_diffusion_lsun_bedroom.ckpt"` and
# `"diffusers:google/ddpm-cifar10-32"`.

# %%
stand_in = load_prior("photo-ddpm")
torch.save(stand_in.net.state_dict(), folder / "photos.ckpt")
save_diffusers(stand_in, folder / "photos-repository")
assert round(sum(weights.numel() for weights in stand_in.parameters()) / 1e6, 1) == 2.7
print(*sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()), sep="\n")

# %% [markdown]
# ## Three sources
# `workbench.models.load:load_prior` recognises a checkpoint by its tensors: which network, how wide, how many levels, where attention is. The
# summary says what it found. `--prior` of the command line and the `prior` of a pipeline take the same names.

# %%
priors = {
    "file": load_prior(folder / "photos.ckpt"),
    "diffusers": load_prior(f"diffusers:{folder / 'photos-repository'}"),
    "deepinv": load_prior("deepinv:bm3d"),
}
for prior in priors.values():
    print(prior.summary())

# %% [markdown]
# ## One restoration each
# The solver is the same for all three: time steps and data ranges are the adapter's business. BM3D is made for moderate
# noise, so DiffPIR starts at a lower level.

# %%
photo = sample_photo("cat", size=64)
blurred = degrade(photo, "blur:1.5", noise=0.02, seed=0)
solver = DiffPIR(steps=6, sigma_start=0.3)
results = {name: restore(blurred, solver, prior).image for name, prior in priors.items()}
columns = {"original": photo, "blurred": blurred.picture, **results}
quality = {name: float(psnr(image, photo)) for name, image in columns.items() if name != "original"}
show(columns, notes={name: [f"{value:.1f} dB"] for name, value in quality.items()})
plt.show()
for name in results:
    print(f"{name:10} {quality[name]:.1f} dB, blurred {quality['blurred']:.1f} dB")
    assert quality[name] > quality["blurred"] + 1

# %% [markdown]
# The file and the repository hold the same weights, and diffusers builds its own network from them: two implementations,
# one picture.

# %%
difference = float((results["file"] - results["diffusers"]).abs().max())
print("largest difference below 1/1000:", difference < 1e-3)
assert difference < 1e-3

# %% [markdown]
# ## Files that are refused
# Files are read as tensors and nothing else; code in a pickle does not run. What the tensors do not show has to be passed as
# a setting.

# %%
torch.save(torch.nn.Linear(2, 2), folder / "whole-network.pt")
(folder / "notes.txt").write_text("no weights in here")
torch.save({"model.diffusion_model.out.2.bias": torch.zeros(4)}, folder / "stable.ckpt")
state = stand_in.net.state_dict()
torch.save({name: weights for name, weights in state.items() if "conv_out.bias" not in name}, folder / "lost.ckpt")
for name in ("whole-network.pt", "notes.txt", "stable.ckpt", "lost.ckpt"):
    try:
        load_prior(folder / name)
    except ValueError as error:
        print("-", str(error).replace(f"{folder}/", ""))

# %% [markdown]
# ## Noise levels between the time steps
# A variance-preserving network was trained at 1000 noise levels, and solvers ask for any. The adapter interpolates the time
# step, or takes the nearest one as published samplers do (`workbench.models.adapters:VPNoise`). It matters at the lowest
# levels, where the steps are far apart, and not above: `benchmarks/vp_steps.py` measures it.

# %%
nets = [load_prior(folder / "photos.ckpt", step=step) for step in ("interpolate", "nearest")]
apart = {}
for sigma in (0.0085, 0.1):  # the first one lies half-way between steps 1 and 2
    noisy = photo + sigma * torch.randn(photo.shape, generator=generator(0))
    with torch.no_grad():
        between, nearest = (net(noisy, sigma) for net in nets)
    apart[sigma] = float((between - nearest).square().mean().sqrt()) / sigma
    print(f"sigma {sigma}: they differ by {apart[sigma]:.1%} of the noise")
assert apart[0.0085] > 0.05
assert apart[0.1] < 0.01

# %% [markdown]
# ## deepinv's samplers with our operators and priors
# `workbench.deepinv_bridge.physics:physics_for_deepinv` and `workbench.deepinv_bridge.denoisers:denoiser_for_deepinv` convert an operator and a
# prior. Here deepinv's DiffPIR restores
# with our blur, whose pseudo-inverse and prox are exact, and our network.

# %%
import deepinv

operator = Blur(gaussian_kernel(1.5))
physics = physics_for_deepinv(operator, (3, 64, 64), sigma_noise=0.02)
denoiser = denoiser_for_deepinv(load_prior("photo"))
sampler = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), sigma=0.02, max_iter=20, zeta=1.0, verbose=False)
torch.manual_seed(0)
with torch.no_grad():
    theirs = sampler(blurred.y, physics, seed=1)
ours = restore(blurred, DiffPIR(steps=20), load_prior("photo")).image
show(
    {"original": photo, "blurred": blurred.picture, "deepinv's DiffPIR": theirs, "our DiffPIR": ours},
    notes={
        "deepinv's DiffPIR": [f"{float(psnr(theirs, photo)):.1f} dB"],
        "our DiffPIR": [f"{float(psnr(ours, photo)):.1f} dB"],
    },
)
plt.show()
print("adjoint right:", abs(float(physics.adjointness_test(photo))) < 1e-4)
for name, image in {"deepinv's": theirs, "ours": ours}.items():
    print(f"{name:9} {float(psnr(image, photo)):.1f} dB, blurred {quality['blurred']:.1f} dB")
    assert psnr(image, photo) > quality["blurred"] + 1

# %% [markdown]
# Both gain more than 1 dB. The reverse: deepinv's physics under our solvers. Their `A` and its adjoint are used, the rest is computed to a stated
# tolerance.

# %%
torch.manual_seed(0)
mask = (torch.rand(1, 1, 64, 64, generator=generator(0)) > 0.5).float()
inpainting = operator_from_deepinv(deepinv.physics.Inpainting((3, 64, 64), mask=mask), (3, 64, 64))
y = inpainting(photo)
filled = DDNM(steps=20)(y, inpainting, load_prior("photo"), generator=generator(0)).image
print(f"half of the pixels missing: from {float(psnr(y, photo)):.0f} to {float(psnr(filled, photo)):.0f} dB")
kept = bool(((inpainting(filled) - y).abs() < 1e-4).all())
print("known pixels kept:", kept)
assert kept

# %% [markdown]
# ## Keep it
# `save_prior` (or `workbench convert FILE --to model.safetensors`) writes one file that holds its own configuration and
# card, and `workbench push model.safetensors USER/NAME` publishes it; `hf:USER/NAME` loads it again.

# %%
save_prior(priors["file"], folder / "model.safetensors", card={"summary": "stand-in for a published DDPM network"})
again = load_prior(folder / "model.safetensors")
with torch.no_grad():
    torch.testing.assert_close(again(noisy, 0.1), priors["file"](noisy, 0.1), atol=1e-5, rtol=0)
print(again.summary())

# %% [markdown]
# ## What to try
# - A checkpoint of your own; `workbench models FILE` prints the same summary.
# - `load_prior(..., dtype=torch.bfloat16)` answers the same to two digits; half the memory, and faster where the device has
#   bfloat16. `channels_last=True` gives the same to float32 rounding, `device="cuda"` runs on a GPU. Below, the first two.
# - DRUNet (`deepinv:drunet`, or `drunet_color.pth` of DPIR) was trained for noise up to 50/255 only: DiffPIR lowers its levels
#   and says so; DDNM and DeqIR refuse it. Below, with a stand-in that is as limited.

# %%
with torch.no_grad():
    reference = priors["file"](noisy, 0.1)
    for options, bound in (({"dtype": torch.bfloat16}, 0.01), ({"channels_last": True}, 1e-4)):
        off = float((load_prior(folder / "photos.ckpt", **options)(noisy, 0.1) - reference).square().mean().sqrt())
        print(options, f"off by less than {bound}:", off < bound)
        assert off < bound

limited = PlainDenoiser(stand_in, sigma_max=50 / 255, name="limited")
print("DiffPIR:", restore(blurred, DiffPIR(steps=10), limited).restoration.message)
for solver in (DDNM(steps=10), DeqIR(steps=10)):
    try:
        restore(blurred, solver, limited)
    except ValueError as error:
        print(f"{type(solver).__name__} refuses:", error)
    else:
        raise AssertionError("it was to be refused")
