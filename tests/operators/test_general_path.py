"""Conjugate gradients, functions as operators, what is remembered, and input that makes no sense."""

import warnings

import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import normal, seeded
from workbench.operators import (
    JPEG,
    Blur,
    Compose,
    FunctionOperator,
    Grayscale,
    Identity,
    Inpainting,
    MaskedFourier,
    Operator,
    SpectralOperator,
    SuperResolution,
    WalshHadamard,
    block_mask,
    cartesian_mask,
    gaussian_kernel,
    random_mask,
    text_mask,
)
from workbench.operators.least_squares import smooth_estimate

F64 = torch.float64


def ill_conditioned(**options: object) -> Blur:
    return Blur(gaussian_kernel(2.0, dtype=F64), boundary="replicate", **options)


def test_unreached_tolerance_is_reported_with_the_residual() -> None:
    op = ill_conditioned(max_iterations=3)
    y = normal((2, 3, 16, 16), 1)
    with pytest.warns(RuntimeWarning, match=r"Blur: .* after 3 iterations at a relative residual of \d.*, not 3.7e-11"):
        op.pinv(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op.prox(y, y, 1e6)


def test_tolerance_is_kept() -> None:
    y, z = normal((2, 3, 16, 16), 1), normal((2, 3, 16, 16), 2)
    for tolerance in (1e-2, 1e-5, 1e-9):
        op = ill_conditioned(tolerance=tolerance)
        x = op.prox(z, y, 1e-3)
        gradient = op.adjoint(op(x) - y) + 1e-3 * (x - z)
        start = op.adjoint(op(z) - y)
        shares = gradient.flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)
        assert float(shares.max()) <= tolerance * (1 + 1e-3)
        # Not by doing far too much.
        assert float(shares.min()) >= tolerance / 1e3


@pytest.mark.parametrize("kind", ["blur", "super-resolution", "missing pixels", "Fourier"])
def test_smooth_estimate_is_that_of_the_explicit_matrices(kind: str) -> None:
    """``(A^T A / sigma^2 + D^T D / step^2)^-1 A^T y / sigma^2``, an image at a time, with a noise level of its own."""
    ops: dict[str, Operator] = {
        "blur": Blur(gaussian_kernel(1.0, dtype=F64)),
        "super-resolution": SuperResolution(2),
        "missing pixels": Inpainting(random_mask((6, 8), 0.7, generator=torch.Generator().manual_seed(1))),
        "Fourier": MaskedFourier(cartesian_mask((6, 8), 3)),
    }
    op, sigma, step = ops[kind], torch.tensor([0.02, 0.3], dtype=F64), 0.1
    pixels = torch.eye(48, dtype=F64).view(48, 1, 6, 8)
    rows = torch.cat([op(pixel[None]).flatten()[None] for pixel in pixels]).T
    a = torch.cat([rows.real, rows.imag]) if rows.is_complex() else rows
    d = torch.cat([pixels.diff(dim=-2).flatten(1), pixels.diff(dim=-1).flatten(1)], 1).T
    x = normal((2, 1, 6, 8), 1)
    y = op(x) + 0.01
    found = smooth_estimate(op, y, sigma, torch.zeros_like(x), step)
    for image, data, level in zip(found, y, sigma, strict=True):
        seen = torch.cat([data.real.flatten(), data.imag.flatten()]) if data.is_complex() else data.flatten()
        exact = torch.linalg.solve(a.T @ a / level**2 + d.T @ d / step**2, a.T @ seen / level**2)
        torch.testing.assert_close(image.flatten(), exact, rtol=0, atol=1e-6)


def test_rounding_does_not_make_it_diverge() -> None:
    """float32 cannot reach 1e-12: the iteration stays where rounding stops it, for all the steps that are left."""
    y, z = normal((2, 1, 17, 12), 1), normal((2, 1, 17, 12), 2)
    op = Blur(gaussian_kernel(1.0), boundary="reflect", tolerance=1e-12, max_iterations=200)
    with pytest.warns(RuntimeWarning, match="not 1.0e-12"):
        found = op.prox(z.float(), y.float(), 1e-2)
    exact = Blur(gaussian_kernel(1.0), boundary="reflect", max_iterations=2000).prox(z, y, 1e-2)
    assert float((found - exact).norm()) <= 1e-5 * float(exact.norm())


def test_second_derivatives() -> None:
    op = Compose(
        Inpainting(random_mask((4, 5), 0.5, torch.Generator().manual_seed(0))), Blur(normal((3, 3), 3)), tolerance=1e-13
    )
    assert not isinstance(op, SpectralOperator)
    y, z = normal((2, 1, 4, 5), 1).requires_grad_(), normal((2, 1, 4, 5), 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z, y: op.prox(z, y, 0.5).sin(), (z, y), fast_mode=True, atol=1e-6)


