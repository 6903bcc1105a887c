# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Fixed points: restoring as an equation
#
# **Aim.** Solve $x = f(x)$ for a batch of images, see why acceleration matters, and differentiate through the solution
# without storing the iterations.
#
# Many restoration methods are fixed points. The MAP estimate with a denoiser prior $D$ is one (MUPET, eq. 3, in a better
# conditioned form):
# $$x = \operatorname{prox}(D(x, \sigma)),\qquad \operatorname{prox}(z) = \arg\min_x \tfrac12\|A x - y\|^2 + \tfrac12\|x - z\|^2 .$$
# DeqIR writes a whole sampling chain as one.

# %%
import matplotlib.pyplot as plt
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photos
from workbench.models import load_prior
from workbench.plots import curves, show
from workbench.random import generator
from workbench.restore import degrade
from workbench.solvers import (
    DDNM,
    Anderson,
    Broyden,
    DeqIR,
    Exact,
    JacobianFree,
    Neumann,
    Picard,
    implicit_fixed_point,
    solve_fixed_point,
)

# %% [markdown]
# ## A map whose answer is known
# $f(x) = M x + b$ has the fixed point $(I - M)^{-1} b$. Picard iteration $x \leftarrow f(x)$ shrinks the error by the
# largest eigenvalue of $M$ per step, here 0.95. Anderson acceleration and Broyden's method use earlier steps.

# %%
torch.manual_seed(0)
n = 30
rotation = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q
M = rotation @ torch.diag(torch.linspace(-0.5, 0.95, n, dtype=torch.float64)) @ rotation.T
b = torch.randn(2, n, dtype=torch.float64)
answer = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - M, b.T).T

methods = {"Picard": Picard(), "Anderson": Anderson(memory=10), "Broyden": Broyden(memory=40)}
traces = {}
for name, method in methods.items():
    result = solve_fixed_point(
        lambda x, rows: x @ M.T + b[rows], torch.zeros_like(b), method=method, max_steps=400, tolerance=1e-9
    )
    error = (result.value - answer).abs().max()
    traces[name] = result.trace[0]
    print(f"{name:9} {'converged' if result.converged.all() else 'stopped'}, error below 1e-6: {bool(error < 1e-6)}")
    assert error < 1e-6
curves(traces, x="evaluation", y="residual")
plt.show()

# %% [markdown]
# Each sample of the batch stops by itself, and `f(x, rows)` is only called for those still running.

# %%
steps = [int(trace.isfinite().sum()) for trace in traces.values()]
assert steps[1] < steps[0] / 3
print("Anderson takes less than a third of Picard's evaluations:", steps[1] < steps[0] / 3)

# %% [markdown]
# ## The MAP estimate of a photo
# The same driver on images, with the prior inside the map. Picard iteration need not converge, since the prior need not be
# a contraction. The driver then keeps the best iterate and reports that it did not converge.

# %%
prior = load_prior("photo")
photos = sample_photos(32, ("cat", "coffee"))
sigma = 0.1
degraded = degrade(photos, "blur:1", noise=sigma, seed=0)
op, y = degraded.op, degraded.y


def step(x, rows):
    return op.prox(prior(x, sigma), y[rows], 1.0)


traces, images = {}, {}
for name, method in {"Picard": Picard(), "Anderson": Anderson()}.items():
    result = solve_fixed_point(step, y, method=method, max_steps=40, tolerance=1e-4)
    traces[name], images[name] = result.trace[0], result.value
    print(
        f"{name:9} converged {result.converged.tolist()}, PSNR",
        [round(float(value), 1) for value in psnr(result.value, photos)],
    )
curves(traces, x="evaluation", y="residual")
plt.show()
show({"original": photos, "blurred, noisy": y, **images}, ["cat", "coffee"])
plt.show()

# %% [markdown]
# ## A sampling chain as one fixed point
# DDNM goes through the noise levels one by one. DeqIR solves for all states at once: after as many iterations as there are
# levels its result is exactly that of DDNM, whatever the network, and it is close much earlier.

# %%
inpaint = degrade(photos, "inpaint:0.7", seed=0)
settings = {"steps": 12, "eta": 0.15}
chain = DDNM(**settings)(inpaint.y, inpaint.op, prior, generator=generator(0)).image
gaps = {"Picard": [], "Anderson": []}
for found, memory in zip(gaps.values(), (0, 5)):

    def note(step, found=found):
        found.append(float((step.image - chain).norm() / chain.norm()))

    solver = DeqIR(**settings, iterations=12, memory=memory, tolerance=0.0)
    solver(inpaint.y, inpaint.op, prior, generator=generator(0), callback=note)
curves(
    {label: torch.tensor(values).clamp(min=1e-7) for label, values in gaps.items()}, x="iteration", y="distance to DDNM"
)
plt.show()
print("equal after 12 iterations:", all(values[-1] < 1e-4 for values in gaps.values()))

# %% [markdown]
# ## Gradients at the solution
# With $J = \partial f/\partial x$ at the fixed point, $\partial L/\partial\theta = v^\top (I - J)^{-1}\,
# \partial f/\partial\theta$. The iteration is not stored. *Exact* solves the linear system, *Neumann* sums some
# terms of its series, *Jacobian-free* takes $J$ for zero: a descent direction, not the gradient. Here
# $f(x) = \tfrac12 \tanh(W x) + b$, and the loss is $\tfrac12\|x\|^2$.

# %%
W = (torch.randn(6, 6, dtype=torch.float64, generator=generator(1)) / 3).requires_grad_()
offset = torch.randn(1, 6, dtype=torch.float64, generator=generator(2))


def loss(weights, backward):
    value, _ = implicit_fixed_point(
        lambda x, rows: 0.5 * torch.tanh(x @ weights.T) + offset,
        torch.zeros_like(offset),
        backward=backward,
        tolerance=1e-13,
        max_steps=200,
    )
    return 0.5 * value.square().sum()


h = 1e-6
numeric = torch.zeros_like(W)
for i in range(6):
    for j in range(6):
        shift = torch.zeros_like(W)
        shift[i, j] = h
        numeric[i, j] = (loss(W.detach() + shift, None) - loss(W.detach() - shift, None)) / (2 * h)
for name, backward in {
    "exact": Exact(tolerance=1e-12),
    "Neumann, 3 terms": Neumann(3),
    "Jacobian-free": JacobianFree(),
}.items():
    (gradient,) = torch.autograd.grad(loss(W, backward), W)
    error = float((gradient - numeric).norm() / numeric.norm())
    cosine = float((gradient * numeric).sum() / gradient.norm() / numeric.norm())
    print(f"{name:17} relative error {'below 1e-6' if error < 1e-6 else f'{error:.2f}'}, cosine {cosine:.2f}")

# %% [markdown]
# ## What to try
# - `Anderson(memory=1)` and `memory=20` on the linear map; `torch.linspace(-0.5, 0.999, n)` for its eigenvalues.
# - A stronger blur or less noise in the MAP estimate: the map contracts less, plain iteration slows down.
# - `DeqIR(schedule="karras")`: another set of noise levels.
