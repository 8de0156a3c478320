"""Set up the project's own Python environment, `.venv`, from the lock files.

    python3 tools/environment.py report    # what reading the report needs: three packages
    python3 tools/environment.py full      # everything: training, chapters' cells, tests

Instant when nothing changed; safe when two start at once; an installation that was interrupted is
done again. Standard library only, and no newer syntax than its own error message needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
NEEDS = {  # title, estimate, free disk in GB
    "report": ("the report's renderer", "about 20 s", 0.5),
    "full": ("the full environment", "2 to 10 minutes, about 3 GB to download on Linux", 10),
}
CUDA = r"(?m)^(nvidia-|cuda-|triton==).*\n(    .*\n?)*"  # what torch needs of it, in a lock


class SetupError(Exception):
    """What the user has to mend, in one sentence."""


def lock_file(name: str) -> Path:
    """The lock file of a set of packages."""
    return ROOT / "requirements" / (name + ".txt")


def any_encoding() -> None:
    """Let no terminal's encoding stop a command: what it cannot show becomes a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if "PYTHONIOENCODING" in os.environ:  # of the commands that are started from here
        encoding = os.environ["PYTHONIOENCODING"].partition(":")[0]
        os.environ["PYTHONIOENCODING"] = encoding + ":replace"


def ensure(name: str) -> Path:
    """Make `.venv` hold a set of packages and this project; return its Python."""
    if name not in NEEDS:
        raise SetupError("There is no environment %r: choose %s." % (name, ", ".join(NEEDS)))
    if sys.version_info < (3, 11):
        raise SetupError(
            "Python 3.11 or newer is needed and this is %s: run `make PYTHON=python3.12 …` with "
            "the name of a newer one." % sys.version.split()[0]
        )
    why = unfit(name)
    if why:
        raise SetupError(why)
    unpack_scripts()
    if is_current(name):
        return PYTHON
    with only_one():
        if not is_current(name):  # another process may have done it meanwhile
            install(name)
    return PYTHON


def unfit(name: str) -> str:
    """Why this machine cannot have a set of packages, with what to do; empty if it can."""
    if name == "full" and sys.platform == "darwin" and platform.machine() == "x86_64":
        return (
            "PyTorch is no longer made for Macs with Intel processors: `make report` works here, "
            "everything else needs another machine (README, Other machines)."
        )
    if "musl" in (sysconfig.get_config_var("SOABI") or ""):
        return (
            "The packages are made for Linux with glibc, and this one, Alpine for example, has "
            "musl: use a container of Debian or Ubuntu (README, Other machines)."
        )
    return ""


def unpack_scripts() -> None:
    """Give the scripts of an unpacked submission their names back, which no mail takes."""
    for folder in ("digitcnn", "_freeze"):
        for path in (ROOT / folder).rglob("*_js.txt"):
            path.rename(path.with_name(path.name[: -len("_js.txt")] + ".js"))


def is_current(name: str) -> bool:
    """Whether the environment works and holds a set as it is locked now."""
    sets = [name, "full"] if name == "report" else [name]  # the full set holds the light one
    if not any(stamp(s).is_file() and stamp(s).read_text() == stamp_text(s) for s in sets):
        return False
    return works("import yaml, digitcnn")  # the Python that it is built on may have gone


def works(code: str) -> bool:
    """Whether `.venv`'s Python runs a line of code."""
    with contextlib.suppress(OSError):
        return subprocess.run([PYTHON, "-c", code], capture_output=True).returncode == 0
    return False


def stamp(name: str) -> Path:
    """The file that says with which lock a set was installed."""
    return VENV / ("installed-%s.txt" % name)


def stamp_text(name: str) -> str:
    """The lock's digest, and where the environment is, because it cannot be moved."""
    return "%s %s\n" % (hashlib.sha256(lock_file(name).read_bytes()).hexdigest(), ROOT)


