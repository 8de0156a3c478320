"""Store: results are kept with what they were made from, and never read under another name."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import types

import numpy as np
import pytest
from conftest import one_sentence
from test_reach import clear

from digitcnn import data, division, files, reach, runs, store
from digitcnn.files import DigitcnnError

TOY = """
import numpy as np
from digitcnn import store
from .toyhelper import scaled

OFFSET = 1
calls = []

def formula(x):
    return scaled(x) + OFFSET

@store.stored(lambda size: f"results/{size}-numbers", inputs=lambda size: ["file input.txt"])
def numbers(size):
    calls.append(size)
    return {"found": formula(np.arange(size, dtype=float)), "size": size}

@store.stored("local-one", committed=False)
def one():
    calls.append(1)
    return {"one": np.ones(3)}

@store.stored("results/second", inputs=lambda: [store.result("results/3-numbers"), "value 5"])
def second():
    calls.append("second")
    return {"sum": numbers(3)["found"].sum()}
"""
HELPER = "FACTOR = 2\n\ndef scaled(x):\n    return FACTOR * x\n"


class Toy:
    """A package with two modules, as this process imported them."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        for name, text in {"toyhelper": HELPER, "toy": TOY}.items():
            (folder / f"{name}.py").write_text(text)
            module = types.ModuleType(f"digitcnn.{name}")
            module.__package__ = "digitcnn"
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(compile(text, f"{name}.py", "exec"), module.__dict__)
            setattr(self, name, module)
        clear()

    def edit(self, name: str, old: str, new: str) -> None:
        """Change the source, as the next process imports it."""
        path = self.folder / f"{name}.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        clear()


