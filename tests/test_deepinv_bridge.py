"""The bridge to deepinv: both directions agree with our own operators and priors, and with closed forms."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import warnings
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from workbench.deepinv_bridge import (
    denoiser_for_deepinv,
    operator_from_deepinv,
    physics_for_deepinv,
    prior_from_deepinv,
)
from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import PlainDenoiser, load_prior
from workbench.operators import (
    JPEG,
    Blur,
    Grayscale,
    Inpainting,
    Operator,
    SuperResolution,
    gaussian_kernel,
    random_mask,
)

deepinv = pytest.importorskip("deepinv")

SHAPE = (3, 16, 16)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drunet(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return deepinv.models.DRUNet(pretrained=None, nc=(8, 8, 8, 8), nb=1, **options).eval()


def gaussian(tau: float = 0.25) -> PlainDenoiser:
    """The exact denoiser of images N(1/2, tau^2)."""

    def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 + (tau**2 / (tau**2 + sigma**2)).view(-1, 1, 1, 1) * (x - 0.5)

    return PlainDenoiser(posterior_mean, sigma_max=50.0, name="gaussian")


# --- deepinv's denoisers as priors


def denoisers() -> dict[str, nn.Module]:
    models = deepinv.models
    torch.manual_seed(0)
    made = {
        "DRUNet": drunet(),
        "DnCNN": models.DnCNN(pretrained=None, depth=4, nf=8),
        "TV": models.TVDenoiser(n_it_max=200, crit=1e-3),
        "TGV": models.TGVDenoiser(n_it_max=100, crit=1e-3),
        "BM3D": models.BM3D(),
        "Median": models.MedianFilter(kernel_size=3),
    }
    if importlib.util.find_spec("ptwt"):
        made["Wavelet"] = models.WaveletDenoiser()
    return made


@pytest.mark.parametrize("name", denoisers())
def test_batch_equals_single_images_at_their_own_levels(name: str) -> None:
    net = denoisers()[name]
    x, levels = noise(3, 3, 16, 16).mul(0.2).add(0.5), torch.tensor([0.05, 0.1, 0.1])
    if name == "BM3D":  # a second per image
        x, levels = x[:2, :1], levels[:2]
    prior = prior_from_deepinv(net, sigma_max=1.0, channels=x.shape[1])
    with torch.no_grad():
        batch = prior(x, levels)
        fresh = torch.cat([denoisers()[name](x[i : i + 1], float(levels[i])) for i in range(len(x))])
    torch.testing.assert_close(batch, fresh, rtol=0, atol=2e-6)


def test_tv_of_deepinv_remembers_and_couples_images_but_the_prior_does_not() -> None:
    net = deepinv.models.TVDenoiser(n_it_max=500, crit=1e-3)
    x = torch.cat([noise(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.5)])
    prior = prior_from_deepinv(net)
    first = prior(x, 0.1)
    assert net.x2 is None
    assert net.restart
    assert torch.equal(prior(x, 0.1), first)
    net(x, 0.1)
    assert not torch.equal(net(x, 0.1), first)


def test_bm3d_refuses_images_that_crash_it() -> None:
    with pytest.raises(ValueError, match="from 9 pixels, got 8x16"):
        prior_from_deepinv("bm3d")(torch.rand(1, 3, 8, 16), 0.1)


def test_class_that_knows_numbers_only_is_called_once_per_level() -> None:
    calls = []

    class Numbers(deepinv.models.Denoiser):
        def forward(self, x: Tensor, sigma: float, **kwargs: object) -> Tensor:
            calls.append((len(x), sigma))
            return x * math.exp(-sigma)

    levels = torch.tensor([0.5, 0.25, 0.5], dtype=torch.float64)
    x = noise(3, 3, 4, 4, dtype=torch.float64)
    result = prior_from_deepinv(Numbers())(x, levels)
    assert sorted(calls) == [(1, 0.25), (2, 0.5)]
    torch.testing.assert_close(result, x * (-levels).exp().view(-1, 1, 1, 1))


def test_facts_about_known_denoisers() -> None:
    colour, grey = prior_from_deepinv(drunet()), prior_from_deepinv(drunet(in_channels=1, out_channels=1))
    assert (colour.channels, grey.channels) == (3, 1)
    assert (colour.sigma_min, colour.sigma_max, colour.multiple) == (0.0, 50 / 255, 1)
    assert colour(noise(1, 3, 37, 41), 0.1).shape == (1, 3, 37, 41)
    ffdnet = prior_from_deepinv("ffdnet", pretrained=None)
    assert (ffdnet.multiple, ffdnet.channels) == (2, 1)
    assert ffdnet(noise(1, 1, 6, 6), 0.1).shape == (1, 1, 6, 6)
    median = prior_from_deepinv("median", channels=1, sigma_max=0.5, multiple=2, name="mine")
    assert (median.channels, median.sigma_max, median.multiple, median.name) == (1, 0.5, 2, "mine")
    with pytest.raises(ValueError, match="up to sigma"):
        colour(noise(1, 3, 16, 16), 0.3)


def test_names_and_what_is_not_a_denoiser() -> None:
    assert type(prior_from_deepinv("TV").net).__name__ == "TVDenoiser"
    assert type(prior_from_deepinv("dncnn", pretrained=None, depth=3).net).__name__ == "DnCNN"
    with pytest.raises(ValueError, match="drunet"):
        prior_from_deepinv("drunnet")
    for unknown in ("zzzz", "RAM"):
        with pytest.raises(ValueError, match="deepinv has no denoiser"):
            prior_from_deepinv(unknown)
    for untrained in ("GSDRUNet", "UNet"):
        with pytest.raises(ValueError, match="random weights"):
            prior_from_deepinv(untrained)
    with pytest.raises(ValueError, match="cannot make DnCNN"):
        prior_from_deepinv("dncnn", no_such_option=1)
    with pytest.raises(ValueError, match="only for a denoiser given by its name"):
        prior_from_deepinv(drunet(), pretrained=None)
    with pytest.raises(ValueError, match="prior already"):
        prior_from_deepinv(gaussian())
    models = deepinv.models
    for wrong in (
        models.ArtifactRemoval(drunet()),
        models.Poisson2Sparse(models.ConvLista(in_channels=1, out_channels=1)),
        deepinv.optim.PnP(drunet()),
        models.MinusOneOneDenoiserWrapper(drunet()),
        nn.Conv2d(3, 3, 1),
        "drunet".upper,
    ):
        with pytest.raises(ValueError, match="denoiser"):
            prior_from_deepinv(wrong)


def test_gradients_reach_image_and_weights() -> None:
    net = drunet()
    x = noise(1, 3, 32, 32).requires_grad_()
    prior_from_deepinv(net)(x, 0.1).sum().backward()
    assert x.grad is not None
    assert next(net.parameters()).grad is not None


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(
        ValueError, match=r"no network.*huggingface.*checkpoints.drunet_deepinv_color_\w+\.pth, or pass"
    ):
        prior_from_deepinv("drunet")


def test_weights_from_a_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    options = {"nc": (8, 8, 8, 8), "nb": 1}
    net, file = drunet(), tmp_path / "weights.pth"
    torch.save(net.state_dict(), file)
    prior = prior_from_deepinv("drunet", pretrained=file, **options)
    x = noise(1, 3, 32, 32)
    assert torch.equal(prior(x, 0.1), net(x, torch.tensor([0.1])))
    torch.save(net, file)  # a pickle of the whole object
    with pytest.raises(ValueError, match="can run code"):
        prior_from_deepinv("drunet", pretrained=str(file), **options)
    # What deepinv does with a download: torch.hub reads any pickle that is in its folder.
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub.parent))
    file.rename(hub / "drunet_deepinv_color_finetune_22k.pth")
    with pytest.raises(ValueError, match="can run code"):
        prior_from_deepinv("drunet", **options)
    with pytest.raises(ValueError, match="no such file"):
        prior_from_deepinv("drunet", pretrained=tmp_path / "nothing.pth")
    torch.save({}, file)
    with pytest.raises(ValueError, match="cannot make DRUNet"):
        prior_from_deepinv("drunet", pretrained=file, **options)


# --- our priors as deepinv's denoisers


def test_denoiser_takes_every_form_of_sigma() -> None:
    prior = gaussian()
    denoiser = denoiser_for_deepinv(prior)
    assert isinstance(denoiser, deepinv.models.Denoiser)
    x, levels = noise(2, 3, 4, 4), torch.tensor([0.1, 0.2])
    assert torch.equal(denoiser(x, levels), prior(x, levels))
    assert torch.equal(denoiser(x, levels.view(2, 1, 1, 1)), prior(x, levels))
    for level in (0.1, torch.tensor(0.1), torch.tensor([0.1]), torch.tensor([[[[0.1]]]])):
        assert torch.equal(denoiser(x, level), prior(x, 0.1))
    torch.testing.assert_close(denoiser(x, 0), x)
    assert prior_from_deepinv(denoiser) is prior
    for wrong in (51.0, -1.0, torch.ones(3), torch.ones(2, 1, 4, 4)):
        with pytest.raises(ValueError, match="sigma"):
            denoiser(x, wrong)
    with pytest.raises(ValueError, match="prior"):
        denoiser_for_deepinv(drunet())
    with pytest.raises(ValueError, match="above"):
        denoiser_for_deepinv(prior, above="clip")


def test_shrinking_above_the_range_is_near_the_exact_denoiser() -> None:
    prior = gaussian()
    denoiser, exact = denoiser_for_deepinv(prior, above="shrink"), gaussian()
    exact.sigma_max = math.inf
    levels = torch.tensor([80.0, 50.0, 1.0])
    x = 0.5 + noise(3, 3, 8, 8) * levels.view(-1, 1, 1, 1)
    result = denoiser(x, levels)
    torch.testing.assert_close(result, exact(x, levels), rtol=0, atol=5e-3)
    assert torch.equal(result[1:], prior(x[1:], levels[1:]))


def test_denoiser_in_deepinv_pnp_ddrm_and_dps() -> None:
    x = sample_photo("cat", 16)
    physics = physics_for_deepinv(Inpainting(random_mask((16, 16), 0.5)), SHAPE, sigma_noise=0.05)
    denoiser = denoiser_for_deepinv(gaussian(), above="shrink")
    torch.manual_seed(0)
    y = physics(x)
    pnp = deepinv.optim.HQS(
        prior=deepinv.optim.PnP(denoiser),
        data_fidelity=deepinv.optim.L2(),
        stepsize=1.0,
        sigma_denoiser=0.1,
        max_iter=5,
    )
    theirs = deepinv.physics.Inpainting(SHAPE, mask=0.5, noise_model=deepinv.physics.GaussianNoise(0.05))
    ddrm = deepinv.sampling.DDRM(denoiser, sigmas=[1.0, 0.5, 0.1, 0.0])
    dps = deepinv.sampling.DPS(denoiser, num_steps=4, rng=torch.Generator().manual_seed(0))
    for result in (pnp(y, physics), ddrm(theirs(x), theirs), dps(y, physics)):
        assert result.shape == x.shape
        assert bool(result.isfinite().all())


def test_shipped_prior_in_deepinv_diffpir_beats_the_pseudo_inverse() -> None:
    x = sample_photo("cat", 32)
    physics = physics_for_deepinv(SuperResolution(2), (3, 32, 32), sigma_noise=0.05)
    denoiser = denoiser_for_deepinv(load_prior("photo"))
    torch.manual_seed(1)
    y = physics(x)
    # zeta 1: fresh noise in every step. With deepinv's 0.1 its sampler stays below the pseudo-inverse here.
    sampler = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), max_iter=20, zeta=1.0)
    start = physics.A_dagger(y)
    restored = sampler(y, physics, seed=1, x_init=start)
    assert float(psnr(restored, x)) > float(psnr(start, x)) + 1.0


def test_diffpir_is_the_same_with_our_physics_and_theirs() -> None:
    mask = random_mask((16, 16), 0.5)
    noisy = deepinv.physics.GaussianNoise(0.05)
    x, denoiser = sample_photo("cat", 16), denoiser_for_deepinv(gaussian(), above="shrink")
    own = physics_for_deepinv(Inpainting(mask), SHAPE, sigma_noise=0.05)
    theirs = deepinv.physics.Inpainting(SHAPE, mask=mask[0].float().expand(SHAPE), noise_model=noisy)
    sampler = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), max_iter=10)
    results = [sampler(own.A(x), physics, seed=1) for physics in (own, theirs)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)


def test_diffpir_without_noise_meets_the_data_with_our_physics() -> None:
    """deepinv's own prox gives NaN here, where gamma is infinite."""
    x, denoiser = sample_photo("cat", 16), denoiser_for_deepinv(gaussian(), above="shrink")
    physics = physics_for_deepinv(Inpainting(random_mask((16, 16), 0.5)), SHAPE)
    physics.set_noise_model(deepinv.physics.GaussianNoise(0.0))
    restored = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), max_iter=10)(physics.A(x), physics, seed=1)
    # Its last step leaves the noise of DDPM's first step, 0.005 on [0, 1].
    assert float((physics.A(restored) - physics.A(x)).abs().max()) < 0.05


