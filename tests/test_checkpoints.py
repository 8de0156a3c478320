"""Checkpoints: trained once, continued after any interruption, damage never goes unnoticed."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_sentence
from crashes import outcome, tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as tensor_bytes

from digitcnn import (
    checkpoints,
    data,
    division,
    files,
    provenance,
    results,
    runs,
    sources,
    status,
    store,
    tensors,
    training,
)
from digitcnn.files import DigitcnnError, Interrupted

TINY = tiny_run(epochs=3)
CRASHES = Path(__file__).parent / "crashes.py"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


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
        patch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
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
    monkeypatch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
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


def written(root: Path) -> set[str]:
    """The files of a results tree, but for locks and what is known of the data sets."""
    found = {p.relative_to(root / "_quick").as_posix() for p in root.rglob("*") if p.is_file()}
    return {name for name in found if not name.startswith(("cache/local/locks/", "cache/data/"))}


def test_computing_writes_nothing_but_the_checkpoint(sandbox):
    """So that a run can be made elsewhere, and is stored by one process alone."""
    made = checkpoints.compute(TINY)
    assert written(sandbox) == {"cache/local/checkpoints/tiny.safetensors"}
    assert runs.stale(TINY) == "missing"
    again = pickle.loads(pickle.dumps(made))  # as from another process
    checkpoints.store(again)
    assert written(sandbox) == {
        f"models/{TINY.model_file}", "cache/runs/tiny.json", "cache/answers/tiny.npz",
        "cache/metrics/tiny/train.txt", "cache/metrics/tiny/validation.txt",
    }  # fmt: skip
    assert status.reason(TINY) == ""
    before = outcome(TINY)
    checkpoints.store(again)  # can be repeated
    assert outcome(TINY) == before


@pytest.mark.parametrize("name", ["train.txt", "tiny.npz", TINY.model_file, "tiny.json"])
def test_the_checkpoint_goes_only_when_the_result_is_stored(
    sandbox, monkeypatch, count_epochs, name
):
    """Whichever file cannot be written, the run is not trained again."""
    real = files.write_whole

    def full(path, content):
        if path.name == name:
            raise DigitcnnError("The disk is full.")
        real(path, content)

    with monkeypatch.context() as patch, pytest.raises(DigitcnnError, match="full"):
        patch.setattr(files, "write_whole", full)
        checkpoints.train(TINY)
    assert runs.checkpoint_path(TINY).is_file() and runs.stale(TINY) == "missing"
    checkpoints.train(TINY)
    assert count_epochs == [1, 2, 3] and status.reason(TINY) == ""
    assert not runs.checkpoint_path(TINY).exists()


def test_unfinished_training_may_lie_elsewhere(sandbox, monkeypatch, tmp_path, count_epochs):
    monkeypatch.setenv("DIGITCNN_CHECKPOINTS", str(tmp_path / "elsewhere"))
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    folder = tmp_path / "elsewhere" / "quick"
    assert os.listdir(folder) == ["tiny.safetensors"]
    assert (
        status.saved_epoch(TINY) == 2 and not (sandbox / "_quick/cache/local/checkpoints").exists()
    )
    checkpoints.train(TINY)
    assert count_epochs == [1, 2, 3] and not os.listdir(folder)


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


@pytest.mark.parametrize("changes", [{}, {"class_counts": None, "train_size": 32}])
def test_metrics_are_exactly_those_of_the_weights_file(sandbox, changes):
    """What is printed can be had again from the file, on any machine."""
    run = dataclasses.replace(TINY, name="other", **changes)
    checkpoints.train(run)
    split = data.held_out_part(run, division.pool("mnist"), "validation")
    model = checkpoints.load_model(run)
    again = training.evaluate(model, split.images, split.labels, epoch=3)
    stored = runs.metrics_path(run, "validation").read_text().splitlines()
    assert stored[-1] == results.metrics_text([again]).splitlines()[-1]
    answers = results.answers(run)["mnist-validation-answer"]
    assert (answers == training.predict_logits(model, split.images).argmax(1).numpy()).all()
    accuracy = (answers == split.labels.numpy()).mean()
    assert results.history(run)["validation"]["accuracy"].iloc[-1] == round(accuracy, 6)


def test_kept_weights_have_sixteen_bits_where_they_are_many(trained):
    tensors, _ = checkpoints.read_tensors(runs.weights_path(TINY))
    parameters = dict(checkpoints.load_model(TINY).named_parameters())
    for name, value in tensors.items():
        many = name in parameters and parameters[name].ndim > 1
        assert (value.dtype == torch.float16) == many, name


# What is kept of a finished run

FULL = {  # validation and test images of a division, of which the numbers of digits 1 and 2
    ("mnist", "pooled"): (7_000, 14_000), ("mnist", "official"): (6_000, 10_000),
    ("svhn", "pooled"): (9_929, 19_858), ("svhn", "official"): (7_326, 26_032),
}  # fmt: skip


def test_each_group_keeps_what_later_formulas_need(monkeypatch):
    """About 10 MB in all, and the weights of fourteen networks."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    form = {"main": "logits", "official": "logits", "imbalance": "margin"}
    bytes_each = {"logits": 1 + 2 * 10, "margin": 1 + 2, "answer": 1}
    total, weights = 0, []
    for run in runs.registry().values():
        other = "svhn" if run.data == "mnist" else "mnist"
        own = [(run.data, "validation"), (run.data, "test")]
        assert runs.kept_form(run) == form.get(run.group, "answer")
        assert runs.kept_answers(run) == {
            "official": own, "experiments": own[:1], "improvement": own,
        }.get(run.group, own + [(other, "test")]), run.id  # fmt: skip
        for name, split in runs.kept_answers(run):
            sizes = FULL[name, run.split if name == run.data else "pooled"]
            count = sizes[split == "test"]
            if run.class_counts:
                parts = runs.split_sizes(name)[split]["class_counts"]
                count = parts[1] + parts[2]
            total += count * bytes_each[runs.kept_form(run)]
        if runs.keeps_weights(run):
            weights.append(run)
    assert 8e6 < total < 12e6
    assert len(weights) == 14 and {r.id for r in weights if r.group == "imbalance"} == {
        f"{name}-case{case}" for name in runs.DATA for case in (1, 2, 3)
    }


