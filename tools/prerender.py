"""Quarto's pre-render step: execute what no longer fits, so that Quarto finds everything frozen.

When Quarto renders single documents, or previews an edit, it executes these by itself, whatever is
frozen; then all that is looked at here is whether it can.
"""

import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digitcnn import files, provenance

SET_UP = "which needs the full environment: run `python3 tools/environment.py full`"


def main() -> int:
    """Return the exit status; an error is one sentence on stderr, and nothing has changed."""
    try:
        import execute

        execute.recover()
        provenance.enter_digests()
        if not os.environ.get("QUARTO_PROJECT_RENDER_ALL"):
            named = os.environ.get("QUARTO_PROJECT_INPUT_FILES", "").split("\n")
            return refusal({name.removesuffix(".qmd") for name in named})
        if files.profile() == "quick":
            return 0
        waiting = [d for d in provenance.documents() if not provenance.state(d).whole]
        if waiting:
            execute.freshen(waiting)
        if not jupyter():  # a chapter may be named all the same: with the PDF, Quarto says "all"
            print(
                f"The frozen results are shown. Quarto executes a chapter that is named, {SET_UP}."
            )
    except ImportError as error:
        # Nothing is set up: what is frozen is shown as it is; Quarto itself refuses what is not.
        print(f"{error.name} is missing: the frozen results are shown without a check.")
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


if __name__ == "__main__":
    sys.exit(main())
