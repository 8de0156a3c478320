"""Train all runs of the active profile, for `make quick`; `digitcnn train --all` on the copy."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digitcnn import cli

if __name__ == "__main__":
    sys.exit(cli.main(["train", "--all"]))
