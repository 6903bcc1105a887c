"""What is shipped computed beforehand is what its settings give, and the vote counts as it says."""

import json
from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image

from workbench.demo.pair import pair_html
from workbench.demo.photo import frame, read_photo
from workbench.demo.presets import PRESETS
from workbench.demo.problem import Limits, Problem, methods_of
from workbench.demo.record import OPENING, RECORD, computed, opening_board, recorded
from workbench.demo.vote import Ballot, Pair, beginning, cast_vote, shares, verdict_table
from workbench.evaluation.metrics import psnr
from workbench.images import SAMPLES, load_image, sample_photo, save_image
from workbench.models import available_priors
from workbench.models.files import sha256


def test_the_page_opens_with_what_its_first_preset_gives():
    """The photo is the sample, recipe and priors are those of now, and the scores are those of the shipped pictures."""
    board, preset = opening_board(), next(iter(PRESETS.values()))
    recipe, pictures = recorded(OPENING)
    sample = Path(skimage.__file__).parent / "data" / SAMPLES["cat"]
    wanted = Problem(str(sample), side=preset.side, degradation=preset.degradation, noise=preset.noise)
    assert torch.equal(board.photo, frame(read_photo(sample, 10**7)[0], wanted, 10**7))
    assert board.photo.shape[-2:] == (256, 256)
    assert (recipe.degrade, recipe.noise, recipe.seed) == (preset.degradation, preset.noise, 0)
    titles = {name: name for name in available_priors()}
    chosen = ((m.solver, m.prior, m.settings) for m in methods_of(preset.methods, titles, Limits()))
    assert [(m.solver, m.prior, m.settings) for m in recipe.methods] == [*chosen]
    for image, record in zip(pictures, recipe.results, strict=True):
        assert float(psnr(image, board.photo)) == pytest.approx(record["psnr"], abs=0.01)  # of rounding to 8 bits
        source = record["prior_source"]
        weights = next(Path(__file__).parents[2].glob(f"workbench/models/weights/{source['file']}"))
        assert sha256(weights) == source["sha256"]
    facts = json.loads((RECORD / "record.json").read_text())
    assert all(str(facts[name]) in computed() for name in ("date", "commit", "threads"))


def pair(left: str, right: str, picture: str = "") -> Pair:
    return Pair("a photo", (left, right), (f"{picture}{left}", f"{picture}{right}"))


def test_each_pair_of_results_is_voted_on_once_with_its_sides_drawn_by_lot():
    results = [("a", "A"), ("b", "B"), ("c", "C")]
    ballot = Ballot().adding("a photo", results)
    assert sorted("".join(sorted(p.names)) for p in ballot.coming) == ["ab", "ac", "bc"]
    assert all(p.pictures == tuple(name.upper() for name in p.names) for p in ballot.coming)
    later = ballot.voted("left").adding("a photo", results)
    assert len(later.coming) == 2
    assert later.votes == ((ballot.coming[0], "left"),)
    sides = {Ballot().adding("", results[:2]).coming[0].names for _ in range(60)}
    assert sides == {("a", "b"), ("b", "a")}  # one of them alone: once in 2^59


def test_the_share_is_of_those_with_a_preference_and_has_wilsons_interval():
    """8 of 10, whichever side it stood on: 0.4902 to 0.9433, as (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    votes = [(pair("a", "b"), "left")] * 5 + [(pair("b", "a"), "right")] * 3
    votes += [(pair("a", "b"), "right"), (pair("b", "a"), "left"), (pair("a", "b"), "none"), (pair("c", "a"), "none")]
    first, other = shares(votes)
    assert [first[name] for name in ("first", "second", "for first", "for second", "none")] == ["a", "b", 8, 2, 1]
    z, n, p = 1.959964, 10, 0.8
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert [first["share of first"], first["low"], first["high"]] == pytest.approx([p, *expected], abs=1e-6)
    assert "share of first" not in other
    assert verdict_table(Ballot(votes=tuple(votes))).iloc[0, -1] == "80% (49% to 94%)"


def test_there_is_something_to_vote_on_and_it_is_small():
    coming = beginning().coming
    assert len(coming) == len({p.of for p in coming}) == 6
    assert len({frozenset(p.names) for p in coming}) == 1
    ballot, said, _ = cast_vote("left", None)  # by who clicks before a pair is shown
    assert (len(ballot.coming), said) == (6, "Votes: 0. Pairs to come: 6.")
    assert sum(path.stat().st_size for path in RECORD.rglob("*") if path.is_file()) < 600_000


def test_two_files_are_compared_as_they_are(tmp_path):
    a, b, c = (str(tmp_path / f"{name}.png") for name in "abc")
    save_image(sample_photo("cat", 32), a)
    save_image((load_image(a) * 255 - 2).clamp(0, 255) / 255, b)
    Image.new("RGB", (32, 16)).save(c)
    shown, said = pair_html((a, b))
    assert shown.count("<img") == 3
    assert f"{float(psnr(load_image(a), load_image(b))):.2f} dB" in said
    assert "equal in every pixel" in pair_html((a, a))[1]
    with pytest.raises(ValueError, match="one size, got 32×32 and 32×16 pixels"):
        pair_html((a, c))
