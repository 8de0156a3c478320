"""Execute the book's chapters that no longer fit, once for both formats: the one executor.

    python tools/execute.py                        # every chapter that is stale
    python tools/execute.py chapters/05-imbalance  # one, whether stale or not

A chapter is executed into a staging folder, and what it made takes the place of its frozen results
when it is whole; until then, and after any failure, the old ones stay. The last versions are kept
(ignored by git), so that an edit which is undone executes nothing. Results are in the form of
Quarto's freezer, so that `quarto render` and the renderer without Quarto find everything frozen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import offline

from digitcnn import files, provenance, reach
from digitcnn.files import DigitcnnError

KEPT = 2  # earlier versions of a chapter's results
# What runs first and last in each kernel: observation, and drawings without dates or random ids.
FIRST = (
    "import digitcnn.observe; digitcnn.observe.start()\n"
    "import matplotlib; matplotlib.rcParams['svg.hashsalt'] = 'digitcnn'"
)
LAST = "print(digitcnn.observe.seen())"
ENVIRONMENT = {  # of the kernels
    "SOURCE_DATE_EPOCH": "0",  # matplotlib's dates
    "DIGITCNN_TRAIN": os.environ.get("DIGITCNN_TRAIN", "never"),  # as Quarto's `_environment` says
}


def local(*parts: str) -> Path:
    """A path in the folder of what is not committed."""
    return files.project_root().joinpath("cache", "local", *parts)


def staging(document: str) -> Path:
    """Where a document's new results are made."""
    return local("staging", document.replace("/", "-"))


def recover() -> list[str]:
    """Finish or undo what a killed process left; the documents whose results were put back."""
    back = provenance.put_back()
    for document in provenance.documents():
        if (old := provenance.aside(document)).is_dir():  # the new results are in place
            keep(document, old)
    for leftover in ("aside", "staging"):  # of chapters that are no longer there, too
        shutil.rmtree(local(leftover), ignore_errors=True)
    return back


def exchange(document: str, new: Path) -> None:
    """Put a folder of whole results in the place of a document's, which become a version."""
    target, old = provenance.frozen(document), provenance.aside(document)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    old.parent.mkdir(parents=True, exist_ok=True)
    with files.lock("exchange"):  # who finds one half done waits, and then it is done or dead
        if target.is_dir():
            target.rename(old)
        new.rename(target)
    if old.is_dir():
        keep(document, old)


def versions(document: str) -> list[Path]:
    """The kept versions of a document's results, the newest first."""
    folder = local("versions", document.replace("/", "-"))
    return sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []


def keep(document: str, folder: Path) -> None:
    """Keep a folder of results as the newest version; the oldest beyond `KEPT` goes."""
    if provenance.read_record(folder):  # else nothing can tell when it fits again
        target = local("versions", document.replace("/", "-"), f"{time.time_ns():020d}")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    shutil.rmtree(folder, ignore_errors=True)
    for old in versions(document)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def restore(document: str) -> bool:
    """Put back a kept version that fits what is there now, if there is one."""
    for version in versions(document):
        if not provenance.changes(document, version):
            new = staging(document)
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(parents=True, exist_ok=True)
            version.rename(new)
            exchange(document, new)
            return True
    return False


def execute(document: str, config: dict) -> float:
    """Execute a document and exchange its results; the seconds that it took."""
    new = staging(document)
    began = time.monotonic()
    root = files.project_root()
    path = root / f"{document}.qmd"
    source = provenance.source_digest(document)
    for attempt in (1, 2):
        # What is computed and stored in the first execution is read in the second, whose record
        # then says what an execution from the store depends on, no more.
        shutil.rmtree(new, ignore_errors=True)
        observed = offline.execute(path, new, root, config, FIRST, LAST, ENVIRONMENT)
        seen = json.loads(observed)
        if attempt == 1 and not any(_is_result(name) for name in seen["written"]):
            break
    record = {
        "document": document,
        "profile": files.profile(),
        "source": source,
        "options": provenance.options_digest(),
        "modules": {name: reach.module_digest(name) for name in seen["modules"]},
        "texts": {name: reach.text_digest(name) for name in seen["modules"]},
        "files": {
            name: provenance.file_digest(root / name)
            for name in sorted(filter(None, map(provenance.counts, map(Path, seen["opened"]))))
            if name != f"{document}.qmd"
        },
        "libraries": locked(seen["libraries"]),
        "frozen": provenance.frozen_files(new),
        **seen["notes"],
    }
    record["seal"] = files.fingerprint(record)
    files.write_json(new / provenance.RECORD, record)
    exchange(document, new)
    return time.monotonic() - began


def _is_result(path: str) -> bool:
    """Whether a file that was written is a stored result (written under a temporary name)."""
    name = Path(path)
    root = files.results_root() / "cache"
    return name.is_relative_to(root) and "locks" not in name.relative_to(root).parts


def locked(versions: dict[str, str]) -> dict[str, str]:
    """Of libraries and their versions, those that the lock file names."""
    lock = files.project_root() / "requirements" / "full.txt"
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []
    names = {line.split("==")[0].strip().lower() for line in lines if "==" in line}
    return {n: v for n, v in versions.items() if n.lower() in names}


@contextlib.contextmanager
def undisturbed():
    """SIGTERM ends an execution as Ctrl-C does; the staging folder goes in any case."""

    def interrupt(*about: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(local("staging"), ignore_errors=True)


def freshen(documents: list[str], again: bool = False) -> None:
    """Restore or execute documents (execute them whatever is kept, if `again`), a line for each.

    Raises `DigitcnnError`; the documents before keep their new results, the failed one and those
    after it their old ones.
    """
    waiting = [document for document in documents if again or not restore(document)]
    for document in documents:
        if document not in waiting:
            print(f"{document}: an earlier version fits again.", flush=True)
    if not waiting:
        return
    try:
        import nbclient  # noqa: F401
    except ImportError:
        raise DigitcnnError(
            f"To be executed: {', '.join(waiting)}, which needs the full environment: run "
            "`python3 tools/environment.py full`."
        ) from None
    profile = files.profile().replace("full", "")
    config = offline.load_config(files.project_root(), profile)
    with undisturbed():
        for number, document in enumerate(waiting, start=1):
            why = provenance.state(document)
            print(f"[{number}/{len(waiting)}] executing {document} ({why}) …", flush=True)
            print(f"  {execute(document, config):.0f} s", flush=True)


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", metavar="CHAPTER", nargs="*", help="default: all stale ones")
    parser.add_argument("--list", action="store_true", help="only print what would be executed")
    options = parser.parse_args(arguments)
    try:
        for document in recover():
            print(f"{document}: put back after an interruption.", file=sys.stderr)
        known = provenance.documents()
        documents = [name.removesuffix(".qmd") for name in options.documents]
        if unknown := set(documents) - set(known):
            raise DigitcnnError(
                f"There is no chapter {min(unknown)!r}: choose from {', '.join(known)}."
            )
        stale = [name for name in known if not provenance.state(name).whole]
        if options.list:
            print("\n".join(name for name in stale if not restore(name)))
        else:
            freshen(documents or stale, again=bool(documents))
    except DigitcnnError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the frozen results are as they were before.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
