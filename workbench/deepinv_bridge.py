"""deepinv and the workbench, in each other's loops: denoisers and operators of either library in the other (0.5.0).

=================================  =================================================================================
:func:`prior_from_deepinv`         a deepinv denoiser, or the name of one, as a prior
:func:`operator_from_deepinv`      a linear deepinv physics as an operator: their A and its adjoint, our prox and pinv
:func:`denoiser_for_deepinv`       a prior as a deepinv denoiser
:func:`physics_for_deepinv`        an operator as a deepinv physics: our adjoint, pinv and prox
=================================  =================================================================================

Images are (B, C, H, W), nominal range [0, 1], and sigma a standard deviation in the same unit, on both sides.
deepinv is optional and slow to import, so that it is imported when one of the four is called.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from workbench.models.adapters import linear_alphas_cumprod
from workbench.models.prior import Prior
from workbench.operators.base import Operator, Shape, check_image
from workbench.operators.function import check_linear
from workbench.operators.least_squares import vjp

SHORT_NAMES = {"tv": "TVDenoiser", "tgv": "TGVDenoiser", "wavelet": "WaveletDenoiser", "median": "MedianFilter"}
# (sigma_min, sigma_max, multiple) by class; others are (0, inf, 1). DRUNet, GSPnP (the class of GSDRUNet): [0, 50]/255,
# DPIR, section 3.2, and deepinv's table of weights. FFDNet: [0, 75]/255, its paper. The two EDM networks: 0.002 to 80
# on [-1, 1]. deepinv's table states [0, 20]/255 for an earlier DRUNet of its own and nothing for the present one.
KNOWN = {
    "DRUNet": (0.0, 50 / 255, 1),
    "GSPnP": (0.0, 50 / 255, 1),
    "FFDNet": (0.0, 75 / 255, 2),
    "NCSNpp": (0.001, 40.0, 4),
    "ADMUNet": (0.001, 40.0, 8),
}
# These stop iterating when the batch as a whole has converged, so that its images depend on each other.
COUPLED = ("TVDenoiser", "TGVDenoiser", "WaveletDictDenoiser", "DScCP")


def prior_from_deepinv(
    denoiser: nn.Module | str,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    channels: int | None = None,
    multiple: int | None = None,
    name: str = "",
    **options: Any,
) -> Prior:
    """A deepinv denoiser as a prior.

    Args:
        denoiser: ``forward(x, sigma)`` on [0, 1]; or the name of a class of ``deepinv.models`` in any case, or "tv",
            "tgv", "wavelet", "median". An object is used as it is: its weights are shared and its mode is kept.
        sigma_min, sigma_max: noise range. Default: that of the published weights where known, else 0 and infinity.
        channels: Default: what its first convolution takes, else 3.
        multiple: sides must be multiples of this. Default: known for deepinv's networks, else 1.
        options: with a name, the arguments of its class: ``pretrained`` ("download", None or a weights file) and so
            on. Weights are read as plain tensors only, whatever deepinv asks for: a pickle can run code.

    TV and wavelet denoisers take sigma as their regularisation weight (``ths``), as in deepinv itself.

    Raises:
        ValueError: deepinv is not installed, no denoiser of this name, not a denoiser, wrong options, or weights that
            are missing or unsafe.
    """
    models = _deepinv().models
    if isinstance(denoiser, str):
        denoiser = _build(models, denoiser, options)
    elif options:
        raise ValueError(f"{', '.join(options)}: only for a denoiser given by its name")
    if isinstance(denoiser, Prior):
        raise ValueError(f"{denoiser.name} is a prior already")
    _check_denoiser(models, denoiser)
    if isinstance(denoiser, _denoiser_class()):
        return denoiser.prior
    low, high, sides = _known(denoiser)
    return DeepinvDenoiser(
        denoiser,
        sigma_min=low if sigma_min is None else sigma_min,
        sigma_max=high if sigma_max is None else sigma_max,
        channels=_channels(denoiser) if channels is None else channels,
        multiple=sides if multiple is None else multiple,
        name=name or type(denoiser).__name__,
    )


def denoiser_for_deepinv(prior: Prior, *, above: str = "raise") -> Any:
    """``prior`` as a ``deepinv.models.Denoiser``: ``forward(x, sigma)``, sigma a number or (), (1,), (B,), (B, 1, 1, 1).

    Args:
        prior: kept as the attribute ``prior``.
        above: what happens above ``prior.sigma_max``. "raise": the prior's ValueError. "shrink": the image is shrunk
            towards 1/2 until its noise is at ``sigma_max``, an approximation that is good where ``sigma_max`` exceeds
            the contrast of images many times (50 does). deepinv's DiffPIR and DPS start near sigma = 78 and need it.

    Raises:
        ValueError: deepinv is not installed, or another ``above``; when called, see :class:`Prior`.
    """
    if not isinstance(prior, Prior):
        raise ValueError(f"expected a workbench prior, got {type(prior).__name__}")
    if above not in ("raise", "shrink"):
        raise ValueError(f'above must be "raise" or "shrink", got {above!r}')
    return _denoiser_class()(prior, above)


def physics_for_deepinv(op: Operator, image_shape: tuple[int, int, int], *, sigma_noise: float = 0.0) -> Any:
    """``op`` as a ``deepinv.physics.LinearPhysics``; the attribute ``op`` keeps it.

    ``A``, ``A_adjoint``, ``A_dagger`` and ``prox_l2`` are ``op``, its adjoint, pinv and prox; solver settings in calls
    are accepted and not needed. ``gamma`` may be a number, () or one per image, and infinite (the projection onto
    ``A x = y``). An operator that is not linear (JPEG) becomes a plain ``Physics`` with the same methods, where
    ``A_adjoint`` and ``A_dagger`` are the stand-ins of ``op`` and ``prox_l2`` descends by gradient.

    Args:
        image_shape: (C, H, W).
        sigma_noise: ``GaussianNoise`` of this level; 0: ``ZeroNoise``, for which deepinv's samplers assume a level of
            their own (DDRM 0.01, DiffPIR that of its constructor). ``set_noise_model(GaussianNoise(0.0))`` says 0.

    Raises:
        ValueError: deepinv is not installed, ``image_shape`` does not fit ``op``, or ``sigma_noise`` is negative.
    """
    shape = _image_shape(image_shape)
    if not isinstance(op, Operator):
        raise ValueError(f"expected a workbench operator, got {type(op).__name__}")
    if not (math.isfinite(sigma_noise) and sigma_noise >= 0):
        raise ValueError(f"sigma_noise must be finite and not negative, got {sigma_noise}")
    physics = _deepinv().physics
    op.measurement_shape((1, *shape))
    noise = physics.GaussianNoise(float(sigma_noise)) if sigma_noise else physics.ZeroNoise()
    linear, general = _physics_classes()
    return (linear if op.linear else general)(op, shape, noise)


def operator_from_deepinv(
    physics: Any, image_shape: tuple[int, int, int], *, tolerance: float | None = None, max_iterations: int = 500
) -> Operator:
    """A linear deepinv physics as an operator, without its noise.

    Only ``A`` and ``A_adjoint`` are deepinv's (autograd where a physics has no adjoint); pinv and prox are the
    conjugate gradients of :class:`Operator`. It works on a copy: what becomes of ``physics`` later does not matter.

    deepinv computes in float32: a physics that cannot take float64 images, or would answer in float32, raises
    ValueError for them rather than lose precision.

    Args:
        image_shape: (C, H, W).
        tolerance, max_iterations: see :class:`Operator`.

    Raises:
        ValueError: deepinv is not installed, ``physics`` is not linear, has parameters per image, a wrong adjoint,
            complex or several measurements, or fails on images of that shape.
    """
    shape = _image_shape(image_shape)
    if not isinstance(physics, _deepinv().physics.Physics):
        raise ValueError(f"expected a deepinv physics, got {type(physics).__name__}")
    return DeepinvOperator(physics, shape, tolerance=tolerance, max_iterations=max_iterations)


class DeepinvDenoiser(Prior):
    """``net(x, sigma)`` of deepinv, so that a batch is the same as its images one by one.

    deepinv's own classes take sigma (B,) and are called once, except those in ``COUPLED``, called per image. A class
    from elsewhere may know numbers only: it is called once per distinct level.
    """

    def __init__(
        self, net: nn.Module, *, sigma_min: float, sigma_max: float, channels: int, multiple: int, name: str
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=channels, multiple=multiple, name=name)
        self.net = net
        self.coupled = any(cls.__name__ in COUPLED for part in net.modules() for cls in type(part).__mro__)
        self.batched = type(net).__module__.startswith("deepinv.")

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.coupled:
            images = zip(x.split(1), sigma.tolist(), strict=True)
            return torch.cat([_cold(self.net)(image, level) for image, level in images])
        if self.batched:
            return self.net(x, sigma)
        order, images = [], []
        for level in sigma.unique().tolist():
            index = (sigma == level).nonzero()[:, 0]
            order.append(index)
            images.append(self.net(x[index], level))
        return torch.cat(images)[torch.cat(order).argsort()]


class DeepinvOperator(Operator):
    """See :func:`operator_from_deepinv`."""

    def __init__(
        self, physics: Any, shape: tuple[int, int, int], *, tolerance: float | None, max_iterations: int
    ) -> None:
        super().__init__(tolerance=tolerance, max_iterations=max_iterations)
        self.physics = physics.clone()
        self.size = shape
        # LinearPhysics without a function for it would build autograd's adjoint for one fixed batch.
        inherited = type(physics).A_adjoint is _deepinv().physics.LinearPhysics.A_adjoint and physics.A_adj is None
        self.has_adjoint = hasattr(physics, "A_adjoint") and not inherited
        self.seen_size = _check_physics(self)

    def forward(self, x: Tensor) -> Tensor:
        """``A x`` for images (B, C, H, W)."""
        check_image(x)
        self.measurement_shape(x.shape)
        return self._run(self.physics.A, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        shape = self.image_shape(y.shape)
        if self.has_adjoint:
            return self._run(self.physics.A_adjoint, y)
        return vjp(lambda x: self._run(self.physics.A, x), y.new_zeros(shape), y)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, ...). Raises ValueError for images of another size."""
        if tuple(image_shape[1:]) != self.size:
            raise ValueError(f"expected images (B, {', '.join(map(str, self.size))}), got {tuple(image_shape)}")
        return (image_shape[0], *self.seen_size)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, H, W). Raises ValueError for measurements of another size."""
        if tuple(measurement_shape[1:]) != self.seen_size:
            expected = ", ".join(map(str, self.seen_size))
            raise ValueError(f"expected measurements (B, {expected}), got {tuple(measurement_shape)}")
        return (measurement_shape[0], *self.size)

    def _run(self, function: Any, values: Tensor) -> Tensor:
        name = type(self.physics).__name__
        advice = "give it float32 images, or look for a workbench operator"
        try:
            # A copy: some of them write into their input, others return it.
            result = function(values.clone())
        except RuntimeError as error:
            if values.dtype != torch.float64:
                raise
            raise ValueError(f"deepinv's {name} does not take float64 ({error}): {advice}") from error
        if not isinstance(result, Tensor) or result.is_complex():
            raise ValueError(f"deepinv's {name} gives {_kind(result)}, not one real tensor of measurements")
        if result.dtype != values.dtype:
            raise ValueError(f"deepinv's {name} turns {values.dtype} into {result.dtype}: {advice}")
        return result


def _deepinv() -> Any:
    try:
        import deepinv
    except ImportError as error:
        raise ValueError("deepinv is not installed: pip install 'restoration-workbench[deepinv]'") from error
    return deepinv


def _build(models: Any, name: str, options: dict[str, Any]) -> nn.Module:
    """The denoiser called ``name``, made with ``options``, in eval mode."""
    # GSDRUNet is a function that makes a GSPnP.
    denoisers = {key for key, value in vars(models).items() if _is_denoiser_class(models, value)} | {"GSDRUNet"}
    known = {key.lower(): key for key in denoisers} | SHORT_NAMES
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"deepinv has no denoiser {name!r}: {hint}")
    weights = options.get("pretrained")
    if isinstance(weights, os.PathLike):
        # deepinv asks strings what they start with.
        weights = os.fspath(weights)
        options = {**options, "pretrained": weights}
    try:
        with _tensors_only():
            net = getattr(models, known[name.lower()])(**options)
    except (OSError, URLError) as error:
        raise ValueError(_missing_weights(error, known[name.lower()], weights)) from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{weights or 'the weights'}: not a file of plain tensors, and a pickle that can run code is not loaded: "
            "save its state dict with torch.save, from a process that trusts it"
        ) from error
    except (ImportError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"deepinv cannot make {known[name.lower()]} from {options or 'its defaults'}: {error}"
        ) from error
    return net.eval()


def _is_denoiser_class(models: Any, value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, models.Denoiser) and value is not models.Denoiser


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.load refuses all but plain tensors meanwhile, also where the caller asks for more (as torch.hub does)."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _missing_weights(error: Exception, name: str, weights: Any) -> str:
    """What is missing and where it belongs, for weights that cannot be read or downloaded."""
    if isinstance(error, FileNotFoundError):
        return f"pretrained={weights!r}: no such file"
    found = re.search(r"https?://\S+?(?=[:,]?\s|$)", str(error))
    if found is None:
        return f"the weights of deepinv's {name} cannot be loaded ({error}): pass pretrained=FILE"
    url = found.group()
    file = Path(url.partition("?")[0]).name
    return (
        f"the weights of deepinv's {name} cannot be downloaded ({error.__cause__ or error}): get {url} and put it at "
        f"{Path(torch.hub.get_dir()) / 'checkpoints' / file}, or pass pretrained=FILE"
    )


def _check_denoiser(models: Any, denoiser: Any) -> None:
    """Raise ValueError unless ``denoiser`` takes (x, sigma), real images in [0, 1]."""
    kind = type(denoiser).__name__
    if not isinstance(denoiser, nn.Module):
        raise ValueError(f"expected a deepinv denoiser or the name of one, got {kind}")
    if isinstance(denoiser, (models.MinusOneOneDenoiserWrapper, models.ComplexDenoiserWrapper)):
        raise ValueError(f"{kind} does not take real images in [0, 1]: pass the denoiser that it wraps")
    arguments = list(inspect.signature(denoiser.forward).parameters.values())
    second = arguments[1] if len(arguments) > 1 else None
    if second is not None and isinstance(denoiser, models.Denoiser):
        fits = second.name != "physics" and second.kind not in (second.KEYWORD_ONLY, second.VAR_KEYWORD)
    else:
        fits = second is not None and second.name in ("sigma", "ths", "noise_level")
    if not fits:
        names = ", ".join(argument.name for argument in arguments)
        raise ValueError(f"{kind} is not a denoiser: expected forward(x, sigma), got forward({names})")


def _known(denoiser: nn.Module) -> tuple[float, float, int]:
    """(sigma_min, sigma_max, multiple) of a denoiser."""
    for cls in type(denoiser).__mro__:
        if cls.__name__ == "DiffUNet":
            # It looks for the nearest of the 1000 steps of DDPM; sigma is that of [-1, 1], halved.
            levels = (1 / linear_alphas_cumprod() - 1).sqrt() / 2
            return float(levels[0]), float(levels[-1]), 1
        if cls.__name__ in KNOWN:
            return KNOWN[cls.__name__]
    return 0.0, math.inf, 1


def _channels(denoiser: nn.Module) -> int:
    """Image channels (1 or 3) that the first convolution takes, less the noise map of DRUNet; 3 if that is not it."""
    for part in denoiser.modules():
        if isinstance(part, nn.Conv2d):
            inputs = part.in_channels
            # DRUNet: one noise map more. FFDNet: four half-size images of each channel, and one noise map per channel.
            return {1: 1, 2: 1, 3: 3, 4: 3, 5: 1, 13: 3, 15: 3, 8: 1 if inputs == 8 else 3}.get(inputs, 3)
    return 3


def _cold(net: nn.Module) -> nn.Module:
    """``net`` without the memory of its last call (TV and TGV start from the last image), its tensors shared."""
    fresh = copy.copy(net)
    fresh.__dict__["_modules"] = {name: part and _cold(part) for name, part in net._modules.items()}
    if "restart" in fresh.__dict__:
        fresh.__dict__["restart"] = True
    return fresh


def _image_shape(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (C, H, W), got {tuple(shape)}")
    channels, height, width = map(int, shape)
    return channels, height, width


def _kind(result: Any) -> str:
    return f"a tensor of {result.dtype}" if isinstance(result, Tensor) else f"a {type(result).__name__}"


def _check_physics(op: DeepinvOperator) -> tuple[int, ...]:
    """Shape of one measurement; ValueError unless A is linear, image by image, with the right adjoint (to 1e-4)."""
    name, physics = type(op.physics).__name__, op.physics
    device = _device(physics)
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 2, *op.size, generator=generator).to(device)
    try:
        op.seen_size = check_linear(lambda x: op._run(physics.A, x), op.size, device)
        with torch.no_grad():
            seen, alone = op(u), op(u[:1])
            if alone.shape[0] != 1 or not torch.allclose(alone, seen[:1], atol=1e-4 * float(seen.abs().max())):
                raise ValueError("an image by itself is measured otherwise than in a batch")
            if not torch.allclose(physics.sensor(seen.clone()), seen):
                raise ValueError("its sensor is not linear")
            # Part of y is seen from an image like u: an adjoint that is wrong shows more in that than in noise.
            other = op(u + v)
            y = other / other.norm() + torch.randn(seen.shape, generator=generator).to(seen) / seen.numel() ** 0.5
            gap = (seen * y).sum() - (u * op.adjoint(y)).sum()
            if not float(gap.abs()) <= 1e-4 * float(seen.norm() * y.norm()):
                raise ValueError(
                    f"A_adjoint is not the adjoint of A: <A u, y> and <u, A^T y> differ by {float(gap):.1e}"
                )
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"deepinv's {name} is not a linear operator on images {op.size}: {error}") from error
    return op.seen_size


def _device(module: nn.Module) -> torch.device:
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@cache
def _denoiser_class() -> type:
    """The subclass of deepinv's Denoiser; made on demand, since making it takes deepinv."""

    class PriorDenoiser(_deepinv().models.Denoiser):
        def __init__(self, prior: Prior, above: str) -> None:
            super().__init__(device=_device(prior))
            self.prior = prior
            self.above = above

        def forward(self, x: Tensor, sigma: float | Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """The prior; what deepinv's samplers pass on besides (class labels and so on) means nothing to it."""
            levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
            if levels.ndim > 1 and levels.numel() == levels.shape[0]:
                levels = levels.flatten()
            highest = self.prior.sigma_max
            if self.above == "shrink" and bool((levels > highest).any()):
                scale = (highest / levels).clamp(max=1.0)
                x = 0.5 + (x - 0.5) * (scale.view(-1, 1, 1, 1) if scale.ndim else scale)
                levels = levels.clamp(max=highest)
            return self.prior(x, levels)

    return PriorDenoiser


@cache
def _physics_classes() -> tuple[type, type]:
    """The subclasses of deepinv's LinearPhysics and Physics that are an operator of ours."""
    physics = _deepinv().physics

    class Methods:
        op: Operator

        def A(self, x: Tensor, **kwargs: Any) -> Tensor:
            """``op(x)``. ``forward`` hands the options of the noise to A too; an operator has none of its own."""
            unknown = kwargs.keys() - {"sigma", "seed", "rng"}
            if unknown:
                raise ValueError(
                    f"{type(self.op).__name__} cannot be changed in a call: got {', '.join(sorted(unknown))}"
                )
            return self.op(x)

        def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
            return self.op.adjoint(y)

        def A_dagger(self, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self.op.pinv(y)

        def prox_l2(self, z: Any, y: Tensor, gamma: float | Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """``argmin_x gamma/2 ||A x - y||^2 + 1/2 ||x - z||^2``; ``z`` may be a number, or None for 0."""
            if not isinstance(z, Tensor):
                z = y.new_full(self.op.image_shape(y.shape), 0.0 if z is None else float(z))
            strength = torch.as_tensor(gamma, dtype=z.dtype, device=z.device)
            if not bool((strength > 0).all()):
                raise ValueError(f"gamma must be positive, got {gamma}")
            return self.op.prox(z, y, 1 / (strength.flatten() if strength.ndim else strength))

    class OperatorPhysics(Methods, physics.LinearPhysics):
        def __init__(self, op: Operator, image_shape: tuple[int, int, int], noise: Any) -> None:
            super().__init__(img_size=image_shape, noise_model=noise, device=_device(op))
            self.op = op

    class NonlinearPhysics(Methods, physics.Physics):
        def __init__(self, op: Operator, image_shape: tuple[int, int, int], noise: Any) -> None:
            super().__init__(noise_model=noise)
            self.img_size = image_shape
            self.op = op

    return OperatorPhysics, NonlinearPhysics