@contextlib.contextmanager
def only_one(name: str = "environment"):
    """Let one process work at a time; the lock dies with the process that holds it."""
    try:
        import fcntl
    except ImportError:
        raise SetupError(
            "Windows itself is not supported: install WSL with `wsl --install`, open its terminal, "
            "and type the same command there (README, Other machines)."
        ) from None
    with (ROOT / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{name}: another process is at work; waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(name: str) -> None:
    """Create or mend `.venv` and install a set into it."""
    title, estimate, gigabytes = NEEDS[name]
    if shutil.disk_usage(ROOT).free < gigabytes * 1e9:
        raise SetupError(
            f"Setting up {title} needs {gigabytes} GB of free disk: free some, start again."
        )
    began = time.monotonic()
    if not usable():
        create()
    chosen = lock_file(name)
    lock = chosen.read_text()
    if any(VENV.glob("lib/python*/*/torch-*+cpu.dist-info")):
        lock, chosen = re.sub(CUDA, "", lock), VENV / "without-cuda.txt"
        chosen.write_text(lock)
    total = len(re.findall(r"^[a-z0-9].*==", lock, re.MULTILINE))
    print(f"Setting up {title} in .venv ({estimate}) …", flush=True)
    stamp(name).unlink(missing_ok=True)
    command = [PYTHON, "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:"]
    command += ["--no-input", "--progress-bar", "off", "--disable-pip-version-check"]
    status = run_logged([*command, "--requirement", chosen], total)
    if status:
        raise SetupError(why_pip_failed(title))
    install_project()
    LOG.unlink()
    temporary = stamp(name).with_suffix(".part")
    temporary.write_text(stamp_text(name))
    temporary.replace(stamp(name))
    print(f"Set up {title} in {time.monotonic() - began:.0f} s.", flush=True)


def usable() -> bool:
    """Whether `.venv` can be built upon: made here, working, not half installed."""
    if not (VENV / "pyvenv.cfg").is_file():
        return False
    if LOG.is_file() and "Installing collected packages" in LOG.read_text(errors="replace"):
        return False  # interrupted while files were being written
    stamps = [path.read_text() for path in VENV.glob("installed-*.txt")]
    if any(not text.endswith(f" {ROOT}\n") for text in stamps):
        return False  # the project's folder was moved
    return works("import pip")


def create() -> None:
    """Create an empty `.venv`."""
    if VENV.exists():
        print("Making .venv anew: it was not usable.", flush=True)
        shutil.rmtree(VENV)
    made = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        reason = (made.stdout + made.stderr).strip().splitlines() or ["no reason given"]
        raise SetupError(
            "Python cannot make virtual environments (%s): install its venv module, on Debian and "
            "Ubuntu with `apt install python3-venv`." % reason[0].strip()
        )


def run_logged(command: list, total: int) -> int:
    """Run pip with its output in `LOG` and one line of progress on a terminal."""
    seen = 0
    with LOG.open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
        )
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                found = re.match(r"Collecting ([\w.-]+)|Installing collected", line)
                if found and sys.stdout.isatty():
                    seen += bool(found[1])
                    what = f"{seen}/{total} {found[1]}" if found[1] else "writing files"
                    print(f"\r  {what:<60}", end="", flush=True)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if sys.stdout.isatty():
        print("\r" + " " * 62 + "\r", end="", flush=True)
    return process.wait()


def why_pip_failed(title: str) -> str:
    """One sentence on why pip failed."""
    lines = [x.strip() for x in LOG.read_text(errors="replace").splitlines() if "ERROR" in x]
    reason = lines[-1].removeprefix("ERROR: ")[:160].rstrip(". ") if lines else "no reason given"
    if any(x in reason for x in ("No matching distribution", "connection", "Could not find")):
        reason += "; is the network reachable, and the machine a 64-bit Linux or macOS 14"
    return f"Could not set up {title} ({reason}): see .venv/install.log, then start again."


def install_project() -> None:
    """Make `import digitcnn` and the `digitcnn` command work in `.venv`; no build, no network."""
    (folder,) = VENV.glob("lib/python*/site-packages")
    (folder / "digitcnn.pth").write_text(f"{ROOT}\n")
    quoted = "'" + str(PYTHON).replace("'", "'\\''") + "'"
    script = VENV / "bin" / "digitcnn"
    script.write_text(f'#!/bin/sh\nexec {quoted} -P -m digitcnn "$@"\n')
    script.chmod(0o755)


def environment(**more: str) -> dict:
    """The environment variables for the project's own Python and Quarto."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    path = f"{VENV / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "QUARTO_PYTHON": str(PYTHON), **more}


def quarto() -> Path | None:
    """A Quarto of at least 1.9: ``DIGITCNN_QUARTO``, or the PATH's; None where there is none.

    ``DIGITCNN_QUARTO=none`` asks for the renderer without it.
    """
    asked = os.environ.get("DIGITCNN_QUARTO")
    if asked == "none":
        return None
    if asked and not quarto_version(asked) >= (1, 9):
        raise SetupError(f"DIGITCNN_QUARTO names {asked!r}, no Quarto of 1.9 or newer: unset it.")
    found = asked or shutil.which("quarto")
    return Path(found) if found and quarto_version(found) >= (1, 9) else None


def quarto_version(program) -> tuple:
    """A Quarto's version as two numbers; (0, 0) where it does not work."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
        return tuple(int(part) for part in answer.stdout.strip().split(".")[:2])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return (0, 0)


def status_of(task: str, work) -> int:
    """Do some work; return the exit status. What goes wrong is one sentence on stderr."""
    try:
        work()
    except SetupError as error:
        print(f"{task}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{task}: {error}; mend that, then start again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; start it again.", file=sys.stderr)
        return 130
    return 0


def main(arguments: list) -> int:
    """Set up what the command line names."""
    any_encoding()
    if len(arguments) != 1 or arguments[0] not in NEEDS:
        print(__doc__, file=sys.stderr)
        return 2
    return status_of("Setting up .venv", lambda: ensure(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
