# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Exercise: fixed points and Anderson acceleration
#
# **You need** the lesson [fixed points](../basics/fixed_points.ipynb). **You learn** to iterate, to accelerate, and to
# differentiate through a solution without the iterations.
#
# To begin with one number: $x = \cos x$ has the solution 0.7391 (type any number into a calculator and press *cos* again and
# again).

# %%
import matplotlib.pyplot as plt
import torch

from workbench.plots import curves
from workbench.random import generator
from workbench.solvers import Anderson, solve_fixed_point

torch.set_num_threads(1)  # the same figures on every machine, and no slower while others work on it

# %% [markdown]
# ## 1. Picard iteration
# $x \leftarrow f(x)$, until $|f(x) - x|$ is below a tolerance.


# %%
def picard(f, x, tolerance=1e-10, max_steps=500):
    """The last iterate, and |f(x) - x| at every step (a list)."""
    residuals = []
    for _ in range(max_steps):
        fx = f(x)
        residuals.append(float((fx - x).abs().max()))
        # Hint: stop if the last residual is below the tolerance; else go on from fx.
        raise NotImplementedError("your turn: write this part in place of this line")
    return x, residuals


# %%
x, residuals = picard(torch.cos, torch.tensor([1.0], dtype=torch.float64))
print(f"{float(x):.4f} after {len(residuals)} evaluations")
assert abs(float(x) - 0.7391) < 1e-4
assert 50 < len(residuals) < 70

# %% [markdown]
# ## 2. How fast?
# Near the solution $x^*$ each step multiplies the error by $f'(x^*)$. Give `rate`, the factor by which the residual shrinks,
# from theory, not from the list.

# %%
# Hint: the derivative of cos is -sin; only its size counts.
raise NotImplementedError("your turn: write this part in place of this line")

# %%
measured = residuals[40] / residuals[39]
print(f"rate: theory {rate:.3f}, measured {measured:.3f}")
assert abs(rate - measured) < 1e-3

# %% [markdown]
# ## 3. Anderson acceleration with a memory of one
# Two evaluations are known: $f(x_{k-1})$ with residual $r_{k-1} = f(x_{k-1}) - x_{k-1}$, and $f(x_k)$ with $r_k$. Mix them,
# $$x_{k+1} = (1 - a)\,f(x_k) + a\,f(x_{k-1}),$$
# with the number $a$ that makes the mixed residual $(1 - a)\,r_k + a\,r_{k-1}$ shortest. Set the derivative of its squared
# length to zero:
# $$a = \frac{\langle r_k,\; r_k - r_{k-1}\rangle}{\|r_k - r_{k-1}\|^2}.$$


# %%
def anderson(f, x, tolerance=1e-10, max_steps=500):
    """As ``picard``, with Anderson acceleration of memory 1."""
    residuals, before = [], None
    for _ in range(max_steps):
        fx = f(x)
        r = fx - x
        residuals.append(float(r.abs().max()))
        if residuals[-1] < tolerance:
            break
        if before is None:
            before, x = (fx, r), fx  # the first step is Picard's
            continue
        # Hint: before = (f(x_{k-1}), r_{k-1}); compute a, the next x, and remember the pair.
        raise NotImplementedError("your turn: write this part in place of this line")
    return x, residuals


# %% [markdown]
# In one dimension it is the secant method: ten evaluations or fewer. In many it helps less; the package's `Anderson(memory=1)`
# (`workbench.solvers.fixed_point.rules:Anderson`) must take the same number, up to one.

# %%
x, quick = anderson(torch.cos, torch.tensor([1.0], dtype=torch.float64))
assert abs(float(x) - 0.7391) < 1e-4
assert len(quick) <= 10
basis = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64, generator=generator(0))).Q
M = basis @ torch.diag(torch.linspace(-0.5, 0.95, 20, dtype=torch.float64)) @ basis.T
b = torch.randn(1, 20, dtype=torch.float64, generator=generator(1))
start = torch.zeros_like(b)
traces = {name: solve(lambda x: x @ M.T + b, start)[1] for name, solve in (("Picard", picard), ("Anderson", anderson))}
theirs = solve_fixed_point(
    lambda x, rows: x @ M.T + b,
    start,
    method=Anderson(memory=1, regularisation=0.0),
    max_steps=500,
    tolerance=1e-10,
    measure=lambda x, residual, proposal: residual.abs().amax(1),
)
curves(traces, x="evaluation", y="residual")
plt.show()
assert abs(len(traces["Anderson"]) - int(theirs.evaluations)) <= 1
assert len(traces["Anderson"]) < 0.75 * len(traces["Picard"])
print("fewer than three quarters of Picard's evaluations")

# %% [markdown]
# ## 4. A gradient without the iterations
# $x^*(c)$ solves $x = \cos(c\,x)$. Differentiate both sides by $c$ and solve for $\mathrm dx^*/\mathrm dc$. Write it; it needs
# $x^*$ and $c$ alone (`workbench.solvers.fixed_point.gradient:attach_gradient` does the same for networks).


# %%
def slope(x, c):
    """dx*/dc at the solution ``x`` of x = cos(c x)."""
    # Hint: dx/dc = -sin(c x) (x + c dx/dc).
    raise NotImplementedError("your turn: write this part in place of this line")


# %%
def solution(c):
    return anderson(lambda x: torch.cos(c * x), torch.tensor([0.7], dtype=torch.float64), tolerance=1e-13)[0]


c, h = 1.0, 1e-5
numeric = (solution(c + h) - solution(c - h)) / (2 * h)
print(f"slope {float(slope(solution(c), c)):.4f}")
torch.testing.assert_close(slope(solution(c), c), numeric, atol=1e-6, rtol=0)