# --- our operators as deepinv's physics


def ours() -> dict[str, Operator]:
    return {
        "blur": Blur(gaussian_kernel(1.0, size=5)),
        "reflecting blur": Blur(gaussian_kernel(1.0, size=5), boundary="reflect"),
        "inpainting": Inpainting(random_mask((16, 16), 0.5)),
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
    assert torch.equal(physics.A(x), y)
    assert torch.equal(physics(x), y)
    assert torch.equal(physics.A_adjoint(y), op.adjoint(y))
    assert torch.equal(physics.A_dagger(y), op.pinv(y))
    assert torch.equal(physics.prox_l2(z, y, 4.0, solver="lsqr", max_iter=1), op.prox(z, y, 0.25))
    assert torch.equal(physics.prox_l2(None, y, 4.0), op.prox(torch.zeros_like(x), y, 0.25))
    gammas, weights = torch.tensor([1.0, 4.0]), torch.tensor([1.0, 0.25])
    assert torch.equal(physics.prox_l2(z, y, gammas.view(2, 1, 1, 1)), op.prox(z, y, weights))
    assert torch.equal(physics.prox_l2(z, y, torch.tensor(math.inf)), op.prox(z, y, 0.0))
    assert float(physics.adjointness_test(u=x)) < 1e-4
    assert float(physics.clone().adjointness_test()) < 1e-4
    assert torch.equal(operator_from_deepinv(physics, SHAPE)(x), y)


def test_physics_noise_and_wrong_arguments() -> None:
    op = Grayscale()
    physics = physics_for_deepinv(op, SHAPE, sigma_noise=0.5)
    x = torch.zeros(4, *SHAPE)
    assert float(physics(x).std()) == pytest.approx(0.5, abs=0.05)
    assert float(physics(x, sigma=0.1).std()) == pytest.approx(0.1, abs=0.01)
    assert type(physics_for_deepinv(op, SHAPE).noise_model).__name__ == "ZeroNoise"
    with pytest.raises(ValueError, match="cannot be changed"):
        physics.A(x, filter=x)
    with pytest.raises(ValueError, match="gamma"):
        physics.prox_l2(x, op(x), 0.0)
    with pytest.raises(ValueError, match="sigma_noise"):
        physics_for_deepinv(op, SHAPE, sigma_noise=-1.0)
    with pytest.raises(ValueError, match="image_shape"):
        physics_for_deepinv(op, (16, 16))
    with pytest.raises(ValueError, match="operator"):
        physics_for_deepinv(physics, SHAPE)


def test_jpeg_becomes_a_plain_physics() -> None:
    op = JPEG(20)
    physics = physics_for_deepinv(op, SHAPE)
    assert not isinstance(physics, deepinv.physics.LinearPhysics)
    x = sample_photo("cat", 16)
    y = physics(x)
    assert torch.equal(y, op(x))
    assert torch.equal(physics.A_dagger(y), op.pinv(y))
    assert torch.equal(physics.prox_l2(y, y, 2.0), op.prox(y, y, 0.5))


# --- deepinv's physics as operators


def theirs() -> dict[str, object]:
    physics = deepinv.physics
    return {
        "BlurFFT": physics.BlurFFT(SHAPE, filter=gaussian_kernel((1.0, 0.5), angle=30, size=5)[None, None]),
        "Blur": physics.Blur(filter=gaussian_kernel(1.0, size=5)[None, None], padding="valid"),
        "Inpainting": physics.Inpainting(SHAPE, mask=0.5),
        "Decolorize": physics.Decolorize(),
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


def test_decolorize_keeps_the_null_space_that_deepinv_drops() -> None:
    physics = deepinv.physics.Decolorize()
    x = noise(1, *SHAPE)
    y = physics.A(x)
    op = operator_from_deepinv(physics, SHAPE)
    torch.testing.assert_close(op.prox(x, y, 1.0), x)
    assert float((physics.prox_l2(x, y, 1.0) - x).norm() / x.norm()) > 0.3


@pytest.mark.parametrize("name", ["blur", "inpainting", "super-resolution"])
def test_round_trip(name: str) -> None:
    op = ours()[name]
    back = operator_from_deepinv(physics_for_deepinv(op, SHAPE), SHAPE, tolerance=1e-11)
    x, z = noise(2, *SHAPE, dtype=torch.float64), noise(2, *SHAPE, seed=1, dtype=torch.float64)
    y = op(x)
    assert torch.equal(back(x), y)
    assert torch.equal(back.adjoint(y), op.adjoint(y))
    torch.testing.assert_close(back.prox(z, y, 0.1), op.prox(z, y, 0.1), rtol=0, atol=1e-8)


def test_float64_is_never_computed_in_float32() -> None:
    x = noise(1, *SHAPE, dtype=torch.float64)
    assert operator_from_deepinv(theirs()["Inpainting"], SHAPE)(x).dtype == torch.float64
    with pytest.raises(ValueError, match="float64"):
        operator_from_deepinv(theirs()["Downsampling"], SHAPE)(x)
    rounding = deepinv.physics.LinearPhysics(A=lambda x, **_: x.float() * 2, A_adjoint=lambda y, **_: y.float() * 2)
    with pytest.raises(ValueError, match="float64"):
        operator_from_deepinv(rounding, SHAPE)(x)


def test_operator_does_not_share_memory_or_follow_later_changes() -> None:
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


def test_refused_physics() -> None:
    physics, identity = deepinv.physics, {"A_adjoint": lambda y, **_: y}
    wrong = {
        "not linear": physics.LinearPhysics(A=lambda x, **_: x + 1, **identity),
        "adjoint": physics.LinearPhysics(A=lambda x, **_: x.roll(1, -1), **identity),
        "scaled adjoint": physics.LinearPhysics(A=lambda x, **_: 1.01 * x, **identity),
        "one real tensor": physics.LinearPhysics(A=lambda x, **_: torch.fft.fft2(x), **identity),
        "TensorList": physics.Denoising().stack(physics.Decolorize()),
        "sensor": physics.LinearPhysics(sensor_model=lambda y: y.clamp(0, 1), **identity),
        "otherwise": physics.LinearPhysics(A=lambda x, **_: x - x.mean(0, keepdim=True), **identity),
        "batch": physics.LinearPhysics(A=lambda x, **_: x.mean(0, keepdim=True), **identity),
        "operator on images": physics.Blur(filter=torch.ones(2, 1, 3, 3)),
    }
    for reason, case in wrong.items():
        with pytest.raises(ValueError, match=reason.removeprefix("scaled ")):
            operator_from_deepinv(case, SHAPE)
    with pytest.raises(ValueError, match="physics"):
        operator_from_deepinv(Grayscale(), SHAPE)
    with pytest.raises(ValueError, match="expected images"):
        operator_from_deepinv(physics.Decolorize(), SHAPE)(torch.zeros(1, 3, 8, 8))


# --- without deepinv


def test_importing_the_bridge_does_not_import_deepinv() -> None:
    code = "import sys, workbench.deepinv_bridge; sys.exit('deepinv' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_says_how_to_install_deepinv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    for call in (
        lambda: prior_from_deepinv("tv"),
        lambda: physics_for_deepinv(Grayscale(), SHAPE),
        lambda: operator_from_deepinv(Grayscale(), SHAPE),
    ):
        with pytest.raises(ValueError, match="pip install"):
            call()


def test_load_prior_takes_names_and_objects() -> None:
    x = torch.rand(1, 3, 16, 16)
    for source in (deepinv.models.MedianFilter(), "deepinv:median"):
        prior = load_prior(source)
        torch.testing.assert_close(prior(x, 0.1), deepinv.models.MedianFilter()(x, 0.1))
    with pytest.raises(ValueError, match="deepinv has no denoiser 'drunett': did you mean drunet"):
        load_prior("deepinv:drunett")
    with pytest.raises(ValueError, match="a prior takes no settings, got step"):
        load_prior(load_prior("photo"), step="nearest")
