"""What a prior is: a denoiser ``D(x, sigma) ~ E[x0 | x0 + sigma * eps = x]`` in variance-exploding coordinates.

Images are (B, C, H, W), nominal range [0, 1], never clipped; ``sigma`` is a standard deviation in the same unit, a
number or a tensor of shape () or (B,). Score and noise follow from Tweedie's formula (MUPET, eq. 7):
``score = (D - x) / sigma^2`` and ``noise = (x - D) / sigma``. Whatever a published network predicts (noise, score,
image; variance preserving or exploding; [-1, 1] or [0, 1]) is translated once, in its adapter (``adapters.py``), so
that no solver ever sees a time step.
"""

from abc import abstractmethod
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from workbench.text import check_types, require

# What a prior may answer, as something to ask for and as something that came.
KINDS = {
    "denoiser": ("a denoiser, E[x0 | x]", "a denoiser"),
    "consistency": ("a consistency model, such as photo-cm", "a consistency model, whose answer is a sample"),
    "unfolded": ("an unfolded network, such as photo-ud2m", "an unfolded network, which samples given data"),
    "network": ("a feed-forward network, such as spandrel:FILE", "a feed-forward network, which has no noise level"),
}
CPU_PIXELS = 16 * 64 * 64  # per network call without gradients on a CPU


def per_image(sigma: float | Tensor, x: Tensor, name: str = "sigma") -> Tensor:
    """``sigma`` as a tensor of shape (B,) with the dtype and device of ``x`` (B, ...); ``name`` is for messages.

    Raises:
        ValueError: ``sigma`` is neither a scalar nor of shape (B,), or not a positive finite number (0 is allowed).
    """
    return _looked_at(sigma, x, name)[0]


