# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # MTDEQ: training a denoiser at the equilibria of an iteration
#
# **Aim.** Walk through *Prior for Multi-Task Inverse Problems in Image Reconstruction Using Deep Equilibrium Models*
# (Willingham, Sjöström, Guillemot) with every equation computed once: what a denoiser stands for in plug-and-play
# methods, why it fails where there is no noise, and how an equilibrium model trains it on the error of the
# reconstruction instead.
#
# The idea in one paragraph. Plug-and-play methods put a Gaussian denoiser where an algorithm asks for the proximal
# operator of a regulariser. But what the algorithm hands to the denoiser is not an image plus white noise: it has
# holes, blur, aliases. MTDEQ runs the algorithm to its fixed point, compares that with the original, and moves the
# denoiser so that the fixed point comes closer, for many degradations and noise levels at once.
#
# Names such as `workbench.trainers.mtdeq:MTDEQ` say where an equation is implemented (module:function). Everything runs
# on one CPU core in one to two minutes.

# %%
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from workbench.data import Photos
from workbench.data.evaluation import evaluation_photos
from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo, sample_photos, to_uint8
from workbench.models import EDMPrecond, load_prior
from workbench.models.gaussian import GaussianPrior
from workbench.models.networks.unet import grown
from workbench.operators import Blur, Inpainting, random_mask
from workbench.operators.inpainting import fill_holes
from workbench.operators.kernels import gaussian_kernel
from workbench.pipelines.published import find_published, read_published
from workbench.pipelines.schema import load_pipeline
from workbench.plots import show
from workbench.random import generator
from workbench.restore import degrade
from workbench.solvers import ADMM, ForwardBackward, attach_gradient
from workbench.solvers.plug_and_play.forward_backward import forward_backward_step
from workbench.trainers import MTDEQ, Degradations, TrainSettings, train

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it
PRIORS = {"Gauss": "photo", "MTDEQ": "photo-mtdeq"}
gauss, mtdeq = (load_prior(source) for source in PRIORS.values())
print(gauss.summary())
print(mtdeq.summary())

# %% [markdown]
# ## A denoiser as a proximal operator
# The regularised problem (eq. 1) and the proximal operator of its regulariser (eq. 2) are
# $$\min_x \tfrac12\|Ax-y\|^2 + R(x), \qquad
# \operatorname{prox}_{\sigma^2R}(z) = \arg\min_x \tfrac12\|x-z\|^2 + \sigma^2R(x).$$
# (`Operator.prox` of `workbench.operators.base:Operator` is the proximal operator of the *data*, which has a closed
# form.) The second is the most probable image behind $z = x + \sigma\varepsilon$ if $R = -\log p$: a Gaussian denoiser.
# For Gaussian images the most probable image is also the mean, so that the best denoiser *is* the proximal operator of
# $R(x) = \tfrac12(x-m)^\top C^{-1}(x-m)$. Check: its gradient condition $x - z + \sigma^2C^{-1}(x-m) = 0$.

# %%
SIDE, SIGMA = 8, 0.1
frequency = torch.fft.fftfreq(SIDE, dtype=torch.float64)
power = 1 / (0.02 + frequency[:, None] ** 2 + frequency**2)
toy = GaussianPrior((0.06 * power / power.mean())[None], torch.tensor([0.5]))
covariance = toy.covariance()
z = torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64, generator=generator(0))
x = toy(z, SIGMA)
condition = (x - z).flatten() + SIGMA**2 * torch.linalg.solve(covariance, (x - 0.5).flatten())
print("the best denoiser is the proximal operator:", bool(condition.abs().max() < 1e-9))

# %% [markdown]
# ## Forward-backward splitting and its equilibrium
# MTDEQ's iteration (eq. 3, `workbench.solvers.plug_and_play.forward_backward:forward_backward_step`) is a gradient step
# on the data, then the denoiser:
# $$f_\theta(z) = Q_{\theta,\eta\sigma_n}\bigl(z - \eta A^\top(Az-y)\bigr), \qquad \eta = 0.49 .$$
# The denoiser is told $\eta\sigma_n$ (section III-B; eq. 1 carries no noise level, see `docs/errata.md`). With the
# linear denoiser $Q(z) = m + W(z-m)$ the fixed point solves a linear system, and the distance to it shrinks at every
# step, in the end by the largest eigenvalue of $W(I-\eta A^\top A)$.

