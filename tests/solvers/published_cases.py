"""Stored results of published code: their tensors, their denoisers and operators, translated to [0, 1] images."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, silu

from tests.solvers.solver_problems import Factors, FunctionPrior
from workbench.models.gaussian import GaussianPrior
from workbench.models.prior import Prior
from workbench.operators import Blur, FunctionOperator, Grayscale, Identity, Inpainting, Operator, SuperResolution


class Case:
    """A stored reference case: ``case["name"]`` is a tensor, ``case.info`` the JSON."""

    def __init__(self, shared: Path, name: str) -> None:
        folder = shared / "reference" / "samplers"
        self.info = json.loads((folder / f"{name}.json").read_text())
        self.tensors = load_file(folder / f"{name}.safetensors")
        self.atol = self.info["suggested_atol_outputs"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def network(self, x: Tensor, time: Tensor) -> Tensor:
        """The tiny network of the case, conditioned on ``time`` (B,)."""
        hidden = conv2d(x, self["net/conv1.weight"], self["net/conv1.bias"], padding=1)
        hidden = silu(hidden + self["net/emb"].view(1, -1, 1, 1) * time.view(-1, 1, 1, 1))
        return conv2d(hidden, self["net/conv2.weight"], self["net/conv2.bias"], padding=1)

    def ve_prior(self) -> Prior:
        """The case's denoiser, which takes [0, 1] images plus noise."""
        if "prior/spectrum" in self:
            return GaussianPrior(self["prior/spectrum"], self["prior/mean"])

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            level = sigma.view(-1, 1, 1, 1)
            raw = self.network(x / (1 + level), 0.25 * sigma.log())
            return x + level**2 * (raw + 0.5 - x) / (level**2 + 0.25)

        return FunctionPrior(denoise)

    def vp_prior(self) -> Prior:
        """The case's noise predictor on [-1, 1] images at times t, as a VE denoiser on [0, 1]."""
        if "prior/spectrum" in self:
            return GaussianPrior(self["prior/spectrum"] / 4, (self["prior/mean"] + 1) / 2)
        levels, alpha_bar = self.levels(), self["schedule/alphas_cumprod"].double()

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            t = (levels[None] - sigma.double()[:, None]).abs().argmin(1)
            time = (t / 1000).to(x.dtype)
            state = (2 * x - 1) * alpha_bar[t].sqrt().to(x.dtype).view(-1, 1, 1, 1)
            noise = self.network(state, time) + 0.9 * state * time.sqrt().view(-1, 1, 1, 1)
            return x - sigma.view(-1, 1, 1, 1) * noise

        return FunctionPrior(denoise)

    def levels(self, times: Tensor | slice = slice(None)) -> Tensor:
        """The times of a VP diffusion on [-1, 1] images as noise levels of [0, 1] images, float64."""
        alpha_bar = self["schedule/alphas_cumprod"].double()[times]
        return ((1 - alpha_bar) / alpha_bar).sqrt() / 2

    def unit(self, start: Tensor, time: int | Tensor) -> Tensor:
        """The unit noise n of a published start: start / sqrt(abar) = 2 (1/2 + sigma n) - 1."""
        return (start.double() / (1 - self["schedule/alphas_cumprod"][time].double()).sqrt()).float()

    def operator(self) -> Operator:
        """The package's operator that the case was measured by."""
        task = self.info.get("task")
        if "op/mask" in self:
            mask = self["op/mask"]
            return Inpainting(mask if mask.ndim == 2 else mask[None])
        if "op/matrix_per_channel" in self:
            matrix = self["op/matrix_per_channel"]
            return FunctionOperator(lambda x: (x.flatten(2) @ matrix.T.to(x)).unflatten(2, (8, 8)), (3, 16, 16))
        if "op/kernel" in self:
            return Blur(self["op/kernel"])
        if task == "color":
            return Grayscale((0.3333, 0.3334, 0.3333) if "op/V_small" in self else (1 / 3, 1 / 3, 1 / 3))
        return SuperResolution(4, "average") if task == "sr4" else Identity()

    def measurement(self) -> Tensor:
        """y of [-1, 1] images 16x16, which the published operators flatten or repeat, as ``operator`` takes it."""
        y = (self["y"] + 1) / 2
        if "op/kept_indices_hwc" in self:
            image = torch.zeros(2, 768)
            image[:, self["op/kept_indices_hwc"]] = y
            return image.view(2, 16, 16, 3).permute(0, 3, 1, 2)
        shape = self.operator().measurement_shape((2, 3, 16, 16))
        y = y.flatten(1)[:, : math.prod(shape[1:])].view(shape)
        return y * self["op/mask"] if "op/mask" in self else y


def ddrm_operator(case: Case) -> Factors:
    """U, singular values and V of the published operators on flattened CHW images, in their order."""
    shape, n, task = (3, 16, 16), 768, case.info["task"]
    eye = torch.eye(n)
    if task == "deno":
        return Factors(eye, torch.ones(n), eye, shape)
    if task == "inp":
        kept, missing = case["op/kept_indices_hwc"], case["op/missing_indices_hwc"]
        hwc = eye.view(n, *shape).permute(2, 3, 1, 0).reshape(n, n)  # row: HWC position, column: CHW position
        return Factors(torch.eye(len(kept)), torch.ones(len(kept)), hwc[torch.cat([kept, missing])].T, shape)
    if task == "sr4":
        blocks = eye.view(n, 3, 4, 4, 4, 4).permute(1, 2, 4, 3, 5, 0).reshape(48, 16, n)
        rotated = torch.einsum("bpn,pk->bkn", blocks, case["op/V_small"])
        v = torch.cat([rotated[:, 0], rotated[:, 1:].reshape(-1, n)]).T
        return Factors(case["op/U_small"] * torch.eye(48), case["op/singulars_small"].expand(48), v, shape)

    def basis(small: Tensor) -> Tensor:
        planes = torch.einsum("ip,jq->pqij", small, small).reshape(256, 16, 16)[case["op/perm"]]
        return torch.einsum("kij,cd->kcdij", planes, torch.eye(3)).reshape(n, n).T

    # Zeros take the branch of badly seen components there; the smallest numbers do here.
    values = case["op/singulars_as_used"].clamp(min=1e-30)
    return Factors(basis(case["op/U_small"]), values, basis(case["op/V_small"]), shape)