@pytest.mark.parametrize("group", runs.GROUPS)
def test_answers_are_those_of_the_network(sandbox, group, monkeypatch):
    """Of the splits that the group keeps, in its form, of all classes or of the pair."""
    pair = ((1, 16), (2, 16)) if group == "imbalance" else None
    run = dataclasses.replace(
        TINY, name="asked", group=group, class_counts=pair, train_size=None if pair else 32,
        epochs=1, split="official" if group == "official" else "pooled",
    )  # fmt: skip
    models = []
    real = checkpoints._answers
    monkeypatch.setattr(
        checkpoints, "_answers", lambda run, model: models.append(model) or real(run, model)
    )
    checkpoints.train(run)
    found, expected = results.answers(run), {}
    for name, split in runs.kept_answers(run):
        part = data.load(name, split, run.split)
        chosen = np.flatnonzero(np.isin(part.labels, (1, 2))) if pair else np.arange(len(part))
        logits = training.predict_logits(models[0], part.images[torch.from_numpy(chosen)]).numpy()
        expected[f"{name}-{split}-answer"] = logits.argmax(1).astype("u1")
        if group in ("main", "official"):
            expected[f"{name}-{split}-logits"] = logits.astype("f2")
        if pair:
            expected[f"{name}-{split}-margin"] = (logits[:, 1] - logits[:, 2]).astype("f2")
    assert found.keys() == expected.keys() and len(found) >= 1
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and (found[name] == values).all(), name
    assert runs.weights_path(run).is_file() == runs.keeps_weights(run)
    assert runs.keeps_weights(run) == (group not in ("experiments", "transfer", "improvement"))
    assert status.reason(run) == ""


