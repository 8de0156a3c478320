"""Quarto's pre-render step: thaw the chapters whose code or results changed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digitcnn.status import before_render

sys.exit(before_render())
