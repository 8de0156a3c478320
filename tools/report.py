"""Render the report: `make report`, `make quick` and `make preview`.

    python3 tools/report.py             # _book/, HTML and PDF, executing first what is stale
    python3 tools/report.py report 05   # the same, after chapter 05 was executed again
    python3 tools/report.py quick       # _quick/book/, everything from nothing on toy data
    python3 tools/report.py quick 05    # only chapter 05, on toy data: _quick/05-imbalance.html
    python3 tools/report.py preview     # Quarto's live preview

Sets up the environment that it needs. A render goes to a folder of its own, is checked, and only
then takes the place of the previous one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import environment
from environment import ROOT, SetupError

BANNER = "QUICK RUN: small embedded data, a few seconds of training; not the report's results"
READING = {"DIGITCNN_TRAIN": "never", "DIGITCNN_PROFILE": "full"}  # rendering never trains
BOOK, FRESH, PREVIOUS = ROOT / "_book", ROOT / "_book.new", ROOT / "_book.old"
LOG = ROOT / "_render.log"
NOT_COPIED = (  # results, data and environments have no place in the quick run's copy
    ".git", ".venv", ".quarto", ".*.lock", ".*_cache", ".hypothesis", "_book*", "_quick",
    "_freeze*", "data", "cache", "models", "site_libs", LOG.name,
)  # fmt: skip
BAD = re.compile(  # warnings that mean a broken report
    r"(?i)warn.*(unable to resolve|not found|could not (fetch|find|convert)|duplicate)"
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main(arguments: list) -> int:
    """Do what the command line asks for; return the exit status."""
    environment.any_encoding()
    tasks = {"report": report, "quick": quick, "preview": preview}
    task, *chosen = arguments or ["report"]
    if task not in tasks or len(chosen) > (task != "preview"):
        print(__doc__, file=sys.stderr)
        return 2
    with contextlib.suppress(ValueError):  # a thread gets no signals
        signal.signal(signal.SIGTERM, interrupt)

    def work() -> None:
        if task != "quick" and os.environ.get("DIGITCNN_PROFILE", "full") not in ("", "full"):
            raise SetupError("DIGITCNN_PROFILE is set: unset it, or type `make quick`.")
        if task == "preview":
            preview()
            return
        with environment.only_one("render"):
            try:
                tidy()
                tasks[task](*map(document_of, filter(None, chosen)))
            finally:
                tidy()

    return environment.status_of(f"make {task}", work)


def interrupt(*about: object) -> None:
    """SIGTERM ends what was started here, as Ctrl-C does."""
    raise KeyboardInterrupt


def document_of(chapter: str) -> str:
    """The document that a chapter's number, name or path stands for, without ``.qmd``."""
    name = Path(chapter).stem
    found = sorted((ROOT / "chapters").glob(f"{name.zfill(2) if name.isdigit() else name}*.qmd"))
    if name == "index":
        return "index"
    if not found or not re.fullmatch(r"[\w-]+", name):
        stems = [path.stem for path in sorted((ROOT / "chapters").glob("[!_]*.qmd"))]
        known = ", ".join(["index", *stems])
        raise SetupError(f"There is no chapter {chapter!r}: choose from {known}.")
    return f"chapters/{found[0].stem}"


def report(document: str = "") -> None:
    """Render the whole report to `_book/`, after executing a document again where one is named."""
    began = time.monotonic()
    environment.ensure("report")
    quarto = environment.quarto()
    if not quarto:
        print("Rendering without Quarto (there is none here, or none of 1.9 or newer).")
    if document:
        environment.ensure("full")
        step("execute.py", ROOT, document, **READING)
    freshen()
    render(ROOT, quarto, FRESH, **READING)
    html, pdf = check(FRESH)
    if BOOK.exists():
        BOOK.rename(PREVIOUS)
    FRESH.rename(BOOK)
    announce("Report", [BOOK / html, BOOK / pdf], began)


def freshen() -> None:
    """Execute the chapters that are stale."""
    if stale := stale_documents():
        names = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        print(f"To execute: {names}, in the full environment.", flush=True)
        if (ROOT / "left-out.json").is_file():
            print("Most chapters need results that this submission leaves out: change them in the "
                  "whole project.", flush=True)  # fmt: skip
        environment.ensure("full")
        step("execute.py", ROOT, **READING)


def stale_documents() -> list:
    """The documents that have to be executed, after what a killed run left was put in order."""
    env = environment.environment(**READING)
    command = [environment.PYTHON, ROOT / "tools" / "execute.py", "--list"]
    answer = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        raise SetupError("The book's documents cannot be read: see the line above.")
    return answer.stdout.split()


def step(tool: str, project: Path, *arguments: str, **more: str) -> None:
    """Run another tool of the project, or a command of its module, with its output shown."""
    env = environment.environment(PYTHONUNBUFFERED="1", **more)
    program = [project / "tools" / tool]
    if not program[0].exists():
        program = ["-m", "digitcnn", tool]
    command = [environment.PYTHON, *program, *arguments]
    process = subprocess.Popen(command, env=env, cwd=project)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()  # it puts back what it began to change
        process.wait()
        raise
    if status:
        raise SetupError(f"{tool} ended with status {status}: see the line above.")


