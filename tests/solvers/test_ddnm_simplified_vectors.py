"""The published "simplified" DDNM reproduced, with its slips injected from outside.

``guided_diffusion/diffusion.py`` (:356-384) writes ``sigma_t = sqrt(1 - abar^2)`` where the paper has ``sqrt(1 -
abar)``, tests
``sigma_t >= abar sigma_y`` in place of ``sqrt(abar) sigma_y``, and multiplies noise that is scaled already by
``gamma_t``, also without noise in the data. Here the operator's projection is shortened by that ``lambda_t``, and the
noise source, which sees what the prior saw, turns ``keep e + eta n`` into ``gamma_t`` times that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from solver_problems import Case, FunctionPrior, ddnm_levels, replay
from torch import Tensor

from workbench.operators import Grayscale, Inpainting, SuperResolution
from workbench.operators.base import Operator
from workbench.solvers import DDNM


def operator(case: Case) -> tuple[Operator, Tensor]:
    """The package's operator and its y on [0, 1] images."""
    y = (case["y"] + 1) / 2
    if case.info["task"] == "inpaint":
        return Inpainting(case["op/mask"]), y * case["op/mask"]
    if case.info["task"] == "color":
        return Grayscale((1 / 3, 1 / 3, 1 / 3)), y[:, :1]  # published: the grey picture three times
    return SuperResolution(4, "average"), y


class Shortened(Operator):
    """``op`` whose projections go a part of the way, another one at each call."""

    def __init__(self, op: Operator, parts: list[float]) -> None:
        super().__init__()
        self.op, self.parts = op, iter(parts)

    def image_shape(self, measurement_shape: Sequence[int]) -> tuple[int, ...]:
        return self.op.image_shape(measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.op.adjoint(y)

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        return z + next(self.parts) * (self.op.prox(z, y, weight) - z)


def published_lambda_gamma(abar: float, sigma_y: float) -> tuple[float, float]:
    sigma = math.sqrt(max(0.0, 1 - abar**2))
    if sigma >= abar * sigma_y:
        return 1.0, math.sqrt(sigma**2 - (abar * sigma_y) ** 2)
    return sigma / (abar * sigma_y), 0.0


NAMES = ["color_T20_eta085", "inpaint_T100_eta0", "inpaint_T20_eta085", "sr4_T20_eta085", "sr4_T20_sy01"]


@pytest.mark.parametrize("name", NAMES)
def test_simplified_ddnm_reproduces_with_its_slips_injected(shared, name):
    case = Case(shared, f"ddnm_simplified_{name}")
    steps, eta, levels = case.info["T_sampling"], case.info["eta"], ddnm_levels(case)
    alpha_bar = [1 / (1 + 4 * level**2) for level in levels[1:]]
    slips = [published_lambda_gamma(abar, case.info["sigma_y_used"]) for abar in alpha_bar]
    stored = case["noise"] if "noise" in case else torch.zeros(steps, *case["x_T"].shape)
    # eta 0 draws nothing that reaches the image: a small eta lets the injected part through.
    ours = max(eta, 1e-3)
    keep, wanted = math.sqrt(1 - ours**2), math.sqrt(1 - eta**2)
    seen: list[Tensor] = []
    inner = case.vp_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean = inner.denoise(x, sigma)
        seen.append((x - clean) / sigma.view(-1, 1, 1, 1))
        return clean

    def draw(like: Tensor) -> Tensor:
        if not seen:
            return draw_start(case, levels).to(like)
        gamma = slips[len(seen) - 1][1]
        return ((gamma * wanted - keep) * seen[-1] + gamma * eta * stored[len(seen) - 1]) / ours

    op, y = operator(case)
    op = Shortened(op, [part for part, _ in slips])
    result = DDNM(steps, ours, levels)(y, op, FunctionPrior(denoise), noise=draw)
    torch.testing.assert_close(2 * result.image - 1, case["output_x"], atol=case.atol, rtol=0)
    # Without the slips it is another image.
    plain = DDNM(steps, eta, levels)(y, operator(case)[0], inner, noise=replay([draw_start(case, levels), *stored]))
    assert (2 * plain.image - 1 - case["output_x"]).abs().max() > 3e-4


def draw_start(case: Case, levels: list[float]) -> Tensor:
    """The start is a state of the diffusion: sqrt(1 - abar) times the draw in its noise."""
    return (case["x_T"].double() / math.sqrt(1 - 1 / (1 + 4 * levels[0] ** 2))).float()
