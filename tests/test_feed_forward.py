"""Published feed-forward networks: what spandrel is given, what comes out, what is refused."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.images import load_image, sample_photo, save_image
from workbench.models import TiledPrior, load_prior
from workbench.operators import parse_operator
from workbench.random import generator
from workbench.restore import degrade, restore, usual_prior
from workbench.solvers import FeedForward

architectures = pytest.importorskip("spandrel.architectures")


@cache
def network(name: str) -> torch.nn.Module:
    """A small network with random weights, of an architecture that spandrel knows; x4 and x2 enlarge."""
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(0)
    return {
        "x4": lambda: ESRGAN(num_filters=8, num_blocks=1, scale=4),
        "x2": lambda: ESRGAN(in_nc=12, num_filters=8, num_blocks=1, scale=4, shuffle_factor=2),  # as Real-ESRGAN x2plus
        "x1": lambda: NAFNet(width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]),
        "grey": lambda: DnCNN(in_nc=1, out_nc=1, nc=4, nb=8, act_mode="R"),
        "fdncnn": lambda: DnCNN(in_nc=4, out_nc=3, nc=4, nb=8, act_mode="R", mode="FDnCNN"),
    }[name]()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a network's weights as its authors would."""

    def write(name: str, suffix: str = ".pth", wrap: Callable[[Any], Any] = lambda state: state) -> Path:
        path, state = tmp_path / f"{name}{suffix}", network(name).state_dict()
        if suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(wrap(state), path)
        return path

    return write


def photo(height: int = 40, width: int = 56) -> Tensor:
    return sample_photo("cat", 64)[..., :height, :width]


def direct(path: Path, y: Tensor) -> Tensor:
    """What spandrel itself makes of the pictures ``y``, one at a time."""
    import spandrel

    model = spandrel.ModelLoader().load_from_file(path)
    return torch.cat([model(image).clone() for image in y.split(1)])


@pytest.mark.parametrize(
    ("name", "suffix", "wrap"),
    [
        ("x4", ".safetensors", lambda state: state),
        ("x2", ".pth", lambda state: state),
        # What training put around the weights is taken off.
        ("x1", ".pth", lambda state: {"params": {n: t + 1 for n, t in state.items()}, "params_ema": state}),
    ],
)
def test_it_is_spandrels_network(file, name: str, suffix: str, wrap) -> None:
    """The x2 network takes multiples of 4, which 19x29 is not: spandrel mirrors, and cuts."""
    prior = load_prior(f"spandrel:{file(name, suffix, wrap)}")
    degraded = degrade(photo(38, 57).repeat(2, 1, 1, 1), {"x1": "jpeg:10"}.get(name, f"sr:{name[1]}"))
    result = restore(degraded, FeedForward(), prior)
    assert torch.equal(result.image, direct(file(name), degraded.y)[..., :38, :57])
    assert result.image.shape == (2, 3, 38, 57)  # ragged photos are cut at the lower and right border
    assert result.restoration.evaluations.tolist() == result.restoration.iterations.tolist() == [1, 1]
    assert (prior.kind, prior.name, prior.source["file"]) == ("network", name, f"{name}{suffix}")
    assert f"{name} (spandrel)" in prior.summary()
    assert "noise" not in prior.summary()


