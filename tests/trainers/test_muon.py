"""Muon for kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.small_run import small_run
from workbench.trainers.muon import Muon, optimisers


def test_on_matrices_it_is_the_muon_of_torch() -> None:
    torch.manual_seed(0)
    shapes = [(6, 10), (6, 10), (12, 5)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    one = Muon(ours, lr=0.01)
    other = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        # bfloat16 products, in another order when several are taken together: 8 bits of an update of 0.2 sqrt(12) lr
        torch.testing.assert_close(p, q, atol=3 * 0.01 * 0.7 / 128, rtol=0)


def test_a_kernel_is_the_matrix_of_its_output_channels() -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(4, 3, 2, 2))
    matrix = torch.nn.Parameter(kernel.detach().reshape(4, 12).clone())
    kernel.grad = torch.randn(4, 3, 2, 2)
    matrix.grad = kernel.grad.reshape(4, 12)
    Muon([kernel]).step()
    Muon([matrix]).step()
    assert torch.equal(kernel.detach().reshape(4, 12), matrix)


def test_every_parameter_has_one_optimiser() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 4))
    for name, count in (("muon", 2), ("adam", 1)):
        found = optimisers(net, name, 1e-3, (0.9, 0.99))
        owned = [p for optimiser in found for group in optimiser.param_groups for p in group["params"]]
        assert len(found) == count
        assert {id(p) for p in owned} == {id(p) for p in net.parameters()}
        assert len(owned) == 4
    with pytest.raises(ValueError, match="matrices and kernels"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_a_run_with_muon_resumes_to_the_same_weights(tmp_path: Path) -> None:
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(0, 255, (16, 16, 16, 3), dtype=np.uint8))
    for _ in range(3):  # slices of one step
        sliced, progress = small_run(
            tmp_path / "sliced", tmp_path / "photos.npy", steps=3, stop_after=0.0, optimiser="muon"
        )
    whole, _ = small_run(tmp_path / "whole", tmp_path / "photos.npy", steps=3, optimiser="muon")
    adam, _ = small_run(tmp_path / "adam", tmp_path / "photos.npy", steps=3)
    assert progress.step == 3
    assert all(map(torch.equal, sliced.parameters(), whole.parameters()))
    assert not all(map(torch.equal, sliced.parameters(), adam.parameters()))
