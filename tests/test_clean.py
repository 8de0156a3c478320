"""`make clean` takes what an interrupted render leaves, and nothing that is part of the project."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT = [  # by Quarto, ended in the middle, and by Python
    "_book/index.html", "_quick/_quarto.yml", "_render.log", ".quarto/xref/x", "site_libs/x.js",
    "index.html", "index.typ", "index.pdf", "references.html", "index_files/x.svg",
    "chapters/01-data.html", "chapters/01-data_files/figure-html/x.svg",
    "digitcnn/__pycache__/x.pyc", ".pytest_cache/x",
]  # fmt: skip
KEPT = [
    "index.qmd", "chapters/01-data.qmd", "_freeze/index/execute-results/html.json",
    "_freeze/chapters/01-data/figure-html/x.svg", "models/x.safetensors", "cache/local/x",
]  # fmt: skip


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("git")), reason="needs make and git")
def test_leftovers_are_ignored_by_git_and_swept(tmp_path):
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (*LEFT, *KEPT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    ignored = subprocess.run(
        [*git, "check-ignore", *LEFT, *KEPT], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert set(filter(None, ignored)) == {*LEFT, "cache/local/x"}
    (tmp_path / "tools").mkdir()  # as in the project, where caches are looked for
    (tmp_path / "tests").mkdir()
    subprocess.run(["make", "-s", "-C", str(tmp_path), "clean"], check=True)
    assert [name for name in LEFT if (tmp_path / name).exists()] == []
    assert [name for name in KEPT if not (tmp_path / name).exists()] == []