def quick(document: str = "") -> None:
    """Run everything from nothing on small data, in a copy of the project, to `_quick/`.

    In a copy, so that nothing of it can be taken for the report's results. First all runs are
    trained, two at a time, then each chapter is executed once, then both formats are rendered. With
    a `document`, only that one is executed, with the runs that it needs, and shown as a page.
    """
    began = time.monotonic()
    environment.ensure("full")
    quarto = environment.quarto()
    target = ROOT / "_quick"
    remove(target)
    project = target / "project"
    copy_project(project)
    names = {"DIGITCNN_PROFILE": "quick", "DIGITCNN_ROOT": str(project), "DIGITCNN_TRAIN": ""}
    print(f"{BANNER}.")
    if document:
        # One thread, as in the pool: on images this few, more of them only wait for each other.
        step("execute.py", project, document, OMP_NUM_THREADS="1", **names)
        page = target / f"{Path(document).name}.html"
        step("offline", project, "--page", document, "--output", str(page), "--banner", BANNER)
        announce("Quick page", [page], began)
        return
    step("train", project, "--all", **names)
    step("execute.py", project, **names)
    render(project, quarto, project / "_book.new", profile="quick", **names)
    html, pdf = check(project / "_book.new")
    (project / "_book.new").rename(target / "book")
    for results in ("cache", "models"):
        with contextlib.suppress(FileNotFoundError):
            (project / "_quick" / results).rename(target / results)
    announce("Quick report", [target / "book" / html, target / "book" / pdf], began)


def preview() -> None:
    """Start Quarto's preview, which renders again whatever is saved."""
    environment.ensure("full")  # a preview runs the cells of the chapter that it shows
    quarto = environment.quarto()
    if not quarto:
        raise SetupError("The preview needs Quarto 1.9 or newer: install it, or use `make report`.")
    env = environment.environment(**READING)
    process = subprocess.Popen([quarto, "preview", ROOT], env=env, cwd=ROOT, start_new_session=True)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # how a preview is ended; Quarto itself calls it status 1
        print()
        return
    finally:
        end(process)
    if status:
        raise SetupError(f"Quarto's preview ended with status {status}: see the lines above.")


def render(project: Path, quarto: Path | None, output: Path, profile: str = "", **more: str):
    """Render a project, all of it frozen, to an empty folder: by Quarto or the other renderer."""
    remove(output)
    if quarto:
        command = [quarto, "render", "--output-dir", output.name]
    else:
        command = [environment.PYTHON, project / "tools" / "offline", "--output", output]
        if profile == "quick":
            command += ["--banner", BANNER]
    command += ["--profile", profile] if profile else []
    env = environment.environment(PYTHONUNBUFFERED="1", **more)
    log = follow(command, project, env)
    bad = next((line for line in log if BAD.search(line)), None)
    if bad:
        raise SetupError(f"The render has broken references, see {LOG.name}: {bad.strip()}")


def follow(command: list, folder: Path, env: dict) -> list:
    """Run a renderer; show its progress; return its output's lines, which `LOG` keeps."""
    lines = []
    with LOG.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            for line in process.stdout:
                line = COLOUR.sub("", line).rstrip()
                log.write(line + "\n")
                lines.append(line)
                if re.match(r"\[ *\d+/\d+\] ", line):
                    print(f"  {line}", flush=True)
            status = process.wait()
        finally:
            end(process)
            process.stdout.close()
    if status:
        print("\n".join([line for line in lines if line.strip()][-15:]), file=sys.stderr)
        errors = [line for line in lines if re.match(r"\s*\w*(Error|ERROR|error): ", line)]
        why = f" ({errors[-1].strip()})" if errors else ""
        raise SetupError(f"The renderer ended with status {status}{why}: see {LOG.name}.")
    return lines


def end(process: subprocess.Popen) -> None:
    """Interrupt what is left of a renderer, which leads a session, and all that it started.

    Quarto is a script around its program: a signal to the script alone leaves that at work.
    """
    for number, patience in ((signal.SIGINT, 20), (signal.SIGKILL, 5)):
        until = time.monotonic() + patience
        while time.monotonic() < until:
            process.poll()  # a process that has ended and is not waited for is one of its group
            try:
                os.killpg(process.pid, number)
            except (ProcessLookupError, PermissionError):
                return
            number = 0  # only look
            time.sleep(0.05)


def check(book: Path) -> tuple:
    """Names of the HTML and the PDF of a finished render, which must be whole."""
    pages, pdfs = sorted(book.rglob("*.html")), sorted(book.glob("*.pdf"))
    if not (book / "index.html").is_file() or not pdfs:
        raise SetupError(f"The render made no index.html or no PDF: see {LOG.name}.")
    if not pdfs[0].read_bytes().rstrip().endswith(b"%%EOF"):
        raise SetupError(f"The PDF is not whole: see {LOG.name}.")
    for page in pages:
        if b"quarto-unresolved-ref" in page.read_bytes():
            raise SetupError(f"{page.relative_to(book)} has a broken reference: see {LOG.name}.")
    return "index.html", pdfs[0].name


def copy_project(target: Path) -> None:
    """Copy the project's sources, without data, environments and results."""
    at_root = shutil.ignore_patterns(*NOT_COPIED)
    below = shutil.ignore_patterns("__pycache__", "*_files", "*.part", ".*_cache")

    def ignored(folder: str, names: list) -> set:
        return (at_root if Path(folder) == ROOT else below)(folder, names)

    shutil.copytree(ROOT, target, ignore=ignored)
    quick = target / "_quarto-quick.yml"  # the copy's chapters are frozen before the render
    quick.write_text(quick.read_text("utf-8").replace("freeze: false", "freeze: auto"), "utf-8")


def tidy() -> None:
    """Remove what a render leaves, and put the book back if it was stopped between two renames."""
    if PREVIOUS.is_dir() and not BOOK.exists():
        PREVIOUS.rename(BOOK)
    for folder in (FRESH, PREVIOUS, ROOT / "_quick" / "project"):
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder if it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def announce(what: str, paths: list, began: float) -> None:
    """Say where the result is and how long it took."""
    print(f"{what} ready after {time.monotonic() - began:.0f} s:")
    for path in paths:
        print(f"  {path.relative_to(ROOT)}  ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
