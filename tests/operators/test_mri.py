"""Masked Fourier transforms, of one coil and of several: conventions, closed forms, files."""

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor

from tests.operators.operator_cases import coil_maps, normal, seeded
from workbench.fitting import operator_for
from workbench.operators import FunctionOperator, MaskedFourier, MultiCoil, cartesian_mask, parse_operator, random_mask
from workbench.operators.mri import centred

EACH_SIZE = pytest.mark.parametrize("size", [(6, 5), (5, 6)])
F64 = torch.float64


def mask_of(size: tuple[int, int], symmetric: bool = False) -> Tensor:
    """Centred, a third measured; ``symmetric``: frequencies with their opposites."""
    mask = random_mask(size, 2 / 3, seeded())[0, 0].double()
    if symmetric:
        corner = torch.fft.ifftshift(mask)
        mask = torch.fft.fftshift(torch.maximum(corner, corner.flip((0, 1)).roll((1, 1), (0, 1))))
    return mask


def dense(mask: Tensor) -> Tensor:
    """``M F`` (2 H W, H W) on real images, by the sum over pixels, real and imaginary parts in turn."""
    height, width = mask.shape
    k, l, i, j = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in (*mask.shape, *mask.shape)), indexing="ij")
    down, right = height // 2, width // 2
    turns = (k - down) * (i - down) / height + (l - right) * (j - right) / width
    transform = mask[..., None, None] * torch.exp(-2j * torch.pi * turns) / (height * width) ** 0.5
    return torch.view_as_real(transform.flatten(2)).movedim(-1, 2).flatten(0, 2)


@EACH_SIZE
@pytest.mark.parametrize("symmetric", [False, True])
def test_is_the_matrix_with_frequency_0_in_the_middle(size: tuple[int, int], symmetric: bool) -> None:
    mask = mask_of(size, symmetric)
    op, a = MaskedFourier(mask), dense(mask)
    x = normal((2, 3, *size), 1)
    torch.testing.assert_close(op(x).flatten(2), x.flatten(2) @ a.T, rtol=0, atol=1e-14)
    s = op.singular_values(x[:1, :1]).flatten()
    torch.testing.assert_close(s.sort(descending=True).values, torch.linalg.svdvals(a), rtol=0, atol=1e-14)
    assert {round(float(value) ** 2, 12) for value in s} == ({0.0, 1.0} if symmetric else {0.0, 0.5, 1.0})
    # The proximal step divides by (m(k) + m(-k))/2 + weight.
    z, y = normal((1, 1, *size), 2), normal((1, 1, *size, 2), 3)
    ridge = a.T @ a + 0.1 * torch.eye(a.shape[1], dtype=F64)
    solved = torch.linalg.solve(ridge, a.T @ y.flatten() + 0.1 * z.flatten())
    torch.testing.assert_close(op.prox(z, y, 0.1).flatten(), solved, rtol=0, atol=1e-13)


@EACH_SIZE
def test_several_coils_are_the_matrix_too(size: tuple[int, int]) -> None:
    mask, coils = mask_of(size), coil_maps(3, size)
    x = normal((2, 2, *size), 1)
    op = MultiCoil(mask, coils)
    seen = torch.view_as_complex(op(x))
    transform = torch.complex(*dense(mask).view(*size, 2, -1).unbind(2))
    for index, coil in enumerate(coils):
        expected = torch.einsum("klp,bcp->bckl", transform, (coil * x).flatten(2))
        torch.testing.assert_close(seen[:, :, index], expected, rtol=0, atol=1e-14)
    alone = MultiCoil(mask, torch.ones(1, *size, dtype=torch.complex128))
    assert torch.equal(alone(x)[:, :, 0], MaskedFourier(mask)(x))
    torch.testing.assert_close(alone.prox(x, op(x)[:, :, :1], 0.1), MaskedFourier(mask).prox(x, op(x)[:, :, 0], 0.1))
    # A complex function is taken by its real view.
    function = FunctionOperator(lambda x: mask.to(x) * centred(torch.fft.fft2, x), (2, *size))
    assert torch.equal(function(x), MaskedFourier(mask)(x))