def _looked_at(sigma: float | Tensor, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """What :func:`per_image` returns, and the same numbers on the CPU, where they are checked: numbers that are there
    already cost no wait for the device of ``x``, a tensor of that device costs one."""
    try:
        here = torch.as_tensor(sigma, dtype=x.dtype, device="cpu")
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number or a tensor ({x.shape[0]},), got {sigma!r}") from None
    if here.ndim > 1 or (here.ndim == 1 and here.shape[0] not in (1, x.shape[0])):
        raise ValueError(f"{name} must be a number or have shape ({x.shape[0]},), got shape {tuple(here.shape)}")
    require(bool(((here >= 0) & here.isfinite()).all()), name, "finite and not negative", sigma)
    there = sigma if isinstance(sigma, Tensor) and sigma.device == x.device else here
    return there.to(x, non_blocking=True).expand(x.shape[0]), here


class Prior(nn.Module):
    """Base class of all priors. A subclass implements :meth:`denoise`.

    Attributes:
        sigma_min, sigma_max: the noise levels the network was trained for (default: any). Below ``sigma_min`` the prior
            is evaluated at ``sigma_min``, which is what the published samplers do; above ``sigma_max`` it raises.
        channels: 3 for colour, 1 for grey.
        multiple: height and width must be multiples of this (1: any size).
        image_size: the one side length the network takes, or None if any (multiple of ``multiple``).
        sides: the one height and width it takes, where they may differ, or None.
        name: shown in reports.
        card: facts about the weights (data, training, measured quality), empty unless a checkpoint brought them.
        source: where the weights are from (``file``, ``sha256``, ``weights``: "ema" or "raw"), as far as known.
        trained_size: side of the square images it was trained on, if known.
        data_range: what the network itself sees of a [0, 1] image; its adapter translates.
        kind: what it answers: "denoiser", ``E[x0 | x]``; "consistency", a sample (``consistency.py``); "unfolded", a
            sample given data (``unfolded.py``), or "network", a restoration (``feed_forward.py``), which have no score.
            Solvers say which kind they need.
        checked, remark: nothing (more) is to be tried before it is used (``check.py``); what was seen, for messages.
        enlarges: how many times larger the image is than what the network itself sees: 1 for all but super-resolution.
    """

    data_range: tuple[int, int] = (0, 1)
    kind: str = "denoiser"
    enlarges: int = 1
    checked: bool = False
    remark: str = ""
    sides: tuple[int, int] | None = None

    def __init__(
        self,
        *,
        sigma_min: float = 0.0,
        sigma_max: float = float("inf"),
        channels: int = 3,
        multiple: int = 1,
        image_size: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        given = {"sigma_min": sigma_min, "sigma_max": sigma_max, "channels": channels, "multiple": multiple}
        check_types(given | {"image_size": image_size, "name": name}, get_type_hints(Prior.__init__), "a prior")
        levels = f"{sigma_min} and {sigma_max}"
        require(0 <= sigma_min <= sigma_max, "noise levels", "0 <= sigma_min <= sigma_max", levels)
        require(channels >= 1, "channels", "at least 1", channels)
        require(multiple >= 1, "multiple", "at least 1", multiple)
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.channels = channels
        self.multiple = multiple
        self.image_size = image_size
        self.name = name or type(self).__name__
        self.card: dict[str, Any] = {}
        self.source: dict[str, str] = {}
        self.trained_size: int | None = None

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised image (B, C, H, W) for ``x`` of that shape and ``sigma`` of shape (B,), within the range."""

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """``E[x0 | x]`` for noisy ``x`` (B, C, H, W), range [0, 1] plus noise, at ``sigma`` () or (B,).

        Raises:
            ValueError: wrong number of channels or size, or ``sigma`` above ``sigma_max``, negative or not finite.
        """
        self.check(x)
        levels, here = _looked_at(sigma, x, "sigma")
        if here.numel() and float(here.max()) > self.sigma_max * (1 + 1e-5):
            raise ValueError(f"{self.name} knows noise up to sigma = {self.sigma_max:g}, got {float(here.max()):g}")
        levels = levels.clamp(min=self.sigma_min)
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self.denoise(x, levels)
        # Large batches leave the processor's caches: 80 images of 64x64 in one go take twice as long as 5 times 16.
        count = max(1, CPU_PIXELS // (x.shape[-2] * x.shape[-1]))
        parts = zip(x.split(count), levels.split(count), strict=True)
        return torch.cat([self.denoise(*part) for part in parts])

    def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """``grad log p_sigma(x)`` (B, C, H, W), by Tweedie: ``(D - x) / sigma^2`` with sigma at least sigma_min.

        Raises:
            ValueError: as the call; a prior that is no denoiser.
        """
        self.check_kind("a score")
        levels = per_image(sigma, x).clamp(min=self.sigma_min).view(-1, 1, 1, 1)
        return (self(x, sigma) - x) / levels**2

    def noise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The unit noise the prior sees in ``x``: ``(x - D) / sigma``, sigma at least sigma_min. Raises as score."""
        self.check_kind("the noise of an image")
        levels = per_image(sigma, x).clamp(min=self.sigma_min).view(-1, 1, 1, 1)
        return (x - self(x, sigma)) / levels

    def check_kind(self, user: str, kind: str = "denoiser") -> None:
        """Raise ValueError unless the prior is of ``kind``, which ``user`` needs."""
        if self.kind != kind:
            raise ValueError(f"{user} needs {KINDS[kind][0]}; {self.name} is {KINDS[self.kind][1]}")

    def summary(self) -> str:
        """One line: network, parameters, image size, noise range, data range, which weights."""
        network = self.card.get("network") or type(getattr(self, "net", self)).__name__
        size = self.image_size or self.trained_size
        count = sum(weights.numel() for weights in self.parameters()) / 1e6
        facts = [
            f"{self.name}: {network}",
            f"{count:.2f} M parameters" if count else "no weights",
            {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels} channels"),
            *([f"trained at {size}x{size}" if size else "training size not stated"] if count else []),
            *([f"sides in multiples of {self.multiple}"] if self.multiple > 1 else []),
            *([f"{self.kind} model"] if self.kind != "denoiser" else []),
            *([f"noise {self.sigma_min:.3g} to {self.sigma_max:.3g}"] if self.kind != "network" else []),
            "data in [{}, {}]".format(*self.data_range),
        ]
        if "weights" in self.source:
            facts.append({"ema": "EMA weights", "raw": "raw weights"}[self.source["weights"]])
        return ", ".join(facts)

    def check(self, x: Tensor) -> None:
        """Raise ValueError, saying what was expected and what came, unless the network takes images like ``x``."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            hint = " (uint8: x.float() / 255)" if got is torch.uint8 else ""
            raise ValueError(f"{self.name} takes tensors of floating-point numbers, got {got}{hint}")
        if x.ndim != 4 or x.shape[1] != self.channels:
            kinds = {1: "grey ", 3: "colour "}
            kind = kinds.get(self.channels, "") if x.ndim == 4 and x.shape[1] in kinds else ""
            raise ValueError(f"{self.name} takes {kind}images (B, {self.channels}, H, W), got shape {tuple(x.shape)}")
        height, width = x.shape[-2:]
        sides = self.sides or (self.image_size and (self.image_size, self.image_size))
        if sides and (height, width) != sides:
            raise ValueError(f"{self.name} takes {sides[0]}x{sides[1]} images, got {height}x{width}")
        require(min(height, width) >= 1, "images", "of at least one pixel", f"{height}x{width}")
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"{self.name} takes sides that are multiples of {self.multiple}, got {height}x{width}")


class Wrapped(Prior):
    """Base of priors that ask another one: what is known of that one is taken over, ``changes`` excepted."""

    def __init__(self, prior: Prior, name: str, **changes: Any) -> None:
        known = {"sigma_min", "sigma_max", "channels", "multiple", "image_size"}
        super().__init__(**{key: getattr(prior, key) for key in known} | {"name": name} | changes)
        self.card, self.source = prior.card, prior.source
        self.trained_size, self.data_range = prior.trained_size, prior.data_range
        self.kind, self.enlarges, self.checked = prior.kind, prior.enlarges, prior.checked
