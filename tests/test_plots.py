"""Figures hold the pictures they were given."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from workbench.images import to_uint8
from workbench.plots import contact_sheet, show, strip

matplotlib.use("Agg")


def test_pictures_are_drawn_as_they_are():
    colour = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    small = colour[:, :1, :2, :2]
    figure = show({"a": colour, "b": small}, ["one", "two"], {"b": ["20 dB", "30 dB"]})
    axes = np.array(figure.axes).reshape(2, 2)
    for row in range(2):
        assert np.array_equal(axes[row, 0].images[0].get_array(), to_uint8(colour)[row])
        assert np.array_equal(axes[row, 1].images[0].get_array(), to_uint8(small)[row, ..., 0])
    assert [axis.get_title() for axis in axes[0]] == ["a", "b"]
    assert axes[1, 0].get_ylabel() == "two"
    assert axes[1, 1].get_xlabel() == "30 dB"
    with pytest.raises(ValueError, match=r"'a': 2, 'b': 1"):
        show({"a": colour, "b": small[:1]})


def test_a_strip_puts_pictures_side_by_side_on_white():
    images = torch.stack([torch.full((1, 4, 5), value) for value in (0.0, 0.5, 2.0)])
    sheet = strip(images, columns=2, gap=1)
    assert sheet.shape == (1, 3, 9, 11)
    assert [float(sheet[0, c, r, k]) for c, r, k in ((0, 0, 0), (1, 0, 6), (2, 5, 0))] == [0, 0.5, 1]
    assert float(sheet[0, 0, 0, 5]) == 1  # the gap
    assert float(sheet[0, 0, 5:, 6:].min()) == 1  # no fourth image
    assert strip(images).shape == (1, 3, 4, 19)


def test_a_contact_sheet_shows_pairs_of_any_size_and_kind_with_their_names():
    red, grey, wide = Image.new("RGB", (400, 400), "red"), Image.new("L", (8, 8), 99), Image.new("RGB", (8, 2), "blue")
    names = ["a.png", "a long name, longer than there is room for below it.png", "Ελλάδα.png"]
    sheet = contact_sheet(names, ([red, grey], [wide, wide], [grey, grey]), columns=2)
    assert sheet.size == (2 * 336, 2 * 192)
    colours = [sheet.getpixel(at) for at in ((87, 88), (249, 88), (336 + 87, 88), (336 + 87, 20), (87, 192 + 88))]
    assert colours == [(255, 0, 0), (99, 99, 99), (0, 0, 255), (255, 255, 255), (99, 99, 99)]
    assert sheet.getpixel((336 + 87, 192 + 88)) == (255, 255, 255)  # no fourth pair
    names_of = [np.asarray(sheet)[170:190, left : left + 336].min() for left in (0, 336)]
    assert max(names_of) < 100  # black text on white
    assert np.asarray(sheet)[170:190, 336:].min(axis=(0, 2))[[*range(7), *range(-7, 0)]].min() == 255  # within its cell
