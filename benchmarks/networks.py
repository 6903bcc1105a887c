"""Networks beside a plain transcription of the published ones, diffusers' and deepinv's, alternating in one process.

    python benchmarks/networks.py --threads 1
    python benchmarks/networks.py --device cuda --full

Same weights, same inputs. Prints median milliseconds of both, their ratio (below 1: ours is faster) and how far the
outputs are apart, relative to the largest value. Without --full the published structures at half or a quarter of
their width, on images of 64x64, so that a processor is through in two minutes. Exits with 1 if one is slower by more
than the 5 % that two equal computations measure apart. For diffusers' network ours is the prior around it, so this
line measures what the adapter costs.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import plain_networks
import torch
from timing import times
from torch import Tensor, nn

from workbench.models import ADM, DDPM, DRUNet, NCSNpp, VPNoise
from workbench.models.formats import KNOWN
from workbench.models.score_sde import published_names

NOISE = 1.05
Run = Callable[[], Tensor]


def randomise(net: nn.Module) -> nn.Module:
    """Weights that keep activations of size one, zero-initialised layers included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in net.parameters():
            fan = weights[0].numel() if weights.ndim > 1 else 1
            weights.copy_(torch.randn(weights.shape, generator=generator) / max(fan, 4) ** 0.5)
    return net.eval()


def published_state(net: NCSNpp) -> dict[str, Tensor]:
    """The weights of ``net`` as score_sde names them."""
    own = net.state_dict()
    return {
        theirs: own[name].T if theirs.endswith(".W") and own[name].ndim == 2 else own[name]
        for theirs, name in published_names(net)
    }


def cases(full: bool, batch: int, device: torch.device) -> Iterator[tuple[str, Run, Run]]:
    """Name, ours, theirs."""
    adm, ddpm, ncsnpp = (
        next(k.config for k in KNOWN if k.title.startswith(t)) for t in ("ADM", "DDPM 256", "NCSN++ C")
    )
    if not full:
        adm, ddpm = replace(adm, width=64, multipliers=(1, 2, 4), attention_levels=(1, 2)), replace(ddpm, width=64)
        ncsnpp = replace(ncsnpp, width=64)
    size = 256 if full else 64

    def inputs(side: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)
        return x, torch.linspace(10, 900, batch, device=device)

    for name, make, plain, side in (
        ("ADM", lambda: ADM(adm), plain_networks.adm, size),
        ("DDPM", lambda: DDPM(ddpm), plain_networks.ddpm, size),
        ("NCSN++ (CIFAR-10)", lambda: NCSNpp(ncsnpp), plain_networks.ncsnpp, 32),
    ):
        net = randomise(make()).to(device)
        state = published_state(net) if isinstance(net, NCSNpp) else dict(net.state_dict())
        x, told = inputs(side)
        yield name, lambda net=net, x=x, told=told: net(x, told), lambda s=state, x=x, t=told, p=plain: p(s, x, t)
    yield from others(full, inputs, size, device)


def others(
    full: bool, inputs: Callable[[int], tuple[Tensor, Tensor]], size: int, device: torch.device
) -> Iterator[tuple[str, Run, Run]]:
    try:
        import deepinv
        import diffusers
    except ImportError as error:
        print(f"left out, not installed: {error.name}")
        return
    from workbench.models.diffusers_source import Sample
    from workbench.models.networks.drunet import DRUNetConfig

    x, told = inputs(size)
    widths = (64, 128, 256, 512) if full else (32, 64, 128, 256)
    drunet = randomise(DRUNet(DRUNetConfig(widths=widths))).to(device)
    theirs = deepinv.models.DRUNet(pretrained=None, nc=list(widths)).to(device).eval()
    theirs.load_state_dict(drunet.state_dict())
    sigma = told / 5000
    yield "DRUNet (deepinv)", lambda: drunet(x, sigma), lambda: theirs(x, sigma)

    torch.manual_seed(0)
    width = 128 if full else 64
    unet = diffusers.UNet2DModel(
        sample_size=size, block_out_channels=(width, width, 2 * width), layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    ).to(device).eval()  # fmt: skip

    prior = VPNoise(Sample(unet), step="nearest").to(device)
    level = (told.new_tensor(1.0)).expand(len(told))
    time, scale = prior.conditioning(level)

    def by_hand() -> Tensor:
        u = 2 * x - 1
        noise = unet(scale.to(x).view(-1, 1, 1, 1) * u, time.to(x)).sample
        return (u - (scale.view(-1, 1, 1, 1) ** -2 - 1).sqrt().to(x) * noise + 1) / 2

    yield "UNet2DModel (diffusers)", lambda: prior(x, level), by_hand


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="published widths and sizes: for a GPU")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40, help="rounds per line, at most")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds per line, after which rounds stop")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    device = torch.device(options.device)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.process_time() if device.type == "cpu" and options.threads == 1 else time.perf_counter()

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    print(f"torch {torch.__version__}, {name}, batch {options.batch}, {'full' if options.full else 'reduced'} size")
    print(f"{'network':26}{'ours ms':>10}{'theirs ms':>11}{'ratio':>8}{'difference':>13}")
    slower = 0
    with torch.no_grad():
        for label, ours, theirs in cases(options.full, options.batch, device):
            a, b = ours(), theirs()
            apart = float((a - b).abs().max() / b.abs().max())
            mine, other = times((ours, theirs), options.rounds, options.budget, clock)
            slower += mine > NOISE * other
            print(f"{label:26}{1e3 * mine:10.1f}{1e3 * other:11.1f}{mine / other:8.3f}{apart:13.0e}", flush=True)
    print(f"{slower} slower" if slower else "none slower")
    return int(slower > 0)


if __name__ == "__main__":
    raise SystemExit(main())