class Cubic(Operator):
    """``x + x^3 / 10``, pixel by pixel."""

    linear = False

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * x**3

    def adjoint(self, y: Tensor) -> Tensor:
        return y


def test_the_gradient_of_a_nonlinear_step_is_that_of_its_minimum() -> None:
    op = Cubic(max_iterations=2000)
    z, y = (normal((2, 1, 2, 2), seed).requires_grad_() for seed in (0, 1))
    weight = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    # Differences of the steps themselves, which stop close to the minimum.
    assert torch.autograd.gradcheck(op.prox, (z, y, weight), eps=1e-4, atol=1e-4, fast_mode=True)
    with torch.no_grad():
        assert not op.prox(z, y, weight).requires_grad


def test_one_image_of_a_nonlinear_operator_is_that_of_the_batch() -> None:
    op = Compose(JPEG(20), SuperResolution(2))
    x = torch.rand((2, 3, 16, 16), generator=seeded())
    y, rows = op(x), torch.tensor([1])
    taken = op.take(rows, 2)
    assert torch.equal(taken(x[rows]), y[rows])
    assert torch.equal(taken.pinv(y[rows]), op.pinv(y)[rows])


def test_an_image_is_taken_once() -> None:
    """Two different images for one place of the batch cannot both be computed there."""
    with pytest.raises(ValueError, match=r"once at most, got rows \[0, 1, 0\]"):
        Identity().take(torch.tensor([0, 1, 0]), 2)


@pytest.mark.parametrize("name", ["blur", "super-resolution"])
def test_kernels_can_be_learned(name: str) -> None:
    """A kernel that requires a gradient gets one, through every method, and nothing of it is remembered."""
    x = normal((2, 2, 6, 4), 1)
    make = {"blur": Blur, "super-resolution": lambda kernel: SuperResolution(2, kernel)}[name]

    y = normal(make(torch.ones(3, 4)).measurement_shape(x.shape), 4)

    def everything(kernel: Tensor) -> tuple[Tensor, ...]:
        op = make(kernel)
        return op(x), op.adjoint(y), op.pinv(y), op.prox(x, y, 0.3), op.project_null(x)

    kernel = (normal((3, 4), 2) + 4 * torch.eye(3, 4, dtype=F64)).requires_grad_()
    assert torch.autograd.gradcheck(everything, kernel, fast_mode=True, atol=1e-6)
    op = make(torch.nn.Parameter(kernel.detach()))
    first = op(x)
    with torch.no_grad():
        op.kernel.mul_(2)
    torch.testing.assert_close(op(x), 2 * first)


def test_a_mask_of_ones_and_zeros_can_be_learned() -> None:
    z, y = (normal((1, 1, 2, 3), seed) for seed in (0, 1))
    mask = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], dtype=F64, requires_grad=True)

    def stepped(mask: Tensor) -> Tensor:
        return Inpainting(mask).prox(z, y, 0.3)

    assert torch.autograd.gradcheck(stepped, mask)


def test_what_is_remembered_follows_the_kernel() -> None:
    x = normal((1, 3, 9, 8), 1)
    op = Blur(normal((3, 3), 2))
    first = op(x)
    op.kernel.mul_(2)
    torch.testing.assert_close(op(x), 2 * first)
    op.kernel = op.kernel * 2
    torch.testing.assert_close(op(x), 4 * first)
    op.load_state_dict({"kernel": op.kernel / 4})
    torch.testing.assert_close(op(x), first)
    # Sizes and precisions do not mix, however many there are.
    for size in range(3, 16):
        for dtype in (torch.float32, F64):
            part = normal((1, 1, size, size + 1), size, dtype)
            tolerance = 1e-5 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(op(part).double(), Blur(op.kernel)(part.double()), rtol=0, atol=tolerance)
    assert "_memo" not in op.state_dict()
    masked = Inpainting(torch.tensor([[1.0, 0.0]]))
    z, y = normal((1, 1, 1, 2), 1), normal((1, 1, 1, 2), 2)
    masked.prox(z, y, 1.0)
    masked.mask.mul_(0.5)
    torch.testing.assert_close(masked.prox(z, y, 1.0)[..., 0], (0.5 * y + z)[..., 0] / 1.25)


