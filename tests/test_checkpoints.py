"""Checkpoints: trained once, continued after any interruption, damage never goes unnoticed."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_sentence
from crashes import outcome, tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as tensor_bytes

from digitcnn import checkpoints, data, files, predictions, provenance, runs, sources, training
from digitcnn.files import DigitcnnError, Interrupted

TINY = tiny_run(epochs=3)
CRASHES = Path(__file__).parent / "crashes.py"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
patient = pytest.mark.timeout(900)  # for machines that do something else, too


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    """Bit-for-bit comparisons need one device, whatever the machine has."""
    for module in (checkpoints, training):
        monkeypatch.setattr(module, "pick_device", lambda: torch.device("cpu"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A results tree with the finished `TINY`; tests that change it mend it."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITCNN_PROFILE", "quick")
        patch.setenv("DIGITCNN_ROOT", str(root))
        patch.delenv("DIGITCNN_DATA", raising=False)
        patch.delenv("DIGITCNN_TRAIN", raising=False)
        patch.setattr(checkpoints, "pick_device", lambda: torch.device("cpu"))
        patch.setattr(training, "pick_device", lambda: torch.device("cpu"))
        checkpoints.load_or_train(TINY)
    return root


@pytest.fixture
def trained(finished, monkeypatch):
    """The finished `TINY` as current results tree, in which nothing may be trained."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    monkeypatch.setenv("DIGITCNN_ROOT", str(finished))
    monkeypatch.delenv("DIGITCNN_DATA", raising=False)
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    kept = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    yield TINY
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.fixture
def count_epochs(monkeypatch):
    """A list that grows by one with every epoch trained."""
    done, real = [], training.Training.run_epoch

    def counted(self):
        done.append(self.epoch + 1)
        return real(self)

    monkeypatch.setattr(training.Training, "run_epoch", counted)
    return done


# One run from start to end


def test_a_run_is_trained_once_then_loaded(sandbox, count_epochs, monkeypatch):
    model, history = checkpoints.load_or_train(TINY)
    assert count_epochs == [1, 2, 3]
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    again, history_again = checkpoints.load_or_train(TINY)
    assert count_epochs == [1, 2, 3]
    assert not model.training and not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    for split, table in history.items():
        assert table.equals(history_again[split])
    assert not runs.checkpoint_path(TINY).exists()
    assert not list(sandbox.rglob("*.part"))


def test_metrics_files_have_the_agreed_form(trained):
    for split in ("train", "validation"):
        text = runs.metrics_path(TINY, split).read_text()
        lines = text.splitlines()
        assert lines[0] == "epoch\tloss\taccuracy\tprecision\trecall"
        assert len(lines) == 1 + TINY.epochs and text.endswith("\n")
        for epoch, line in enumerate(lines[1:], start=1):
            assert re.fullmatch(rf"{epoch}\t\d+\.\d{{6}}(\t[01]\.\d{{6}}){{3}}", line)
    assert not runs.metrics_path(TINY, "test").exists()  # it is not among the run's held-out splits


def last_row_and_again(run) -> list[tuple[float, float]]:
    """The last row of a held-out split, and the same computed from the weights file alone."""
    split = training.evaluation_split(run, "validation")
    again = training.evaluate(checkpoints.load_model(run), split.images, split.labels)
    stored = checkpoints.history(run)["validation"].iloc[-1]
    return [(stored[name], value) for name, value in vars(again).items()]


def test_metrics_are_those_of_the_saved_model(sandbox):
    run = dataclasses.replace(TINY, name="whole", class_counts=None, train_size=32)
    checkpoints.train(run)
    for stored, again in last_row_and_again(run):
        assert stored == pytest.approx(again, abs=1e-6)


def test_metrics_are_nearly_those_of_a_model_kept_with_16_bits(trained):
    for stored, again in last_row_and_again(trained):
        assert stored == pytest.approx(again, rel=5e-3)


