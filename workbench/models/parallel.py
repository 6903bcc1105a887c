"""One network call spread over several devices, or over several processes.

DeqIR asks a prior about all T noise levels of all images in one batch; that batch is what is split here, so the solver
itself knows nothing of it. ``SplitPrior`` holds a copy of the network on every device of one machine.
``SharedPrior`` is for processes of ``torch.distributed`` (launched by torchrun or accelerate) that all run the same
solver on the same data with the same seed: each evaluates its share of the batch and hears of the others'.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.models.prior import Prior, Wrapped


class SplitPrior(Wrapped):
    """``prior`` on several ``devices``: each gets an equal share of every batch (B, C, H, W), at the same time.

    The answer is on the device of what was asked. No gradients.

    Raises:
        ValueError: no device, one that torch does not know, or one that this machine does not have.
    """

    def __init__(self, prior: Prior, devices: Sequence[str | torch.device]) -> None:
        known = [existing_device(device) for device in devices]
        if not known:
            raise ValueError("expected at least one device, got none")
        super().__init__(prior, f"{prior.name} on {', '.join(map(str, known))}")
        self.devices = known
        self.copies = nn.ModuleList([copy.deepcopy(prior).to(device) for device in known])

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """As ``prior``, a share on every device."""
        count = len(self.devices)
        shares = zip(self.copies, self.devices, x.tensor_split(count), sigma.tensor_split(count), strict=True)
        with ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(_ask, [share for share in shares if len(share[2])]))
        return torch.cat([answer.to(x.device) for answer in answers])


class SharedPrior(Wrapped):
    """``prior`` in every process of the default group of ``torch.distributed``; see the module. No gradients.

    Raises:
        RuntimeError: the group has not been started.
    """

    def __init__(self, prior: Prior) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("start torch.distributed first (init_process_group, or accelerate's PartialState)")
        super().__init__(prior, f"{prior.name} in {dist.get_world_size()} processes")
        self.prior = prior

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """As ``prior``: every process must ask about the same batch."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        size = -(-len(x) // ranks)
        mine = slice(rank * size, (rank + 1) * size)
        answer = torch.zeros_like(x[:1]).expand(size, *x.shape[1:]).clone()
        if len(x[mine]):
            answer[: len(x[mine])] = self.prior(x[mine], sigma[mine])
        parts = [torch.empty_like(answer) for _ in range(ranks)]
        dist.all_gather(parts, answer)
        return torch.cat(parts)[: len(x)]


@torch.no_grad()
def _ask(share: tuple[nn.Module, torch.device, Tensor, Tensor]) -> Tensor:
    network, device, x, sigma = share
    answer: Tensor = network(x.to(device, non_blocking=True), sigma.to(device, non_blocking=True))
    return answer


def existing_device(device: str | torch.device) -> torch.device:
    """``device``; ValueError if torch does not know it or this machine does not have it."""
    try:
        known = torch.device(device)
        torch.zeros(1, device=known)
    except (RuntimeError, AssertionError) as error:
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used ({reason}); there are {there}") from None
    return known
