"""Quarto's pre-render step: execute what no longer fits, so that Quarto finds everything frozen.

When Quarto renders single documents, or previews them, it executes these by itself, whatever is
frozen; then there is nothing to do here.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digitcnn import files, provenance


def main() -> int:
    """Return the exit status; an error is one sentence on stderr, and nothing has changed."""
    try:
        import execute

        execute.recover()
        provenance.enter_digests()
        whole_book = os.environ.get("QUARTO_PROJECT_RENDER_ALL")
        if files.profile() == "quick" or not whole_book:
            return 0
        waiting = [d for d in provenance.documents() if not provenance.state(d).whole]
        if waiting:
            execute.freshen(waiting)
    except ImportError as error:
        # Nothing is set up: what is frozen is shown as it is; Quarto itself refuses what is not.
        print(f"{error.name} is missing: the frozen results are shown without a check.")
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
