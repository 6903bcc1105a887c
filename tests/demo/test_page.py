"""The page offers what the registries hold, and its presets run."""

import base64
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from tests.colour_profiles import ADOBE_RGB, rgb_profile
from workbench.demo.controls import TITLES, parameter_updates, spec_of
from workbench.demo.degradation import side_for
from workbench.demo.files import Visits
from workbench.demo.presets import PRESETS, Preset
from workbench.demo.problem import Limits, Problem, Row, methods_of
from workbench.demo.session import Sessions
from workbench.demo.view import board_html
from workbench.images import load_image, sample_photo, save_image
from workbench.models import available_priors
from workbench.operators.parse import OPERATORS, describe_operators, parse_operator
from workbench.recipe import load_recipe, measure
from workbench.restore import steps_of
from workbench.solvers import SOLVERS


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(Limits(), {name: name for name in available_priors()}, Visits(tmp_path, keep=60))


def problem(photo: Path, **changes: object) -> Problem:
    return Problem(str(photo), **({"side": 32} | changes))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    save_image(sample_photo("cat", 64), tmp_path / "cat.png")
    return tmp_path / "cat.png"


def test_every_registered_thing_can_be_chosen_and_is_in_the_reference(sessions):
    from workbench.demo.page import build_page

    blocks = build_page(sessions).blocks.values()
    components = {block.elem_id: block for block in blocks if block.elem_id}
    solvers, priors = {*SOLVERS} - {"network"}, set(available_priors())  # no feed-forward network is shipped
    assert {value for _, value in components["solver1"].choices} == {*solvers, "none"}
    assert {value for _, value in components["prior4"].choices} == priors
    assert {TITLES[title] for _, title in components["kind"].choices} == {*OPERATORS} - {"none"}
    listed = {
        name for block in blocks for name in re.findall(r"^\| `([^`:\[]+)", str(getattr(block, "value", "")), re.M)
    }
    assert listed >= solvers | priors | {re.split(r"[:\[]", syntax)[0] for syntax, _ in describe_operators()}


def test_the_controls_of_a_degradation_write_what_the_command_line_reads():
    for title in {*TITLES} - {"Painted mask"}:
        first, second, word = parameter_updates(TITLES[title])
        spec = spec_of(title, first["value"], second["value"], word["value"])
        parse_operator(spec, (3, 64, 64), torch.Generator().manual_seed(0))
        again = parameter_updates(spec)
        assert [part["value"] for part in again] == [first["value"], second["value"], word["value"]]
    assert spec_of("Blur", None, 2, "") == "blur::2"  # a slider's box that was emptied


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_presets_run_and_every_method_ends_well(preset: Preset, sessions: Sessions, photo: Path):
    rows = [Row(row.solver, row.prior, _few_steps(row.solver)) for row in preset.methods]
    side = 64 if preset.degradation == "block:48" else 32
    wanted = problem(photo, side=side, degradation=preset.degradation, noise=preset.noise)
    *_, (board, files) = sessions.restore(wanted, rows, preset.samples, "session")
    assert [panel.error for panel in board.panels] == [""] * len(rows)
    assert all(len(panel.images) == preset.samples for panel in board.panels)
    assert files is not None
    assert set(files.pictures) >= {"Degraded", "Original"}
    # As written in the preset, the settings are known too.
    assert len(methods_of(preset.methods, sessions.prior_titles(), Limits())) == len(rows)


