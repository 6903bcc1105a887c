"""An operator that is not linear: the tone curve of a camera."""

from torch import Tensor

from workbench.operators import Operator


class Exposed(Operator):
    """Brighter, gamma 1/2.2, and clipped at both ends. Measurements are pictures of the image's size."""

    linear = False

    def forward(self, x: Tensor) -> Tensor:
        return (1.2 * x.clamp(min=1e-4) ** (1 / 2.2) - 0.1).clamp(0, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.clone()  # a stand-in: shown as the picture of the measurement

    def pinv(self, y: Tensor) -> Tensor:
        return ((y + 0.1) / 1.2).clamp(min=0) ** 2.2


camera = Exposed()