# %%
ETA = 0.49
op = Blur(gaussian_kernel(1.0).double())
truth = toy.sample(1, generator(1))
y = op(truth) + SIGMA * torch.randn(truth.shape, dtype=torch.float64, generator=generator(2))
eye = torch.eye(SIDE**2, dtype=torch.float64)
matrix = op(eye.view(-1, 1, SIDE, SIDE)).flatten(1).T
wiener = covariance @ torch.linalg.inv(covariance + (ETA * SIGMA) ** 2 * eye)
transition = wiener @ (eye - ETA * matrix.T @ matrix)
right = ETA * wiener @ matrix.T @ (y.flatten() - matrix @ torch.full((SIDE**2,), 0.5, dtype=torch.float64))
exact = (0.5 + torch.linalg.solve(eye - transition, right)).view_as(y)

for start in ("measurement", "black", "noise"):
    first = {
        "measurement": y,
        "black": torch.zeros_like(y),
        "noise": torch.randn(y.shape, dtype=y.dtype, generator=generator(3)),
    }[start]
    found = ForwardBackward(max_steps=2000, tolerance=1e-20)(y, op, toy, sigma_noise=SIGMA, initial=first)
    print(f"from {start:12} the solution of the linear system: {bool((found.image - exact).abs().max() < 1e-7)}")
rate = float(torch.linalg.eigvals(transition).abs().max())
steps = found.residuals[0].sqrt()
shrinks = float(steps[150] / steps[100]) ** (1 / 50)
print(f"largest eigenvalue {rate:.2f}; a step is {shrinks:.2f} of the one before")
assert abs(shrinks - rate) < 5e-3

# %% [markdown]
# Anderson acceleration (`workbench.solvers.fixed_point.rules:Anderson`) mixes the last iterates so that the residual is
# smallest. It needs no other equation, only fewer evaluations of the network.

# %%
settings, spent = {"max_steps": 2000, "tolerance": 1e-16}, []
for name, memory in (("plain", 0), ("Anderson, memory 5", 5)):
    found = ForwardBackward(memory=memory, **settings)(y, op, toy, sigma_noise=SIGMA)
    trace = found.residuals[0].sqrt()
    plt.semilogy(range(1, len(trace) + 1), trace, label=name)
    spent.append(int(found.evaluations[0]))
    print(f"{name:18} {spent[-1]} evaluations")
plt.xlabel("evaluations")
plt.ylabel("size of a step")
plt.legend()
plt.show()
assert spent[1] < spent[0] / 5

# %% [markdown]
# ## Unrolling against equilibrium: what the gradient costs
# Training through $K$ unrolled steps keeps the activations of all of them. At an equilibrium one application of $f$ is
# enough (eq. 4, Jacobian-free, `workbench.solvers.fixed_point.gradient:attach_gradient`): the iteration itself runs
# without a graph, and memory does not depend on its length. Bytes that autograd keeps for the backward pass:

# %%
photos = sample_photos(32)
network = load_prior("photo").requires_grad_(True)
mask = Inpainting(random_mask((32, 32), 0.8, generator(0)))
data = mask(photos)
step = forward_backward_step(network, mask, data, torch.full((len(photos),), 0.02), ETA)
rows = torch.arange(len(photos))


