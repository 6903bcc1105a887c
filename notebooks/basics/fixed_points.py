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
# conditioned form, `workbench.solvers.fixed_point.map:prox_step`):
# $$x = \operatorname{prox}(D(x, \sigma)),\qquad \operatorname{prox}(z) = \arg\min_x \tfrac12\|A x - y\|^2 + \tfrac12\|x - z\|^2 .$$
# DeqIR writes a whole sampling chain as one (`workbench.solvers.deqir.solver:DeqIR`).

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

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it

# %% [markdown]
# ## A map whose answer is known
# $f(x) = M x + b$ has the fixed point $(I - M)^{-1} b$. Picard iteration $x \leftarrow f(x)$ shrinks the error by the
# largest eigenvalue of $M$ per step, here 0.95. Anderson acceleration and Broyden's method use earlier steps
# (`workbench.solvers.fixed_point.rules`). One driver runs them all, `workbench.solvers.fixed_point.solve:solve_fixed_point`.


# %%
def linear(largest, methods, n=30):
    """Solve x = M x + b, M with eigenvalues from -0.5 to ``largest``, by each method. Returns results and errors."""
    rotation = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator(0))).Q
    M = rotation @ torch.diag(torch.linspace(-0.5, largest, n, dtype=torch.float64)) @ rotation.T
    b = torch.randn(2, n, dtype=torch.float64, generator=generator(1))
    answer = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - M, b.T).T
    found, errors = {}, {}
    for name, method in methods.items():
        found[name] = result = solve_fixed_point(
            lambda x, rows: x @ M.T + b[rows], torch.zeros_like(b), method=method, max_steps=400, tolerance=1e-9
        )
        errors[name] = float((result.value - answer).abs().max())
        print(
            f"{name:10} {'converged' if result.converged.all() else 'stopped':9} after {result.evaluations.tolist()} "
            f"evaluations, error {'below 1e-5' if errors[name] < 1e-5 else f'{errors[name]:.1g}'}"
        )
    return found, errors


found, errors = linear(0.95, {"Picard": Picard(), "Anderson": Anderson(memory=10), "Broyden": Broyden(memory=40)})
curves({name: result.trace[0] for name, result in found.items()}, x="evaluation", y="residual")
plt.show()
assert max(errors.values()) < 1e-5
residuals = found["Picard"].trace[0]
assert abs(float(residuals[300] / residuals[299]) - 0.95) < 1e-3
for name in ("Anderson", "Broyden"):
    assert (found[name].evaluations < found["Picard"].evaluations / 3).all()

# %% [markdown]
# The two accelerated methods take less than a third of Picard's evaluations. Each sample of the batch stops by itself, and
# `f(x, rows)` is only called for those still running.
#
# ## The MAP estimate of a photo
# The same driver on images, with the prior inside the map. A prior need not be a contraction, so nothing promises that the
# iteration converges. If it does not, the driver keeps the best iterate and says so.

# %%
prior = load_prior("photo")
photos = sample_photos(128, ("cat", "coffee"))


def estimate(sigma):
    """MAP estimates of both photos, blurred by 2 pixels with noise ``sigma``. Returns results and the measurements."""
    degraded = degrade(photos, "blur:2", noise=sigma, seed=0)
    op, y = degraded.op, degraded.y

    def step(x, rows):
        return op.prox(prior(x, sigma), y[rows], 1.0)

    found = {
        name: solve_fixed_point(step, y, method=method, max_steps=40, tolerance=1e-4)
        for name, method in {"Picard": Picard(), "Anderson": Anderson()}.items()
    }
    for name, result in found.items():
        print(
            f"{name:9} converged {result.converged.tolist()}, evaluations {result.evaluations.tolist()}, PSNR",
            [round(float(value), 1) for value in psnr(result.value, photos)],
        )
    return found, y


found, y = estimate(0.1)
lines = {f"{name}, {photo}": r.trace[k] for name, r in found.items() for k, photo in enumerate(("cat", "coffee"))}
curves(lines, x="evaluation", y="residual")
plt.show()
show({"original": photos, "blurred, noisy": y, **{name: r.value for name, r in found.items()}}, ["cat", "coffee"])
plt.show()
assert found["Picard"].converged.tolist() == [True, False]
assert found["Anderson"].converged.tolist() == [True, True]
for name in found:
    assert (psnr(found[name].value, photos) > psnr(y, photos) + 5).all()

# %% [markdown]
# Both photos gain more than 5 dB. Picard has not reached the tolerance on the second photo after 40 evaluations, Anderson has
# on both. The pictures look alike all the same: a residual of 1e-4 is far below what is seen. Where the solution itself
# matters, as for the gradients below, the better one is worth having.
#
# ## A sampling chain as one fixed point
# DDNM goes through the noise levels one by one (`workbench.solvers.null_space:transition` is one step). DeqIR solves for all
# states at once: after as many iterations as there are levels its result is exactly that of DDNM, whatever the network, and
# it is close much earlier. Upper row: the clean image that the network sees at four of DDNM's twelve levels. Lower row: the
# image after four of DeqIR's iterations, each of which moves all levels.