def test_weights_that_are_not_kept_are_known_by_their_digest(sandbox):
    kept = checkpoints.compute(TINY)
    runs.checkpoint_path(TINY).unlink()
    short = dataclasses.replace(TINY, group="experiments")
    made = checkpoints.compute(short)
    assert kept.weights and not made.weights
    assert made.record["weights_sha256"] == kept.record["weights_sha256"]
    with pytest.raises(DigitcnnError, match="The weights of tiny are not kept") as caught:
        checkpoints.load_model(short)
    one_sentence(caught.value)
    checkpoints.store(kept)
    _, about = checkpoints.read_tensors(runs.weights_path(TINY))
    assert about["checksum"] == kept.record["weights_sha256"]


# A run that diverges is a result


@pytest.fixture
def diverged(sandbox):
    """A finished run whose weights became infinite."""
    run = dataclasses.replace(TINY, name="wild", learning_rate=float("inf"))
    checkpoints.train(run)
    return run


def test_a_run_that_diverges_ends_and_is_current(diverged, sandbox, count_epochs, monkeypatch):
    record = runs.read_record(diverged)
    assert record["diverged"] == 1 < diverged.epochs
    assert status.reason(diverged) == "" and status.state(diverged) == "current"
    assert not list(sandbox.rglob("*.safetensors"))  # neither weights nor a checkpoint
    history = results.history(diverged)
    assert [len(table) for table in history.values()] == [1, 1]
    assert not np.isfinite(history["train"]["loss"]).any()
    assert results.answers(diverged) == {}
    checkpoints.train(diverged)
    results.record(diverged)
    assert not count_epochs  # it is not tried again and again
    with pytest.raises(DigitcnnError, match="wild diverged in epoch 1") as caught:
        checkpoints.load_or_train(diverged)
    one_sentence(caught.value)


def test_a_run_that_does_not_diverge_says_so(trained):
    assert results.record(TINY)["diverged"] is None


def test_a_run_that_diverged_goes_on_to_the_same_end(sandbox, monkeypatch, count_epochs):
    """Killed after its last checkpoint: the state says that it has diverged."""
    wild = dataclasses.replace(
        TINY, learning_rate=float("inf"), schedule="constant", batch_norm=False
    )
    stop_after(monkeypatch, 1)
    with pytest.raises(Interrupted):
        checkpoints.train(wild)
    checkpoints.train(wild)
    assert count_epochs == [1] and runs.read_record(wild)["diverged"] == 1


def test_the_weights_file_says_where_it_comes_from(trained):
    _, about = checkpoints.read_tensors(runs.weights_path(TINY))
    record = results.record(TINY)
    assert about["key"] == record["key"] == runs.key(TINY)
    assert about["kind"] == "weights" and about["format"] == tensors.FORMAT
    configuration = json.loads(about["configuration"])
    assert configuration == json.loads(json.dumps(vars(TINY))) == record["configuration"]
    assert json.loads(about["environment"]) == record["environment"] == checkpoints.environment()
    assert record["environment"]["torch"] == torch.__version__.split("+")[0]
    assert float(about["seconds"]) == record["seconds"] > 0
    assert record["images"] == 32 and record["steps"] == 6
    assert record["copy"] == runs.manifest("mnist")["copy"]
    assert record["code"] == runs.code(TINY)
    assert record["environment"]["evaluation"] == "float32"
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
    monkeypatch.setattr(runs, "code", lambda run: {"learn": "changed"})
    with pytest.raises(DigitcnnError, match=r"stale \(code changed\)") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_what_the_data_alone_can_tell_is_read_even_where_training_is_forbidden(trained):
    files.cache_path("data", "mnist.json").unlink()
    assert runs.stale(TINY) == "data not read yet"
    division._pool.cache_clear()  # as a new process starts
    assert results.record(TINY)["images"] == 32