def test_the_weights_file_says_where_it_comes_from(trained):
    _, about = checkpoints.read_tensors(runs.weights_path(TINY))
    record = checkpoints.record(TINY)
    assert about["key"] == record["key"] == runs.key(TINY)
    assert about["kind"] == "weights" and about["format"] == checkpoints.FORMAT
    configuration = json.loads(about["configuration"])
    assert configuration == json.loads(json.dumps(vars(TINY))) == record["configuration"]
    assert json.loads(about["environment"]) == record["environment"] == checkpoints.environment()
    assert record["environment"]["torch"] == torch.__version__.split("+")[0]
    assert float(about["seconds"]) == record["seconds"] > 0
    assert record["images"] == 32 and record["steps"] == 6
    assert json.loads(about["parameters"]) == sum(
        parameter.numel() for parameter in checkpoints.load_model(TINY).parameters()
    )


def test_nothing_in_a_result_names_the_machine(trained, finished):
    for path in finished.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (str(finished), str(Path.home()), os.uname().nodename):
                assert len(secret) < 4 or secret.encode() not in content, path.name


def test_models_alone_are_enough_but_for_other_code(trained, monkeypatch):
    """As copied for use elsewhere: of what they depend on, only the code can be compared."""
    files.cache_path("data", "mnist.json").unlink()
    checkpoints.load_model(TINY)
    monkeypatch.setattr(runs, "code_digest", lambda: "changed")
    with pytest.raises(DigitcnnError, match=r"stale \(code changed\)") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_what_the_data_alone_can_tell_is_read_even_where_training_is_forbidden(trained):
    files.cache_path("data", "mnist.json").unlink()
    assert runs.stale(TINY) == "data not read yet"
    data._pool.cache_clear()  # as a new process starts
    assert checkpoints.record(TINY)["images"] == 32


def test_training_can_be_forbidden(sandbox, monkeypatch, count_epochs):
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    with pytest.raises(DigitcnnError, match="tiny would have to be trained") as e:
        checkpoints.load_or_train(TINY)
    one_sentence(e.value)
    assert not count_epochs


def test_a_stale_run_is_trained_again(sandbox, monkeypatch, count_epochs):
    checkpoints.load_or_train(TINY)
    monkeypatch.setattr(runs, "code_digest", lambda: "changed")
    assert runs.stale(TINY) == "code changed"
    checkpoints.ensure(TINY)
    assert count_epochs == [1, 2, 3] * 2
    assert runs.stale(TINY) == ""


def test_missing_weights_are_trained_again(sandbox, count_epochs):
    checkpoints.load_or_train(TINY)
    before = outcome(TINY)
    runs.weights_path(TINY).unlink()
    checkpoints.ensure(TINY)  # the record and the metrics are enough for most
    assert count_epochs == [1, 2, 3]
    checkpoints.load_or_train(TINY)
    assert count_epochs == [1, 2, 3] * 2
    assert outcome(TINY) == before


def test_an_unfinished_run_of_other_code_starts_afresh(sandbox, monkeypatch, count_epochs, capfd):
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    monkeypatch.setattr(runs, "code_digest", lambda: "changed")
    checkpoints.train(TINY)
    assert count_epochs == [1, 2, 1, 2, 3]
    assert "another version (code changed)" in capfd.readouterr().err


def test_names_that_leave_the_folder_are_refused(sandbox):
    for name in ("../outside", "a/b", "tiny\x1b[31m"):
        with pytest.raises(DigitcnnError) as caught:
            checkpoints.train(tiny_run(name))
        one_sentence(caught.value)
    assert not list(sandbox.rglob("*.safetensors"))


# Interruptions


