"""What the page offers to start from, paper by paper. A new paper adds an entry."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.demo.problem import NO_METHOD, Row

ROWS = 4  # methods at a time


@dataclass(frozen=True)
class Preset:
    """A comparison: the degradation as on the command line, its noise, how large, and up to four methods."""

    methods: tuple[Row, ...]
    about: str
    degradation: str = "sr:4"
    noise: float = 0.01
    side: int = 96
    samples: int = 1

    @property
    def rows(self) -> list[Row]:
        """All rows of the page: the methods, then empty ones."""
        return [*self.methods, *[Row(NO_METHOD, self.methods[0].prior)] * ROWS][:ROWS]


PRESETS = {
    "MUPET: DSM against MUPET": Preset(
        (Row("diffpir", "photo-control", "steps=16"), Row("diffpir", "photo-mupet", "steps=16")),
        "One network, one sampler, two ways to train it: denoising score matching (photo-control) and MUPET "
        "(photo-mupet), for as long and from the same start. At this scale (3.2 million weights, 400 steps) the gain "
        "that the paper reports does not show: MUPET's pictures differ a little, and are not better.",
        side=128,
    ),
    "DeqIR: parallel against sequential": Preset(
        (Row("deqir", "photo", "eta=0.85"), Row("ddnm", "photo", "steps=20 eta=0.85")),
        "DDNM's sampling chain solved for all noise levels at once (DeqIR), and level by level: the same picture in "
        "fewer batched network calls. A CPU computes the states of a batch one after the other, so it saves no time.",
        side=64,
    ),
    "MTDEQ: Gaussian against equilibrium prior": Preset(
        (Row("admm", "photo", "sigma_end=0.01"), Row("admm", "photo-mtdeq", "sigma_end=0.01")),
        "Plug-and-play ADMM with two denoisers of one architecture: photo, which learned to remove Gaussian noise, and "
        "photo-mtdeq, which went on learning at the equilibria of restorations. The settings suit the Gaussian one.",
        degradation="blur:2",
    ),
    "UD2M: nine evaluations against a hundred": Preset(
        (Row("ud2m", "photo-ud2m", "steps=3"), Row("diffpir", "photo", "steps=100")),
        "Posterior samples by an unfolded network (UD2M, three steps of three modules) and by DiffPIR in a hundred "
        "steps; below, all samples and where they differ.",
        noise=0.025,
        side=64,
        samples=4,
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
        (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("diffpir", "photo", "steps=50")),
        "Four posterior samples each from one measurement: they agree where the data determine the image.",
        degradation="block:24",
        noise=0.0,
        side=64,
        samples=4,
    ),
    "Old photo: colours and scratches": Preset(
        (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("diffpir", "photo", "steps=20")),
        "No colours, scratches, noise. Paint below over what should be filled.",
        degradation="oldphoto",
        noise=0.02,
    ),
}
