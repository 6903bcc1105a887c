"""What the page offers to start from, paper by paper. A new paper adds an entry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A method as it is chosen on the page; ``settings`` as after ``--set``, with spaces between."""

    solver: str
    prior: str
    settings: str = ""


@dataclass(frozen=True)
class Preset:
    """A comparison: the degradation as on the command line, its noise, how large, and up to four methods."""

    methods: tuple[Row, ...]
    about: str
    degradation: str = "sr:4"
    noise: float = 0.01
    side: int = 96
    samples: int = 1


PRESETS = {
    "MUPET: DSM against MUPET": Preset(
        (Row("diffpir", "mini-control", "steps=30"), Row("diffpir", "mini-mupet", "steps=30")),
        "One network, one sampler, two ways to train it: denoising score matching (mini-control) and MUPET "
        "(mini-mupet), as long and from the same start. Both are small stand-ins for the paper's networks, and at this "
        "size the gain that the paper reports does not show: MUPET's pictures differ a little, and are not better.",
    ),
    "DeqIR: parallel against sequential": Preset(
        (Row("deqir", "photo"), Row("ddnm", "photo", "steps=20 eta=0.85")),
        "The chain of DDNM solved for all its noise levels at once, and level by level: the same picture in fewer "
        "rounds of the network. A processor works off each round's states one after the other, so rounds save no "
        "time on it.",
        side=64,
    ),
    "Samplers: four ways to use one prior": Preset(
        (
            Row("diffpir", "photo", "steps=20"),
            Row("ddrm", "photo"),
            Row("pigdm", "photo", "steps=20"),
            Row("ddnm+", "photo", "steps=20"),
        ),
        "Zero-shot samplers on a quarter of the pixels.",
        degradation="inpaint:0.75",
        side=64,
    ),
    "Diversity: what the data leave open": Preset(
        (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("diffpir", "mini-mupet", "steps=50")),
        "Four samples each from one measurement: they agree where the data say enough.",
        degradation="block:24",
        noise=0.0,
        side=64,
        samples=4,
    ),
    "Old photo: colours and scratches": Preset(
        (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("diffpir", "photo", "steps=20")),
        "No colours, scratches, noise. Paint below to say yourself what is to be filled.",
        degradation="oldphoto",
        noise=0.02,
    ),
}