def with_mask(folder: Path, width: int, height: int) -> Problem:
    """A photo of 64x48 pixels, 24x24 of which are restored, and a mask over the upper half."""
    save_image(sample_photo("cat", 64)[..., :48, :], folder / "wide.png")
    painted = torch.zeros(1, 1, height, width)
    painted[..., : height // 2, :] = 1
    save_image(painted, folder / "painted.png")
    mask = str(folder / "painted.png")
    return problem(folder / "wide.png", side=24, noise=0.0, degradation="mask", mask=mask)


def test_an_uploaded_mask_has_the_size_of_the_photo_or_of_the_result(sessions, tmp_path):
    for size in ((24, 24), (64, 48)):
        lost = load_image(sessions.degraded_files(with_mask(tmp_path, *size), "session")[1])
        assert not lost[..., :12, :].any()
        assert lost[..., 13:, :].all()
    with pytest.raises(ValueError, match="the mask has 30x30 pixels, the photo 64x48, what is restored of it 24x24"):
        sessions.preview(with_mask(tmp_path, 30, 30), "session")


def test_what_a_photo_says_of_its_place_stays_in_its_file_and_what_it_says_of_its_colours_is_text(sessions, photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    with Image.open(photo) as file:
        file.save(photo, exif=exif, icc_profile=rgb_profile("<img src=x>", ADOBE_RGB, 2.2))
    wanted = problem(photo, degradation="mask", mask=str(with_mask(photo.parent, 32, 32).mask))
    assert "converted from &lt;img src=x&gt;" in sessions.preview(wanted, "session")
    *_, (_, files) = sessions.restore(wanted, [Row("pinv", "photo")], 1, "session")
    written = [*sessions.degraded_files(wanted, "session"), *files.archive.parent.glob("*.png")]
    assert len(written) > 5
    for path in written:
        with Image.open(path) as file:
            assert not file.getexif()
            assert not file.info


MOTION = np.zeros((3, 5))
MOTION[1], MOTION[2, 4] = 2.0, 4.0


def drawn(board: str, name: str) -> list[np.ndarray]:
    """The pictures of this name on the board, (h, w) or (h, w, 3)."""
    sources = re.findall(rf'src="data:image/png;base64,([^"]+)" alt="{re.escape(name)}"', board)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def test_an_uploaded_kernel_counts_is_shown_and_is_taken_home(sessions, photo):
    np.save(photo.parent / "mine.npy", MOTION)
    wanted = problem(photo, degradation="blur:2", fit="crop", noise=0.0, kernel=str(photo.parent / "mine.npy"))
    shown = sessions.preview(wanted, "session")
    (kernel,) = drawn(shown, "Kernel")
    assert np.array_equal(kernel, np.kron(255 * MOTION / 4, np.ones((19, 19))).round())  # 96 // 5 times
    assert "<b>Kernel</b> 5×3<br>kernel.npy: the kernel summed to 14 and was divided by it" in shown
    *_, (board, files) = sessions.restore(wanted, [Row("pinv", "photo")], 1, "session")
    assert drawn(board_html(board), "Kernel")[0].shape == (57, 95)
    with zipfile.ZipFile(files.archive) as archive:
        archive.extractall(photo.parent / "home")
    assert np.array_equal(np.load(photo.parent / "home" / "kernel.npy"), MOTION)
    again = load_recipe(photo.parent / "home" / "run.json")
    measured = measure(again, load_image(again.photo))
    assert torch.equal(measured.op.kernel[0, 0], torch.from_numpy(MOTION / 14))
    assert torch.equal(measured.y, board.degraded.y)


def test_a_kernel_is_shown_only_where_it_counts_and_said_without_the_server_s_folders(sessions, photo):
    file = photo.parent / "mine.npy"
    np.save(file, np.ones((33, 5)))
    for changes in ({"degradation": "blur:2"}, {"degradation": "gray", "kernel": str(file)}):
        assert 'alt="Kernel"' not in sessions.preview(problem(photo, **changes), "session")
    with pytest.raises(ValueError, match="choose Painted mask or Old photo, and paint over them"):
        sessions.preview(problem(photo, came=True, degradation="inpaint:0.5"), "session")  # visitors name no files
    with pytest.raises(ValueError, match=r"^'blur:kernel\.npy' .*the kernel has 33x5 pixels, the image 32x32"):
        sessions.preview(problem(photo, degradation="blur:2", kernel=str(file)), "session")


def test_the_noise_of_the_framed_photo_is_estimated_and_stands_until_photo_frame_or_noise_change(sessions, tmp_path):
    noise = 0.06 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    save_image((0.5 + noise).clamp(0, 1), tmp_path / "a.png")
    wanted = problem(tmp_path / "a.png", fit="resize")
    assert sessions.estimate(wanted, "session")[0] < 0.03  # averaged away
    wanted = problem(tmp_path / "a.png", fit="whole", degradation="sr:4")
    level, line = sessions.estimate(wanted, "session")
    assert level == pytest.approx(0.06, rel=0.05)
    assert line == f"Noise estimated: {level:.3f}"
    found = replace(wanted, noise=level)
    assert sessions.estimated(found, "session") == line
    assert sessions.estimated(replace(found, degradation="blur:2", seed=3), "session") == line
    for other in (wanted, replace(found, side=40), replace(found, photo=str(tmp_path / "b.png"))):
        assert sessions.estimated(other, "session") == ""
    assert sessions.estimated(found, "another") == ""
    sessions.leave("session")
    assert sessions.estimated(found, "session") == ""
    with pytest.raises(ValueError, match="choose a photo"):
        sessions.estimate(Problem(None), "session")


def test_what_is_painted_over_is_no_noise(sessions, tmp_path):
    draw = torch.Generator().manual_seed(0)
    photo, lost = 0.5 + 0.06 * torch.randn(1, 3, 64, 64, generator=draw), torch.rand(64, 64, generator=draw) < 0.1
    save_image(torch.where(lost, 0.0, photo).clamp(0, 1), tmp_path / "a.png")
    save_image(lost.float().expand(1, 3, -1, -1), tmp_path / "mask.png")
    came = problem(tmp_path / "a.png", fit="whole", came=True, degradation="mask")
    assert sessions.estimate(came, "session")[0] > 0.1  # nothing is painted yet: scratches are noise
    level, _ = sessions.estimate(replace(came, mask=str(tmp_path / "mask.png")), "session")
    assert level == pytest.approx(0.06, rel=0.1)


def test_compressed_sensing_is_offered_at_a_size_that_it_takes(sessions, photo):
    sides = {16: 16, 64: 64, 96: 128, 200: 256, 512: 512, 2000: 512, None: None, 0: 8, -5: 8, 0.5: 8}
    assert [side_for("hadamard", side) for side in sides] == [*sides.values()]
    assert side_for("blur", 96) == 96
    assert "Degraded" in sessions.preview(problem(photo, side=side_for("hadamard", 96), degradation="hadamard:0.5"), "")


def test_comparisons_of_settings_are_told_apart_and_name_no_folder_of_the_server(sessions, photo):
    rows = [Row("diffpir", "photo-control", f"steps={steps}") for steps in (2, 3)]
    *_, (board, files) = sessions.restore(problem(photo), rows, 1, "session")
    names = [f"diffpir, photo-control (DSM), steps={steps}" for steps in (2, 3)]
    assert [panel.method.label for panel in board.panels] == names
    assert str(Path.home()) not in files.recipe
    assert str(files.archive.parent) not in files.recipe


def test_a_method_that_cannot_is_said_and_the_others_go_on(sessions, photo):
    rows = [Row("ddnm", "photo", "steps=2"), Row("dps", "photo", "steps=2")]
    *_, (board, files) = sessions.restore(problem(photo, degradation="jpeg:10"), rows, 1, "session")
    assert board.panels[0].state == "failed"
    assert "linear" in board.panels[0].error
    assert board.panels[1].state == "done"
    # The recipe holds what can be made again only.
    assert [method["solver"] for method in json.loads(files.recipe)["methods"]] == ["dps"]


def _few_steps(solver: str) -> str:
    few = steps_of(solver, 4 if solver in ("deqir", "ddrm") else 3)
    return " ".join(f"{name}={steps}" for name, steps in few.items())
