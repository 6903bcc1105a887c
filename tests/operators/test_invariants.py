"""Every operator of the list against every invariant."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import CASES, DTYPES, EACH, ON, SPECTRAL, Case, normal, single
from workbench.operators import JPEG, Operator, SpectralOperator

# Conjugate gradients that do not reach their tolerance warn.
pytestmark = pytest.mark.filterwarnings("error")

F32, F64 = torch.float32, torch.float64


def size(x: Tensor) -> float:
    return float(x.double().norm())


def near(a: Tensor, b: Tensor, relative: float, scale: float | None = None) -> None:
    """Norm of the difference within ``relative`` of ``scale`` (of b if None)."""
    assert a.shape == b.shape
    assert size(a - b) <= relative * (size(b) if scale is None else scale), size(a - b) / (scale or size(b))


@EACH
@DTYPES
@ON
def test_adjoint(case: Case, dtype: torch.dtype, device: str) -> None:
    op, x, _, y = case.data(dtype, device)
    gap = abs(float((op(x) * y).sum().double() - (x * op.adjoint(y)).sum().double()))
    # The sums themselves round; float64 measures 1e-16.
    assert gap <= (1e-5 if dtype == F32 else 1e-12) * size(op(x)) * size(y)


@EACH
@DTYPES
@ON
def test_pseudo_inverse(case: Case, dtype: torch.dtype, device: str) -> None:
    op, x, _, y = case.data(dtype, device)
    # What the cut-off drops of A x is at most sqrt(eps) ||A|| ||x||, and ||A|| <= 1.5 here.
    dropped = 1.5 * torch.finfo(dtype).eps ** 0.5 if case.truncated else 0
    near(op(op.pinv(op(x))), op(x), case.tolerance(dtype) + dropped, size(x))
    back = op.pinv(y)
    near(op.pinv(op(back)), back, case.tolerance(dtype))
    # Least squares, of least norm: the residual is orthogonal to the range, the image to the null space.
    if not case.truncated:
        near(op.adjoint(op(back) - y), torch.zeros_like(x), case.tolerance(dtype), size(y))
    near(op.project_null(back), torch.zeros_like(x), case.tolerance(dtype), size(back))
    null = op.project_null(x)
    near(op(null), torch.zeros_like(y), case.tolerance(dtype) + dropped, size(x))
    # Through pinv it magnifies the rounding of A x, at most by 1/sqrt(eps).
    rounding = torch.finfo(dtype).eps ** 0.5 if case.truncated else 0
    near(null, x - op.pinv(op(x)), case.tolerance(dtype) + rounding, size(x))


@EACH
@DTYPES
@ON
def test_prox_is_optimal(case: Case, dtype: torch.dtype, device: str) -> None:
    op, _, z, y = case.data(dtype, device)
    for weight in (1e-3, torch.tensor([2e-2, 1e3], dtype=dtype, device=device)):
        x = op.prox(z, y, weight)
        w = torch.as_tensor(weight, dtype=dtype, device=device).view(-1, 1, 1, 1)
        gradient = op.adjoint(op(x) - y) + w * (x - z)
        # float32 rounds x to 6e-8, of which A^T A + w makes up to (2 + w) times that; the rest is the transforms.
        near(gradient, torch.zeros_like(x), case.tolerance(dtype), size(y) + size((1 + w) * z))


@EACH
@ON
def test_prox_limits(case: Case, device: str) -> None:
    op, x, z, y = case.data(F64, device)
    # Weight 0: among the least-squares solutions the one nearest to z.
    near(op.prox(z, y, 0.0), z + op.pinv(y - op(z)), case.tolerance(F64))
    mixed = op.prox(z, y, torch.tensor([0.0, 2.0], dtype=F64, device=device))
    near(mixed[:1], op.prox(z, y, 0.0)[:1], case.tolerance(F64))
    near(mixed[1:], op.prox(z, y, 2.0)[1:], case.tolerance(F64))
    near(op.prox(z, y, 1e12), z, 1e-11)
    # Already consistent: nothing to change, at any weight.
    near(op.prox(x, op(x), 1e-8), x, 1e-9)


@EACH
@ON
def test_prox_in_float32_does_not_cancel(case: Case, device: str) -> None:
    op, _, z, y = case.data(F64, device)
    for weight in (1e-8, 1.0, 1e8):
        exact, single_precision = op.prox(z, y, weight), op.prox(z.float(), y.float(), weight)
        # Conditioning of the problem itself: y rounded to 6e-8 is magnified by s/(s^2 + w) <= 1/(2 sqrt(w)).
        magnified = min(1e4, 0.5 * weight**-0.5) if case.truncated else case.conditioning
        tolerance = 2e-7 * max(1.0, magnified) if case.exact else 1e-4 * case.conditioning
        near(single_precision.double(), exact, 10 * tolerance, size(z) + size(y))


@SPECTRAL
@ON
def test_spectral_form(case: Case, device: str) -> None:
    op, x, z, y = case.data(F64, device)
    assert isinstance(op, SpectralOperator)
    tolerance = 1e-14
    c, values = op.analysis(x), op.singular_values(x)
    assert c.numel() == x.numel()
    assert not c.is_complex()
    assert bool((values >= 0).all())
    assert torch.broadcast_shapes(values.shape, c.shape) == c.shape
    # Unitary: Parseval, both ways, and inverse to each other.
    assert size(c) == pytest.approx(size(x), rel=tolerance)
    d = z.reshape(c.shape)
    assert size(op.synthesis(d)) == pytest.approx(size(d), rel=tolerance)
    near(op.synthesis(c), x, tolerance)
    near(op.analysis(op.synthesis(d)), d, tolerance)
    # Of the measurements too, which are laid out as coefficients.
    assert op.data_analysis(y).shape == c.shape
    reached = op.data_synthesis(op.data_analysis(y))
    assert size(op.data_analysis(y)) == pytest.approx(size(reached), rel=tolerance)
    if case.larger:
        near(op.data_synthesis(op.data_analysis(reached)), reached, tolerance)
    else:
        near(reached, y, tolerance)


@SPECTRAL
@ON
def test_fast_forms_are_the_spectral_ones(case: Case, device: str) -> None:
    """What the base class derives from A = U S V^T agrees with what operators override."""
    op, x, z, y = case.data(F64, device)
    near(SpectralOperator.forward(op, x), op(x), 1e-14, size(x))
    near(SpectralOperator.adjoint(op, y), op.adjoint(y), 1e-14, size(y))
    near(SpectralOperator.project_null(op, x), op.project_null(x), 1e-13, size(x))
    for weight in (0.0, 1e-4):
        tensor = torch.tensor(weight, dtype=F64)
        derived = SpectralOperator.damped_pinv(op, y, tensor)
        near(op.damped_pinv(y, tensor), derived, 1e-12 * max(1, case.conditioning))
        near(op.prox(z, y, weight), z + SpectralOperator.damped_pinv(op, y - op(z), tensor), 1e-12 * case.conditioning)
    kept = op.truncated_singular_values(x)
    assert bool(((kept == 0) | (kept == op.singular_values(x))).all())
    near(op.spectral_filter(x, lambda s: (s > 0).to(s)), x - op.project_null(x), 1e-13, size(x))


@EACH
def test_batch_equals_singles(case: Case) -> None:
    op, x, z, y = case.data(F64, "cpu")
    weight = torch.tensor([0.0, 0.5], dtype=F64)
    together = {
        "call": op(x), "adjoint": op.adjoint(y), "pinv": op.pinv(y), "prox": op.prox(z, y, weight),
        "null": op.project_null(x),
    }  # fmt: skip
    for i in range(2):
        one, j = single(op, i), slice(i, i + 1)
        alone = {
            "call": one(x[j]), "adjoint": one.adjoint(y[j]), "pinv": one.pinv(y[j]),
            "prox": one.prox(z[j], y[j], weight[j]), "null": one.project_null(x[j]),
        }  # fmt: skip
        for name, result in alone.items():
            # Libraries may sum in another order for another batch size.
            near(together[name][j], result, case.tolerance(F64), size(result) + size(x[j]))


@EACH
@ON
def test_follows_its_input_in_foretold_shapes_and_leaves_it_alone(case: Case, device: str) -> None:
    op, x, z, y = case.data(F32, device)
    state = copy.deepcopy(op.state_dict())
    attributes = {name: value for name, value in vars(op).items() if not name.startswith("_")}
    inputs = [x, z, y]
    before = [t.clone() for t in inputs]
    calls = [op(x), op.adjoint(y), op.pinv(y), op.prox(z, y, 0.5), op.prox(z, y, 0.0), op.project_null(x)]
    if isinstance(op, SpectralOperator):
        c = op.analysis(x)
        inputs.append(c)
        before.append(c.clone())
        calls += [op.data_analysis(y), op.data_synthesis(c), op.synthesis(c), op.spectral_filter(x, torch.exp)]
    assert op(x).shape == y.shape == op.measurement_shape(x.shape)
    assert op.adjoint(y).shape == op.pinv(y).shape == x.shape == op.image_shape(y.shape)
    for result in calls:
        assert result.dtype == F32
        assert result.device == x.device
        # Writing into a result must not reach the caller's data, nor the operator's.
        result.fill_(torch.nan)
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in op.state_dict().items())
    assert attributes == {name: value for name, value in vars(op).items() if not name.startswith("_")}
    assert op(x).isfinite().all()


@EACH
def test_gradients(case: Case) -> None:
    """Against finite differences, of images, measurements and weights."""
    op = case.make(case.tiny)
    x, z = (normal(case.tiny, seed).requires_grad_() for seed in (1, 2))
    y = normal(op.measurement_shape(case.tiny), 3).requires_grad_()
    weight = torch.tensor([0.3, 2.0], dtype=F64)[: case.tiny[0]].requires_grad_()
    # Fast mode checks a random projection. Conjugate gradients stop at 1e-12, and differences divide by 1e-6.
    check = {"fast_mode": True, "atol": 1e-5, "nondet_tol": 1e-9}
    assert torch.autograd.gradcheck(op, x, **check)
    assert torch.autograd.gradcheck(op.adjoint, y, **check)
    assert torch.autograd.gradcheck(op.pinv, y, **check)
    assert torch.autograd.gradcheck(op.project_null, x, **check)
    assert torch.autograd.gradcheck(op.prox, (z, y, weight), **check)
    if isinstance(op, SpectralOperator):
        assert torch.autograd.gradcheck(lambda x: op.synthesis(op.analysis(x).sin()), x, **check)


@EACH
def test_moves_copies_and_reloads(case: Case) -> None:
    op, x, z, y = case.data(F64, "cpu")
    expected = op(x), op.prox(z, y, 0.1)
    copies = [op.to(F64), copy.deepcopy(op)]
    if case.name != "function":  # a local function cannot be pickled
        copies.append(pickle.loads(pickle.dumps(op)))
    fresh = case.operator()
    for value in fresh.buffers():
        if value.is_floating_point():
            value.mul_(0.5)
    fresh(x)  # fills whatever it remembers
    fresh.load_state_dict(op.state_dict())
    copies.append(fresh)
    for other in copies:
        assert type(other) is type(op)
        for result, wanted in zip((other(x), other.prox(z, y, 0.1)), expected, strict=True):
            near(result, wanted, 1e-9)
    # Parameters round to float32, complex spectra keep their imaginary parts.
    rounded = op.to(F32).to(F64)
    near(rounded(x), expected[0], 1e-6)


@EACH
def test_works_in_inference_mode_and_learns_afterwards(case: Case) -> None:
    op, x, z, y = case.data(F64, "cpu")
    with torch.inference_mode():
        first = op(x), op.adjoint(y), op.prox(z, y, 1.0)
    x.requires_grad_()
    op(x).square().sum().backward()
    near(x.grad, 2 * op.adjoint(op(x.detach())), 1e-9)
    for early, late in zip(first, (op(x), op.adjoint(y), op.prox(z, y, 1.0)), strict=True):
        near(early, late.detach(), 1e-9)


def test_the_list_is_complete() -> None:
    """Each public linear operator is on the list."""
    import workbench.operators as package

    public = {name: getattr(package, name) for name in package.__all__}
    classes = {name for name, value in public.items() if isinstance(value, type) and issubclass(value, Operator)}
    listed = {base.__name__ for case in CASES for base in type(case.operator()).__mro__}
    assert classes - listed == {"JPEG"}
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [*CASES, Case("jpeg", lambda s: JPEG(30))], ids=lambda case: case.name)
def test_autocast_changes_nothing(case: Case) -> None:
    """Training in bfloat16 rounds the network's products, not the measurement's."""
    op, x, z, y = case.data(F32, "cpu")
    calls = [lambda: op(x), lambda: op.adjoint(y), lambda: op.pinv(y), lambda: op.prox(z, y, 0.5)]
    calls += [lambda: op.project_null(x)] if op.linear else []
    calls += [lambda: op.synthesis(op.analysis(x))] if isinstance(op, SpectralOperator) else []
    for call in calls:
        with torch.autocast("cpu", torch.bfloat16):
            inside = call()
        assert inside.dtype == F32
        assert torch.equal(inside, call())
