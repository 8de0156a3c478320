"""What is ours in a render by Quarto, tried with a stand-in for it: ends, leftovers, refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# As the real one: a script around a program that tidies up after Ctrl-C and calls that status 1.
STAND_IN = """#!/bin/sh
[ "$1" = --version ] && { echo 1.10.18; exit; }
python3 -c '
import os, signal, sys, time
from pathlib import Path
def ended(*about):
    Path("tidied").touch()
    sys.exit(1)
signal.signal(signal.SIGINT, ended)
Path("pid").write_text(str(os.getpid()))
time.sleep(60)
'
"""
START = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import environment, report
environment.ensure = lambda *about: None
environment.quarto = lambda: Path("quarto").resolve()
report.ROOT, report.LOG = Path.cwd(), Path("log")
report.stale_documents = lambda: []
report.FRESH = Path("_book.new").resolve()
sys.exit(report.main([sys.argv[2]]))
"""


def wait_for(path: Path) -> str:
    """The content of a file that another process is about to write."""
    until = time.monotonic() + 60
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < until, f"no {path.name}"
        time.sleep(0.02)
    return path.read_text()


@pytest.mark.parametrize(("task", "status"), [("preview", 0), ("report", 130)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_quarto_ends_with_all_that_it_started(tmp_path, task, status, number):
    """Also where the signal reaches our process alone; to end a preview so is no error."""
    (tmp_path / "quarto").write_text(STAND_IN)
    (tmp_path / "quarto").chmod(0o755)
    command = [sys.executable, "-c", START, ROOT / "tools", task]
    ours = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    program = int(wait_for(tmp_path / "pid"))
    ours.send_signal(number)
    _, said = ours.communicate(timeout=60)
    assert ours.returncode == status, said
    assert (tmp_path / "tidied").is_file()
    with pytest.raises(ProcessLookupError):
        os.kill(program, 0)


def test_no_page_asks_another_host_for_a_font():
    """Bootswatch's themes import their fonts unless this is unset before they are read."""
    defaults, _, _ = (ROOT / "assets/theme.scss").read_text().partition("/*-- scss:rules --*/")
    assert "\n$web-font-path: false;" in defaults.partition("/*-- scss:defaults --*/")[2]


def test_no_render_trains_and_all_use_the_projects_python():
    """What Quarto reads from the project's root, where neither is set already."""
    lines = (ROOT / "_environment").read_text().splitlines()
    assert {"QUARTO_PYTHON=.venv/bin/python", "DIGITCNN_TRAIN=never"} <= set(lines)


@pytest.mark.parametrize(
    "left", ["index.html", "index.typ", "chapters/01-data.html", "chapters/01-data_files/a.png"]
)
def test_what_an_interrupted_render_leaves_is_ignored(left):
    """Quarto moves a page into the book when all are made; Ctrl-C leaves it beside its source."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here")
    command = ["git", "check-ignore", "--quiet", "--no-index", left]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("named", "whole", "status"),
    [("chapters/01-a.qmd", "", 1), ("references.qmd", "", 0), ("references.qmd", "1", 0)],
)
def test_a_chapter_by_itself_without_jupyter_is_one_sentence(tmp_path, named, whole, status):
    """Quarto would print a traceback and advise another installation than ours."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "index.qmd").write_text("# Preface\n")
    if not whole:
        (tmp_path / "chapters/01-a.qmd").write_text("# A\n\n```{python}\n1\n```\n")
    nothing = "import sys, runpy; sys.modules['nbclient'] = None; sys.path.insert(0, 'tools'); "
    step = "runpy.run_path('tools/prerender.py', run_name='__main__')"
    env = {k: v for k, v in os.environ.items() if not k.startswith("QUARTO")}
    env |= {"QUARTO_PROJECT_INPUT_FILES": named, "QUARTO_PROJECT_RENDER_ALL": whole}
    env |= {"DIGITCNN_ROOT": str(tmp_path)}
    command = [sys.executable, "-c", nothing + step]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    said = done.stderr if status else done.stdout
    assert ("`python3 tools/environment.py full`" in said) == bool(status or whole)
    assert said.count("\n") == bool(said)