def test_forbidden_training_is_refused_before_the_data_is_read(trained, monkeypatch):
    other = dataclasses.replace(TINY, learning_rate=0.1)
    monkeypatch.setattr(division, "pool", lambda name: pytest.fail("the data was read"))
    with pytest.raises(DigitcnnError, match="tiny would have to be trained") as caught:
        checkpoints.ensure(other)
    assert "configuration changed" in one_sentence(caught.value)


def test_a_key_is_taken_before_the_first_step(sandbox, monkeypatch):
    """Of the code that was imported: what is edited meanwhile changes no record."""
    division.pool("mnist")
    key, code, real = runs.key(TINY), runs.code(TINY), training.Training.run_epoch

    def edited(self):
        monkeypatch.setattr(runs, "code", lambda run: {"learn": "changed"})
        return real(self)

    monkeypatch.setattr(training.Training, "run_epoch", edited)
    record = checkpoints.compute(TINY).record
    assert record["key"] == key and record["code"] == code
    assert record["ingredients"]["code"] == files.fingerprint(code)


def test_training_can_be_forbidden(sandbox, monkeypatch, count_epochs):
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    with pytest.raises(DigitcnnError, match="tiny would have to be trained") as e:
        checkpoints.load_or_train(TINY)
    one_sentence(e.value)
    assert not count_epochs
    with pytest.raises(DigitcnnError) as e:  # all that is missing at once
        checkpoints.load_or_train("svhn")
    text = one_sentence(e.value)
    assert "so would 3 more of main (mnist, mnist-s43, svhn-s43); " in text
    assert " more of imbalance (" in text and text.endswith("run `digitcnn train --all` first.")
    monkeypatch.setattr(runs, "reason", lambda run: "missing" if run.group == "main" else "")
    with pytest.raises(DigitcnnError, match="run `digitcnn train main` first"):
        checkpoints.load_or_train("svhn")
    monkeypatch.setattr(runs, "reason", lambda run: "missing" if run.id == "svhn" else "")
    with pytest.raises(DigitcnnError, match="'never': run `digitcnn train svhn` first"):
        checkpoints.load_or_train("svhn")


def test_a_stale_run_is_trained_again(sandbox, monkeypatch, count_epochs):
    checkpoints.load_or_train(TINY)
    monkeypatch.setattr(runs, "code", lambda run: {"learn": "changed"})
    assert runs.stale(TINY).startswith("code changed: ACTIVATIONS, ")
    checkpoints.ensure(TINY)
    assert count_epochs == [1, 2, 3] * 2
    assert runs.stale(TINY) == ""


def test_missing_weights_are_trained_again(sandbox, count_epochs):
    checkpoints.load_or_train(TINY)
    before = outcome(TINY)
    runs.weights_path(TINY).unlink()
    assert runs.stale(TINY) == "" and status.reason(TINY) == "weights missing"
    checkpoints.ensure(TINY)
    assert count_epochs == [1, 2, 3] * 2
    assert outcome(TINY) == before


def test_an_unfinished_run_of_other_code_starts_afresh(sandbox, monkeypatch, count_epochs, capfd):
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    monkeypatch.setattr(runs, "code", lambda run: {"learn": "changed"})
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
    real = checkpoints.say_epoch

    def say_then_stop(run, running, seconds):
        real(run, running, seconds)
        if running.epoch == epoch:
            monkeypatch.setattr(checkpoints, "say_epoch", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "say_epoch", say_then_stop)


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
    record = results.record(TINY)  # the time of each epoch was kept
    assert record["seconds"] == pytest.approx(3 * record["seconds_per_epoch"], rel=2, abs=0.5)


def test_an_interrupted_run_says_what_it_learns(sandbox, monkeypatch, capfd):
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        r"tiny: epoch 2/3, loss \d\.\d{4}, validation accuracy \d+\.\d\d%, \d+\.\d s, .* left",
        lines[1],
    )
    assert status.state(TINY) == "missing, 2/3 epochs saved"


