"""The loss at a fixed point against its closed form: x = a x + b has x* = b / (1 - a), dx*/da = b / (1 - a)^2."""

import math

import pytest
import torch
from torch import Tensor

from workbench.solvers.base import Restoration
from workbench.solvers.fixed_point.gradient import Backward, Exact, JacobianFree
from workbench.trainers.dsm import LOST
from workbench.trainers.equilibrium import Equilibrium

B = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64).view(3, 1, 1, 1)


def loss_and_values(a: Tensor, estimate: Tensor, backward: Backward, **extras: Tensor) -> tuple[Tensor, dict]:
    count = torch.full((len(B),), 7)
    return Equilibrium(
        map=lambda x, rows: a * x + B[rows],
        solve=lambda: Restoration(estimate, count, count, extras=extras),
        loss=lambda x: x.square().flatten(1).mean(1),
        backward=backward,
    )()


@pytest.mark.parametrize(("backward", "power"), [(Exact(), 2), (JacobianFree(), 1)])
def test_loss_and_gradient_are_those_of_the_closed_form(backward, power):
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    estimate = (B / (1 - a)).detach()
    loss, values = loss_and_values(a, estimate, backward)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(estimate.square().mean()))
    # Jacobian-free: dx/da is x*, without the factor 1 / (1 - a).
    expected = (2 * estimate * B / (1 - a) ** power).mean()
    assert float(a.grad) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert (float(values["evaluations"]), float(values["converged"]), float(values[LOST])) == (7, 1, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9])
def test_an_image_that_was_lost_leaves_loss_and_gradient_of_the_others_alone(value):
    """One that is not finite, or that its solver says has diverged."""
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    estimate = (B / (1 - a)).detach()
    broken, extras = estimate.clone(), {"diverged": torch.tensor([False, True, False])} if value == 1e9 else {}
    broken[1] = value
    loss, values = loss_and_values(a, broken, Exact(), **extras)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(estimate[[0, 2]].square().sum() / 3))
    expected = (2 * estimate * B / (1 - a) ** 2)[[0, 2]].sum() / 3
    assert float(a.grad) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert float(values[LOST]) == pytest.approx(1 / 3)
