"""What the page offers to start from, paper by paper. A new paper adds an entry."""

from dataclasses import dataclass

from workbench.demo.problem import NO_METHOD, Row

ROWS = 4  # methods at a time


@dataclass(frozen=True)
class Preset:
    """A comparison: the degradation as on the command line, its noise, how large, and up to four methods.

    Attributes:
        about, look: what is compared, and what to look at.
        side: the largest that was done within 15 s on two cores, up to 256 pixels (`docs/demo.md`).
    """

    methods: tuple[Row, ...]
    about: str
    look: str
    degradation: str = "sr:4"
    noise: float = 0.01
    side: int = 96
    samples: int = 1

    @property
    def text(self) -> str:
        """What stands above the pictures."""
        return f"{self.about}\n\n**Look at** {self.look}"

    @property
    def rows(self) -> list[Row]:
        """All rows of the page: the methods, then empty ones."""
        return [*self.methods, *[Row(NO_METHOD, self.methods[0].prior)] * ROWS][:ROWS]


PRESETS = {
    "MUPET: DSM against MUPET": Preset(
        (Row("diffpir", "photo-control", "steps=16"), Row("diffpir", "photo-mupet", "steps=16")),
        "One network, one sampler, two ways to train it further: denoising score matching (photo-control) and MUPET, "
        "which comes a little closer by a perceptual distance and loses a little PSNR, much less than in its paper.",
        "the fur and the eyes under the magnifier: nearly as soft in both.",
        side=256,
    ),
    "DeqIR: parallel against sequential": Preset(
        (Row("deqir", "photo", "eta=0.85"), Row("ddnm", "photo", "steps=20 eta=0.85")),
        "DDNM's sampling chain solved for all noise levels at once (DeqIR), and level by level. A CPU computes the "
        "states of a batch one after the other, so here the fewer rounds save no time.",
        "the number of iterations: the pictures are the same, the parallel one in fewer rounds of the network.",
        side=192,
    ),
    "MTDEQ: Gaussian against equilibrium prior": Preset(
        (Row("admm", "photo", "sigma_end=0.01"), Row("admm", "photo-mtdeq", "sigma_end=0.01")),
        "Plug-and-play ADMM with two denoisers of one architecture: photo, which learned to remove Gaussian noise, and "
        "photo-mtdeq, which went on learning at the equilibria of restorations. The settings suit the Gaussian one.",
        "the fur between the eyes and the whiskers.",
        degradation="blur:2",
        side=256,
    ),
    "UD2M: nine evaluations against a hundred": Preset(
        (Row("ud2m", "photo-ud2m", "steps=3"), Row("diffpir", "photo", "steps=100")),
        "Posterior samples by an unfolded network (UD2M, three steps of three modules) and by DiffPIR in a hundred "
        "steps.",
        "the maps of the spread below the samples: UD2M's samples differ more, everywhere and not at edges alone.",
        noise=0.025,
        side=128,
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
        "the eyes and the colours of the fur: how well each sampler brings in what one pixel in four still tells.",
        degradation="inpaint:0.75",
        side=192,
    ),
    "Diversity: what the data leave open": Preset(
        (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("diffpir", "photo", "steps=50")),
        "Four posterior samples each from one measurement.",
        "the maps of the spread: black where the data determine the image, bright where each sample invents its own.",
        degradation="block:48",
        noise=0.0,
        side=128,
        samples=4,
    ),
    "Old photo: colours and scratches": Preset(
        (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("diffpir", "photo", "steps=20")),
        "No colours, scratches, noise. Paint over what should be filled.",
        "where the scratches were, and the colours, which stay pale: the prior does not know what is in the picture.",
        degradation="oldphoto",
        noise=0.02,
        side=256,
    ),
}
