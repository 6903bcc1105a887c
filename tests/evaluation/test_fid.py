"""FID: the whole path on random weights in the published file's format, and what is said where there are none."""

import pytest
import torch

from workbench.evaluation import fid as module
from workbench.evaluation.fid import distance, fid, fid_record, fid_unavailable, frechet_effnet, moments
from workbench.evaluation.perceptual import loaded
from workbench.images import sample_photos
from workbench.models.files import sha256


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def stand_in(folder, monkeypatch):
    """Random weights under the name of the published file, as far as a name can tell their hash."""
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kind = extractor.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    with monkeypatch.context() as patch:  # its constructor insists on loading weights
        patch.setattr(extractor, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(kind, "load_state_dict", lambda *_: None)
        network = kind("inception-v3-compat", ["2048"])
    for parameter in network.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    torch.save(network.state_dict(), folder / "weights.pth")
    name = f"weights-{sha256(folder / 'weights.pth')[:8]}.pth"
    (folder / "weights.pth").rename(folder / name)
    monkeypatch.setattr(module, "FID_WEIGHTS", name)
    return network


def test_what_is_missing_is_named(folder, monkeypatch):
    pytest.importorskip("torch_fidelity")
    assert fid_unavailable() == f"unavailable: place weights-inception-2015-12-05-6726825d.pth in {folder}"
    with pytest.raises(ValueError, match=r"place weights-inception-2015-12-05-6726825d\.pth"):
        fid(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    (folder / module.FID_WEIGHTS).write_bytes(b"something else")
    assert "is not the published file, its SHA-256 begins with" in str(fid_unavailable())
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'restoration-workbench[fid]'" in str(fid_unavailable())


def test_the_distance_is_that_of_the_features(stand_in):
    reference = sample_photos(32)[:2]
    samples = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert fid_unavailable() is None
    expected = _frechet(_features(stand_in, samples), _features(stand_in, reference))
    assert fid(samples, reference) == pytest.approx(expected, rel=1e-3)


def test_moments_of_parts_add_up_to_those_of_the_set(monkeypatch):
    monkeypatch.setattr(module, "_pooled", lambda levels: torch.nn.functional.avg_pool2d(levels.float(), 8).flatten(1))
    draw = torch.Generator().manual_seed(0)
    samples, reference = (torch.rand(count, 3, 16, 16, generator=draw) for count in (130, 70))
    parts = sum(moments(part, "frechet_effnet") for part in samples.split([1, 60, 69]))
    whole, other = moments(samples, "frechet_effnet"), moments(reference, "frechet_effnet")
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    assert whole.shape == (13, 13)
    assert distance(parts, other) == pytest.approx(distance(whole, other), rel=1e-9)
    rows = [module._pooled((images * 255).round()).double() for images in (samples, reference)]
    assert distance(parts, other) == pytest.approx(_frechet(*rows), rel=1e-9)


def test_lite0_stands_in_under_its_own_name(folder):
    pytest.importorskip("efficientnet_lite_pytorch")
    reference = sample_photos(32)[:3]
    samples = (reference + 0.1 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    with torch.no_grad():
        levels = [(images * 255).round() / 255 for images in (samples, reference)]
        one, other = (loaded("effnet", "cpu").pooled(images).double() for images in levels)
    expected = _frechet(one, other)
    assert frechet_effnet(samples, reference) == pytest.approx(expected, rel=1e-3)
    assert abs(frechet_effnet(reference, reference)) < 1e-4 * expected
    record = fid_record(samples, reference)
    assert record["fid"] is None
    assert record["fid_reason"] == fid_unavailable()
    assert record["frechet_effnet"] == pytest.approx(expected, rel=1e-3)
    few = fid_record(samples[:1], reference)
    assert few["frechet_effnet"] is None
    assert "at least 2 images" in str(few["frechet_effnet_reason"])


def _features(network, images: torch.Tensor) -> torch.Tensor:
    levels = (images * 255).round().to(torch.uint8)
    with torch.no_grad():
        return network(levels)[0].double()


def _frechet(one: torch.Tensor, other: torch.Tensor) -> float:
    """By singular values: tr((C_1 C_2)^(1/2)) is the nuclear norm of X_1 X_2^T for centred rows X / sqrt(n - 1)."""
    mean = (one.mean(0) - other.mean(0)).square().sum()
    x, y = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (one, other))
    return float(mean + x.square().sum() + y.square().sum() - 2 * torch.linalg.matrix_norm(x @ y.T, "nuc"))
