"""Base class of the forward models (interface; derivations follow)."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn


class Operator(nn.Module):
    """A forward model ``y = A x``. Noise is separate.

    ``op(x)``, ``op.adjoint(y)``, ``op.pinv(y)``, ``op.prox(z, y, weight)``, ``op.project_null(x)``.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """``A^+ y``."""

    @abstractmethod
    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """``argmin_x 1/2 ||A x - y||^2 + weight/2 ||x - z||^2``; ``weight`` is () or (B,)."""

    def project_null(self, x: Tensor) -> Tensor:
        """``(I - A^+ A) x``."""
        return x - self.pinv(self(x))
