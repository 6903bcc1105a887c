"""Published feed-forward networks: what spandrel is given, what comes out, what is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.cli import main
from workbench.images import load_image, sample_photo, save_image
from workbench.models import TiledPrior, load_prior
from workbench.operators import parse_operator
from workbench.random import generator
from workbench.restore import degrade, restore, samples, steps_of, usual_prior
from workbench.solvers import FeedForward

architectures = pytest.importorskip("spandrel.architectures")


def network(name: str) -> torch.nn.Module:
    """A small network with random weights, of an architecture that spandrel knows; x4 and x2 enlarge."""
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.DRUNet import DRUNet
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(0)
    return {
        "x4": lambda: ESRGAN(num_filters=8, num_blocks=1, scale=4),
        "x2": lambda: ESRGAN(in_nc=12, num_filters=8, num_blocks=1, scale=4, shuffle_factor=2),  # as Real-ESRGAN x2plus
        "x1": lambda: NAFNet(width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]),
        "grey": lambda: DnCNN(in_nc=1, out_nc=1, nc=4, nb=8, act_mode="R"),
        "fdncnn": lambda: DnCNN(in_nc=4, out_nc=3, nc=4, nb=8, act_mode="R", mode="FDnCNN"),
        "drunet": lambda: DRUNet(in_nc=4, out_nc=3, nc=[4, 4, 4, 4], nb=2),
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


@pytest.mark.parametrize(("name", "suffix"), [("x4", ".pth"), ("x1", ".pth"), ("x4", ".safetensors"), ("x2", ".pth")])
def test_it_is_spandrels_network(file, name: str, suffix: str) -> None:
    """The x2 network takes multiples of 4, which 20x30 is not: spandrel mirrors, and cuts."""
    path = file(name, suffix)
    prior = load_prior(f"spandrel:{path}")
    degraded = degrade(photo(40, 60).repeat(2, 1, 1, 1), {"x1": "jpeg:10"}.get(name, f"sr:{name[1]}"))
    result = restore(degraded, FeedForward(), prior)
    assert torch.equal(result.image, direct(path, degraded.y))
    assert result.image.shape == (2, 3, 40, 60)
    assert result.restoration.evaluations.tolist() == result.restoration.iterations.tolist() == [1, 1]
    assert (prior.kind, prior.name, prior.source["file"]) == ("network", name, path.name)
    assert f"{name} (spandrel)" in prior.summary()
    assert "noise" not in prior.summary()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"params": {n: t + 1 for n, t in state.items()}, "params_ema": state},
        lambda state: {"state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 3},
    ],
)
def test_what_training_put_around_the_weights_is_taken_off(file, wrap) -> None:
    path = file("x1", wrap=wrap)
    assert torch.equal(load_prior(f"spandrel:{path}")(photo(), 0), direct(file("x1"), photo()))


def test_samples_are_equal_and_noise_is_not_told(file) -> None:
    degraded = samples(degrade(photo(), "denoise", noise=0.1), 3)
    first, *others = restore(degraded, FeedForward(), load_prior(f"spandrel:{file('x1')}")).image
    assert all(torch.equal(first, other) for other in others)
    counts = degrade(photo(), "denoise", noise="poisson:30")  # not weighed either: the network sees the picture
    found = restore(counts, FeedForward(), load_prior(f"spandrel:{file('x1')}")).image
    torch.testing.assert_close(found, direct(file("x1"), counts.y), atol=1e-5, rtol=0)


def test_float64_and_half_the_precision(file) -> None:
    prior = load_prior(f"spandrel:{file('x1')}", dtype=torch.bfloat16)
    image = prior(photo().double(), 0)
    assert image.dtype == torch.float64
    torch.testing.assert_close(image.float(), direct(file("x1"), photo()), atol=0.02, rtol=0)


def test_ragged_photos_are_cut_at_the_lower_and_right_border(file) -> None:
    path = file("x4")
    degraded = degrade(photo(38, 57), "sr:4")
    assert degraded.y.shape[-2:] == (10, 15)
    image = restore(degraded, FeedForward(), load_prior(f"spandrel:{path}")).image
    assert torch.equal(image, direct(path, degraded.y)[..., :38, :57])


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
        ("x4", "blur:1", "4 times smaller"),
        ("x4", "denoise", "4 times smaller"),
        ("x1", "sr:4", r"x1 takes pictures of the restored size.*got \(1, 3, 10, 14\)"),
        ("x1", "gray", r"expected measurements \(1, 3, 40, 56\), got \(1, 1, 40, 56\)"),
        ("x1", "oldphoto", "got .1, 1, 40, 56"),
        ("x1", "inpaint:0.5", "and none with missing pixels"),
        ("grey", "denoise", "grey takes grey images"),
    ],
)
def test_operators_that_do_not_fit_are_refused(file, name: str, spec: str, message: str) -> None:
    prior = load_prior(f"spandrel:{file(name)}")
    prior.denoise = lambda x, sigma: pytest.fail("it was asked")
    with pytest.raises(ValueError, match=message) as raised:
        restore(degrade(photo(), spec), FeedForward(), prior)
    assert "\n" not in str(raised.value)


def test_other_operators_without_pictures_are_refused(file) -> None:
    with pytest.raises(ValueError, match=r"got \(1, 3, 512\)"):
        restore(degrade(photo(32, 32), "hadamard:0.5"), FeedForward(), load_prior(f"spandrel:{file('x1')}"))


def test_a_prior_has_to_be_given(file) -> None:
    with pytest.raises(ValueError, match="network needs a feed-forward network, such as spandrel:FILE, and none is"):
        usual_prior("network")
    with pytest.raises(ValueError, match="network needs a feed-forward network, such as spandrel:FILE; photo is a"):
        restore(degrade(photo(), "sr:4"), FeedForward(), load_prior("photo"))


class Attack:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


@pytest.mark.parametrize("plain", [True, False])
def test_pickles_are_read_as_tensors_alone(tmp_path: Path, plain: bool) -> None:
    attack = network("x1").state_dict() | {"more": Attack(tmp_path / "touched")}
    if plain:
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(attack))
    else:
        torch.save(attack, tmp_path / "evil.pth")
    refused(tmp_path / "evil.pth", "evil.pth is refused: .* could run any code")
    assert not (tmp_path / "touched").exists()


def test_programs_are_refused(tmp_path: Path) -> None:
    """spandrel's own reader would take a .pt file for TorchScript first."""
    torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)).save(tmp_path / "program.pt")
    refused(tmp_path / "program.pt", "TorchScript program")


