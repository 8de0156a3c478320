"""Quarto's pre-render step: execute what no longer fits, so that Quarto finds everything frozen.

When Quarto renders single documents, or previews an edit, it executes these by itself, whatever is
frozen; then all that is looked at here is whether it can.
"""

import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from digitcnn import files, provenance
except SyntaxError as error:  # half typed
    sys.exit(f"{error.filename}, line {error.lineno}, is no valid Python: finish or undo the edit.")

SET_UP = "which needs the full environment: run `python3 tools/environment.py full`"


def main() -> int:
    """Return the exit status; an error is one sentence on stderr, and nothing has changed."""
    whole = os.environ.get("QUARTO_PROJECT_RENDER_ALL")
    named = os.environ.get("QUARTO_PROJECT_INPUT_FILES", "").split("\n")
    try:
        if not whole and (refused := refusal({name.removesuffix(".qmd") for name in named})):
            return refused
        import execute

        execute.recover()
        if not whole or files.profile() == "quick":
            return 0
        waiting = [d for d in provenance.documents() if not provenance.state(d).whole]
        if waiting:
            execute.freshen(waiting)
        if not jupyter():  # a chapter may be named all the same: with the PDF, Quarto says "all"
            print(
                f"The frozen results are shown. Quarto executes a chapter that is named, {SET_UP}."
            )
    except ImportError as error:
        return without_set_up(error.name)
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def jupyter() -> bool:
    """Whether this Python can execute a chapter."""
    return all(map(importlib.util.find_spec, ("nbclient", "ipykernel")))


def refusal(named: set[str]) -> int:
    """1, with a sentence on stderr, if documents with cells are named and nothing can run them."""
    cells = sorted(named.intersection(provenance.documents()))
    if not cells or jupyter():
        return 0
    print(
        f"Quarto executes {cells[0]} when it renders it by itself, {SET_UP}; "
        "or render the whole book, which shows what is frozen: `quarto render`.",
        file=sys.stderr,
    )
    return 1


def without_set_up(missing: str) -> int:
    """Let Quarto show what is frozen, without a check; 1 if it would execute a document.

    It does where a page's digest is not its source's.
    """
    for document in provenance.documents():
        digest = f'"hash": "{provenance.source_digest(document)}"'
        pages = [provenance.frozen(document) / page for page in provenance.PAGES]
        if not all(page.is_file() and digest in page.read_text("utf-8") for page in pages):
            print(f"{document} has to be executed, {SET_UP}.", file=sys.stderr)
            return 1
    print(f"{missing} is missing: the frozen results are shown without a check.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
