"""Tasks of several modules: turns, frozen parts, averages of every tensor, schedules, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from workbench.data import Photos
from workbench.trainers import Task, TrainSettings, train_task

RATES = {"generator": 0.01, "discriminator": 0.02}


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(0, 255, (16, 8, 8, 3), np.uint8))
    return Photos(tmp_path / "photos.npy", size=4, batch_size=2)


def adversarial() -> Task:
    """A linear generator and discriminator on features of a frozen network, least-squares losses."""
    torch.manual_seed(0)
    modules = {"generator": nn.Linear(48, 48), "discriminator": nn.Linear(5, 1), "features": nn.Linear(48, 5)}
    modules["features"].requires_grad_(False)

    def fake(modules, batch, draws):
        return modules["generator"](draws.normal(len(batch.images), 48))

    def generate(modules, batch, draws, context):
        seen = modules["discriminator"](modules["features"](fake(modules, batch, draws)))
        return (seen - 1).square().mean(), {"seen": seen.mean()}

    def discriminate(modules, batch, draws, context):
        real = modules["discriminator"](modules["features"](batch.images.flatten(1)))
        old = context.averages["generator"](draws.normal(len(batch.images), 48))
        assert not old.requires_grad
        return (real - 1).square().mean() + modules["discriminator"](modules["features"](old)).square().mean(), {}

    steppers = {name: [torch.optim.SGD(modules[name].parameters(), lr=rate)] for name, rate in RATES.items()}
    return Task(modules, steppers, [("generator", generate), ("discriminator", discriminate)])


def run(task: Task, photos: Photos, folder: Path, **changes):
    options = {"schedule": "constant", "warmup": 0, "log_every": 1, "save_every": 1, "workers": 0} | changes
    return train_task(task, photos, TrainSettings(**options), folder, progress_bar=False)


def weights(task: Task) -> dict[str, torch.Tensor]:
    return {f"{name}.{k}": v.clone() for name, own in task.modules.items() for k, v in own.state_dict().items()}


def test_turns_step_their_own_modules_and_frozen_parts_stay(photos, tmp_path):
    def half_each_step(step: int) -> float:
        return 0.5**step

    task = adversarial()
    before = weights(task)
    _, progress = run(task, photos, tmp_path / "run", steps=3, schedule=half_each_step)
    after = weights(task)
    assert (progress.step, progress.images) == (3, 6)
    changed = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"generator", "discriminator"}
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["modules"]["features"] == state["averages"]["features"] == {}
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert all(f'"{name}"' in log for name in ("generator/loss", "discriminator/loss", "generator/seen"))
    for name, rate in RATES.items():  # a group's rate is its base times the schedule
        assert task.optimisers[name][0].param_groups[0]["lr"] == pytest.approx(rate / 4)
    assert "half_each_step" in (tmp_path / "run" / "settings.json").read_text()


def test_the_average_of_every_trained_tensor_follows_the_published_rule(photos, tmp_path):
    """score_sde: decays 2/11, 3/12, ... at the first updates, for every tensor: one left out would stay as it was."""
    expected: dict[str, torch.Tensor] = weights(adversarial())
    for steps in range(1, 5):
        task = adversarial()
        averages, _ = run(task, photos, tmp_path / f"run{steps}", steps=steps)
        decay = (1 + steps) / (10 + steps)
        now = weights(task)
        expected = {key: decay * value + (1 - decay) * now[key] for key, value in expected.items()}
        for name, module in averages.items():
            for key, value in module.state_dict().items():
                torch.testing.assert_close(value, expected[f"{name}.{key}"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.optimisers.pop("discriminator"), "expected optimisers for every turn"),
        (lambda t: t.modules["features"].requires_grad_(True), "every parameter that asks for a gradient"),
        (lambda t: t.optimisers["generator"].append(t.optimisers["discriminator"][0]), "in the optimisers of one turn"),
    ],
)
def test_tasks_that_do_not_fit_together_are_refused(change, message):
    task = adversarial()
    change(task)
    with pytest.raises(ValueError, match=message):
        Task(task.modules, task.optimisers, task.turns)
