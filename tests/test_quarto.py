"""What is ours in a render by Quarto, tried with a stand-in for it: ends, leftovers, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

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
environment.ROOT = report.ROOT = Path.cwd()  # with a lock of its own
report.LOG = Path("log")
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


def test_sigterm_to_a_quick_run_ends_the_step_at_work(tmp_path):
    """The trainer, say; it is told as by Ctrl-C, and has put back what it changed when all ends."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/long.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        "import signal; signal.signal(signal.SIGTERM, lambda *_: 1 / 0)\n"
        "try:\n    Path('pid').write_text(str(os.getpid()))\n    time.sleep(600)\n"
        "except ZeroDivisionError:\n    Path('tidied').touch()\n"
    )
    start = START.replace("sys.exit(", "environment.PYTHON = Path(sys.executable)\n"
        "report.quick = lambda: report.step('long.py', Path.cwd())\nsys.exit(")  # fmt: skip
    command = [sys.executable, "-c", start, ROOT / "tools", "quick"]
    ours = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    program = int(wait_for(tmp_path / "pid"))
    ours.send_signal(signal.SIGTERM)
    _, said = ours.communicate(timeout=60)
    assert ours.returncode == 130 and "Interrupted" in said and (tmp_path / "tidied").is_file()
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


@pytest.mark.parametrize("absent", ["nbclient", "yaml"])
def test_a_book_that_no_longer_fits_is_refused_before_quarto_changes_anything(tmp_path, absent):
    """Without Jupyter, and where nothing at all is set up; what is frozen can be rendered then."""
    chapter = tmp_path / "chapters/01-a.qmd"
    chapter.parent.mkdir()
    (tmp_path / "index.qmd").write_text("# Preface\n")
    chapter.write_text("# A\n\n```{python}\n1\n```\n")
    pages = tmp_path / "_freeze/chapters/01-a/execute-results"
    pages.mkdir(parents=True)
    digest = hashlib.md5(chapter.read_bytes()).hexdigest()
    for name in ("html.json", "typ.json"):
        (pages / name).write_text(json.dumps({"hash": digest, "result": {"markdown": ""}}))
    before = {path: path.read_bytes() for path in pages.iterdir()}
    code = f"import sys, runpy; sys.modules[{absent!r}] = None; sys.path.insert(0, 'tools'); "
    code += "runpy.run_path('tools/prerender.py', run_name='__main__')"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("QUARTO", "DIGITCNN"))}
    env |= {"QUARTO_PROJECT_RENDER_ALL": "1", "DIGITCNN_ROOT": str(tmp_path)}

    def step() -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)

    if absent == "yaml":  # nothing is looked at but what Quarto itself looks at
        assert step().returncode == 0
    chapter.write_text(chapter.read_text() + "\nAn edit.\n")
    done = step()
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert re.search("executed.*chapters/01-a|chapters/01-a has to be executed", done.stderr)
    assert "`python3 tools/environment.py full`" in done.stderr
    assert {path: path.read_bytes() for path in pages.iterdir()} == before


def test_a_half_typed_module_is_one_sentence(tmp_path):
    for folder in ("tools", "digitcnn"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "tools/prerender.py", tmp_path / "tools")
    (tmp_path / "digitcnn/__init__.py").write_text("def half(\n")
    command = [sys.executable, "tools/prerender.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "__init__.py, line 1, is no valid Python" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_trial_of_one_chapter_executes_that_alone_and_says_its_profile(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import environment
    import report

    steps = []

    def step(tool: str, project: Path, *words: str, **names: str) -> None:
        steps.append((tool, words[0] if words[0] != "--page" else words[1]))
        assert (
            names.get("DIGITCNN_PROFILE", "quick") == "quick"
            and project == tmp_path / "_quick/project"
        )
        assert tool != "execute.py" or names["OMP_NUM_THREADS"] == "1"
        if "--output" in words:
            Path(words[words.index("--output") + 1]).write_text("a page")

    for name in ("BOOK", "PREVIOUS", "FRESH", "ROOT"):
        monkeypatch.setattr(report, name, tmp_path / getattr(report, name).relative_to(ROOT))
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "ensure", lambda name: None)
    monkeypatch.setattr(environment, "quarto", lambda: None)
    monkeypatch.setattr(report, "interrupt", signal.getsignal(signal.SIGTERM))
    monkeypatch.setattr(report, "copy_project", lambda project: project.mkdir(parents=True))
    monkeypatch.setattr(report, "step", step)
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters/05-imbalance.qmd").write_text("# Imbalance\n")
    assert report.main(["quick", "05"]) == 0
    chapter = "chapters/05-imbalance"
    assert steps == [("execute.py", chapter), ("offline", chapter)]
    said = capsys.readouterr().out
    assert report.BANNER in said and "_quick/05-imbalance.html" in said
    assert report.main(["quick", "09"]) == 1
    assert "There is no chapter '09': choose from index, 05-imbalance." in capsys.readouterr().err


def test_another_profile_is_not_silently_the_full_one():
    env = os.environ | {"DIGITCNN_PROFILE": "quick"}
    command = [sys.executable, ROOT / "tools/report.py", "report"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "type `make quick`." in done.stderr
    assert done.stderr.count("\n") == 1


def test_quarto_itself_goes_through_our_pre_render_step_and_asks_no_other_host():
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text("utf-8"))
    assert settings["project"]["pre-render"] == "tools/prerender.py"
    assert settings["execute"]["freeze"] == "auto"
    assert settings["format"]["html"]["html-math-method"] == "mathml"  # else from another host
    for frozen in (ROOT / "_freeze").glob("**/html.json"):
        assert json.loads(frozen.read_text("utf-8"))["result"]["includes"] == {}, frozen