def kept(run) -> int:
    """Megabytes of activations saved for the backward pass."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    del result
    return sum(size for place, size in sizes.items() if place not in weights) // 2**20


def unrolled(steps):
    x = data
    for _ in range(steps):
        x = step(x, rows)
    return x


one = kept(lambda: attach_gradient(step, data))
print("equilibrium    1.0 times one step")
for steps in (2, 4, 8):
    print(f"{steps} steps unrolled {kept(lambda steps=steps: unrolled(steps)) / one:.1f} times one step")
network = network.requires_grad_(False)

# %% [markdown]
# ## Where a Gaussian denoiser fails: missing pixels without noise
# Told that there is no noise, the best Gaussian denoiser is the identity, whatever it is shown: then every image that
# agrees with the data is a fixed point, and the iteration stays where it starts (here: holes filled with means of their
# neighbours, `workbench.operators.inpainting:fill_holes`). Plug-and-play methods tell the denoiser a small lie instead,
# a level above zero. A denoiser that was trained on the error of reconstructions can learn to fill holes at level zero:
# `photo-mtdeq` on many tasks, `photo-st-comp` on this task alone.

# %%
photos = torch.cat([sample_photo("astronaut", 96), sample_photo("cat", 96)])
holes = degrade(photos, "inpaint:0.8", 0.0, seed=0)
filled = {"memory": 1, "max_steps": 25, "start": "picture"}
solver = ForwardBackward(**filled)
start = fill_holes(holes.y, holes.op.mask)
single = load_prior("photo-st-comp")
restored = {"start": start, "Gauss, told 0": solver(holes.y, holes.op, gauss).image}
for level in (0.02, 0.05):
    lying = ForwardBackward(**filled, sigma=level)
    restored[f"Gauss, told {level}"] = lying(holes.y, holes.op, gauss).image
restored["MTDEQ, told 0"] = solver(holes.y, holes.op, mtdeq).image
restored["MTDEQ, told 0.02"] = ForwardBackward(**filled, sigma=0.02)(holes.y, holes.op, mtdeq).image
restored["single task, told 0"] = solver(holes.y, holes.op, single).image
quality = {name: float(psnr(image, photos, clip=True).mean()) for name, image in restored.items()}
show({"original": photos, **{f"{name}\n{quality[name]:.2f} dB": image for name, image in restored.items()}}, height=1.7)
plt.show()
assert abs(quality["Gauss, told 0"] - quality["start"]) < 0.1
assert quality["Gauss, told 0"] + 0.3 < quality["MTDEQ, told 0"] < quality["single task, told 0"]
assert quality["Gauss, told 0.05"] < quality["Gauss, told 0.02"]
assert quality["single task, told 0"] < quality["Gauss, told 0.02"] < quality["MTDEQ, told 0.02"]

# %% [markdown]
# Told the truth, the Gaussian denoiser does nothing, and the two trained ones fill holes. But told 0.02 the Gaussian
# denoiser comes out above both, and told 0.05 it wipes details away: the right lie has to be found. Told the same lie,
# MTDEQ is the best of all: training at equilibria helped at a level above zero too.

# %% [markdown]
# ## The same equilibrium from different starts
# Nothing makes $f_\theta$ a contraction, so it is measured, from the measurement, from grey, and from white noise, at
# two levels of noise in the data. How far apart do the three end, in grey levels of 255?

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
spread = {}
for axis, noise in zip(axes, (0.1, 0.02)):
    blurred = degrade(sample_photo("cat", 48), "blur:1.6", noise, seed=0)
    starts = {
        "the measurement": blurred.y,
        "grey": torch.full_like(blurred.y, 0.5),
        "noise": torch.rand(blurred.y.shape, generator=generator(0)),
    }
    ends = []
    solver = ForwardBackward(max_steps=100, tolerance=1e-9)
    for name, first in starts.items():
        found = solver(blurred.y, blurred.op, mtdeq, sigma_noise=noise, initial=first)
        ends.append(found.image)
        axis.semilogy(found.residuals[0].sqrt(), label=f"from {name}")
    axis.set(title=f"noise {noise}", xlabel="iteration")
    spread[noise] = 255 * max(float((a - b).square().mean().sqrt()) for a in ends for b in ends)
    print(f"noise {noise}: the ends differ by {spread[noise]:.1f} grey levels at most")
axes[0].set_ylabel("size of a step")
axes[0].legend(frameon=False)
plt.show()
assert spread[0.1] < 1
assert spread[0.02] > 3

# %% [markdown]
# With much noise all three end at one image. With little, the run from white noise is still elsewhere after a hundred
# iterations: uniqueness is not guaranteed, and the start matters.

# %% [markdown]
# ## Training, Algorithm 1
# For every image: degrade it $N$ times, find the $N$ equilibria, average their errors, and take the gradient of one
# application of $f_\theta$ at each (eq. 4; `workbench.trainers.mtdeq:MTDEQ`). Here for 25 steps, on one task: half of
# the pixels missing, no noise, and the iteration starts from black holes, as hard as it gets for the Gaussian denoiser.
# The network gets an output that the noise level does not scale: the preconditioning of diffusion networks multiplies
# what they add by the level, so that at level zero nothing could be learned.


# %%
@dataclass(frozen=True)
class BlackHoles(Degradations):
    """Missing pixels; iterations start from the measurement as it is."""

    def sample(self, *arguments):
        op = super().sample(*arguments)
        op.first_estimate = lambda y: op.adjoint(y)
        return op


folder = Path(tempfile.mkdtemp())
np.save(folder / "photos.npy", np.concatenate([to_uint8(image[None]) for image in sample_photos(128)]))
student = EDMPrecond(grown(load_prior("photo").net, direct=True), sigma_max=80.0, multiple=8)
plain = ForwardBackward(max_steps=15)
trained, progress = train(
    student,
    MTDEQ(BlackHoles(kinds=("pixels",), rates=(0.5,)), noise=(0.0,), per_image=1, fixed_point=plain),
    Photos(str(folder / "photos.npy"), size=32, batch_size=6, scales=(0.3, 1.0), seed=0),
    TrainSettings(
        steps=25,
        learning_rate=5e-4,
        warmup=5,
        schedule=lambda step: min(1.0, (step + 1) / 5) * 0.5 ** (step // 15),
        betas=(0.9, 0.999),
        ema_decay=0.8,
        log_every=5,
        save_every=25,
        workers=0,
    ),
    folder / "run",
    progress_bar=False,
)

# %%
crops = next(iter(Photos(str(folder / "photos.npy"), size=32, batch_size=8, scales=(0.3, 1.0), seed=1))).images
holes = degrade(crops, "inpaint:0.5", 0.0, seed=0)
results = {
    "half missing": holes.y,
    "before": plain(holes.y, holes.op, gauss, initial=holes.y).image,
    "after": plain(holes.y, holes.op, trained, initial=holes.y).image,
}
quality = {name: float(psnr(image, crops, clip=True).mean()) for name, image in results.items()}
columns = {"original": crops, **{f"{name}\n{quality[name]:.1f} dB": image for name, image in results.items()}}
show({name: images[:4] for name, images in columns.items()}, height=1.3)
plt.show()
assert abs(quality["before"] - quality["half missing"]) < 1
assert quality["after"] > quality["before"] + 3

# %% [markdown]
# Four of the eight crops that the means are of. Before, the holes stay black; after 25 steps they are filled, badly.
# These are other crops, but of the photos that were trained on: this shows that training works, not how well it
# generalises. The shipped prior saw none of them.
#
# ## The tables, at small scale
# The paper uses the prior in another algorithm than it was trained in, ADMM
# (`workbench.solvers.plug_and_play.admm:ADMM`), with the settings that suit the Gaussian denoiser best, task by task.
# Three cells of its tables on tiles of 64x64 pixels of the sample photos, with the settings of
# `pipelines/mtdeq_table1.yaml` and `mtdeq_table2.yaml`, which were chosen on other photos.

# %%
tiles, _ = evaluation_photos([], count=6, first=40, size=64, short_side=192, seed=1)
pipelines = find_published(Path.cwd()).parent
published, gains = read_published(pipelines / "published.yaml"), {}
for number, task in ((1, "completion 80%"), (1, "deblur 2.0"), (2, "2x SR bicubic 0.01")):
    pipeline = load_pipeline(pipelines / f"mtdeq_table{number}.yaml", pipelines.parent / "notebooks" / "jobs")
    job = next(job.parameters for job in pipeline.jobs if job.parameters["published_task"] == task)
    admm = ADMM(max_steps=job["steps"], **job["settings"]["Gauss"])
    degraded = degrade(tiles, job["degradation"], job["noise"], seed=0)
    each = [
        psnr(admm(degraded.y, degraded.op, prior, sigma_noise=job["noise"]).image, tiles, clip=True)
        for prior in (gauss, mtdeq)
    ]
    paper = {names[0]: figures["PSNR"] for names, figures in published[f"mtdeq-{number}"].figures(task)}
    gains[task] = float((each[1] - each[0]).mean())
    print(f"{task:20} Gauss {each[0].mean():.2f}, MTDEQ {each[1].mean():.2f} dB, gain {gains[task]:+.2f}", end="")
    print(f"; paper {paper['Gauss']:.2f}, {paper['Proposed']:.2f}, gain {paper['Proposed'] - paper['Gauss']:+.2f}")
assert min(gains.values()) > 0

# %% [markdown]
# The gain has the paper's sign in each cell. Six tiles are few: `make mtdeq` has every method, and `docs/mtdeq.md` what
# came out on 50 photos of BSDS500 (a gain in all twelve cells, and next to none for a control trained for as long) and
# on Set5.
#
# ## Limits
# - The paper trains a DRUNet ten times as large, on 8,594 photos for 250 epochs. The shipped prior had 480 steps of
#   four crops: `docs/mtdeq.md` has the differences one by one.
# - The gradient holds the equilibrium fixed. It is a descent direction where $f$ contracts, and no more than that.
# - An equilibrium costs many evaluations per measurement and training step; one step of a denoiser costs one.
# - As a plain Gaussian denoiser it is worse than its parent (`docs/priors/photo-mtdeq.md`): it learned another task.
#
# ## What to try
# - `"inpaint:0.9"` in "Where a Gaussian denoiser fails": told 0, MTDEQ hardly leaves its start (that assertion fails);
#   told 0.02 it is still the best.
# - `memory=5` in place of `memory=1` there: the same figures to a few hundredths of a decibel. Acceleration changes the
#   way to the equilibrium, not the equilibrium.
# - `load_prior("photo-st-sr")` in place of `mtdeq` in the table: a prior trained on super-resolution alone. It loses to
#   the Gaussian one at completion, gains at deblurring, and stays below MTDEQ in all three cells.