def stop_after(monkeypatch, epoch: int) -> None:
    """Press Ctrl-C once, when `epoch` epochs are saved."""
    real = checkpoints._save_progress

    def save_then_stop(run, running, rows, seconds):
        real(run, running, rows, seconds)
        if running.epoch == epoch:
            monkeypatch.setattr(checkpoints, "_save_progress", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_save_progress", save_then_stop)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_after_ctrl_c_it_goes_on_to_the_same_result(
    sandbox, finished, monkeypatch, count_epochs, epoch
):
    monkeypatch.setenv("DIGITCNN_ROOT", str(finished))
    expected = outcome(TINY)
    monkeypatch.setenv("DIGITCNN_ROOT", str(sandbox))
    stop_after(monkeypatch, epoch)
    with pytest.raises(Interrupted, match="`digitcnn train tiny` goes on") as caught:
        checkpoints.train(TINY)
    one_sentence(caught.value)
    assert runs.stale(TINY) == "missing"
    checkpoints.train(TINY)
    assert count_epochs == [1, 2, 3]
    assert outcome(TINY) == expected
    record = checkpoints.record(TINY)
    assert record["seconds"] == pytest.approx(3 * record["seconds_per_epoch"], rel=50)


@pytest.mark.parametrize("extra", [b"", b"2\t9.000000\t0.1", b"2\t9.0\t0.1\t0.1\t0.1\n"])
def test_metrics_are_cut_back_to_the_last_whole_epoch(sandbox, monkeypatch, extra):
    """Rows of an epoch that no checkpoint holds are gone as soon as training goes on."""
    stop_after(monkeypatch, 1)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    paths = [runs.metrics_path(TINY, split) for split in ("train", *TINY.held_out)]
    first = [path.read_bytes() for path in paths]
    for path, content in zip(paths, first, strict=True):
        path.write_bytes(content + extra if extra else content[:-9])

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training.Training, "run_epoch", killed)
        checkpoints.train(TINY)
    assert [path.read_bytes() for path in paths] == first


def test_metrics_of_an_interrupted_run_are_not_taken_for_whole(sandbox, monkeypatch):
    """Weights lost, training again, interrupted: the old record must not vouch for new rows."""
    checkpoints.load_or_train(TINY)
    runs.weights_path(TINY).unlink()
    stop_after(monkeypatch, 1)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    with pytest.raises(DigitcnnError, match="damaged"):
        checkpoints.history(TINY)
    assert len(checkpoints.load_or_train(TINY)[1]["train"]) == TINY.epochs