@pytest.fixture
def toy(sandbox, monkeypatch):
    """The toy package, in an empty results tree of the full profile."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    (sandbox / "package" / "digitcnn").mkdir(parents=True)
    monkeypatch.setattr(reach, "_PACKAGE", sandbox / "package" / "digitcnn")
    (sandbox / "input.txt").write_text("first")
    yield Toy(sandbox / "package" / "digitcnn", monkeypatch)
    monkeypatch.undo()
    clear()


def test_a_result_is_made_once_then_read(toy, sandbox):
    made = toy.toy.numbers(3)
    assert made["found"].tolist() == [1, 3, 5] and made["size"].shape == () and made["size"] == 3
    again = toy.toy.numbers(3)
    assert (again["found"] == made["found"]).all() and again["found"].dtype == float
    assert toy.toy.calls == [3]
    assert toy.toy.numbers(2)["found"].tolist() == [1, 3] and toy.toy.calls == [3, 2]
    assert toy.toy.numbers.path(3) == sandbox / "cache/results/3-numbers.npz"
    assert toy.toy.numbers.__name__ == "numbers" and toy.toy.numbers.root == "toy.numbers"
    assert toy.toy.one.path() == sandbox / "cache/local/local-one.npz"
    assert not list(sandbox.rglob("*.part"))


def test_the_file_says_what_it_was_made_from(toy):
    toy.toy.numbers(3)
    _, about = store.read(toy.toy.numbers.path(3))
    assert about["root"] == "toy.numbers" and about["profile"] == "full"
    assert about["code"].keys() == {"numbers", "formula", "scaled", "FACTOR", "OFFSET", "calls"}
    assert about["inputs"] == {"file input.txt": store.digest_of("file input.txt")}
    assert about["libraries"]["numpy"] == np.__version__
    assert about["libraries"].keys() <= store.LIBRARIES.keys()


@pytest.mark.parametrize(
    ("module", "old", "new", "why"),
    [("toyhelper", "FACTOR = 2", "FACTOR = 3", "FACTOR changed (toy)"),
     ("toyhelper", "FACTOR * x", "FACTOR - x", "scaled changed (toy)"),
     ("toy", "+ OFFSET", "- OFFSET", "formula changed (toy)"),
     ("toy", "OFFSET = 1", "OFFSET = 0", "OFFSET changed (toy)"),
     ("toy", "dtype=float", "dtype=int", "numbers changed (toy)"),
     ("toy", 'inputs=lambda size: ["file input.txt"]', "", "numbers changed (toy)"),
     ("toy", "from .toyhelper import scaled", "from numpy import abs as scaled",
      "FACTOR, formula, scaled changed (toy)"),
     ("toy", "def numbers", "def others", "toy.numbers is gone")],
)  # fmt: skip
def test_a_result_is_stale_by_the_code_that_changed_by_name(toy, module, old, new, why):
    toy.toy.numbers(3)
    path = toy.toy.numbers.path(3)
    assert store.stale(path) == ""
    toy.edit(module, old, new)
    assert store.stale(path) == f"stale: {why}"
    with pytest.raises(DigitcnnError, match="is stale") as caught:
        toy.toy.numbers.load(3)
    assert why in one_sentence(caught.value) and toy.toy.calls == [3]


def test_what_decides_nothing_makes_nothing_stale(toy):
    toy.toy.numbers(3)
    toy.edit("toy", "OFFSET = 1\n", "# one\nOFFSET: int = 1\nother = 9\n")
    toy.edit("toy", "def one():", 'def one(more=None):\n    """Says."""')
    assert store.stale(toy.toy.numbers.path(3)) == ""
    toy.toy.numbers(3)
    assert toy.toy.calls == [3]


def test_a_stale_result_is_made_again(toy):
    toy.toy.numbers(3)
    toy.edit("toyhelper", "FACTOR = 2", "FACTOR = 3")
    toy.toyhelper.FACTOR = 3
    assert toy.toy.numbers(3)["found"].tolist() == [1, 4, 7]
    assert toy.toy.numbers.load(3)["found"].tolist() == [1, 4, 7] and toy.toy.calls == [3, 3]


def test_a_result_is_stale_by_its_input(toy, sandbox):
    toy.toy.numbers(3)
    (sandbox / "input.txt").write_text("second")
    assert store.stale(toy.toy.numbers.path(3)) == "stale: file input.txt changed"
    toy.toy.numbers(3)
    assert toy.toy.calls == [3, 3] and store.stale(toy.toy.numbers.path(3)) == ""
    (sandbox / "input.txt").unlink()
    assert "input.txt is missing" in store.stale(toy.toy.numbers.path(3))


def test_a_result_of_a_result_follows_its_content(toy):
    toy.toy.numbers(3)
    toy.toy.second()
    path = toy.toy.second.path()
    assert store.stale(path) == "" and toy.toy.calls == [3, "second"]
    first = toy.toy.numbers.path(3).read_bytes()
    store.write(toy.toy.numbers.path(3), {"found": np.zeros(3)}, "toy.numbers", [])
    assert store.stale(path) == "stale: result results/3-numbers changed"
    toy.toy.numbers.path(3).write_bytes(first)
    assert store.stale(path) == ""
    toy.toy.numbers.path(3).unlink()
    assert "3-numbers.npz is missing" in store.stale(path)


# What is read while a result is made


def reading(toy, monkeypatch, path, *tokens: str) -> None:
    """Make a result whose function reads a file, with these tokens."""
    numbers = toy.toy.numbers
    monkeypatch.setattr(numbers, "_function", lambda size: {"found": [len(path.read_bytes())]})
    monkeypatch.setattr(numbers, "_inputs", lambda size: list(tokens))
    numbers(3)


@pytest.mark.parametrize(
    "name", ["other.txt", "models/digitcnn-x.safetensors", "cache/answers/mnist.npz",
             "cache/metrics/mnist/test.txt", "cache/data/svhn.json", "audit/edits.json"],
)  # fmt: skip
def test_a_file_that_no_input_names_is_an_error_and_nothing_is_kept(
    toy, sandbox, monkeypatch, name
):
    path = sandbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1")
    with pytest.raises(DigitcnnError, match=f"toy.numbers read {re.escape(name)}, which") as caught:
        reading(toy, monkeypatch, path, "file input.txt")
    one_sentence(caught.value)
    assert not toy.toy.numbers.path(3).exists()


def test_named_files_may_be_read(sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    (sandbox / "other.txt").write_text("1")
    for name in runs.DATA:
        write_manifest(name)
    run = runs.MAIN["mnist"]
    finish(run, "a" * 64)
    files.write_whole(runs.weights_path(run), b"")
    of_run = [runs.metrics_path(run, "test"), runs.weights_path(run), runs.answers_path(run)]
    others = [sandbox / "other.txt", files.cache_path("data", "svhn.json")]
    tokens = [store.weights("mnist"), "file other.txt", store.images("svhn")]
    opened = {str(path) for path in [*of_run, *others, runs.record_path(run)]}
    assert store._unnamed(opened, tokens) == ""
    assert store._unnamed(opened, tokens[1:]) == "cache/answers/mnist.npz"
    assert store._unnamed(opened, [tokens[0], tokens[2]]) == "other.txt"
    assert store._unnamed(opened, tokens[:2]) == "cache/data/svhn.json"


def test_a_result_may_be_read_whose_inputs_are_all_named(toy, sandbox, monkeypatch):
    made = toy.toy.numbers.path(2)
    toy.toy.numbers(2)
    reading(toy, monkeypatch, made, "file input.txt")
    (sandbox / "other.txt").write_text("1")
    with pytest.raises(DigitcnnError, match="read cache/results/2-numbers"):
        reading(toy, monkeypatch, made, "file other.txt")
    reading(toy, monkeypatch, made, "file other.txt", store.result("results/2-numbers"))


def test_the_images_that_are_read_are_named(sandbox, monkeypatch):
    """Of results that need no network: each split that is asked for has its token."""
    from digitcnn.report import attributes, controls, dataset

    read = []
    original = division.split_indices

    class Parts(dict):
        def __getitem__(self, split):
            read.append(split)
            return super().__getitem__(split)

        def items(self):
            read.extend(self)
            return super().items()

    for module in (division, data):
        monkeypatch.setattr(module, "split_indices", lambda *about: Parts(original(*about)))
    for made, *arguments in (
        (dataset.pixels, "mnist"), (dataset.first_of_each_class, "mnist", "train"),
        (dataset.copies, "svhn"), (dataset.origin, "mnist"), (controls.examples, "mnist"),
        (attributes.measurements, "mnist", "validation"),
    ):  # fmt: skip
        read.clear()
        made._function(*arguments)
        named = {token.split()[2] for token in made._inputs(*arguments)}
        assert read and set(read) == named, made.root


def test_other_inputs_than_recorded_make_a_result_stale(toy, monkeypatch):
    """The list of inputs may follow from what is no code of the function: the registry of runs."""
    toy.toy.numbers(3)
    monkeypatch.setattr(toy.toy.numbers, "_inputs", lambda size: ["file input.txt", "value 1"])
    with pytest.raises(DigitcnnError, match="list of its inputs changed"):
        toy.toy.numbers.load(3)
    toy.toy.numbers(3)
    assert toy.toy.calls == [3, 3]
    toy.toy.numbers.load(3)


# Tokens


def write_manifest(name: str, digest: str = "d", **indices: str) -> None:
    divisions = {
        division: {
            part: {"images": 3, "indices_sha256": indices.get(part, f"{division} {part}")}
            for part in ("train", "validation", "test")
        }
        for division in ("pooled", "official")
    }
    about = {"name": name, "digest": digest, "images": 9, "divisions": divisions}
    files.write_json(files.cache_path("data", f"{name}.json"), about)


def test_images_are_the_data_set_and_the_part(toy):
    write_manifest("mnist")
    token = store.images("mnist")
    first = store.digest_of(token)
    assert token == "images mnist test pooled"
    others = [store.digest_of(store.images("mnist", *other)) for other in
              (("validation",), ("train",), ("test", "official"))]  # fmt: skip
    assert len({first, *others}) == 4
    write_manifest("mnist", train="moved")
    assert store.digest_of(token) == first
    write_manifest("mnist", test="moved")
    assert store.digest_of(token) != first
    write_manifest("mnist", digest="other")
    assert store.digest_of(token) not in (first, *others)


def finish(run: runs.RunConfig, weights: str) -> None:
    """Write what a finished run leaves."""
    about = {"ingredients": runs.ingredients(run), "weights_sha256": weights}
    files.write_json(runs.record_path(run), runs.sealed(about))
    for split in ("train", *run.held_out):
        files.write_whole(runs.metrics_path(run, split), "")
    files.write_whole(runs.answers_path(run), b"")


def test_weights_are_those_of_the_record(sandbox, monkeypatch):
    """The same key with other weights is another input (trained again, other threads)."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    for name in runs.DATA:
        write_manifest(name)
    run = runs.MAIN["svhn"]
    token = store.weights("svhn")
    assert token == store.weights(run) == "weights svhn"
    with pytest.raises(DigitcnnError, match="is missing: run `digitcnn train svhn`") as caught:
        store.digest_of(token)
    one_sentence(caught.value)
    finish(run, "a" * 64)
    assert store.digest_of(token) == "a" * 16
    finish(run, "b" * 64)
    assert store.digest_of(token) == "b" * 16
    write_manifest("svhn", digest="other")
    with pytest.raises(DigitcnnError, match="data changed"):
        store.digest_of(token)


