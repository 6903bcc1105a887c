"""Plain transcriptions of the published block structures, as functions of a published state dict.

They do what the published code does in the order it does it: attention by two products and a softmax, the time step's
swish once per block, everything from the tensors by name. ``networks.py`` times the package's networks against them,
and a test compares the outputs: two implementations that share nothing but the tensor names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


def _embedding(time: Tensor, width: int, divisor: float, sine_first: bool) -> Tensor:
    angle = time[:, None] * torch.exp(-math.log(10000) / divisor * torch.arange(width // 2, device=time.device))[None]
    return torch.cat([angle.sin(), angle.cos()] if sine_first else [angle.cos(), angle.sin()], 1)


def _conv(state: State, name: str, x: Tensor, **settings: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **settings)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: State, name: str, x: Tensor, groups: int = 32, eps: float = 1e-5) -> Tensor:
    return F.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"], eps)


def adm(state: State, x: Tensor, time: Tensor, head_channels: int = 64) -> Tensor:
    """guided-diffusion: scale and shift, resampling in blocks, heads split before query, key and value."""
    width = state["input_blocks.0.0.weight"].shape[0]
    emb = _linear(state, "time_embed.0", _embedding(time, width, width // 2, False))
    emb = _linear(state, "time_embed.2", F.silu(emb))

    def block(name: str, x: Tensor, resample: str = "") -> Tensor:
        h = F.silu(_norm(state, f"{name}.in_layers.0", x))
        if resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif resample == "up":
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = _conv(state, f"{name}.in_layers.2", h, padding=1)
        scale, shift = _linear(state, f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None].chunk(2, 1)
        h = _norm(state, f"{name}.out_layers.0", h) * (1 + scale) + shift
        h = _conv(state, f"{name}.out_layers.3", F.silu(h), padding=1)
        return (_conv(state, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x) + h

    def attention(name: str, x: Tensor) -> Tensor:
        batch, channels, *size = x.shape
        flat = x.reshape(batch, channels, -1)
        qkv = F.conv1d(_norm(state, f"{name}.norm", flat), state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
        q, k, v = qkv.reshape(batch * channels // head_channels, 3 * head_channels, -1).split(head_channels, 1)
        scale = head_channels**-0.25
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), -1)
        mixed = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, channels, -1)
        mixed = F.conv1d(mixed, state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"])
        return (flat + mixed).reshape(batch, channels, *size)

    def run(prefix: str, x: Tensor, first: str = "") -> Tensor:
        for part in range(3):
            if f"{prefix}.{part}.qkv.weight" in state:
                x = attention(f"{prefix}.{part}", x)
            elif f"{prefix}.{part}.in_layers.0.weight" in state:
                x = block(f"{prefix}.{part}", x, first if part == 0 else "up" if prefix[0] == "o" else "")
        return x

    ups = sum(f"output_blocks.{i}.{j}.in_layers.0.weight" in state for i in range(60) for j in (1, 2))
    per_level = sum(f"output_blocks.{i}.0.in_layers.0.weight" in state for i in range(60)) // (ups + 1)
    skips = [_conv(state, "input_blocks.0.0", x, padding=1)]
    for i in range(1, per_level * (ups + 1)):
        skips.append(run(f"input_blocks.{i}", skips[-1], "down" if i % per_level == 0 else ""))
    h = run("middle_block", skips[-1])
    for i in range(len(skips)):
        h = run(f"output_blocks.{i}", torch.cat([h, skips.pop()], 1))
    return _conv(state, "out.2", F.silu(_norm(state, "out.0", h)), padding=1)


def ddpm(state: State, x: Tensor, time: Tensor) -> Tensor:
    """pytorch_diffusion: single-head attention, convolutions that resample."""
    width = state["conv_in.weight"].shape[0]
    emb = _linear(state, "temb.dense.0", _embedding(time, width, width // 2 - 1, True))
    emb = _linear(state, "temb.dense.1", F.silu(emb))

    def block(name: str, x: Tensor) -> Tensor:
        h = _conv(state, f"{name}.conv1", F.silu(_norm(state, f"{name}.norm1", x, eps=1e-6)), padding=1)
        h = h + _linear(state, f"{name}.temb_proj", F.silu(emb))[:, :, None, None]
        h = _conv(state, f"{name}.conv2", F.silu(_norm(state, f"{name}.norm2", h, eps=1e-6)), padding=1)
        return (_conv(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x) + h

    def attention(name: str, x: Tensor) -> Tensor:
        if f"{name}.q.weight" not in state:
            return x
        h = _norm(state, f"{name}.norm", x, eps=1e-6)
        q, k, v = (_conv(state, f"{name}.{part}", h).flatten(2) for part in "qkv")
        weight = torch.softmax(torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5, -1)
        return x + _conv(state, f"{name}.proj_out", torch.bmm(v, weight.transpose(1, 2)).view(x.shape))

    levels = sum(f"down.{i}.block.0.conv1.weight" in state for i in range(20))
    blocks = sum(f"down.0.block.{i}.conv1.weight" in state for i in range(20))
    skips = [_conv(state, "conv_in", x, padding=1)]
    for i in range(levels):
        for j in range(blocks):
            skips.append(attention(f"down.{i}.attn.{j}", block(f"down.{i}.block.{j}", skips[-1])))
        if i < levels - 1:
            skips.append(_conv(state, f"down.{i}.downsample.conv", F.pad(skips[-1], (0, 1, 0, 1)), stride=2))
    h = block("mid.block_2", attention("mid.attn_1", block("mid.block_1", skips[-1])))
    for i in reversed(range(levels)):
        for j in range(blocks + 1):
            h = attention(f"up.{i}.attn.{j}", block(f"up.{i}.block.{j}", torch.cat([h, skips.pop()], 1)))
        if i > 0:
            h = _conv(state, f"up.{i}.upsample.conv", F.interpolate(h, scale_factor=2), padding=1)
    return _conv(state, "conv_out", F.silu(_norm(state, "norm_out", h, eps=1e-6)), padding=1)


def ncsnpp(state: State, u: Tensor, sigma: Tensor) -> Tensor:
    """score_sde with Fourier features, FIR resampling and a residual input pyramid (CIFAR-10), undivided."""
    kernel = torch.outer(row := torch.tensor([1.0, 3.0, 3.0, 1.0], device=u.device) / 8, row)[None, None]

    def fir(x: Tensor, up: bool = False, padding: int = 1) -> Tensor:
        taps = kernel.expand(x.shape[1], 1, 4, 4)
        if not up:
            return F.conv2d(x, taps, stride=2 if padding == 1 else 1, padding=padding, groups=x.shape[1])
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        spread[:, :, ::2, ::2] = x
        return F.conv2d(F.pad(spread, (2, 1, 2, 1)), 4 * taps, groups=x.shape[1])

    def norm(name: str, x: Tensor) -> Tensor:
        return _norm(state, name, x, min(x.shape[1] // 4, 32), 1e-6)

    def block(i: int, x: Tensor, resample: str = "") -> Tensor:
        n = f"all_modules.{i}"
        h = F.silu(norm(f"{n}.GroupNorm_0", x))
        if resample:
            h, x = fir(h, resample == "up"), fir(x, resample == "up")
        h = _conv(state, f"{n}.Conv_0", h, padding=1) + _linear(state, f"{n}.Dense_0", F.silu(emb))[:, :, None, None]
        h = _conv(state, f"{n}.Conv_1", F.silu(norm(f"{n}.GroupNorm_1", h)), padding=1)
        return ((_conv(state, f"{n}.Conv_2", x) if f"{n}.Conv_2.weight" in state else x) + h) / math.sqrt(2)

    def attention(i: int, x: Tensor) -> Tensor:
        n, h = f"all_modules.{i}", norm(f"all_modules.{i}.GroupNorm_0", x)

        def nin(k: int, h: Tensor) -> Tensor:
            return torch.einsum("bchw,cd->bdhw", h, state[f"{n}.NIN_{k}.W"]) + state[f"{n}.NIN_{k}.b"][:, None, None]

        q, k, v = (nin(part, h).flatten(2) for part in range(3))
        weight = torch.softmax(torch.einsum("bci,bcj->bij", q, k) * q.shape[1] ** -0.5, -1)
        return (x + nin(3, torch.einsum("bij,bcj->bci", weight, v).view(x.shape))) / math.sqrt(2)

    def is_attention(i: int) -> bool:
        return f"all_modules.{i}.NIN_0.W" in state

    def resamples(i: int) -> bool:
        weight = state.get(f"all_modules.{i}.Conv_0.weight")
        return f"all_modules.{i}.Conv_2.weight" in state and weight is not None and weight.shape[0] == weight.shape[1]

    angle = sigma.log()[:, None] * state["all_modules.0.W"][None] * 2 * math.pi
    emb = _linear(state, "all_modules.1", torch.cat([angle.sin(), angle.cos()], 1))
    emb = _linear(state, "all_modules.2", F.silu(emb))
    skips, pyramid, i = [_conv(state, "all_modules.3", u, padding=1)], u, 4
    last = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("all_modules."))
    levels = 1 + sum(resamples(k) for k in range(last)) // 2
    blocks = sum(f"all_modules.{k}.Dense_0.weight" in state for k in range(last)) - 2 * (levels - 1) - 2
    per_level = (blocks - levels) // (2 * levels)
    for level in range(levels):
        for _ in range(per_level):
            h, i = block(i, skips[-1]), i + 1
            if is_attention(i):
                h, i = attention(i, h), i + 1
            skips.append(h)
        if level < levels - 1:
            h = block(i, skips[-1], "down")
            pyramid = _conv(state, f"all_modules.{i + 1}.Conv2d_0", fir(pyramid, padding=2), stride=2)
            pyramid, i = (pyramid + h) / math.sqrt(2), i + 2
            skips.append(pyramid)
    h, i = block(i + 2, attention(i + 1, block(i, skips[-1]))), i + 3
    for level in reversed(range(levels)):
        for _ in range(per_level + 1):
            h, i = block(i, torch.cat([h, skips.pop()], 1)), i + 1
        if is_attention(i):
            h, i = attention(i, h), i + 1
        if level > 0:
            h, i = block(i, h, "up"), i + 1
    return _conv(state, f"all_modules.{i + 1}", F.silu(norm(f"all_modules.{i}", h)), padding=1)