@functools.lru_cache
def crashes() -> dict:
    """What `crashes.py` found in each mode; it checks every file after every fault."""
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN_")}
        done = subprocess.run(
            [sys.executable, str(CRASHES)],
            env=kept | {
                "DIGITCNN_PROFILE": "quick", "DIGITCNN_ROOT": root, "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(files.__file__).parent.parent),
            },
            capture_output=True, text=True, timeout=800,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def crash(mode: str) -> dict:
    found = crashes()[mode]
    assert "failure" not in found, found["failure"]
    return found


@forks
@patient
def test_kills_at_random_moments_lose_nothing_whole(faults):
    """No torn file; training goes on from the last whole epoch, to the same result."""
    found = crash("random")
    faults.add("kill -9 at a random moment", found["killed"], found["killed"])
    assert found["killed"] >= 100 and found["finished"] >= 3
    assert sum(count > 0 for count in found["epochs"]) >= 4  # they were spread over the run


@forks
@patient
def test_kills_around_every_step_of_every_write_lose_nothing_whole(faults):
    """SIGKILL before and after each flush, rename and removal of a whole run."""
    found = crash("writes")
    faults.add("kill -9 around a write", found["killed"], found["killed"])
    # Two epochs of three files, then two more; each flushed and renamed; the checkpoint removed.
    assert found["killed"] >= 2 * (8 + 8 + 1)
    assert found["leftover"] <= 1


@forks
@patient
def test_two_starts_at_once_train_once(faults):
    found = crash("two")
    faults.add("two starts at once", len(found["trained"]), found["trained"].count(1))
    assert found["trained"] == [1] * 5


@forks
@patient
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(faults):
    with faults.one("disk full while training"):
        found = crash("full")
        assert found["code"] == 3 and found["epoch"] == 1 and found["leftover"] == 0
        errors = [line for line in found["log"].splitlines() if line.startswith("ERROR")]
        assert len(errors) == 1 and "free some disk space" in errors[0]
        assert found["went_on"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_at_the_command_line_is_one_line(sandbox, faults):
    """The real command, interrupted in its second epoch."""
    with faults.one("Ctrl-C at the command line"):
        process = subprocess.Popen(
            [sys.executable, "-m", "digitcnn", "train", "mnist"], text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            cwd=Path(files.__file__).parent.parent,
        )  # fmt: skip
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip())
            if "epoch 1/8" in line:
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
        process.stderr.close()
        assert process.wait(timeout=60) == 130, lines
        assert lines[-1].endswith("`digitcnn train mnist` goes on from there.")
        assert not any("Traceback" in line for line in lines)
        assert sum("epoch" in line and "/8, loss" not in line for line in lines) <= 2
        state, _ = checkpoints.read_tensors(runs.checkpoint_path(runs.get("mnist")))
        assert 1 <= int(state["epoch"]) < 8


# Damage


@st.composite
def damage(draw, size: int):
    """A way to damage a file of `size` bytes: cut it, flip a bit, overwrite, remove or insert."""
    at = draw(st.integers(0, size - 1))
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flip", "overwrite", "remove", "insert"]))
    count = draw(st.integers(1, 64))

    def spoil(content: bytes) -> bytes:
        if kind == "cut":
            return content[:at]
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ 1 << count % 8]) + content[at + 1 :]
        rest = content[at:] if kind == "insert" else content[at + count :]
        middle = b"" if kind == "remove" else bytes((31 * count + i) % 256 for i in range(count))
        return content[:at] + middle + rest

    return spoil


def read_checkpoint() -> dict:
    """Continue from the checkpoint as a start does; what it learned so far."""
    held_out = {"validation": training.evaluation_split(TINY, "validation")}
    running = training.Training(TINY, training.training_split(TINY), held_out)
    rows, seconds = checkpoints._resume(TINY, running)
    return {k: v.numpy().tobytes() for k, v in running.state().items()} | {
        "rows": rows, "seconds": seconds
    }  # fmt: skip


def read_weights() -> dict:
    state = checkpoints.load_model(TINY).state_dict()
    return {k: v.numpy().tobytes() for k, v in state.items()}


def read_record() -> dict:
    found = checkpoints.record(TINY)
    return {name: found[name] for name in ("seconds", "key", "configuration", "environment")}


def read_history() -> dict:
    return {split: table.to_dict("list") for split, table in checkpoints.history(TINY).items()}


def read_manifest() -> dict:
    found = runs.manifest("mnist")
    return {"key": runs.key(TINY), "split": found["split"], "images": found["images"]}


def read_arrays() -> dict:
    def forbidden():
        raise DigitcnnError("The arrays are stale.")

    found = predictions.cached_arrays("results/arrays", {"made": "of this"}, forbidden)
    return {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in found.items()}


FILES = {
    "weights": (lambda: runs.weights_path(TINY), read_weights, 250),
    "record": (lambda: runs.record_path(TINY), read_record, 250),
    "metrics": (lambda: runs.metrics_path(TINY, "validation"), read_history, 250),
    "arrays": (lambda: files.cache_path("results/arrays.npz"), read_arrays, 300),
    "checkpoint": (lambda: runs.checkpoint_path(TINY), read_checkpoint, 150),
}


