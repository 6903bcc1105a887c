"""Denoisers across the bridge to deepinv: theirs as our priors, ours in their samplers."""

import importlib.util
import math
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from workbench.deepinv_bridge import denoiser_for_deepinv, physics_for_deepinv, prior_from_deepinv
from workbench.images import sample_photo
from workbench.models import PlainDenoiser, load_prior
from workbench.operators import Inpainting, random_mask

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


def denoisers() -> dict[str, nn.Module]:
    models = deepinv.models
    torch.manual_seed(0)
    made = {
        "DRUNet": drunet(),
        "DnCNN": models.DnCNN(pretrained=None, depth=4, nf=8),
        "TV": models.TVDenoiser(n_it_max=200, crit=1e-3),
        "TGV": models.TGVDenoiser(n_it_max=100, crit=1e-3),
        "Median": models.MedianFilter(kernel_size=3),
    }
    if importlib.util.find_spec("ptwt"):
        made["Wavelet"] = models.WaveletDenoiser()
    return made


@pytest.mark.parametrize("name", denoisers())
def test_batch_equals_single_images_at_their_own_levels(name: str) -> None:
    x, levels = noise(3, 3, 16, 16).mul(0.2).add(0.5), torch.tensor([0.05, 0.1, 0.1])
    prior = prior_from_deepinv(denoisers()[name], sigma_max=1.0)
    with torch.no_grad():
        batch = prior(x, levels)
        fresh = torch.cat([denoisers()[name](x[i : i + 1], float(levels[i])) for i in range(len(x))])
    torch.testing.assert_close(batch, fresh, rtol=0, atol=2e-6)


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
    net, x = drunet(), noise(1, 3, 37, 41).requires_grad_()
    colour, grey = prior_from_deepinv(net), prior_from_deepinv(drunet(in_channels=1, out_channels=1))
    assert (colour.channels, grey.channels) == (3, 1)
    assert (colour.sigma_min, colour.sigma_max, colour.multiple) == (0.0, 50 / 255, 1)
    found = colour(x, 0.1)
    assert found.shape == x.shape
    found.sum().backward()  # gradients reach image and weights
    assert x.grad is not None
    assert next(net.parameters()).grad is not None
    ffdnet = prior_from_deepinv("ffdnet", pretrained=None)
    assert (ffdnet.multiple, ffdnet.channels) == (2, 1)
    assert ffdnet(noise(1, 1, 6, 6), 0.1).shape == (1, 1, 6, 6)
    with pytest.raises(ValueError, match="from 9 pixels, got 8x16"):  # it would crash
        prior_from_deepinv("bm3d")(torch.rand(1, 3, 8, 16), 0.1)


def test_names_and_objects() -> None:
    x = torch.rand(1, 3, 16, 16)
    for source in (deepinv.models.MedianFilter(), "deepinv:median"):
        torch.testing.assert_close(load_prior(source)(x, 0.1), deepinv.models.MedianFilter()(x, 0.1))
    models = deepinv.models
    for make, message in (
        (lambda: load_prior("deepinv:drunett"), "unknown denoiser of deepinv 'drunett', did you mean 'drunet'"),
        (lambda: prior_from_deepinv("GSDRUNet"), "random weights"),
        (lambda: prior_from_deepinv("dncnn", no_such_option=1), "cannot make DnCNN"),
        (lambda: prior_from_deepinv(drunet(), pretrained=None), "only for a denoiser given by its name"),
        (lambda: prior_from_deepinv(gaussian()), "prior already"),
        (lambda: load_prior(gaussian(), step="nearest"), "a prior takes no settings, got step"),
        *(
            (lambda wrong=wrong: prior_from_deepinv(wrong), "denoiser")
            for wrong in (
                models.ArtifactRemoval(drunet()),
                deepinv.optim.PnP(drunet()),
                nn.Conv2d(3, 3, 1),
            )
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_weights_from_a_file_or_a_download(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    small = {"nc": (8, 8, 8, 8), "nb": 1}
    net, file = drunet(), tmp_path / "weights.pth"
    torch.save(net.state_dict(), file)
    x = noise(1, 3, 32, 32)
    assert torch.equal(prior_from_deepinv("drunet", pretrained=file, **small)(x, 0.1), net(x, torch.tensor([0.1])))

    def refused(message: str, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            prior_from_deepinv("drunet", **options, **small)

    torch.save(net, file)  # a pickle of the whole object
    refused("can run code", pretrained=str(file))
    # What deepinv does with a download: torch.hub reads any pickle that is in its folder.
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub.parent))
    file.rename(hub / "drunet_deepinv_color_finetune_22k.pth")
    refused("can run code")
    refused("no such file", pretrained=tmp_path / "nothing.pth")
    torch.save({}, file)
    refused("cannot make DRUNet", pretrained=file)

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    refused(r"no network.*huggingface.*checkpoints.drunet_deepinv_\w+\.pth, or pass")


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
    for wrong in (51.0, torch.ones(3)):
        with pytest.raises(ValueError, match="sigma"):
            denoiser(x, wrong)


def test_shrinking_above_the_range_is_near_the_exact_denoiser() -> None:
    prior = gaussian()
    denoiser, exact = denoiser_for_deepinv(prior, above="shrink"), gaussian()
    exact.sigma_max = math.inf
    levels = torch.tensor([80.0, 50.0, 1.0])
    x = 0.5 + noise(3, 3, 8, 8) * levels.view(-1, 1, 1, 1)
    result = denoiser(x, levels)
    torch.testing.assert_close(result, exact(x, levels), rtol=0, atol=5e-3)
    assert torch.equal(result[1:], prior(x[1:], levels[1:]))


def test_diffpir_is_the_same_with_our_physics_and_theirs_and_meets_data_without_noise() -> None:
    mask = random_mask((16, 16), 0.5)
    x, denoiser = sample_photo("cat", 16), denoiser_for_deepinv(gaussian(), above="shrink")
    own = physics_for_deepinv(Inpainting(mask), SHAPE, sigma_noise=0.05)
    noisy = deepinv.physics.GaussianNoise(0.05)
    theirs = deepinv.physics.Inpainting(SHAPE, mask=mask[0].float().expand(SHAPE), noise_model=noisy)
    sampler = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), max_iter=10)
    results = [sampler(own.A(x), physics, seed=1) for physics in (own, theirs)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)
    # deepinv's own prox gives NaN here, where gamma is infinite.
    own.set_noise_model(deepinv.physics.GaussianNoise(0.0))
    # Its last step leaves the noise of DDPM's first step, 0.005 on [0, 1].
    assert float((own.A(sampler(own.A(x), own, seed=1)) - own.A(x)).abs().max()) < 0.05
