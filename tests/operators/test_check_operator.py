"""``check_operator``: each rule an operator may break is named; all operators of the package keep them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import CASES
from tests.solvers.solver_problems import gaussian_prior
from workbench.operators import JPEG, Compose, FunctionOperator, Grayscale, Operator, check_operator
from workbench.solvers import DiffPIR

SHAPE = (2, 3, 6, 5)


def blurred(x: Tensor) -> Tensor:
    return (x + x.roll(1, -1)) / 2


def adjoint(y: Tensor) -> Tensor:
    return (y + y.roll(-1, -1)) / 2


Map = Callable[[Tensor], Tensor]


class Mine(Operator):
    def __init__(self, forward: Map = blurred, adjoint: Map = adjoint, linear: bool = True) -> None:
        super().__init__()
        self.f, self.a, self.linear, self.calls = forward, adjoint, linear, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.f(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.a(y)


class Unlike(Mine):
    def row_gram(self) -> float:
        return 1.0


def edged(x: Tensor) -> Tensor:
    """``blurred``, but for one column."""
    return torch.cat([x[..., :1], blurred(x)[..., 1:]], -1)


WRONG = {
    r"Mine\.adjoint is not the adjoint of forward: <A x, y> and <x, A\^T y> differ by [\d.]+ %": lambda: Mine(
        adjoint=blurred
    ),
    "not the adjoint": lambda: Mine(edged),
    r"Mine\.adjoint gives shape \(2, 1, 6, 5\)": lambda: Mine(adjoint=lambda y: y[:, :1]),
    r"Mine\.adjoint writes into its input": lambda: Mine(adjoint=lambda y: adjoint(y.mul_(1.0).add_(1))),
    "Mine is not linear": lambda: Mine(lambda x: x.clamp(0, 1)),
    "Mine writes into its input": lambda: Mine(lambda x: blurred(x.mul_(2))),
    "Mine mixes the images of a batch": lambda: Mine(lambda x: x - x.mean(0, keepdim=True)),
    r"the batch must stay first": lambda: Mine(lambda x: x.transpose(0, 1)),
    r"Mine returns <class 'numpy\.ndarray'>: it must be a torch tensor": lambda: Mine(lambda x: np.asarray(x)),
    "Mine cannot be differentiated: compute in torch": lambda: Mine(lambda x: torch.from_numpy(x.numpy() + 0)),
    "torch.autograd.Function": lambda: Mine(lambda x: blurred(x.detach())),
    r"Mine returns complex numbers: use torch\.view_as_real": lambda: Mine(torch.fft.fft2),
    "Mine turns torch.float64 on cpu into torch.float32": lambda: Mine(lambda x: blurred(x.float())),
    "Mine turns torch.float32 on cpu into torch.float64": lambda: Mine(lambda x: x * torch.ones(5).double()),
    "Mine returns numbers that are not finite": lambda: Mine(lambda x: x / 0),
    "Mine gives the same images another measurement each time": lambda: Mine(lambda x: x + 0.1 * torch.randn_like(x)),
    r"to \(2, 3, 6, 3\); measurement_shape says \(2, 3, 6, 5\)": lambda: Mine(lambda x: x[..., ::2]),
    r"Unlike\.prox is not the minimum": lambda: Unlike(lambda x: 2 * x, lambda y: 2 * y),
    "op must be of type Operator": lambda: "sr:4",
    "Mine fails on images .*: no such size": lambda: Mine(
        lambda x: (_ for _ in ()).throw(RuntimeError("no such size"))
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_sentence_names_the_rule(says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_operator(WRONG[says](), SHAPE)


def test_operators_that_keep_them() -> None:
    for case in CASES:
        check_operator(case.operator(), case.shape)
    check_operator(Mine(), (1, *SHAPE[1:]))
    check_operator(JPEG(50), (2, 3, 16, 16))
    check_operator(Mine(lambda x: x.sqrt(), linear=False), SHAPE)  # of images, which are not negative
    mask = torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))  # of single images
    check_operator(Mine(lambda x: mask.to(x) * x, lambda y: mask.to(y) * y), (4, *SHAPE[1:]))


def test_what_refuses_float64_is_tried_in_float32() -> None:
    kernel = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0))

    def convolved(x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x, kernel, padding=1, groups=3)

    check_operator(
        Mine(convolved, lambda y: torch.nn.functional.conv_transpose2d(y, kernel, padding=1, groups=3)), SHAPE
    )


def test_solvers_try_it_once_at_first_use() -> None:
    """Before: NaN, and the advice of more iterations."""
    y, prior = torch.full((2, 1, 6, 6), 0.5), gaussian_prior(6)
    with pytest.raises(ValueError, match=r"Mine\.adjoint is not the adjoint"):
        DiffPIR(steps=2)(y, Mine(adjoint=blurred), prior)
    with pytest.raises(ValueError, match="is not the adjoint"):  # as a part, too
        DiffPIR(steps=2)(y, Compose(Mine(adjoint=blurred), Mine()), prior)
    op = Mine()
    torch.manual_seed(0)
    first = DiffPIR(steps=2)(y, op, prior, generator=torch.Generator().manual_seed(0))
    tried, before = op.calls, torch.rand(1)
    second = DiffPIR(steps=2)(y, op, prior, generator=torch.Generator().manual_seed(0))
    assert op.checked
    assert torch.equal(first.image, second.image)
    assert op.calls < 2 * tried
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), before)
    known = Mine(adjoint=lambda y: 1.001 * adjoint(y))
    known.checked = True
    DiffPIR(steps=2)(y, known, prior)


def test_functions_are_tried_when_an_operator_is_made_of_them() -> None:
    for function, says in (
        (lambda x: torch.from_numpy(x.numpy() + 0), "the function cannot be differentiated"),
        (lambda x: x.numpy(), "the function returns <class 'numpy.ndarray'>: it must be a torch tensor"),
        (lambda x: x - x.mean(0, keepdim=True), "the function mixes the images"),
        (lambda x: torch.rand(2, 1, 1, 1, generator=torch.Generator().manual_seed(0)).to(x) * x, "the function"),
    ):
        with pytest.raises(ValueError, match=says):
            FunctionOperator(function, SHAPE[1:])
    assert FunctionOperator(Grayscale(), SHAPE[1:]).seen_size == (1, 6, 5)
