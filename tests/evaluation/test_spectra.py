"""Plain figures of samples: flat spectra of white noise, zero distance to oneself, the right sign of blur."""

import pytest
import torch

from workbench.evaluation.spectra import differences, power_spectrum


def _noise(count: int, seed: int = 0) -> torch.Tensor:
    return 0.5 + 0.1 * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_white_noise_has_its_variance_at_every_frequency():
    spectrum = power_spectrum(_noise(200))
    assert spectrum.shape == (16,)
    # The window lets the lowest ring see the removed mean.
    torch.testing.assert_close(spectrum[1:], torch.full((15,), 0.01, dtype=torch.float64), rtol=0.05, atol=0)


def test_a_wave_shows_at_its_frequency():
    wave = torch.sin(2 * torch.pi * 6 * torch.arange(32) / 32).expand(1, 1, 32, 32)
    spectrum = power_spectrum(wave)
    assert int(spectrum.argmax()) + 1 == 6
    assert float(spectrum[9:].sum()) < 1e-3 * float(spectrum.sum())


def test_differences_are_what_they_say():
    photos = _noise(50)
    same = differences(photos, photos)
    assert same == {"brightness": 0.0, "contrast": 1.0, "spectrum_db": 0.0}
    brighter = differences(0.5 + 2 * (photos - 0.5) + 0.1, photos)
    assert brighter["brightness"] == pytest.approx(0.1, abs=0.002)
    assert brighter["contrast"] == pytest.approx(2, rel=1e-4)
    assert brighter["spectrum_db"] == pytest.approx(20 * torch.tensor(2.0).log10().item(), rel=1e-4)
    with pytest.raises(ValueError, match="images of one size"):
        differences(photos, photos[..., :16])
