"""First estimates of an image from its data alone, without a network."""

from torch import Tensor
from torch.nn.functional import interpolate

from workbench.operators.base import Operator
from workbench.operators.compose import Compose
from workbench.operators.inpainting import Identity, Inpainting, fill_holes
from workbench.operators.least_squares import smooth_estimate
from workbench.operators.weighted import unweighted

STARTS = ("smooth", "picture", "data")


def first_estimate(op: Operator, y: Tensor, sigma_noise: Tensor, start: str = "smooth") -> Tensor:
    """An image (B, C, H, W) from measurements ``y`` with noise ``sigma_noise`` (B,).

    "data": the :func:`initial_image`. "picture": the measurement with its holes filled or at the size of the image,
    where it is a picture; else the initial image. "smooth": the :func:`smooth_estimate`, which is nearer to the image
    and so saves steps; the picture where the operator is not linear, decoded by the operator's own ``pinv``.
    """
    plain, seen = decoded(*unweighted(op, y))
    if start != "data" and isinstance(plain, Inpainting):
        image = fill_holes(seen, plain.mask)
    elif start != "data" and plain.linear and seen.ndim == 4 and seen.shape[1] == plain.image_shape(seen.shape)[1]:
        image = resized(plain, seen)
    else:
        image = initial_image(op, y, sigma_noise)
    return smooth_estimate(op, y, sigma_noise, image) if start == "smooth" and op.linear else image


def decoded(op: Operator, y: Tensor) -> tuple[Operator, Tensor]:
    """The linear part of ``op`` and its measurement, as far as what comes after it has a ``pinv`` of its own."""
    while not op.linear:
        outer, inner = (op.outer, op.inner) if isinstance(op, Compose) else (op, Identity())
        if outer.linear or type(outer).pinv is Operator.pinv:
            break
        op, y = inner, outer.pinv(y)
    return op, y


def drowning(op: Operator, y: Tensor) -> float:
    """A noise level that hides what a :func:`first_estimate` lacks: 0.2; 0.05 where ``y``, once decoded, is the whole
    picture (JPEG), whose detail more would hide as well."""
    return 0.05 if not op.linear and isinstance(decoded(*unweighted(op, y))[0], Identity) else 0.2


def resized(op: Operator, y: Tensor) -> Tensor:
    """The measurement at the size of the image, (B, C, H, W), by bilinear resizing (MTDEQ, section III-A)."""
    return interpolate(y, size=op.image_shape(y.shape)[-2:], mode="bilinear", align_corners=False)


def initial_image(op: Operator, y: Tensor, sigma_noise: Tensor) -> Tensor:
    """A first estimate (B, C, H, W) for any operator: mid-grey corrected by the data as far as their noise allows.

    ``prox(1/2, y, (sigma_noise / 0.25)^2)``, weight at least 1e-4: the posterior mean of a white Gaussian image prior
    with mean 1/2 and standard deviation 1/4. On a mask it is y, and 1/2 in the holes (the start of MUPET's DiffPIR); on
    a blur it is a Wiener filter, which unlike ``A^+ y`` does not amplify noise.
    """
    return op.prox(mid_grey(op, y), y, ((sigma_noise / 0.25) ** 2).clamp(min=1e-4))


def mid_grey(op: Operator, y: Tensor) -> Tensor:
    """The grey image (B, C, H, W) of value 1/2 behind measurements like ``y``."""
    return y.new_full(op.image_shape(y.shape), 0.5)
