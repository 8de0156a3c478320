"""The assignment's notebook: its cells, its switch, and that it runs from first to last."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import one_sentence
from finished import finish

from digitcnn import files, runs, training

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebook  # noqa: E402


@pytest.fixture
def cells(monkeypatch):
    """The notebook's cells as if every run were there, not executed."""
    monkeypatch.setattr(runs, "stale", lambda run: "")
    monkeypatch.setattr(runs, "reason", lambda run: "")
    return notebook.cells()


def code_of(cells) -> str:
    """All code in one text."""
    return "\n\n\n".join(cell.source for cell in cells if cell.cell_type == "code")


def test_questions_stand_in_the_assignments_order(cells):
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.findall(r"(?m)^## \(([a-f])\)", text) == list("abcdef")
    inside = re.findall(r"(?m)^### \(([b-e]\.[a-e])", text)
    assert [part for part in inside if part[0] == "b"] == ["b.a", "b.b", "b.c", "b.d"]
    assert {"c.a", "c.b", "d.a", "d.b", "e.a", "e.b", "e.d"} <= set(inside)


def test_network_loop_data_and_inference_are_the_modules_own_source(cells):
    code = code_of(cells)
    for expected in (
        *("datasets.MNIST(", "(datasets.SVHN)", "random.seed(seed)", "np.random.seed(seed)"),
        *("torch.manual_seed(seed)", "train_test_split(", "nn.Conv2d(", "nn.BatchNorm2d("),
        *("nn.MaxPool2d(", "nn.Linear(", "softmax(dim=1)", "nn.CrossEntropyLoss("),
        *(".backward()", "self.optimizer.step()", "model.load_state_dict(", "umap.UMAP("),
        *("def probabilities(", "def run_epoch(", "def load_model("),
    ):
        assert expected in code, expected
    pulled = [cell for cell in cells if "digitcnn" in cell.metadata]
    assert len(pulled) > 12
    for cell in pulled:
        module, _, names = cell.metadata["digitcnn"].partition(": ")
        module = importlib.import_module(f"digitcnn.{module}")
        for definition in (getattr(module, name) for name in names.split()):
            if inspect.isclass(definition) or inspect.isfunction(definition):
                assert inspect.getsource(definition).strip() in cell.source