@pytest.fixture
def all_files(trained, monkeypatch):
    """The tree of `trained` with a cached array file and an unfinished checkpoint of the run."""
    rng = np.random.default_rng(0)
    arrays = {"logits": rng.normal(size=(50, 10)).astype(np.float32), "labels": np.arange(50) % 10}
    predictions.cached_arrays("results/arrays", {"made": "of this"}, lambda: arrays)
    held_out = {"validation": training.evaluation_split(TINY, "validation")}
    running = training.Training(TINY, training.training_split(TINY), held_out)
    rows = {name: [row] for name, row in running.run_epoch().items()}
    metrics = {split: runs.metrics_path(TINY, split) for split in ("train", "validation")}
    kept = {split: path.read_bytes() for split, path in metrics.items()}
    checkpoints._save_progress(TINY, running, rows, [0.5])
    for split, path in metrics.items():
        path.write_bytes(kept[split])
    yield
    runs.checkpoint_path(TINY).unlink()


@pytest.mark.parametrize("kind", FILES)
def test_damage_is_noticed_or_harmless(kind, all_files, faults, monkeypatch):
    """A damaged file is one sentence, or read as it was; never wrong, never another exception."""
    where, read, examples = FILES[kind]
    path = where()
    whole = path.read_bytes()
    if kind == "checkpoint":  # resuming also writes the metrics again
        monkeypatch.setattr(files, "write_whole", lambda *_: None)
    expected = read()
    noticed = []

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(damage(len(whole)))
    def check(spoil):
        content = spoil(whole)
        if content == whole:
            return
        path.write_bytes(content)
        with faults.one(f"damaged {kind}"):
            try:
                found = read()
            except DigitcnnError as error:
                one_sentence(error)
                noticed.append(True)
            else:
                assert found == expected

    try:
        check()
    finally:
        path.write_bytes(whole)
    assert len(noticed) > examples / 2
    assert read() == expected


def test_a_damaged_manifest_is_noticed_or_makes_everything_stale(trained, faults):
    """Every single bit flip in the digests, and in the counts that the report shows."""
    path = files.cache_path("data", "mnist.json")
    whole, expected = path.read_bytes(), read_manifest()
    for at in range(0, len(whole), 2):
        for bit in (1, 4):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with faults.one("damaged manifest"):
                try:
                    found = read_manifest()
                except DigitcnnError as error:
                    one_sentence(error)
                else:
                    assert found == expected or found["key"] != expected["key"], at
    path.write_bytes(whole)


def test_damaged_data_files_are_noticed(tmp_path, monkeypatch, faults):
    """IDX and MAT files: every damage changes the MD5."""
    from test_sources import fake_mnist, fake_svhn

    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    fake_mnist(tmp_path, monkeypatch)
    fake_svhn(tmp_path, monkeypatch)
    for name in sources.NAMES:
        expected = sources.read(name).digest()
        for relative in sources.PINNED_MD5[name]:
            path = tmp_path / relative
            whole = path.read_bytes()
            for seed in range(25):
                rng = np.random.default_rng(seed)
                at = int(rng.integers(len(whole)))
                flipped = bytes([whole[at] ^ 1 << int(rng.integers(8))])
                for content in (whole[:at], whole[:at] + flipped + whole[at + 1 :]):
                    path.write_bytes(content)
                    with faults.one(f"damaged {name} data"):
                        with pytest.raises(DigitcnnError, match="damaged or another") as caught:
                            sources.read(name)
                        assert path.name in one_sentence(caught.value)
            path.write_bytes(whole)
        assert sources.read(name).digest() == expected


def test_what_has_no_checksum_is_refused(trained):
    """Of the weights' metadata, of the metrics, of the record."""
    tensors, metadata = checkpoints.read_tensors(runs.weights_path(TINY))
    files.write_whole(runs.weights_path(TINY), tensor_bytes(tensors, metadata))
    about = runs.read_record(TINY)
    del about["metrics_sha256"]["train"]
    files.write_json(runs.record_path(TINY), runs.sealed(about))
    for read in (read_weights, read_history):
        with pytest.raises(DigitcnnError, match="damaged") as caught:
            read()
        one_sentence(caught.value)
    files.write_json(runs.record_path(TINY), about)
    with pytest.raises(DigitcnnError, match="damaged"):
        checkpoints.record(TINY)


