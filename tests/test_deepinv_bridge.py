"""The bridge to deepinv: physics and operators agree in both directions. Denoisers: tests/models."""

import math
import sys
import warnings

import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import coil_maps
from workbench.deepinv_bridge import (
    RAMEstimator,
    operator_from_deepinv,
    physics_for_deepinv,
    prior_from_deepinv,
)
from workbench.images import sample_photo
from workbench.operators import (
    JPEG,
    Blur,
    FunctionOperator,
    Grayscale,
    MaskedFourier,
    MultiCoil,
    Operator,
    SuperResolution,
    gaussian_kernel,
    random_mask,
)

deepinv = pytest.importorskip("deepinv")

SHAPE = (3, 16, 16)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ours() -> dict[str, Operator]:
    return {
        "blur": Blur(gaussian_kernel(1.0, size=5)),
        "reflecting blur": Blur(gaussian_kernel(1.0, size=5), boundary="reflect"),
        "super-resolution": SuperResolution(2),
        "grey": Grayscale(),
    }


@pytest.mark.parametrize("name", ours())
def test_physics_is_the_operator(name: str) -> None:
    op = ours()[name]
    physics = physics_for_deepinv(op, SHAPE).to("cpu")
    assert isinstance(physics, deepinv.physics.LinearPhysics)
    x, z = noise(2, *SHAPE), noise(2, *SHAPE, seed=1)
    y = op(x)
    for found, expected in (
        (physics.A(x), y),
        (physics.A_adjoint(y), op.adjoint(y)),
        (physics.A_dagger(y), op.pinv(y)),
        (physics.prox_l2(z, y, 4.0, solver="lsqr", max_iter=1), op.prox(z, y, 0.25)),
        (physics.prox_l2(z, y, torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)), op.prox(z, y, torch.tensor([1.0, 0.25]))),
        (physics.prox_l2(z, y, torch.tensor(math.inf)), op.prox(z, y, 0.0)),
    ):
        assert torch.equal(found, expected)
    assert float(physics.adjointness_test(u=x)) < 1e-4
    back = operator_from_deepinv(physics, SHAPE, tolerance=1e-11)
    assert torch.equal(back(x), y)
    if name not in ("grey", "reflecting blur"):
        x, z = x.double(), z.double()
        y = op(x)
        assert torch.equal(back(x), y)
        assert torch.equal(back.adjoint(y), op.adjoint(y))
        torch.testing.assert_close(back.prox(z, y, 0.1), op.prox(z, y, 0.1), rtol=0, atol=1e-8)


