"""Weights stored as a difference: what comes back, how large the file is, and what is refused."""

import pytest
import torch

from workbench.models import EDMPrecond, load_prior, save_prior
from workbench.models.difference import decode, encode
from workbench.models.networks.unet import grown


def fine_tuned() -> EDMPrecond:
    """``photo`` with another output and every weight moved a little."""
    torch.manual_seed(0)
    net = grown(load_prior("photo").net, direct=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1e-3 * torch.randn_like(parameter)
    return EDMPrecond(net, sigma_max=80.0, multiple=8)


def test_a_fine_tuned_prior_comes_back_within_the_rounding_of_its_change(tmp_path, monkeypatch) -> None:
    prior, file = fine_tuned(), tmp_path / "tuned.safetensors"
    save_prior(prior, file, card={"summary": "tuned"}, base="photo")
    found = load_prior(str(file))
    assert file.stat().st_size < 3.4e6
    assert found.card["summary"] == "tuned"
    for name, tensor in prior.net.state_dict().items():
        # At most half a step of 1/127 of the largest change of a channel, about 4 standard deviations.
        torch.testing.assert_close(found.net.state_dict()[name], tensor, atol=2.5e-5, rtol=0)
    monkeypatch.setattr("workbench.models.checkpoint.digest", lambda state: "another")
    with pytest.raises(ValueError, match="a difference to other weights than those of the prior photo at hand"):
        load_prior(str(file))


def test_what_does_not_fit_is_named() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    state = {"a": torch.ones(4, 3), "b": torch.full((4,), 2.0), "c": torch.ones(2)}
    stored = encode(state, base)
    for name, tensor in decode(stored, base, state).items():
        torch.testing.assert_close(tensor, state[name])
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\) in the base, \(4, 2\) in the network"):
        encode({**state, "a": torch.ones(4, 2)}, base)
    with pytest.raises(ValueError, match=r"c: expected its difference of shape \(2,\), and one scale per channel"):
        decode({name: tensor for name, tensor in stored.items() if name != "c"}, base, state)