def test_a_run_or_data_set_never_seen_is_made_first(sandbox, monkeypatch):
    from digitcnn import checkpoints

    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    asked = []
    monkeypatch.setattr(checkpoints, "ensure", lambda run: asked.append(run))
    monkeypatch.setattr(division, "pool", lambda name: asked.append(name) or write_manifest(name))
    store.Stored._provide(["weights mnist", "images svhn test pooled", "value 3"])
    assert asked == ["mnist", "svhn"]
    store.Stored._provide(["images svhn train official"])
    assert asked == ["mnist", "svhn"]
    write_manifest("mnist")
    finish(runs.MAIN["mnist"], "a" * 64)
    store.Stored._provide(["weights mnist"])  # which is there: no need of torch
    assert asked == ["mnist", "svhn"]


@pytest.mark.parametrize(
    "token", ["", "weights", "weights nothing", "images mnist test pooled", "file gone.txt",
              "result results/gone", "rumour x"],
)  # fmt: skip
def test_a_token_without_meaning_is_one_sentence(toy, token):
    with pytest.raises(DigitcnnError) as caught:
        store.digest_of(token)
    one_sentence(caught.value)


# What is not believed


def change(path, edit) -> None:
    """Write a result's file again, its arrays and description changed by `edit`."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays.pop("about")))
    edit(arrays, about)
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


def grow(arrays, about):
    arrays["found"] = arrays["found"] + 1


def add(arrays, about):
    arrays["more"] = np.zeros(1)


def drop(arrays, about):
    del arrays["size"]


def retype(arrays, about):
    arrays["found"] = arrays["found"].astype(np.float32)


def relabel(arrays, about):
    about["code"]["FACTOR"] = "0" * 12


def unseal(arrays, about):
    del about["seal"]


@pytest.mark.parametrize("edit", [grow, add, drop, retype, relabel, unseal])
def test_an_edited_file_is_refused(toy, faults, edit):
    toy.toy.numbers(3)
    path = toy.toy.numbers.path(3)
    change(path, lambda arrays, about: None)
    toy.toy.numbers.load(3)  # written again as it was, it is whole
    change(path, edit)
    for read in (toy.toy.numbers, toy.toy.numbers.load):
        with faults.one("edited stored result"), pytest.raises(DigitcnnError) as caught:
            read(3)
        assert "3-numbers.npz is damaged" in one_sentence(caught.value)
    assert toy.toy.calls == [3]


def test_a_result_in_the_place_of_another_is_noticed(toy):
    """Also one of the same function, whose arguments no token names."""
    toy.toy.numbers(3)
    toy.toy.numbers(4)
    path = toy.toy.numbers.path(3)
    path.write_bytes(toy.toy.numbers.path(4).read_bytes())
    with pytest.raises(DigitcnnError, match=r"it is results/4-numbers\.npz under") as e:
        toy.toy.numbers.load(3)
    one_sentence(e.value)
    assert len(toy.toy.numbers(3)["found"]) == 3 and toy.toy.calls == [3, 4, 3]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"rubbish", None])
def test_a_damaged_file_is_refused(toy, content):
    toy.toy.numbers(3)
    path = toy.toy.numbers.path(3)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    for read in (toy.toy.numbers, toy.toy.numbers.load):
        with pytest.raises(DigitcnnError, match="is damaged") as caught:
            read(3)
        one_sentence(caught.value)


def test_loading_never_computes(toy):
    with pytest.raises(DigitcnnError, match="missing: `make report` makes it again") as caught:
        toy.toy.numbers.load(3)
    one_sentence(caught.value)
    toy.toy.numbers(3)
    toy.edit("toy", "OFFSET = 1", "OFFSET = 2")
    with pytest.raises(DigitcnnError, match="OFFSET changed"):
        toy.toy.numbers.load(3)
    assert toy.toy.calls == [3]


def test_a_quick_result_is_none_of_the_full_report(toy, sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    toy.toy.numbers(3)
    quick = toy.toy.numbers.path(3)
    assert quick.is_relative_to(sandbox / "_quick")
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    full = toy.toy.numbers.path(3)
    files.write_whole(full, quick.read_bytes())
    assert store.stale(full) == "stale: made in the quick profile"
    with pytest.raises(DigitcnnError, match="quick profile"):
        toy.toy.numbers.load(3)
    toy.toy.numbers(3)
    assert toy.toy.calls == [3, 3] and store.stale(full) == ""


def test_nothing_in_a_file_is_executed(toy, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    toy.toy.numbers(3)
    path = toy.toy.numbers.path(3)
    weapon = np.array([Hostile()], dtype=object)
    change(path, lambda arrays, about: None)
    with np.load(path) as archive:
        about = archive["about"]
    for arrays in ({"about": about, "found": weapon}, {"about": weapon}):
        np.savez(path, **arrays)
        with pytest.raises(DigitcnnError, match="damaged"):
            toy.toy.numbers(3)
    assert not (tmp_path / "executed").exists()


def test_calls_at_once_make_a_result_once(toy, monkeypatch):
    made, real = [], toy.toy.numbers._function
    ready = threading.Barrier(3)

    def slowly(size):
        made.append(size)
        time.sleep(0.3)
        return real(size)

    def call():
        ready.wait()
        results.append(toy.toy.numbers(4)["found"].tolist())

    monkeypatch.setattr(toy.toy.numbers, "_function", slowly)
    results: list[list[float]] = []
    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[1, 3, 5, 7]] * 3 and made == [4]


def test_a_failed_function_leaves_nothing(toy, sandbox, monkeypatch):
    def fails(size):
        raise DigitcnnError("No.")

    monkeypatch.setattr(toy.toy.numbers, "_function", fails)
    with pytest.raises(DigitcnnError, match=r"No\."):
        toy.toy.numbers(3)
    assert not list(sandbox.rglob("*.npz")) and not list(sandbox.rglob("*.part"))
