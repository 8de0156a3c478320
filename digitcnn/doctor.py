"""Doctor: is this machine ready, and if not, what mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys

from . import files
from .files import DigitcnnError

REMEDY = "run `python3 tools/environment.py full`, which all but `make report` needs"


def diagnose() -> int:
    """Print a line per check; exit status 1 if something needed is wrong."""
    if importlib.util.find_spec("torch") is None:  # every further check would say it again
        print(f"NO  full environment: {REMEDY}.")
        return 1
    wrong = 0
    for check in (python, kernel, quarto, data, device, disk):
        try:
            good, found = True, check()
        except (DigitcnnError, OSError, subprocess.TimeoutExpired) as error:
            good, found = False, " ".join(str(error).split())
        except (ImportError, KeyError) as error:  # a package, a kernel
            good, found = False, f"{error}: {REMEDY}."
        wrong += not good
        print(f"{'ok ' if good else 'NO '} {check.__name__:<9} {found}", flush=True)
    return int(wrong > 0)


def python() -> str:
    """Which Python runs this, with which versions of what decides a run's numbers."""
    names = ("torch", "torchvision", "numpy", "scikit-learn")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([platform.python_version(), sys.executable, *versions])


def kernel() -> str:
    """Whether Quarto would run the chapters' cells with this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if found not in ("python", "python3", sys.executable):
        raise DigitcnnError(
            f"Jupyter's kernel python3 is another Python ({found}): use `make`, or set "
            f"QUARTO_PYTHON={sys.executable}."
        )
    return f"Jupyter's python3 is {found}"


def quarto() -> str:
    """Which Quarto renders the report."""
    program = shutil.which("quarto")
    if not program:
        return "not installed, and needed for `make preview` alone (1.9 or newer)"
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    version = answer.stdout.strip()
    if tuple(int(x) for x in version.split(".")[:2] if x.isdigit()) < (1, 9):
        raise DigitcnnError(f"{version or 'no version'} is too old: install 1.9 or newer.")
    return f"{version}, {program}"


def data() -> str:
    """Whether the data sets are there and whole."""
    from . import sources

    for name in sources.NAMES:
        if files.profile() == "full":
            sources.verify(name)
    return f"{' and '.join(sources.NAMES)} are complete in {files.shown(files.data_root())}"


def device() -> str:
    """What training runs on."""
    import torch

    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name()}"
    from . import training

    fast = "with" if training.native_bfloat16(torch.device("cpu")) else "without"
    return f"CPU {fast} bfloat16, {torch.get_num_threads()} threads (no CUDA GPU)"


def disk() -> str:
    """Whether there is room."""
    free = shutil.disk_usage(files.project_root()).free / 1e9
    if free < 2:
        raise DigitcnnError(f"{free:.1f} GB are free here: free at least 2 GB.")
    return f"{free:.0f} GB free"
