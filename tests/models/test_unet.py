"""The network of the shipped photo prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench.models import EDMPrecond, UNet, UNetConfig, load_prior, save_prior

SMALL = UNetConfig(widths=(8, 12, 16), blocks=(2, 1, 1), heads=2, embedding=16)


def _prior(config: UNetConfig = SMALL) -> EDMPrecond:
    torch.manual_seed(0)
    net = UNet(config)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # nothing at zero
    return EDMPrecond(net, sigma_max=80.0, multiple=net.multiple)


def test_a_new_network_returns_the_scaled_input_alone() -> None:
    net = UNet(SMALL)
    prior, x = EDMPrecond(net, multiple=net.multiple), torch.rand(2, 3, 16, 24)
    # c_skip = d^2 / (s^2 + d^2) with s = 2 sigma and d = 0.5 (Karras et al. 2022, table 1)
    share = 0.25 / (0.04 + 0.25)
    torch.testing.assert_close(prior(x, 0.1), ((2 * x - 1) * share + 1) / 2)


def test_a_file_gives_the_same_denoiser(tmp_path: Path) -> None:
    prior, x = _prior(), torch.rand(2, 3, 16, 24)
    save_prior(prior, tmp_path / "small.safetensors")
    loaded = load_prior(tmp_path / "small.safetensors")
    assert loaded.net.config == SMALL
    assert torch.equal(loaded(x, 0.1), prior.eval()(x, 0.1))


def test_images_of_a_batch_do_not_see_each_other_and_levels_are_told_apart() -> None:
    prior, x = _prior().double().eval(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    both = prior(x, torch.tensor([0.1, 1.0]))
    torch.testing.assert_close(both[0], prior(x[:1], 0.1)[0])
    torch.testing.assert_close(both[1], prior(x[1:], 1.0)[0])
    assert (prior(x, 0.1) - prior(x, 0.11)).abs().max() > 1e-4


def test_sides_are_multiples_of_two_to_the_levels() -> None:
    assert UNet(SMALL).multiple == 8
    with pytest.raises(ValueError, match="multiples of 8, got 16x20"):
        _prior()(torch.rand(1, 3, 16, 20), 0.1)


@pytest.mark.parametrize(
    "wrong", [{"widths": (8, 8), "blocks": (1,)}, {"widths": ()}, {"blocks": (1, 0, 1)}, {"heads": 5}]
)
def test_a_configuration_that_makes_no_network_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"got|heads"):
        UNetConfig(**wrong)