def test_metrics_of_a_run_that_is_trained_again_stay_until_it_ends(sandbox, monkeypatch):
    """Weights lost, training again, interrupted: what was stored is whole, the old or the new."""
    checkpoints.load_or_train(TINY)
    before = {split: table.to_dict() for split, table in results.history(TINY).items()}
    runs.weights_path(TINY).unlink()
    stop_after(monkeypatch, 1)
    with pytest.raises(Interrupted):
        checkpoints.train(TINY)
    for split, table in before.items():
        path = runs.metrics_path(TINY, split)
        digest = runs.read_record(TINY)["metrics_sha256"][split]
        assert results.read_metrics(path, digest).to_dict() == table
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
@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_whole(faults):
    """No torn file; training goes on from the last whole epoch, to the same result."""
    found = crash("random")
    faults.add("kill -9 at a random moment", found["killed"], found["killed"])
    assert found["killed"] >= 100 and found["finished"] >= 3
    assert sum(count > 0 for count in found["epochs"]) >= 4  # they were spread over the run


@forks
@pytest.mark.slow
def test_kills_around_every_step_of_every_write_lose_nothing_whole(faults):
    """SIGKILL before and after each flush, rename and removal of a whole run."""
    found = crash("writes")
    faults.add("kill -9 around a write", found["killed"], found["killed"])
    # Two checkpoints, two metrics files, answers, weights, record; each flushed and renamed; the
    # checkpoint removed.
    assert found["killed"] >= 2 * (7 + 7 + 1)
    assert found["leftover"] <= 1


@forks
@pytest.mark.slow
def test_two_starts_at_once_train_once(faults):
    found = crash("two")
    faults.add("two starts at once", len(found["trained"]), found["trained"].count(1))
    assert found["trained"] == [1] * 5


@forks
@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(faults):
    with faults.one("disk full while training"):
        found = crash("full")
        assert found["code"] == 3 and found["epoch"] == 1 and found["leftover"] == 0
        errors = [line for line in found["log"].splitlines() if line.startswith("ERROR")]
        assert len(errors) == 1 and "free some disk space" in errors[0]
        assert found["went_on"]


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
    state, seconds = checkpoints._saved_progress(TINY, runs.ingredients(TINY))
    if state is None:
        raise DigitcnnError("It starts afresh.")
    running = training.Training(TINY, division.pool("mnist"), torch.device("cpu"))
    try:
        checkpoints.restore(running, state)
    except (KeyError, RuntimeError, ValueError, TypeError):  # which `compute` makes a sentence
        raise DigitcnnError("It is of another architecture.") from None
    found = checkpoints.state_of(running)
    return {k: v.numpy().tobytes() for k, v in found.items()} | {"seconds": seconds}


def read_weights() -> dict:
    state = checkpoints.load_model(TINY).state_dict()
    return {k: v.numpy().tobytes() for k, v in state.items()}


def read_record() -> dict:
    found = results.record(TINY)
    return {name: found[name] for name in ("seconds", "key", "configuration", "environment")}


def read_history() -> dict:
    return {split: table.to_dict("list") for split, table in results.history(TINY).items()}


def read_manifest() -> dict:
    found = runs.manifest("mnist")
    every = dataclasses.replace(TINY, held_out=("validation", "test"))
    keys = [runs.key(dataclasses.replace(every, split=name)) for name in division.DIVISIONS]
    return {"keys": keys, **{name: found[name] for name in ("divisions", "images")}}


def read_answers() -> dict:
    return {k: (v.dtype.str, v.tobytes()) for k, v in results.answers(TINY).items()}


def arrays_path() -> Path:
    return files.cache_path("results", "arrays.npz")


def read_arrays() -> dict:
    if why := store.stale(arrays_path()):
        raise DigitcnnError(f"The result is {why}.")
    arrays = store.read(arrays_path())[0]
    return {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in arrays.items()}


