"""What holds for networks whatever their weights. Outputs and tensors of published files: ``test_networks.py``."""

import pytest
import torch

from workbench.models import ADMConfig, DDPMConfig, EDMPrecond, NCSNppConfig, UNet, UNetConfig
from workbench.models.networks.adm import Attention

PHOTO = UNetConfig(widths=(8, 12, 16), blocks=(2, 1, 1), heads=2, embedding=16)


def test_attention_orders_differ_by_a_permutation_of_weights() -> None:
    """Splitting into heads first, or into query, key and value first: the same network, its rows in another order."""
    torch.manual_seed(0)
    heads_first, parts_first = Attention(32, 8, False), Attention(32, 8, True)
    state = heads_first.state_dict()
    order = torch.arange(96).view(4, 3, 8).transpose(0, 1).reshape(-1)
    parts_first.load_state_dict(state | {name: state[name][order] for name in ("qkv.weight", "qkv.bias")})
    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(parts_first(x), heads_first(x))
    assert (heads_first(x) - x).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (ADMConfig, {"head_channels": 100, "attention_levels": (0,)}, "256 channels cannot be split into heads of 100"),
        (DDPMConfig, {"width": 48}, "multiple of 32"),
        (NCSNppConfig, {"embedding": "sine"}, "embedding must be one of fourier, positional, got 'sine'"),
        (UNetConfig, {"widths": (8, 8), "blocks": (1,)}, "got"),
        (UNetConfig, {"heads": 5}, "heads"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(config: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_a_new_network_for_photos_returns_the_scaled_input_alone() -> None:
    prior, x = EDMPrecond(UNet(PHOTO), multiple=UNet(PHOTO).multiple), torch.rand(2, 3, 16, 24)
    # c_skip = d^2 / (s^2 + d^2) with s = 2 sigma and d = 0.5 (Karras et al. 2022, table 1)
    torch.testing.assert_close(prior(x, 0.1), ((2 * x - 1) * 0.25 / (0.04 + 0.25) + 1) / 2)
    with pytest.raises(ValueError, match="multiples of 8, got 16x20"):
        prior(torch.rand(1, 3, 16, 20), 0.1)