def test_physics_noise_jpeg_and_wrong_arguments() -> None:
    op = Grayscale()
    physics, jpeg = physics_for_deepinv(op, SHAPE, sigma_noise=0.5), physics_for_deepinv(JPEG(20), SHAPE)
    x, photo = torch.zeros(4, *SHAPE), sample_photo("cat", 16)
    assert float(physics(x).std()) == pytest.approx(0.5, abs=0.05)
    assert not isinstance(jpeg, deepinv.physics.LinearPhysics)
    y = jpeg(photo)
    assert torch.equal(y, JPEG(20)(photo))
    assert torch.equal(jpeg.prox_l2(y, y, 2.0), JPEG(20).prox(y, y, 0.5))
    for call, message in (
        (lambda: physics.A(x, filter=x), "cannot be changed"),
        (lambda: physics_for_deepinv(op, SHAPE, sigma_noise=-1.0), "sigma_noise"),
        (lambda: physics_for_deepinv(op, SHAPE, sigma_noise=torch.tensor([0.1, 0.2])), "sigma_noise must be a number"),
        (lambda: physics_for_deepinv(op, None), "image_shape must be"),
        (lambda: physics_for_deepinv(physics, SHAPE), "operator"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def theirs() -> dict[str, object]:
    physics = deepinv.physics
    return {
        "BlurFFT": physics.BlurFFT(SHAPE, filter=gaussian_kernel((1.0, 0.5), angle=30, size=5)[None, None]),
        "Inpainting": physics.Inpainting(SHAPE, mask=0.5),
        "Downsampling": physics.Downsampling(SHAPE, factor=2, filter="bicubic", padding="circular"),
        "own, no adjoint": physics.LinearPhysics(A=lambda x, **_: x.diff(dim=-1)),
    }


@pytest.mark.parametrize("name", theirs())
def test_operator_from_deepinv_satisfies_the_equations(name: str) -> None:
    torch.manual_seed(0)
    physics = theirs()[name]
    before = {key: value.clone() for key, value in physics.state_dict().items()}
    op = operator_from_deepinv(physics, SHAPE, tolerance=1e-6)
    x, z = noise(2, *SHAPE), noise(2, *SHAPE, seed=1)
    kept = x.clone()
    y = op(x)
    assert torch.equal(y, physics.A(x))
    assert op.adjointness_error((2, *SHAPE)) < 1e-6
    assert op.measurement_shape(x.shape) == tuple(y.shape)
    assert op.image_shape(y.shape) == tuple(x.shape)
    for weight in (0.1, torch.tensor([0.5, 2.0])):
        result = op.prox(z, y, weight)
        w = torch.as_tensor(weight).view(-1, 1, 1, 1)
        gradient = op.adjoint(op(result) - y) + w * (result - z)
        assert float(gradient.norm()) <= 1e-5 * float(op.adjoint(op(z) - y).norm())
    torch.testing.assert_close(op.prox(x, y, 0.1), x)
    with warnings.catch_warnings():
        # A blur cannot be inverted to this tolerance in float32.
        warnings.simplefilter("ignore", RuntimeWarning)
        assert float(op(op.project_null(x)).norm()) <= 2e-2 * float(y.norm())
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in physics.state_dict().items())


def test_operator_does_not_share_memory_follow_later_changes_or_round() -> None:
    identity = operator_from_deepinv(deepinv.physics.LinearPhysics(A_adjoint=lambda y, **_: y), SHAPE)
    x = noise(1, *SHAPE)
    assert identity(x).data_ptr() != x.data_ptr()
    doubling = deepinv.physics.LinearPhysics(A=lambda x, **_: x.mul_(2), A_adjoint=lambda y, **_: y.mul_(2))
    kept = x.clone()
    assert torch.equal(operator_from_deepinv(doubling, SHAPE)(x), 2 * kept)
    assert torch.equal(x, kept)
    physics = deepinv.physics.Inpainting(SHAPE, mask=torch.ones(SHAPE))
    op = operator_from_deepinv(physics, SHAPE)
    physics.update(mask=torch.zeros(1, *SHAPE))
    assert torch.equal(op(x), x)
    # float64 is never computed in float32.
    assert op(x.double()).dtype == torch.float64
    rounding = deepinv.physics.LinearPhysics(A=lambda x, **_: x.float() * 2, A_adjoint=lambda y, **_: y.float() * 2)
    for physics in (theirs()["Downsampling"], rounding):
        with pytest.raises(ValueError, match="float64"):
            operator_from_deepinv(physics, SHAPE)(x.double())


def test_refused_physics() -> None:
    physics, identity = deepinv.physics, {"A_adjoint": lambda y, **_: y}
    wrong = {
        "not linear": physics.LinearPhysics(A=lambda x, **_: x + 1, **identity),
        "scaled adjoint": physics.LinearPhysics(A=lambda x, **_: 1.01 * x, **identity),
        "complex": physics.LinearPhysics(A=lambda x, **_: torch.fft.fft2(x), **identity),
        "sensor": physics.LinearPhysics(sensor_model=lambda y: y.clamp(0, 1), **identity),
        "batch": physics.LinearPhysics(A=lambda x, **_: x.mean(0, keepdim=True), **identity),
        "operator on images": physics.Blur(filter=torch.ones(2, 1, 3, 3)),
    }
    for reason, case in wrong.items():
        with pytest.raises(ValueError, match=reason.removeprefix("scaled ")):
            operator_from_deepinv(case, SHAPE)


def test_what_fails_for_its_shape_is_not_blamed_on_float64() -> None:
    """Magnetic resonance of three channels: deepinv takes two, real and imaginary part."""
    physics = deepinv.physics.MRI(mask=torch.ones(16, 16), img_size=(2, 16, 16))
    with pytest.raises(ValueError, match="is not a linear operator on images") as refused:
        operator_from_deepinv(physics, (3, 16, 16))
    assert "float64" not in str(refused.value)


def test_says_how_to_install_deepinv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    for call in (lambda: prior_from_deepinv("tv"), lambda: operator_from_deepinv(Grayscale(), SHAPE)):
        with pytest.raises(ValueError, match="pip install"):
            call()


def test_ram_is_shown_the_data_and_the_state_with_one_noise() -> None:
    """The stacked operator (A, (sigma / t) I): both measurements have noise sigma."""
    op, x = SuperResolution(2), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma, t, seen = torch.tensor([0.02, 0.1]), torch.tensor([0.5, 0.2]), {}

    class Spy(torch.nn.Module):
        def forward(self, y, physics, sigma, gain):
            seen.update(y=y, physics=physics, sigma=sigma)
            return physics.A_adjoint(y)

    share = (sigma / t).view(2, 1, 1, 1)
    found = RAMEstimator(Spy())(op(x), op, sigma, x, t)
    torch.testing.assert_close(found, op.adjoint(op(x)) + share**2 * x)
    torch.testing.assert_close(seen["y"][1], share * x)
    torch.testing.assert_close(seen["physics"].A(x)[1], share * x)
    assert torch.equal(seen["sigma"], sigma)
    with pytest.raises(ValueError, match="RAM's operator must be linear"):
        RAMEstimator(Spy())(x, JPEG(10), sigma, x, t)


MASK = random_mask((16, 16), 0.6, torch.Generator().manual_seed(0))[0, 0]
MAPS = coil_maps(3, (16, 16)).to(torch.complex64)


def as_theirs(x: Tensor) -> Tensor:
    """A real image (B, 1, H, W) as deepinv's complex ones, (B, 2, H, W)."""
    return torch.cat([x, torch.zeros_like(x)], dim=1)


@pytest.mark.parametrize("coils", [False, True], ids=["one coil", "coils"])
def test_magnetic_resonance_is_deepinv_s(coils: bool) -> None:
    """Same frequencies, same signs: theirs has real and imaginary part as channels, and complex images."""
    op = MultiCoil(MASK, MAPS, tolerance=1e-6) if coils else MaskedFourier(MASK)
    physics = deepinv.physics.MultiCoilMRI(MASK, MAPS) if coils else deepinv.physics.MRI(MASK)
    x, z = noise(2, 1, 16, 16), noise(2, 1, 16, 16, seed=1)
    y = op(x)
    theirs = physics.A(as_theirs(x))
    torch.testing.assert_close(y[:, 0].movedim(-1, 1), theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(op.adjoint(y), physics.A_adjoint(theirs)[:, :1], rtol=0, atol=1e-6)
    # Reconstruction: their A on real images alone, by conjugate gradients, is our problem.
    real = FunctionOperator(lambda x: physics.A(as_theirs(x)), (1, 16, 16), tolerance=1e-6)
    torch.testing.assert_close(op.prox(z, y, 0.1), real.prox(z, theirs, 0.1), rtol=0, atol=1e-5)
    # And ours is a physics of theirs.
    ours = physics_for_deepinv(op, (1, 16, 16), sigma_noise=0.1)
    assert float(ours.adjointness_test(u=x)) < 1e-4
    assert torch.equal(ours.prox_l2(z, y, 10.0), op.prox(z, y, 0.1))
