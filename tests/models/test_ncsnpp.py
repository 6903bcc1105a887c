"""NCSN++: loading into it, what it is invariant under. Its outputs and published tensors: ``test_networks.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_files import reference

from workbench.models.adapters import VEScore
from workbench.models.formats import configure_ncsnpp
from workbench.models.networks.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.score_sde import load_published


def test_fully_convolutional_network_is_translation_equivariant() -> None:
    """Without attention, moving a large image by the coarsest pixel moves the interior of the output."""
    torch.manual_seed(0)
    config = NCSNppConfig(
        width=8, multipliers=(1, 2), blocks=1, attention_levels=(), middle_attention=False, input_pyramid="none"
    )
    net = NCSNpp(config).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    # Group normalisation sees the whole image: a periodic image keeps its statistics under the shift.
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64).repeat(1, 1, 8, 8)
    shifted = torch.roll(x, (2, 4), (-2, -1))
    sigma = torch.tensor([0.3], dtype=torch.float64)
    a, b = torch.roll(net(x, sigma), (2, 4), (-2, -1)), net(shifted, sigma)
    assert a.std() > 1e-3
    inside = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    # The border (zero padding) still reaches the statistics: 1e-2 of the output's spread, no more.
    assert (a - b)[inside].abs().max() < 1e-2 * a.std()


def test_config_refuses_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="embedding must be one of fourier, positional, got 'sine'"):
        NCSNppConfig(embedding="sine")
    with pytest.raises(ValueError, match="multiple of 4"):
        NCSNppConfig(width=10)


def test_conditioning_is_per_image() -> None:
    torch.manual_seed(0)
    net = NCSNpp(NCSNppConfig(width=8, multipliers=(1, 2), blocks=1, fourier_scale=1.0)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 2.0])
    both = net(x, sigma)
    for image in range(2):
        torch.testing.assert_close(both[image : image + 1], net(x[image : image + 1], sigma[image : image + 1]))
    assert (net(x, sigma.flip(0)) - both).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["ncsnpp_cifar_a", "ncsnpp_cifar_b", "ncsnpp_bedroom_a"])
def test_the_adapter_gives_the_published_score(shared: Path, name: str) -> None:
    """The whole way: published tensors, our network, the VE adapter, and back to the score by Tweedie's formula."""
    state, tensors, description = reference(shared, name)
    net = NCSNpp(configure_ncsnpp(state))
    load_published(net, state)
    prior = VEScore(net, sigma_max=float(description["config"]["model"]["sigma_max"])).double().eval()
    with torch.no_grad():
        score = prior.score(tensors["input"].double(), tensors["sigma_or_t"].double())
    # Float64 against the published float32, whose own error is 1e-5 of the largest value (see above).
    assert (score - tensors["output"]).abs().max() <= 3e-5 * tensors["output"].abs().max()
