"""Colour profiles (ICC, version 2) from definitions: RGB by primaries and a curve, CMYK that sees black alone."""

import struct

import numpy as np

ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
D65, D50 = np.array([0.3127 / 0.329, 1, 0.3583 / 0.329]), np.array([0.9642, 1, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Primaries = tuple[tuple[float, float], ...]


def to_xyz(primaries: Primaries) -> np.ndarray:
    """(3, 3): linear RGB with white D65 to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def in_srgb(levels: np.ndarray, primaries: Primaries, gamma: float) -> np.ndarray:
    """8-bit ``levels`` (..., 3) of such a colour space as those of sRGB, not rounded."""
    linear = (levels / 255) ** gamma @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def rgb_profile(name: str, primaries: Primaries, gamma: float) -> bytes:
    """A profile of three primaries, white D65 and a power curve."""
    gain = (BRADFORD @ D50) / (BRADFORD @ D65)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD @ to_xyz(primaries)
    curve = b"curv" + struct.pack(">IIHxx", 0, 1, round(gamma * 256))
    tags = {f"{c}TRC": curve for c in "rgb"} | {f"{c}XYZ": _xyz(adapted[:, k]) for k, c in enumerate("rgb")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, tags)


def black_profile(name: str) -> bytes:
    """A CMYK profile whose inks but black are invisible: L* falls from 100 to 0 with K."""
    corners = bytes(8 * [255, 128, 128, 0, 128, 128])  # Lab at the 16 corners; K is the last ink, so it varies fastest
    table = struct.pack(">4sIBBBx9i", b"mft1", 0, 4, 3, 2, *(65536 * (k % 4 == 0) for k in range(9)))
    table += bytes(range(256)) * 4 + corners + bytes(range(256)) * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", name, {"A2B0": table})


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">4i", 0, *(round(65536 * float(v)) for v in values))


def _profile(kind: bytes, space: bytes, connection: bytes, name: str, tags: dict[str, bytes]) -> bytes:
    text = name.encode() + b"\0"
    tags = tags | {"desc": b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(78), "wtpt": _xyz(D50)}
    entries, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        entries += struct.pack(">4sII", tag.encode(), start + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + entries + data
    header = struct.pack(">I4sI4s4s4s12x4s", 128 + len(body), b"", 0x02100000, kind, space, connection, b"acsp")
    return (header + bytes(28) + _xyz(D50)[8:] + bytes(48)) + body
