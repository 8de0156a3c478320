"""Render the book: ``python tools/offline``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from offline import main

sys.exit(main())
