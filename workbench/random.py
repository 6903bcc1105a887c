"""Where noise comes from: one small convention, so that every stochastic call is reproducible and testable.

A solver takes ``generator`` (a :class:`torch.Generator`, or one per image so that a batch gives exactly what single
images give) or ``noise``, any function ``(like) -> tensor`` of the same shape, which tests use to replay stored draws.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoiseSource = Callable[[Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded with ``seed`` (0 is a seed like any other)."""
    return torch.Generator(device).manual_seed(seed)


def stream(seed: int, *purpose: object) -> torch.Generator:
    """A generator for one ``purpose`` ("noise", or "noise", 7 for image 7) of a run with this ``seed``.

    Hashed, not seed + constant: streams of neighbouring seeds must not coincide either.
    """
    digest = hashlib.sha256(" ".join(map(str, (*purpose, seed))).encode()).digest()
    return generator(int.from_bytes(digest[:8], "big") >> 1)


def stream_of(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """The stream of image ``number`` of a run; image 0 has that of a single photo."""
    return stream(seed, purpose, number) if number else stream(seed, purpose)


def noise_source(generators: Generators) -> NoiseSource:
    """Return ``draw(like)``: standard normal noise with the shape, dtype and device of ``like`` (B, ...).

    Draws happen on the generator's own device and are moved, so that one seed means one image per device. With a
    sequence of generators, image ``b`` draws from generator ``b`` alone.

    Raises:
        ValueError: something else than generators, or not one for each image.
    """
    each = generators if isinstance(generators, Sequence) else [generators]
    if generators is not None and not all(isinstance(source, torch.Generator) for source in each):
        hint = f": torch.manual_seed({generators})?" if isinstance(generators, int) else ""
        raise ValueError(f"generator must be a torch.Generator, or one per image, got {generators!r}{hint}")
    if generators is None or isinstance(generators, torch.Generator):

        def draw(like: Tensor) -> Tensor:
            device = like.device if generators is None else generators.device
            drawn = torch.randn(like.shape, generator=generators, dtype=like.dtype, device=device)
            return drawn.to(like.device, non_blocking=True)

        return draw

    sources = list(generators)

    def draw_each(like: Tensor) -> Tensor:
        if len(sources) != like.shape[0]:
            raise ValueError(f"expected one generator per image, got {len(sources)} for a batch of {like.shape[0]}")
        rows = [
            torch.randn(like.shape[1:], generator=source, dtype=like.dtype, device=source.device) for source in sources
        ]
        return torch.stack([row.to(like.device, non_blocking=True) for row in rows])

    return draw_each


class Draws:
    """The random numbers of one training step, as one of ``ranks`` processes that share a global batch sees them.

    Every process draws the numbers of the whole global batch and keeps its own rows: images, levels and operators are
    those of one process with the same global batch. The first dimension of what is asked for is this process' share.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, ranks: int = 1) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"expected 0 <= rank < ranks, got rank {rank} of {ranks}")
        self.generator, self.rank, self.ranks = generator, rank, ranks

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of ``shape`` (B, ...), float32, on the generator's device."""
        return self._mine(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) of ``shape`` (B, ...), float32, on the generator's device."""
        return self._mine(torch.rand, shape)

    def shared(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) of ``shape``, the same in every process."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def _mine(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        count = shape[0]
        every = draw((count * self.ranks, *shape[1:]), generator=self.generator, device=self.generator.device)
        return every[self.rank * count : (self.rank + 1) * count]
