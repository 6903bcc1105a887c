"""The figures on a shipped prior's card are those that the shipped weights give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from workbench.models import available_priors, load_prior


@pytest.mark.parametrize("name", available_priors())
def test_the_denoising_figures_can_be_measured_again(shared: Path, name: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "denoising.py"
    spec = importlib.util.spec_from_file_location("denoising", script)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    prior = load_prior(name)
    card = prior.card["denoising_psnr"]
    photos = benchmark.photos(shared / "data", card["crops"])["bsds500"]
    denoise, level = benchmark.network(prior), 25
    rng = np.random.default_rng(level)
    values = [benchmark.psnr(denoise(p + rng.normal(0, level / 255, p.shape), level / 255), p) for p in photos]
    stated = card["psnr"]["bsds500"]["this prior"][card["sigma_255"].index(level)]
    assert len(photos) == card["crops"]
    # Printed to 0.01 dB; another processor rounds differently.
    assert float(np.mean(values)) == pytest.approx(stated, abs=0.02)