def test_every_name_is_defined_and_every_function_says_what_it_does(cells, tmp_path):
    path = tmp_path / "all.py"
    path.write_text(code_of(cells), "utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811,D103"]
    done = subprocess.run([*command, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_cell_that_is_not_the_modules_source_stops_the_building(cells):
    book = nbformat.v4.new_notebook(cells=cells)
    notebook.check(book)
    cell = next(cell for cell in cells if "class DigitCNN" in cell.source)
    cell.source = cell.source.replace("FEATURES = 128", "FEATURES = 64")
    with pytest.raises(
        files.DigitcnnError, match=r"is not what digitcnn\.model holds now"
    ) as caught:
        notebook.check(book)
    one_sentence(caught.value)


def test_a_definition_that_is_gone_is_named():
    with pytest.raises(files.DigitcnnError, match=r"model\.py defines no Gone") as caught:
        notebook.source("model", ["DigitCNN", "Gone"])
    one_sentence(caught.value)


def test_whose_it_is_stands_below_the_title(cells):
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    first = nbformat.reads(notebook.titled(text, "Ada_L (roll number M23_001), 2025-03-09"), 4)
    title, _, line, *_ = first.cells[0].source.splitlines()
    assert title.startswith("# Assignment 2")
    assert line == r"**Ada\_L (roll number M23\_001), 2025-03-09**"
    assert "roll number" not in text


def test_runs_that_are_missing_are_named_with_their_hours(sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    with pytest.raises(files.DigitcnnError, match=r"`digitcnn train .*main.*`, about [\d.]+ h"):
        notebook.cells()
    monkeypatch.setattr(runs, "reason", lambda run: "")
    with pytest.raises(files.DigitcnnError, match=r"svhn-case1.* imbalance`") as caught:
        monkeypatch.setattr(runs, "EXPERIMENTS", {})
        kept = runs.registry()
        few = {n: r for n, r in kept.items() if r.group in ("main", "imbalance")}
        monkeypatch.setattr(runs, "registry", lambda: few)
        notebook.cells()
    one_sentence(caught.value)
    text = "\n".join(cell.source for cell in notebook.cells(draft=True))
    assert text.count("*Not here yet: the results of 6 runs") == 2


# The first cell ----------------------------------------------------------------------------------


def first_cell(folder: Path, before: str = "") -> subprocess.CompletedProcess:
    """Run the notebook's first cell of code in a folder, without the project on the path."""
    path = ROOT / "tools" / "assignment2" / "1-training.py"
    cell = re.split(r"(?m)^# %%.*$", path.read_text("utf-8").split("# ## Setting up")[1])[1]
    cell = cell.replace("from __future__ import annotations", "")
    code = f"from __future__ import annotations\n{before}\n{cell}\nprint('at', Path.cwd())"
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def make_archive(folder: Path) -> Path:
    """An archive as it is handed in, with the least that makes a project."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "Ada Lovelace.M23-001.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Ada Lovelace.M23-001/project/digitcnn/runs.py", "")
    return path


def test_the_first_cell_finds_the_project_where_the_archive_was_unpacked(tmp_path):
    make_archive(tmp_path / "download")
    with zipfile.ZipFile(tmp_path / "download" / "Ada Lovelace.M23-001.zip") as archive:
        archive.extractall(tmp_path)
    handed_in = tmp_path / "Ada Lovelace.M23-001"
    for folder in (handed_in, handed_in / "project", tmp_path):
        done = first_cell(folder)
        assert done.stdout == f"at {handed_in / 'project'}\n", done.stderr


def test_the_first_cell_unpacks_an_archive_beside_it(tmp_path):
    (tmp_path / "sample_data").mkdir()  # as on Colab
    (tmp_path / "other.zip").write_bytes(b"PK\5\6" + bytes(18))
    make_archive(tmp_path)
    done = first_cell(tmp_path)
    assert done.stdout == f"at {tmp_path / 'Ada Lovelace.M23-001' / 'project'}\n", done.stderr


def test_on_colab_the_first_cell_asks_for_the_archive(tmp_path):
    """A stand-in for Colab's dialogue, which puts the chosen file into the working folder."""
    path = make_archive(tmp_path / "the student's computer")
    (tmp_path / "content").mkdir()
    colab = f"""
    import shutil, sys, types
    google, colab, files = (types.ModuleType(n) for n in ("google", "google.colab", "files"))
    files.upload = lambda: shutil.copy({str(path)!r}, ".")
    google.colab, colab.files = colab, files
    sys.modules.update({{"google": google, "google.colab": colab, "google.colab.files": files}})
    """
    done = first_cell(tmp_path / "content", textwrap.dedent(colab))
    unpacked = tmp_path / "content" / "Ada Lovelace.M23-001" / "project"
    assert done.stdout.endswith(f"at {unpacked}\n"), done.stderr
    assert "Choose the archive" in done.stdout


def test_without_project_and_archive_the_first_cell_says_what_to_do(tmp_path):
    done = first_cell(tmp_path)
    assert done.returncode and done.stderr.splitlines()[-1].startswith("FileNotFoundError: The pro")


@pytest.mark.parametrize(
    ("capability", "kind"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)]
)
def test_a_gpu_that_emulates_bfloat16_trains_in_float32(cells, monkeypatch, capability, kind):
    """Colab's T4 (7.5) says that it supports bfloat16, which it emulates; an A100 (8.0) has it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *about: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = dict(vars(training))  # what the cells before it import
    cell = next(cell for cell in cells if "def native_bfloat16" in cell.source)
    exec(compile("from __future__ import annotations\n" + cell.source, "cell", "exec"), found)
    device = found["pick_device"]()
    assert device.type == "cuda"
    assert found["native_bfloat16"](device) is (kind == torch.bfloat16)
    with found["autocast"](device):
        used = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    assert (used or torch.float32) == kind


# Executed ----------------------------------------------------------------------------------------


@pytest.fixture
def toy_results(sandbox, monkeypatch):
    """Finished runs of toy data: the two main ones, those of (e), and two experiments."""
    every = runs.registry()
    wanted = {n: r for n, r in every.items() if r.id in runs.MAIN}
    wanted |= {r.id: r for r in notebook.needed("imbalance")}
    settings = ("mnist-exp-recipe", "svhn-exp-recipe", "mnist-exp-adam-0.002")
    wanted |= {name: every[name] for name in settings}
    for run in wanted.values():
        finish(run)
    stale = runs.stale
    monkeypatch.setattr(runs, "stale", lambda run: stale(run) if run.id in wanted else "")
    return wanted


def outputs(book) -> dict[str, str]:
    """What each cell of code prints and shows as text, by its first line."""
    found = {}
    for cell in book.cells:
        if cell.cell_type == "code":
            texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            found[cell.source.splitlines()[0]] = "\n".join(texts)
    return found


def without_experiments(cells: list) -> list:
    """Of the toy runs only three experiments are there: the cell shows these."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace(
                'if run.group == "experiments":',
                'if run.group == "experiments" and runs.record_path(run).is_file():',
            )
    return cells


@pytest.mark.slow
def test_it_runs_from_first_to_last_loading_and_training(toy_results, monkeypatch):
    plain = notebook.cells
    monkeypatch.setattr(notebook, "cells", lambda draft: without_experiments(plain(draft)))
    text = notebook.build()
    assert len(text.encode()) < notebook.LARGEST
    book = nbformat.reads(text, 4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds
    images = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(images) >= 14
    assert (
        "120 images"
        in outputs(book)['def show(axis, image: np.ndarray, title: str = "", **style) -> None:']
    )
    assert str(ROOT) not in text and str(files.project_root()) not in text

    # Training from nothing, one epoch of each, in the same cells.
    switched = plain()
    for cell in without_experiments(switched):
        cell.source = cell.source.replace("TRAIN = False", "TRAIN = True")
        cell.source = cell.source.replace("EPOCHS = 50", "EPOCHS = 1")
        cell.source = cell.source.replace('Path("trained")', "files.project_root() / 'trained'")
    book = nbformat.v4.new_notebook(cells=switched)
    notebook.execute(book, ROOT)
    said = "\n".join(outputs(book).values())
    for run in ("mnist", "svhn", "mnist-case1", "svhn-case3"):
        assert re.search(rf"(?m)^{run} epoch 1/1: loss \d.*validation \d+\.\d\d%", said), run
    folder = files.project_root() / "trained"
    assert (folder / "mnist" / "test.txt").read_text().startswith("epoch\tloss\taccuracy")
    name = dataclasses.replace(runs.get("mnist"), epochs=1).model_file
    assert (folder / name).stat().st_size > 1e6


@pytest.mark.slow
def test_it_runs_on_the_real_data(monkeypatch, tmp_path):
    """As far as (c), whose figures need no map; the maps take minutes where they are not stored."""
    from digitcnn import sources

    if any(runs.reason(runs.get(n)) for n in runs.MAIN) or any(map(sources.missing, sources.NAMES)):
        pytest.skip("needs both data sets and both models")
    every = notebook.cells(draft=True)
    end = next(i for i, cell in enumerate(every) if cell.source.startswith("## (d)"))
    book = nbformat.v4.new_notebook(cells=every[:end])
    notebook.execute(book, ROOT)
    accuracy = re.search(
        r"MNIST +(\d+\.\d+) ",
        outputs(book)['test = {name: splits[name]["test"] for name in NAMES}'],
    )
    assert float(accuracy[1]) > 99


def test_a_cell_that_fails_is_named_in_a_sentence(tmp_path):
    good, bad = (nbformat.v4.new_code_cell(text) for text in ("print('fine')", "\n1 / 0"))
    book = nbformat.v4.new_notebook(cells=[good, bad])
    with pytest.raises(files.DigitcnnError, match=r"cell '1 / 0' failed .ZeroDivision") as caught:
        notebook.execute(book, tmp_path)
    one_sentence(caught.value)
    assert os.getcwd() != str(tmp_path)
