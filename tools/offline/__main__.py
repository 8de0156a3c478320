"""Render the book: ``python tools/offline``."""

import sys
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from offline import main  # noqa: E402

sys.exit(main())