def test_a_metrics_file_without_its_last_row_is_noticed(trained):
    path = runs.metrics_path(TINY, "train")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DigitcnnError, match="damaged"):
        checkpoints.history(TINY)


def test_windows_line_ends_are_no_damage(trained):
    path = runs.metrics_path(TINY, "train")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(checkpoints.history(TINY)["train"]) == TINY.epochs


def test_the_loss_of_a_diverged_run_can_be_read(tmp_path):
    path = tmp_path / "train.txt"
    rows = [training.Metrics(float("nan"), 0.1, 0.01, 0.1), training.Metrics(2.0, 1.0, 1.0, 0.0)]
    path.write_text(checkpoints.metrics_text(rows))
    table = checkpoints.read_metrics(path)
    assert np.isnan(table["loss"][0]) and table["loss"][1] == 2.0


@pytest.mark.parametrize(
    "text",
    ["", "epoch\tloss\taccuracy\tprecision\trecall\n", "epoch\tloss\n1\t2\n",
     "epoch\tloss\taccuracy\tprecision\trecall\n2\t1\t1\t1\t1\n",
     "epoch\tloss\taccuracy\tprecision\trecall\n1\t1\t1.5\t1\t1\n",
     "epoch\tloss\taccuracy\tprecision\trecall\n1\tlow\t1\t1\t1\n",
     "epoch\tloss\taccuracy\tprecision\trecall\n1\t1\t1\t1\n",
     "loss\tepoch\taccuracy\tprecision\trecall\n1\t1\t1\t1\t1\n"],
)  # fmt: skip
def test_metrics_of_a_wrong_form_are_one_sentence(tmp_path, text):
    path = tmp_path / "train.txt"
    path.write_text(text)
    with pytest.raises(DigitcnnError, match="damaged") as caught:
        checkpoints.read_metrics(path)
    one_sentence(caught.value)


# Files that are not ours


def rewrite(path: Path, change) -> None:
    """Write a safetensors file again, its tensors and metadata changed by `change`."""
    tensors, about = checkpoints.read_tensors(path)
    change(tensors, about)
    checkpoints.write_tensors(path, tensors, about)


def test_another_architecture_is_named(trained):
    path = runs.weights_path(TINY)
    rewrite(path, lambda tensors, _: tensors.pop("output.bias"))
    with pytest.raises(DigitcnnError, match="another architecture") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_a_checkpoint_of_another_architecture_is_named(all_files, monkeypatch):
    path = runs.checkpoint_path(TINY)
    monkeypatch.setattr(files, "write_whole", lambda p, content: p.write_bytes(content))
    rewrite(path, lambda tensors, _: tensors.pop("model.output.bias"))
    with pytest.raises(DigitcnnError, match="another architecture") as caught:
        read_checkpoint()
    one_sentence(caught.value)


def test_another_format_is_named(trained):
    tensors, about = checkpoints.read_tensors(runs.weights_path(TINY))
    payload = tensor_bytes(tensors, about | {"format": "digitcnn-0"})
    files.write_whole(runs.weights_path(TINY), payload)
    with pytest.raises(DigitcnnError, match="has the format 'digitcnn-0'") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_a_checkpoint_is_no_finished_model(all_files):
    runs.weights_path(TINY).write_bytes(runs.checkpoint_path(TINY).read_bytes())
    with pytest.raises(DigitcnnError, match="no finished model") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_another_configuration_is_stale(trained):
    other = tiny_run(epochs=3, learning_rate=0.1)
    assert runs.stale(other) == "configuration changed"
    with pytest.raises(DigitcnnError, match=r"stale \(configuration changed\)"):
        checkpoints.load_model(other)


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def hostile_files(mark: Path) -> dict[str, bytes]:
    archive, lone = io.BytesIO(), io.BytesIO()
    objects = np.array([Hostile(mark)], dtype=object)
    np.savez(archive, key=objects, logits=objects, allow_pickle=True)
    np.save(lone, objects, allow_pickle=True)
    model = io.BytesIO()
    torch.save({"output.bias": Hostile(mark)}, model)
    raw = pickle.dumps(Hostile(mark))
    return {"pickle": raw, "npz": archive.getvalue(), "npy": lone.getvalue(),
            "torch": model.getvalue()}  # fmt: skip


