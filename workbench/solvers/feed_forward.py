"""A published feed-forward network: what people would use instead of a diffusion prior."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from workbench.operators.inpainting import Inpainting
from workbench.solvers.base import Iterate, Problem, Sampler


@dataclass(frozen=True)
class FeedForward(Sampler, name="network"):
    """``f(y)``: the prior is the whole method. It knows the operator from its training alone, draws no noise (samples
    are equal) and is not told ``sigma_noise``."""

    summary: ClassVar[str] = "a published feed-forward network (Real-ESRGAN, SwinIR, NAFNet, ...), one evaluation"
    paper: ClassVar[str] = "the networks that spandrel loads"
    linear: ClassVar[bool] = False
    prior_kind: ClassVar[str] = "network"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One evaluation.

        Raises:
            ValueError: measurements with missing pixels, or of another size or number of channels than the network
                turns into images.
        """
        scale, shape = p.prior.enlarges, p.op.image_shape(p.y.shape)
        expected = (*shape[:2], *(-(-side // scale) for side in shape[2:]))
        takes = f"{p.prior.name} takes pictures {scale} times smaller, as of sr:{scale}"
        if scale == 1:
            takes = f"{p.prior.name} takes pictures of the restored size, as of blur, jpeg and denoise"
        if tuple(p.y.shape) != expected:
            raise ValueError(f"{takes}: expected measurements {expected}, got {tuple(p.y.shape)}")
        if any(isinstance(part, Inpainting) for part in p.op.modules()):
            raise ValueError(f"{takes}, and none with missing pixels")
        wide = p.y.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
        image = p.prior(wide, 0.0)[..., : shape[-2], : shape[-1]]
        yield Iterate(image, None, image, 1)
