"""Muon for kernels."""

import pytest
import torch

from workbench.trainers import TrainSettings
from workbench.trainers.muon import Muon, optimisers


def test_on_matrices_it_is_the_muon_of_torch() -> None:
    """A kernel is the matrix of its output channels."""
    torch.manual_seed(0)
    shapes = [(6, 10), (6, 5, 1, 2), (12, 5)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().flatten(1).clone()) for p in ours]
    one = Muon(ours, lr=0.01)
    other = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.flatten(1).clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.flatten(1), q, atol=0, rtol=0)


def test_every_parameter_has_one_optimiser() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 4))
    for name, count in (("muon", 2), ("adam", 1)):
        found = optimisers(net, TrainSettings(steps=1, optimiser=name))
        owned = [p for optimiser in found for group in optimiser.param_groups for p in group["params"]]
        assert len(found) == count
        assert {id(p) for p in owned} == {id(p) for p in net.parameters()}
        assert len(owned) == 4
    with pytest.raises(ValueError, match="2D"):
        Muon([torch.nn.Parameter(torch.zeros(3))])