FILES = {
    "weights": (lambda: runs.weights_path(TINY), read_weights, 120),
    "record": (lambda: runs.record_path(TINY), read_record, 120),
    "metrics": (lambda: runs.metrics_path(TINY, "validation"), read_history, 120),
    "answers": (lambda: runs.answers_path(TINY), read_answers, 120),
    "arrays": (arrays_path, read_arrays, 120),
    "checkpoint": (lambda: runs.checkpoint_path(TINY), read_checkpoint, 40),
}


@pytest.fixture
def all_files(trained):
    """The tree of `trained` with a stored result and an unfinished checkpoint of the run."""
    rng = np.random.default_rng(0)
    arrays = {"logits": rng.normal(size=(50, 10)).astype(np.float32), "labels": np.arange(50) % 10}
    store.write(arrays_path(), arrays, "toy.read_svhn", ["value 1"])
    running = training.Training(TINY, division.pool("mnist"), torch.device("cpu"))
    running.run_epoch()
    about = {"kind": "checkpoint", "run": "tiny", "epoch": "1", "seconds": "[0.5]",
             "ingredients": json.dumps(runs.ingredients(TINY))}  # fmt: skip
    checkpoints.write_tensors(runs.checkpoint_path(TINY), checkpoints.state_of(running), about)
    yield
    runs.checkpoint_path(TINY).unlink()
    arrays_path().unlink()


@pytest.mark.parametrize("kind", FILES)
def test_damage_is_noticed_or_harmless(kind, all_files, faults):
    """A damaged file is one sentence, or read as it was; never wrong, never another exception."""
    where, read, examples = FILES[kind]
    path = where()
    whole = path.read_bytes()
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
    """Bits flipped in the digests, and in the counts that the report shows."""
    path = files.cache_path("data", "mnist.json")
    whole, expected = path.read_bytes(), read_manifest()
    for at in range(0, len(whole), 7):
        for bit in (1, 4):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with faults.one("damaged manifest"):
                try:
                    found = read_manifest()
                except DigitcnnError as error:
                    one_sentence(error)
                else:
                    assert found == expected or found["keys"] != expected["keys"], at
    path.write_bytes(whole)


def test_damaged_data_files_are_noticed(tmp_path, monkeypatch, faults):
    """IDX and MAT files: every damage changes the MD5."""
    from test_sources import fake_mnist, fake_svhn

    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    fake_mnist(tmp_path, monkeypatch)
    fake_svhn(tmp_path, monkeypatch)
    for name in sources.NAMES:
        expected = sources.read(name).digest
        for relative in sources.PINNED_MD5[name]:
            path = tmp_path / relative
            whole = path.read_bytes()
            for seed in range(8):
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
        assert sources.read(name).digest == expected


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
        results.record(TINY)


def test_a_metrics_file_without_its_last_row_is_noticed(trained):
    path = runs.metrics_path(TINY, "train")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DigitcnnError, match="damaged"):
        results.history(TINY)


def test_windows_line_ends_are_no_damage(trained):
    path = runs.metrics_path(TINY, "train")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(results.history(TINY)["train"]) == TINY.epochs


def test_the_loss_of_a_diverged_run_can_be_read(tmp_path):
    path = tmp_path / "train.txt"
    rows = [training.Metrics(1, float("nan"), 0.1, 0.01, 0.1),
            training.Metrics(2, 2.0, 1.0, 1.0, 0.0)]  # fmt: skip
    path.write_text(results.metrics_text(rows))
    table = results.read_metrics(path, results.sha256(path.read_text()))
    assert np.isnan(table["loss"][0]) and table["loss"][1] == 2.0


# Files that are not ours


def rewrite(path: Path, change) -> None:
    """Write a safetensors file again, its tensors and metadata changed by `change`."""
    tensors, about = checkpoints.read_tensors(path)
    change(tensors, about)
    checkpoints.write_tensors(path, tensors, about)