def test_white_noise_stays_white() -> None:
    """sigma for real and imaginary part each is sigma for each coefficient that is seen, wherever it lies."""
    op = MaskedFourier(mask_of((6, 5)))
    noise = normal((20000, 1, 6, 5, 2), 1)
    c = op.data_analysis(noise).flatten(1)
    covariance = c.T @ c / len(c)
    expected = torch.diag((op.singular_values(noise[:1, ..., 0]) > 0).double().flatten())
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.05)


def test_columns_are_kept_by_the_number_with_the_middle() -> None:
    for acceleration, centre, middle in ((4, None, 5), (8, None, 3), (4, 0.25, 16), (3, 0.0, 1), (64, None, 1)):
        mask = cartesian_mask((3, 64), acceleration, centre, seeded(1))
        line = mask[0, 0, 0]
        assert mask.shape == (1, 1, 3, 64)
        assert torch.equal(mask[0, 0], line.expand(3, 64))
        assert float(line.sum()) == round(64 / acceleration)
        assert bool(line[32 - middle // 2 :][:middle].all())
    drawn = [cartesian_mask((3, 64), 4, None, seeded(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert bool(cartesian_mask((3, 64), 1).all())
    # The instrument's: one for all images.
    op = operator_for("mri:4", torch.zeros(3, 3, 8, 64), seed=0, numbers=(0, 1, 2))
    assert op.mask.shape == (1, 1, 8, 64)


def test_descriptions_and_files(tmp_path) -> None:
    coils = coil_maps(4, (16, 24))
    np.save(tmp_path / "a.npy", coils.numpy())
    np.savez(tmp_path / "two.npz", maps=coils.to(torch.complex64).numpy(), real=np.ones((4, 16, 24)))
    savemat(tmp_path / "a.mat", {"maps": coils.numpy()})
    x = normal((1, 3, 16, 24), 1)
    single = MaskedFourier(cartesian_mask((16, 24), 3, 0.2, seeded()))
    assert torch.equal(parse_operator("mri:3,0.2", (3, 16, 24), seeded())(x), single(x))
    several = MultiCoil(cartesian_mask((16, 24), 4, None, seeded()), coils)
    for name in ("a.npy", "two.npz:maps", "a.mat"):
        op = parse_operator(f"mri:4:{tmp_path}/{name}", (3, 16, 24), seeded())
        torch.testing.assert_close(op(x), several(x), rtol=0, atol=1e-6)
    wrong = {
        "mri": "needs a number from 1 to 24, got ''",
        "mri:4,0.3": "needs a number from 0 to 0.25, got '0.3'",
        f"mri:4:{tmp_path}/two.npz": "which coil map",
        f"mri:4:{tmp_path}/two.npz:real": r"two.npz:real: expected complex coil maps, got float64",
    }
    for spec, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            parse_operator(spec, (3, 16, 24), seeded())
    with pytest.raises(ValueError, match=r"complex, finite, \(4, 16, 16\), got \(4, 16, 24\)"):
        parse_operator(f"mri:4:{tmp_path}/a.npy", (3, 16, 16), seeded())


def test_what_does_not_fit_is_refused() -> None:
    op, coils = MaskedFourier(torch.ones(6, 5)), coil_maps(2, (6, 5))
    several = MultiCoil(torch.ones(6, 5), coils)
    wrong = (
        (lambda: op(torch.zeros(1, 1, 5, 6)), r"a mask of shape \(1, 1, 6, 5\) does not fit images \(1, 1, 5, 6\)"),
        (lambda: op.adjoint(torch.zeros(1, 1, 6, 5)), r"expected measurements \(1, 1, 6, 5, 2\), got \(1, 1, 6, 5\)"),
        (lambda: several.adjoint(torch.zeros(1, 1, 3, 6, 5, 2)), r"expected measurements \(1, 1, 2, 6, 5, 2\)"),
        (lambda: MaskedFourier(torch.ones(6, 5, dtype=torch.complex64)), "mask must be real"),
        (lambda: MultiCoil(torch.ones(6, 5), coils / 0), r"complex, finite, \(2, 6, 5\)"),
        (lambda: cartesian_mask((6, 5), 6), "acceleration must be 1 to 5, centre 0 to its inverse, got 6,"),
    )
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()
