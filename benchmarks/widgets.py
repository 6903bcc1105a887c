"""Milliseconds from a moved slider to the new picture, for the tools of ``workbench.widgets``.

    python benchmarks/widgets.py --size 128

Medians over some moves: on the clock, and of the processor alone, which a busy machine lengthens less. The way to the
browser and back comes on top; tests/test_widgets_browser.py prints the time as one sees it in JupyterLab.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.restore import degrade, restore
from workbench.solvers import DiffPIR, Step
from workbench.widgets import comparison, operator_explorer, prior_inspector, restoration_player, training_monitor
from workbench.widgets.tool import Tool


def milliseconds(tool: Tool, control: str, values: list[float]) -> tuple[float, float]:
    """On the clock and of the processor."""
    clock, processor = [], []
    for value in values:
        started, used = time.perf_counter(), time.process_time()
        tool.controls[control].value = value
        clock.append(1000 * (time.perf_counter() - started))
        processor.append(1000 * (time.process_time() - used))
    return statistics.median(clock), statistics.median(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    photo, prior, steps = sample_photo("astronaut", given.size), load_prior("photo"), list[Step]()
    result = restore(degrade(photo, "sr:4", 0.02), DiffPIR(steps=20), prior, callback=steps.append)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "settings.json").write_text('{"settings.steps": 1000}')
        lines = (f'{{"step": {k}, "images": {k}, "seconds": {k}, "loss": {1 / k}}}\n' for k in range(1, 200))
        (Path(folder) / "log.jsonl").write_text("".join(lines))
        monitor = training_monitor(folder)
        monitor.controls["follow"].observe(monitor.redraw, "value")
        results = {"degraded": result.degraded.picture, "DiffPIR": result, "original": photo}
        rows = [
            (operator_explorer(photo), "noise", [0.02 + 0.01 * k for k in range(10)]),
            (restoration_player(result, steps), "iteration", list(range(3, 13))),
            (prior_inspector(prior, photo), "sigma", [0.2 + 0.05 * k for k in range(10)]),
            (comparison(results), "zoom", [1.5 + k for k in range(10)]),
            (monitor, "follow", [False, True] * 5),
        ]
        print(f"{given.size}x{given.size}: tool, moved control, ms on the clock, ms of the processor")
        for tool, control, values in rows:
            clock, processor = milliseconds(tool, control, values)
            print(f"{tool.title:20} {control:10} {clock:6.0f} {processor:6.0f}")


if __name__ == "__main__":
    main()
