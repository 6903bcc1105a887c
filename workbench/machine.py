"""Versions and hardware that figures depend on, told without importing what is not there yet."""

import functools
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

PACKAGE = "restoration-workbench"


@functools.cache
def versions() -> dict[str, str]:
    """Of Python, of this package, and of what it asks for, tools for developers apart, as far as it is installed."""
    found = {"python": platform.python_version()}
    asked = {re.split(r"[^\w.-]", text)[0] for text in requires(PACKAGE) or () if '"dev"' not in text}
    for name in sorted({PACKAGE, *asked}):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def hardware() -> dict[str, Any]:
    """The processor, and the threads and GPUs of this process where it has imported torch, and used them."""
    torch = sys.modules.get("torch")
    threads = {"threads": torch.get_num_threads()} if torch else {}
    cuda = torch.cuda if torch and torch.cuda.is_initialized() else None
    gpus = [cuda.get_device_name(number) for number in range(cuda.device_count())] if cuda else []
    return {"processor": processor(), **threads, "gpus": gpus}


@functools.cache
def processor() -> str:
    """The processor's name, or its architecture where the system says no more."""
    mac = ["sysctl", "-n", "machdep.cpu.brand_string"]
    command = mac if platform.system() == "Darwin" else ["grep", "-m1", "^model name", "/proc/cpuinfo"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        said = platform.processor()
    return said.rpartition(": ")[2].strip() or platform.machine()