def refused(path: Path, message: str, content: Any = None) -> None:
    if content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as raised:
        load_prior(f"spandrel:{path}")
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {}, {"step": 3}, {1: torch.zeros(3)}, {"a": {}}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    refused(tmp_path / "some.pth", "expected named tensors, found", content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"a.weight": torch.zeros(3)}, "no network that spandrel knows: 1 tensors such as a.weight"),
        (lambda state: {n: t for n, t in state.items() if n != "intro.bias"}, "cannot build this network.*intro.bias"),
        (lambda state: state | {"middle_blks.999999999.beta": torch.zeros(1)}, "count further than 62 tensors can"),
        (lambda state: state | {"intro.bias": torch.full((4,), torch.nan)}, "intro.bias holds values that are not fin"),
        (lambda state: state | {"intro.bias": torch.zeros(1).expand(4)}, "intro.bias: shape .4,. is more than"),
    ],
)
def test_damaged_weights_are_refused(file, change, message: str) -> None:
    state = network("x1").state_dict()
    refused(file("x1"), message, change(state))


@pytest.mark.parametrize("name", ["drunet", "fdncnn"])
def test_networks_that_ask_for_a_noise_level_are_refused(file, name: str) -> None:
    refused(file(name), "needs to be told a noise level")


def test_inpainting_networks_are_refused(tmp_path: Path, monkeypatch) -> None:
    """By their descriptor: the one such network is large."""
    import spandrel

    net = torch.nn.Conv2d(4, 3, 1)
    facts = {"supports_half": False, "supports_bfloat16": False, "input_channels": 4, "output_channels": 3}
    architecture = spandrel.MAIN_REGISTRY["LaMa"].architecture
    masked = spandrel.MaskedImageModelDescriptor(net, net.state_dict(), architecture, "Inpainting", [], **facts)
    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", lambda loader, state: masked)
    refused(tmp_path / "lama.pth", "LaMa needs a mask beside the picture, which is not supported", net.state_dict())


def test_comparisons_give_it_no_steps() -> None:
    """The notebook that compares priors gives the same ``steps`` to all solvers that have them."""
    assert [steps_of(name, 7) for name in ("network", "red", "ddnm")] == [{}, {"max_steps": 7}, {"steps": 7}]


def test_settings_and_other_solvers_are_refused(file) -> None:
    path = file("x1")
    with pytest.raises(ValueError, match="unknown setting 'step'"):
        load_prior(f"spandrel:{path}", step="nearest")
    prior = load_prior(f"spandrel:{path}")
    with pytest.raises(ValueError, match=r"needs a denoiser, E.*x1 is a feed-forward network"):
        prior.score(photo(), 0.1)
    with pytest.raises(ValueError, match="no such file"):
        load_prior(f"spandrel:{path}x")
    with pytest.raises(ValueError, match="spandrel:FILE, for feed-forward restorers"):
        load_prior(path)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """``workbench restore`` of a photo: exit code, and what it said to standard error."""
    monkeypatch.chdir(tmp_path)
    save_image(photo(), tmp_path / "cat.png")

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["restore", "cat.png", *map(str, arguments)])
        return int(stop.value.code or 0), capsys.readouterr().err

    return call


def test_the_command_line_and_a_second_step(file, run) -> None:
    """What the network gives is where DiffPIR goes on."""
    path = file("x4")
    code, said = run("--solver", "network", "--prior", f"spandrel:{path}", "--out", "first", "--device", "cpu,cpu")
    assert code == 0, said
    y = degrade(load_image("cat.png"), "sr:4").y
    assert (load_image("first/restored.png") - direct(path, y)).abs().max() < 0.51 / 255
    start = ("--initial", "first/restored.png", "--set", "sigma_start=0.1")
    code, said = run("--solver", "diffpir", "--set", "steps=2", *start, "--out", "second")
    assert code == 0, said
    assert not torch.equal(load_image("second/restored.png"), load_image("first/restored.png"))
    code, said = run("--solver", "network")
    assert (code, said.count("\n")) == (2, 1)
    assert "such as spandrel:FILE, and none is shipped" in said


def test_the_demo_offers_it_with_a_prior_for_it(file, tmp_path: Path) -> None:
    from workbench.demo.page import fitting
    from workbench.demo.problem import Limits
    from workbench.demo.server import make_page

    page, _ = make_page(tmp_path, {"x4": f"spandrel:{file('x4')}"}, Limits())
    components = {block.elem_id: block for block in page.blocks.values() if block.elem_id}
    assert ("network", "network") in components["solver1"].choices
    usual = {"denoiser": "photo", "network": "x4"}
    assert fitting(usual, "network", "photo") == "x4"
    assert fitting(usual, "ddrm", "x4") == "photo"
    assert fitting({"denoiser": "photo"}, "network", "photo") == "photo"
