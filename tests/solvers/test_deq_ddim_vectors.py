"""DEQ-DDIM's parallel iteration (Pokle et al. 2022) reproduced: DeqIR's published map with nothing measured.

Its Anderson mixing, with weights of its own for every state and a ridge in the published units, is injected: the test
mixes what the chain proposes and hands it back.
"""

from __future__ import annotations

import pytest
import torch
from solver_problems import Case, replay
from torch import Tensor

from workbench.operators import Inpainting
from workbench.solvers import DeqIR
from workbench.solvers.deqir.states import Chain

CASES = ["T20", "T10_tinynet", "T20_m3_tol1e-4_40it"]
NOTHING = Inpainting(torch.zeros(1, 1, 16, 16))


class Published:
    """The case as a chain: states k = 1 ... T (k DDIM steps from x_T), rows (T, B, n) in VP coordinates on [-1, 1]."""

    def __init__(self, case: Case) -> None:
        self.case = case
        alpha_bar = case["schedule/alphas_cumprod"].double()
        t = case["schedule/timesteps_descending"]
        self.total = len(t)
        self.scales = [*(2 * alpha_bar[t].sqrt()).tolist(), 2.0]
        levels = [*(((1 - alpha_bar[t]) / alpha_bar[t]).sqrt() / 2).tolist(), 0.0]
        unit = (case["x_T"].double() / (levels[0] * self.scales[0])).float()
        solver = DeqIR(self.total, eta=0.0, memory=0, prediction="published", schedule=levels)
        y = torch.zeros_like(case["x_T"])
        noise = replay([unit, *torch.zeros(self.total, *unit.shape)])
        self.chain: Chain = solver.chain(solver.problem(y, NOTHING, case.vp_prior(), 0.0, noise), keep=True)

    def rows(self) -> Tensor:
        states = [(self.chain.states[s] - 0.5) * self.scales[s] for s in range(1, self.total + 1)]
        return torch.stack(states).flatten(2)

    def map(self, x: Tensor) -> Tensor:
        """F(x) (T, B, n)."""
        for s in range(1, self.total + 1):
            self.chain.states[s] = x[s - 1].view_as(self.chain.states[s]) / self.scales[s] + 0.5
        # All states are iterated again and again, as published, the exact ones as well.
        self.chain.front.zero_()
        self.chain.iterate(torch.ones_like(self.chain.front, dtype=torch.bool), 0.0)
        return self.rows()

    def solve(self) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """Iterates, their images under F and the residuals of every call (ddim_anderson.py:40, :120)."""
        info = self.case.info
        memory, ridge = info["m"], info["lam"]
        xs, outputs, residuals = [self.case["x_T"].flatten(1).expand(self.total, -1, -1)], [], []
        while True:
            outputs.append(self.map(xs[-1]))
            move = outputs[-1] - xs[-1]
            residuals.append(float(move.norm() / (1e-5 + outputs[-1].norm())))
            # The first output is the second iterate; it is not tested.
            if len(xs) >= info["max_iter"] or (len(xs) > 2 and residuals[-1] < info["tol"]):
                return xs, outputs, residuals
            if len(xs) == 1:
                xs.append(outputs[0])
                continue
            moves = torch.stack([f - x for f, x in zip(outputs, xs, strict=True)], 2)[:, :, -memory:]
            size = moves.shape[2]
            system = torch.ones(*moves.shape[:2], size + 1, size + 1)
            system[:, :, 0, 0] = 0
            system[:, :, 1:, 1:] = moves @ moves.mT + ridge * torch.eye(size)
            right = torch.zeros(*moves.shape[:2], size + 1, 1)
            right[:, :, 0] = 1
            weights = torch.linalg.solve(system, right)[:, :, 1:, 0]
            xs.append(torch.einsum("tbm,tbmn->tbn", weights, torch.stack(outputs[-memory:], 2)))


@pytest.mark.parametrize("name", CASES)
def test_the_map_is_the_published_one(shared, name):
    case = Case(shared, f"deq_ddim_anderson_{name}")
    published = Published(case)
    start = published.rows()
    # Algorithm 1: x_T in every state. Ours is scaled to unit variance first: 1 / sqrt(1 - abar_T), up to 1.4e-4 more.
    expected = case["x_T"].flatten(1).expand_as(start)
    torch.testing.assert_close(start, expected, atol=1e-5, rtol=2e-4)
    first = published.map(expected)
    # Sums over states of size 80 in our coordinates, in float32.
    torch.testing.assert_close(last_three(first, case["first_F"]), case["first_F"], atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_published_mixing_goes_the_published_way(shared, name):
    case = Case(shared, f"deq_ddim_anderson_{name}")
    published = Published(case)
    published.chain.states[0] = 0.5 + case["x_T"] / published.scales[0]
    xs, _, residuals = published.solve()
    assert len(residuals) == case.info["n_function_calls"]
    # The mixing divides by residuals that shrink: rounding of 1e-6 of the network moves the path by 1 % .
    stored = case["normalized_residual_per_call"][:6].float()
    torch.testing.assert_close(torch.tensor(residuals[:6]), stored, rtol=0.03, atol=0)
    torch.testing.assert_close(last_three(xs[2], case["call2_X"]), case["call2_X"], atol=case.atol, rtol=0.01)
    # Published: the result is the last iterate, not its image under the map.
    torch.testing.assert_close(xs[-1][-1].view_as(case["output_x0"]), case["output_x0"], atol=case.atol, rtol=0)


def last_three(x: Tensor, like: Tensor) -> Tensor:
    return x[-3:].transpose(0, 1).reshape_as(like)