@pytest.mark.parametrize("kind", [*FILES, "manifest"])
@pytest.mark.parametrize("content", ["pickle", "npz", "npy", "torch"])
def test_hostile_files_are_refused_and_not_executed(kind, content, all_files, tmp_path, faults):
    mark = tmp_path / "executed"
    pickle.loads(hostile_files(mark)["pickle"])  # the weapon works
    mark.rmdir()
    if kind == "manifest":
        path, read = files.cache_path("data", "mnist.json"), read_manifest
    else:
        path, read = FILES[kind][0](), FILES[kind][1]
    whole = path.read_bytes()
    path.write_bytes(hostile_files(mark)[content])
    with faults.one("hostile pickle"):
        with pytest.raises(DigitcnnError) as caught:
            read()
        one_sentence(caught.value)
        assert not mark.exists()
    path.write_bytes(whole)


def test_hostile_data_files_are_not_executed(tmp_path, monkeypatch, faults):
    """Even where checksums.json lists them, which is the user's own word for them."""
    from test_sources import fake_svhn

    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    fake_svhn(tmp_path, monkeypatch)
    mark, path = tmp_path / "executed", tmp_path / "SVHN" / "train_32x32.mat"
    for content in hostile_files(mark).values():
        path.write_bytes(content)
        listed = {"SVHN/train_32x32.mat": files.file_md5(path)}
        files.write_json(tmp_path / "checksums.json", listed)
        with faults.one("hostile pickle"):
            with pytest.raises(DigitcnnError) as caught:
                sources.read("svhn")
            one_sentence(caught.value)
            assert not mark.exists()


@pytest.mark.parametrize("content", ["pickle", "npz", "npy", "torch"])
def test_hostile_files_under_the_other_names_are_not_executed(
    content, sandbox, tmp_path, monkeypatch, faults
):
    """A picture, MNIST's files, the list of checksums, a chapter's record, a frozen page."""
    from test_sources import fake_mnist, fake_svhn

    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    fake_mnist(tmp_path, monkeypatch)
    fake_svhn(tmp_path, monkeypatch)
    mark = tmp_path / "executed"
    weapon = hostile_files(mark)[content]
    for path, read in {
        tmp_path / "7.png": lambda: predictions.to_images(tmp_path / "7.png"),
        tmp_path / "MNIST/raw/t10k-images-idx3-ubyte": lambda: sources.read("mnist"),
        tmp_path / "checksums.json": lambda: sources.read("svhn"),
        provenance.record_path("index"): lambda: provenance.read_record("index"),
        provenance.frozen("index") / "html.json": lambda: provenance.read_page(
            provenance.frozen("index") / "html.json"
        ),
    }.items():
        files.write_whole(path, weapon)
        with faults.one("hostile pickle"):
            try:
                assert read() == {}  # for which its chapter is executed again
            except DigitcnnError as error:
                assert path.name.split(".")[0] in one_sentence(error)
            assert not mark.exists()


def test_an_npz_with_objects_is_not_executed_under_the_right_key(sandbox, tmp_path):
    data.pool("mnist")
    mark = tmp_path / "executed"
    path = files.cache_path("results", "arrays.npz")
    path.parent.mkdir(parents=True)
    key = np.array(files.fingerprint({"made": "of this"}))
    np.savez(path, key=key, logits=np.array([Hostile(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(DigitcnnError, match="damaged"):
        read_arrays()
    assert not mark.exists()