def test_another_architecture_is_named(trained):
    path = runs.weights_path(TINY)
    rewrite(path, lambda tensors, _: tensors.pop("output.bias"))
    runs.record_path(TINY).unlink()  # which would say that these are other weights
    with pytest.raises(DigitcnnError, match="another architecture") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_a_checkpoint_of_another_architecture_is_named(all_files, monkeypatch):
    rewrite(runs.checkpoint_path(TINY), lambda tensors, _: tensors.pop("model.output.bias"))
    with pytest.raises(DigitcnnError, match="another architecture") as caught:
        checkpoints.compute(TINY)
    one_sentence(caught.value)


@pytest.mark.parametrize("name", ["output.bias", "convolutions.0.0.weight", "mean"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(trained, name, value):
    """However well they are sealed, and with a record that names them."""
    path = runs.weights_path(TINY)
    rewrite(path, lambda tensors, _: tensors[name].view(-1)[:1].fill_(value))
    about = runs.read_record(TINY)
    about["weights_sha256"] = checkpoints.read_tensors(path)[1]["checksum"]
    files.write_json(runs.record_path(TINY), runs.sealed(about))
    with pytest.raises(DigitcnnError, match="not finite") as caught:
        checkpoints.load_model(TINY)
    assert f"({name})" in one_sentence(caught.value)


def test_other_weights_than_the_records_are_refused(trained):
    """Whole and well sealed: trained again elsewhere, under another number of threads."""
    path = runs.weights_path(TINY)
    rewrite(path, lambda tensors, _: tensors["output.bias"][0].add_(0.1))
    with pytest.raises(DigitcnnError, match="other weights than the record of tiny") as caught:
        checkpoints.load_model(TINY)
    one_sentence(caught.value)


def test_files_of_two_runs_cannot_be_swapped(trained, tmp_path, monkeypatch):
    """Weights and answers of another seed, and answers of another training of the same run."""
    other = dataclasses.replace(TINY, seed=43, name="tiny")
    monkeypatch.setenv("DIGITCNN_TRAIN", "")
    monkeypatch.setenv("DIGITCNN_CHECKPOINTS", str(tmp_path))
    made = checkpoints.compute(other)
    checkpoints.store(made)
    try:
        pairs = [
            (runs.weights_path, checkpoints.load_model, r"stale \(configuration changed\)"),
            (runs.answers_path, results.answers, "damaged or of another training"),
            (lambda run: runs.metrics_path(run, "train"), results.history, "damaged"),
        ]
        for where, read, text in pairs:
            kept = where(TINY).read_bytes()
            where(TINY).write_bytes(where(other).read_bytes())
            with pytest.raises(DigitcnnError, match=text) as caught:
                read(TINY)
            one_sentence(caught.value)
            where(TINY).write_bytes(kept)
            read(TINY)
    finally:
        for where in (runs.weights_path, runs.answers_path, runs.record_path):
            where(other).unlink()
        shutil.rmtree(runs.metrics_path(other, "train").parent)


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
    """MNIST's files, the list of checksums, the labels of a data set, a chapter's record."""
    from test_sources import fake_mnist, fake_svhn

    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    fake_mnist(tmp_path, monkeypatch)
    fake_svhn(tmp_path, monkeypatch)
    mark = tmp_path / "executed"
    weapon = hostile_files(mark)[content]
    record = provenance.frozen("index") / provenance.RECORD
    files.write_json(files.cache_path("data", "svhn.json"), {"name": "svhn"})
    for path, read in {
        tmp_path / "MNIST/raw/t10k-images-idx3-ubyte": lambda: sources.read("mnist"),
        tmp_path / "checksums.json": lambda: sources.read("svhn"),
        files.cache_path("data", "svhn.npz"): lambda: division.labels("svhn"),
        record: lambda: provenance.read_record(record.parent),
    }.items():
        files.write_whole(path, weapon)
        with faults.one("hostile pickle"):
            try:
                assert read() == {}  # for which its chapter is executed again
            except DigitcnnError as error:
                assert path.name.split(".")[0] in one_sentence(error)
            assert not mark.exists()
