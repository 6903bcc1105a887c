"""Priors from outside the package: by the name of their code, saved with it, and as networks of other libraries."""

import json

import pytest
import torch

from tests.own_code import hash_of
from tests.own_code import mine as mine
from workbench.images import sample_photo
from workbench.models import PlainDenoiser, load_prior, save_prior
from workbench.recipe import load_recipe
from workbench.restore import degrade, restore
from workbench.solvers import DiffPIR


def test_priors_by_name(mine):
    prior = load_prior("others.py:grey", sigma_max=60.0)
    assert (prior.name, prior.sigma_max, prior.training) == ("grey", 60.0, False)
    assert load_prior("others.py:shipped").name == "photo-ddpm"
    assert load_prior("others.py:shipped").source["file"] == "photo-ddpm.safetensors"
    for name, settings, message in (
        ("others.py:number", {}, "others.py:number: a prior is .* got int"),
        ("others.py:grey", {"sigma": 1}, "others.py:grey: TypeError: grey.. got an unexpected keyword"),
        ("others.py:gray", {}, "did you mean 'grey'"),
        ("phot", {}, "unknown prior 'phot', did you mean 'photo'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_prior(name, **settings)


def test_double_images_meet_single_priors():
    photo = sample_photo("cat", 32)
    prior = load_prior("photo")
    double = prior(photo.double(), 0.1)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), prior(photo, 0.1), atol=1e-5, rtol=0)
    result = restore(degrade(photo.double(), "blur:1", 0.01), DiffPIR(steps=1), load_prior("photo"))
    assert result.image.dtype == torch.float64
    single = load_prior("photo").double()(photo, 0.1)
    assert single.dtype == torch.float32


def test_a_complete_denoiser_in_another_range():
    """Of N(mean 0.5, variance v) in [0, 1]: in [-1, 1] mean 0, variance 4 v."""
    variance, sigma, x = 0.04, torch.tensor([0.1, 0.3]), torch.rand(2, 3, 8, 8)
    net = lambda u, s: u * (4 * variance / (4 * variance + s.view(-1, 1, 1, 1) ** 2))  # noqa: E731
    gain = (variance / (variance + sigma**2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(PlainDenoiser(net, data_range=(-1, 1))(x, sigma), 0.5 + gain * (x - 0.5))
    with pytest.raises(ValueError, match="data_range must be"):
        PlainDenoiser(net, data_range=(1, -1))


FACTORY = """
import torch

from workbench.models import PlainDenoiser


class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, width, padding="same")

    def forward(self, x, sigma):
        return self.layer(x)


def make(width: int = 3):
    return PlainDenoiser(Net(width), sigma_max=50.0)
"""


def test_a_prior_of_ones_own_is_saved_with_its_code(mine):
    (mine / "net.py").write_text(FACTORY)
    prior, x = load_prior("net.py:make", width=5), torch.rand(1, 3, 16, 16)
    save_prior(prior, "own.safetensors", card={"summary": "mine"})
    with pytest.raises(ValueError, match=r"loading it runs net.py:make; if you trust that, set trust_code=True"):
        load_prior("own.safetensors")
    again = load_prior("own.safetensors", trust_code=True)
    torch.testing.assert_close(again(x, 0.1), prior(x, 0.1))
    assert again.card["summary"] == "mine"
    assert again.source["sha256"] == hash_of(mine / "own.safetensors")
    (mine / "net.py").write_text(FACTORY + "\n# changed\n")
    with pytest.warns(UserWarning, match="net.py:make is not what it was when the weights were saved"):
        load_prior("own.safetensors", trust_code=True)
    with pytest.raises(ValueError, match="size mismatch"):
        load_prior("own.safetensors", trust_code=True, width=3)
    method = {"solver": "pinv", "prior": "own.safetensors", "prior_settings": {"trust_code": True}}
    (mine / "run.json").write_text(json.dumps({"photo": "cat.png", "degrade": "blur:1", "methods": [method]}))
    with pytest.raises(ValueError, match="--trust-code"):
        load_recipe(mine / "run.json")
    with pytest.raises(ValueError, match="can save adapters"):
        save_prior(PlainDenoiser(torch.nn.Conv2d(3, 3, 1)), "no.safetensors")


def test_a_network_of_diffusers_as_an_object(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    from workbench.models.diffusers_export import save_diffusers

    save_diffusers(load_prior("photo-ddpm"), tmp_path / "there")
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "there" / "unet")
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "there" / "scheduler")
    x, folder = sample_photo("cat", 32), load_prior(tmp_path / "there")
    for given in (scheduler, {"_class_name": "DDPMScheduler", **scheduler.config}):
        prior = load_prior(unet, scheduler=given)
        torch.testing.assert_close(prior(x, 0.1), folder(x, 0.1))
        assert (prior.trained_size, prior.multiple) == (folder.trained_size, folder.multiple)
    with pytest.raises(ValueError, match="UNet2DModel: it does not say its noise levels: give scheduler"):
        load_prior(unet)