def test_cut_off_of_the_pseudo_inverse() -> None:
    """Singular values up to rcond times the largest count as zero, for each image by itself."""
    mask = torch.tensor([1.0, 1e-2, 1e-3, 1e-5]).view(1, 1, 1, 4)
    y = torch.ones(1, 1, 1, 4)
    for options, data, expected in (
        ({}, y, [1, 100, 1e3, 0]),  # 3.5e-4 in float32
        ({}, y.double(), [1, 100, 1e3, 1e5]),
        ({"rcond": 5e-3}, y, [1, 100, 0, 0]),
    ):
        assert Inpainting(mask, **options).pinv(data).flatten().tolist() == pytest.approx(expected, rel=1e-6)
    both = torch.cat([mask, 1e-5 * mask])
    small = Inpainting(both).pinv(y.expand(2, 1, 1, 4))
    torch.testing.assert_close(small[1], 1e5 * small[0])
    # forward and prox at a positive weight know nothing of it.
    assert Inpainting(mask).prox(torch.zeros_like(y), y, 1e-8).flatten()[3] == pytest.approx(
        1e-5 / (1e-10 + 1e-8), rel=1e-5
    )


def test_a_new_operator_needs_two_methods() -> None:
    class Twice(Operator):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

        def adjoint(self, y: Tensor) -> Tensor:
            return 2 * y

    x, y = normal((2, 3, 4, 5), 1), normal((2, 3, 4, 5), 2)
    torch.testing.assert_close(Twice().pinv(y), y / 2)
    torch.testing.assert_close(Twice().prox(x, y, 1.0), (2 * y + x) / 5)

    class Wrong(Twice):
        def adjoint(self, y: Tensor) -> Tensor:
            return 2.01 * y

    assert Twice().adjointness_error((2, 3, 4, 5), torch.Generator().manual_seed(0)) < 1e-7
    assert Wrong().adjointness_error((2, 3, 4, 5), torch.Generator().manual_seed(0)) > 1e-5


IMAGE = torch.zeros(2, 3, 8, 8)
BAD_CALLS = {
    "rcond": (lambda: Blur(torch.ones(2, 2), rcond=1.0), r"rcond must be in \[0, 1\)"),
    "function to one number": (lambda: FunctionOperator(torch.sum, (3, 4, 5)), "the batch must stay first"),
    "function with an offset": (lambda: FunctionOperator(lambda x: x + 1e-2, (3, 4, 5)), "not linear"),
    "tolerance": (lambda: ill_conditioned(tolerance=2.0), "tolerance must be"),
    "no batch": (lambda: Identity()(IMAGE[0]), r"must be \(B, C, H, W\), got shape \(3, 8, 8\)"),
    "bytes": (lambda: Blur(torch.ones(2, 2))(IMAGE.byte()), "torch.float32 or torch.float64, got torch.uint8"),
    "weight < 0": (lambda: Identity().prox(IMAGE, IMAGE, -1.0), "weight must be finite and not negative, got -1.0"),
    "y of another size": (lambda: SuperResolution(2).prox(IMAGE, IMAGE, 1.0), r"to \(2, 3, 4, 4\), got y of shape"),
    "mask of another size": (lambda: Inpainting(torch.ones(4, 4))(IMAGE), r"\(1, 1, 4, 4\) does not fit images"),
    "kernel zero": (lambda: Blur(torch.zeros(3, 3)), "must not be all zero"),
    "boundary": (lambda: Blur(torch.ones(2, 2), boundary="mirror"), "must be one of circular, .*, got 'mirror'"),
    "reflect small": (lambda: Blur(torch.ones(17, 1), boundary="reflect")(IMAGE), "larger than half the kernel"),
    "factor 0": (lambda: SuperResolution(0), "factor must be a whole number from 1, got 0"),
    "kernel name": (lambda: SuperResolution(2, "sinc"), "one of bicubic, average, gaussian, got 'sinc'"),
    "grey of 4": (lambda: Grayscale()(torch.zeros(1, 4, 8, 8)), r"\(B, 3, H, W\), got shape \(1, 4, 8, 8\)"),
    "grey weights": (lambda: Grayscale([0.0, 0.0]), "not all zero"),
    "hadamard size": (lambda: WalshHadamard((8, 12), 0.5), "power of two, got 8x12"),
    "old photo": (lambda: Compose(Inpainting(torch.ones(1, 3, 8, 8)), Grayscale()), "one channel"),
    "composed of a name": (lambda: Compose(Identity(), "gray"), "inner must be of type Operator.*got str"),
    "missing share": (lambda: random_mask((8, 8), 1.2), r"in \[0, 1\], got 1.2"),
    "large block": (lambda: block_mask((8, 8), 9), "9x9 does not fit into an image of 8x8"),
    "no text": (lambda: text_mask((8, 8), "  "), "visible letters"),
    "sigma": (lambda: gaussian_kernel(0.0), "sigma must be positive"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_says_what_was_expected_and_what_came(name: str) -> None:
    call, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()