# %%
photo = photos[:1]
inpaint = degrade(photo, "inpaint:0.7", seed=0)
settings = {"steps": 12, "eta": 0.85}


def watched(solver):
    """The image after every iteration, (1, 3, H, W) each."""
    seen = []
    note = lambda step: seen.append(step.image.clone())  # noqa: E731
    solver(inpaint.y, inpaint.op, prior, generator=generator(0), callback=note)
    return seen


chain = watched(DDNM(**settings))
rounds = {
    name: watched(DeqIR(**settings, iterations=12, memory=memory, tolerance=0.0))
    for name, memory in {"Picard": 0, "Anderson": 5}.items()
}
shown = {str(k): torch.cat([chain[k - 1], rounds["Anderson"][k - 1]]) for k in (1, 2, 4, 12)}
show(shown | {"original": photo.expand(2, -1, -1, -1)}, ["DDNM, step", "DeqIR, iteration"])
plt.show()

# %%
gaps = {
    name: torch.stack([(x - chain[-1]).norm() for x in images]) / chain[-1].norm() for name, images in rounds.items()
}
curves({name: gap.clamp(min=1e-6) for name, gap in gaps.items()}, x="iteration", y="distance to DDNM")
plt.show()
for name, gap in gaps.items():
    print(f"{name:9} after 7 iterations below 1/1000: {bool(gap[6] < 1e-3)}, after 12 equal: {bool(gap[-1] < 1e-5)}")
    assert gap[6] < 1e-3
    assert gap[-1] < 1e-5

# %% [markdown]
# After seven iterations DeqIR is within a thousandth of DDNM. Here Anderson is hardly faster than Picard: each state depends on
# the earlier ones alone, so plain iteration settles at least one more state each time.
# Equal does not mean cheaper: every iteration asks about all levels that have not settled, DDNM about each level once.
#
# ## Gradients at the solution
# With $J = \partial f/\partial x$ at the fixed point, $\partial L/\partial\theta = v^\top (I - J)^{-1}\,
# \partial f/\partial\theta$ (`workbench.solvers.fixed_point.gradient:attach_gradient`). The iteration is not stored. *Exact* solves the linear system, *Neumann* sums some
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
cosines = {}
for name, backward in {
    "exact": Exact(tolerance=1e-12),
    "Neumann, 3 terms": Neumann(3),
    "Jacobian-free": JacobianFree(),
}.items():
    (gradient,) = torch.autograd.grad(loss(W, backward), W)
    error = float((gradient - numeric).norm() / numeric.norm())
    cosines[name] = cosine = float((gradient * numeric).sum() / gradient.norm() / numeric.norm())
    print(f"{name:17} relative error {'below 1e-6' if error < 1e-6 else f'{error:.2f}'}, cosine {cosine:.3f}")
assert cosines["exact"] > cosines["Neumann, 3 terms"] > cosines["Jacobian-free"] > 0.9

# %% [markdown]
# ## What to try
# The cells below do it; change them.
#
# - `Anderson(memory=1)` on the linear map takes more than twice the evaluations of `memory=10`, and `memory=20` less than
#   three quarters. With the largest eigenvalue at 0.999 plain iteration and `memory=1` have not arrived after 400; `memory=20`
#   has, after less than 100.
# - Less noise in the MAP estimate, 0.05: the map contracts less, and on the second photo neither rule reaches the tolerance in
#   40 evaluations. Anderson's residual is then the larger one: acceleration promises nothing for a map that is no contraction.
# - `DeqIR(schedule="karras")`, another set of noise levels: still DDNM's result with the same levels.

# %%
memories = {"Picard": Picard()} | {f"memory {m}": Anderson(memory=m) for m in (1, 10, 20)}
print("largest eigenvalue 0.95")
found, _ = linear(0.95, memories)
assert (found["memory 1"].evaluations > 2 * found["memory 10"].evaluations).all()
assert (found["memory 20"].evaluations < 0.75 * found["memory 10"].evaluations).all()
print("largest eigenvalue 0.999")
found, _ = linear(0.999, memories)
assert not (found["Picard"].converged | found["memory 1"].converged).any()
assert found["memory 20"].converged.all()
assert (found["memory 20"].evaluations < 100).all()

# %%
found, _ = estimate(0.05)
assert not (found["Picard"].converged | found["Anderson"].converged)[1]
assert found["Anderson"].residual[1] > found["Picard"].residual[1]

# %%
settings["schedule"] = "karras"
gap = watched(DDNM(**settings))[-1] - watched(DeqIR(**settings, iterations=12))[-1]
print("equal with karras levels, up to DeqIR's tolerance:", bool(gap.square().mean().sqrt() < 1e-3))
assert gap.square().mean().sqrt() < 1e-3
