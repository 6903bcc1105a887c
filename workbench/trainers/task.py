"""What a run trains: modules, their optimisers, and the losses that take turns.

One network with one loss is a task of one turn (:func:`single`). A generator and a discriminator are two modules with
an optimiser each and two turns, ``[("generator", loss), ("discriminator", loss)]``; every turn makes a forward and a
backward pass and steps its own optimisers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from workbench.data.photos import Batch
from workbench.models.prior import Prior
from workbench.random import Draws
from workbench.text import require, require_kind
from workbench.trainers.dsm import Objective, Values
from workbench.trainers.muon import optimisers

if TYPE_CHECKING:
    from workbench.trainers.loop import TrainSettings


@dataclass(frozen=True)
class Context:
    """What a loss may know of the run: the step, and the modules with averaged weights, to be called like them."""

    step: int
    averages: Mapping[str, Callable[..., Any]]


Modules = Mapping[str, nn.Module]
Loss = Callable[[Modules, Batch, Draws, Context], tuple[Tensor, Values]]


@dataclass
class Task:
    """A training task.

    Attributes:
        modules: by name. Parameters that ask for no gradient stay as they are, and are neither averaged nor stored.
        optimisers: by turn; the learning rates of their parameter groups are base rates, multiplied by the schedule.
        turns: (name, loss), in order. A loss gets the modules (wrapped, where several processes train), the batch on
            their device, the random numbers of the step, and the context; it returns the mean over the batch, with a
            graph, and scalars to log.
        described: recorded in ``settings.json`` and compared when a run is continued.
    """

    modules: dict[str, nn.Module]
    optimisers: dict[str, list[Optimizer]]
    turns: Sequence[tuple[str, Loss]]
    described: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.turns]
        if not names or sorted(names) != sorted(self.optimisers) or len(set(names)) < len(names):
            raise ValueError(f"expected optimisers for every turn, got turns {names} and {sorted(self.optimisers)}")
        trained = [id(p) for module in self.modules.values() for p in module.parameters() if p.requires_grad]
        stepped = [id(p) for name in names for p in self.parameters(name)]
        if sorted(set(trained)) != sorted(stepped):
            raise ValueError(
                f"expected every parameter that asks for a gradient in the optimisers of one turn: there are "
                f"{len(set(trained))} such parameters, the optimisers have {len(stepped)}"
            )

    def parameters(self, turn: str) -> list[nn.Parameter]:
        """The parameters that a turn steps, in the order of the modules."""
        own = {id(p) for stepper in self.optimisers[turn] for group in stepper.param_groups for p in group["params"]}
        return [p for module in self.modules.values() for p in module.parameters() if id(p) in own]

    def trained(self) -> dict[str, dict[str, Tensor]]:
        """The trainable parameters of each module, by name."""
        return {
            name: {key: p.data for key, p in module.named_parameters() if p.requires_grad}
            for name, module in self.modules.items()
        }

    def digest(self) -> str:
        """SHA-256 of all weights, frozen ones too: what a run starts from."""
        found = hashlib.sha256()
        for module in self.modules.values():
            for key, tensor in module.state_dict().items():
                found.update(key.encode())
                found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


class Averages:
    """Running averages of the trainable parameters, ``d a + (1 - d) p`` with ``d = min(decay, (1 + n) / (10 + n))`` at
    update n, from 1 (score_sde's); or d a function of n - 1."""

    def __init__(self, task: Task, decay: float | Callable[[int], float]) -> None:
        self.task, self.decay, self.updates = task, decay, 0
        self.values = {name: {k: p.clone() for k, p in own.items()} for name, own in task.trained().items()}

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the parameters as they are."""
        self.updates += 1
        n, decay = self.updates, self.decay
        weight = 1 - (decay(n - 1) if callable(decay) else min(decay, (1 + n) / (10 + n)))
        for name, own in self.task.trained().items():
            if own:
                torch._foreach_lerp_(list(self.values[name].values()), list(own.values()), weight)

    def calls(self) -> dict[str, Callable[..., Any]]:
        """The modules with averaged weights, without a graph."""

        def averaged(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                with torch.no_grad():
                    return functional_call(self.task.modules[name], self.values[name], arguments, options)

            return call

        return {name: averaged(name) for name in self.task.modules}


def single(prior: Prior, objective: Objective, settings: TrainSettings) -> Task:
    """One prior and one objective; all of its parameters are trained."""
    require_kind(prior, Prior, "prior", "load_prior('photo')")
    require(is_dataclass(objective) and not isinstance(objective, type), "objective", "such as DSM()", repr(objective))
    prior.requires_grad_(True)

    def loss(modules: Modules, batch: Batch, draws: Draws, context: Context) -> tuple[Tensor, Values]:
        floor = {} if batch.floor is None else {"floor": batch.floor}
        return objective(modules["prior"], batch.images, draws, **floor)

    return Task({"prior": prior}, {"prior": optimisers(prior, settings)}, [("prior", loss)], described(objective))


def described(objective: Any) -> dict[str, Any]:
    """The settings of an objective, a dataclass, as ``settings.json`` has them."""
    settings = {f"objective.{name}": value for name, value in asdict(objective).items()}
    return {**settings, "objective": type(objective).__name__}
