"""What holds for networks whatever their weights. Outputs and tensors of published files: ``test_networks.py``."""

from collections.abc import Callable

import pytest
import torch

from workbench.models import ADM, DDPM, ADMConfig, DDPMConfig, EDMPrecond, NCSNpp, NCSNppConfig, UNet, UNetConfig
from workbench.models.networks.adm import Attention

LEVELS = {"multipliers": (1, 2), "blocks": 1, "attention_levels": (1,)}
PHOTO = UNetConfig(widths=(8, 12, 16), blocks=(2, 1, 1), heads=2, embedding=16)


def random(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """In float64, nothing at zero."""
    torch.manual_seed(0)
    net = make().double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize(
    ("make", "levels"),
    [
        (lambda: ADM(ADMConfig(width=32, head_channels=16, **LEVELS)), (3.0, 700.0)),
        (lambda: DDPM(DDPMConfig(width=32, **LEVELS)), (3.0, 700.0)),
        (lambda: NCSNpp(NCSNppConfig(width=8, fourier_scale=1.0, **LEVELS)), (0.1, 2.0)),
        (lambda: UNet(PHOTO), (0.1, 2.0)),
    ],
)
def test_outputs_belong_to_their_own_image_and_level(make, levels: tuple[float, float]) -> None:
    net, told = random(make), torch.tensor(levels, dtype=torch.float64)
    x = torch.randn(2, 3, 8, 16, dtype=torch.float64)
    both = net(x, told)
    for image in range(2):
        torch.testing.assert_close(both[image : image + 1], net(x[image : image + 1], told[image : image + 1]))
    assert (net(x, told.flip(0)) - both).abs().max() > 1e-3


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
        (NCSNppConfig, {"width": 10}, "multiple of 4"),
        (NCSNppConfig, {"embedding": "sine"}, "embedding must be one of fourier, positional, got 'sine'"),
        (UNetConfig, {"widths": (8, 8), "blocks": (1,)}, "got"),
        (UNetConfig, {"blocks": (1, 0, 1)}, "got"),
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