def test_tiles_that_overlap_far_enough_give_the_whole(file) -> None:
    """The x4 network looks 73 pixels far: 17 convolutions of the small picture, 1 at twice and 3 at four times its
    size. A quarter of the overlap is 75."""
    prior = load_prior(f"spandrel:{file('x4')}")
    assert TiledPrior(prior).tile == 512  # 128 of what the network sees
    y, op = torch.rand(1, 3, 20, 100, generator=generator(0)), parse_operator("sr:4", (3, 80, 400))
    tiled = TiledPrior(prior, tile=320, overlap=300)
    assert len(tiled.handovers(400)) == 4
    expected, found = (FeedForward()(y, op, each).image for each in (prior, tiled))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("x4", "sr:2", r"x4 takes pictures 4 times smaller, as of sr:4: expected measurements \(1, 3, 10, 14\)"),
        ("x1", "sr:4", r"x1 takes pictures of the restored size.*got \(1, 3, 10, 14\)"),
        ("x1", "inpaint:0.5", "and none with missing pixels"),
        ("photo", "sr:4", "network needs a feed-forward network, such as spandrel:FILE; photo is a"),
    ],
)
def test_what_does_not_fit_is_refused(file, name: str, spec: str, message: str) -> None:
    prior = load_prior("photo" if name == "photo" else f"spandrel:{file(name)}")
    prior.denoise = lambda x, sigma: pytest.fail("it was asked")
    with pytest.raises(ValueError, match=message) as raised:
        restore(degrade(photo(), spec), FeedForward(), prior)
    assert "\n" not in str(raised.value)


def refused(path: Path, message: str, content: Any = None) -> None:
    if content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as raised:
        load_prior(f"spandrel:{path}")
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"a.weight": torch.zeros(3)}, "no network that spandrel knows: 1 tensors such as a.weight"),
        (lambda state: {n: t for n, t in state.items() if n != "intro.bias"}, "cannot build this network.*intro.bias"),
        (lambda state: state | {"middle_blks.999999999.beta": torch.zeros(1)}, "count further than 62 tensors can"),
        (lambda state: network("fdncnn").state_dict(), "needs to be told a noise level"),
    ],
)
def test_damaged_weights_and_other_contents_are_refused(tmp_path: Path, change, message: str) -> None:
    refused(tmp_path / "some.pth", message, change(network("x1").state_dict()))


def test_inpainting_networks_settings_and_other_solvers_are_refused(file, tmp_path: Path, monkeypatch) -> None:
    import spandrel

    path = file("x1")
    prior = load_prior(f"spandrel:{path}")
    for call, message in (
        (lambda: load_prior(f"spandrel:{path}", step="nearest"), "unknown setting 'step'"),
        (lambda: prior.score(photo(), 0.1), "needs a denoiser, E.*x1 is a feed-forward network"),
        (lambda: load_prior(path), "spandrel:FILE, for feed-forward restorers"),
        (lambda: usual_prior("network"), "network needs a feed-forward network, such as spandrel:FILE, and none is"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    # By their descriptor: the one such network is large.
    net = torch.nn.Conv2d(4, 3, 1)
    facts = {"supports_half": False, "supports_bfloat16": False, "input_channels": 4, "output_channels": 3}
    architecture = spandrel.MAIN_REGISTRY["LaMa"].architecture
    masked = spandrel.MaskedImageModelDescriptor(net, net.state_dict(), architecture, "Inpainting", [], **facts)
    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", lambda loader, state: masked)
    refused(tmp_path / "lama.pth", "LaMa needs a mask beside the picture, which is not supported", net.state_dict())


def test_the_command_line_and_a_second_step(file, run) -> None:
    """What the network gives is where DiffPIR goes on."""
    save_image(photo(), "cat.png")
    path = file("x4")
    direct_run = ("--solver", "network", "--prior", f"spandrel:{path}", "--device", "cpu,cpu")
    code, _, errors = run("restore", "cat.png", *direct_run, "--out", "first")
    assert code == 0, errors
    y = degrade(load_image("cat.png"), "sr:4").y
    assert (load_image("first/restored.png") - direct(path, y)).abs().max() < 0.51 / 255
    start = ("--initial", "first/restored.png", "--set", "sigma_start=0.1")
    code, _, errors = run("restore", "cat.png", "--solver", "diffpir", "--set", "steps=2", *start, "--out", "second")
    assert code == 0, errors
    assert not torch.equal(load_image("second/restored.png"), load_image("first/restored.png"))
