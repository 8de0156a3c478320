"""The `digitcnn` command: quick answers, one sentence for an error, no traceback."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from digitcnn import checkpoints, cli, files, runs

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("data", "train", "status", "doctor")


def digitcnn(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the command as a user does, in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN_")}
    return subprocess.run(
        [sys.executable, "-m", "digitcnn", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=kept | variables, timeout=120,
    )  # fmt: skip


def one_sentence(done: subprocess.CompletedProcess) -> str:
    """The last line of stderr, after checking that it is all there is to read of an error."""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith("…")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A project without any results."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    return tmp_path


def test_help_is_fast():
    began = time.perf_counter()
    done = digitcnn("--help")
    assert done.returncode == 0
    assert time.perf_counter() - began < 2  # 0.1 s; torch alone would take 2 to 4
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["--version"], ["predict", "--help"]]
)
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom digitcnn import cli\n"
        "try: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas'} & set(sys.modules)\nsys.exit(len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_shows_examples(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"examples:\n  digitcnn {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["frobnicate"], ["train", "--frobnicate"], [],
                                       ["data", "--verify", "--download"]])  # fmt: skip
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "digitcnn" in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_run_is_one_sentence():
    done = digitcnn("train", "cifar")
    assert done.returncode == 1
    assert "There is no run 'cifar'" in one_sentence(done)


def test_an_unknown_data_set_is_one_sentence():
    done = digitcnn("data", "cifar")
    assert done.returncode == 1
    assert "There is no data set 'cifar'" in one_sentence(done)


def test_a_missing_data_folder_is_one_sentence(tmp_path):
    done = digitcnn("data", "mnist", "--verify", DIGITCNN_DATA=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "MNIST is not complete" in one_sentence(done)


def test_a_damaged_data_folder_is_one_sentence(tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        files.write_whole(tmp_path / "MNIST" / "raw" / f"{name}-ubyte", "rubbish")
    done = digitcnn("data", "mnist", DIGITCNN_DATA=str(tmp_path))
    assert done.returncode == 1
    assert "is damaged" in one_sentence(done)


@pytest.mark.parametrize("arguments", [["train", "mn\nist"], ["data", "\x1b[31mmnist"],
                                       ["status", "--all\x00"], ["\u202eknist"]])  # fmt: skip
def test_control_characters_are_refused_and_not_echoed(arguments, capsys):
    assert cli.main(arguments) == 1
    message = capsys.readouterr().err
    assert message.strip().isprintable() and "control characters" in message


HOSTILE = (
    "../../etc/passwd", "/etc/passwd", "..", "$(touch pwned)", "`touch pwned`", "a;touch pwned",
    "|touch pwned", "-1", "99999999999999999999", "nan", "a\nb", "\x1b[31m", "a\x00b", "\u202e",
    "x" * 5000,
)  # fmt: skip


def command_lines() -> list[tuple[str, ...]]:
    """A command line for every argument of every command that takes a value, less the value."""
    found = []
    subparsers = next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in subparsers.choices.items():
        for action in command._actions:
            if action.nargs != 0:
                found.append((name, *action.option_strings[:1]))
                if name == "predict" and action.option_strings:
                    found.append((name, "--random", "1", action.option_strings[0]))
    return found


def test_every_argument_that_takes_a_value_is_tried():
    assert {("data",), ("train",), ("predict", "--model"), ("demo", "--port")} < set(
        command_lines()
    )


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_a_hostile_value_is_refused_in_a_sentence(words, sandbox, monkeypatch, capsys):
    """Nothing is written or executed, and nothing that steers a terminal is echoed."""
    monkeypatch.chdir(sandbox)
    for value in HOSTILE:
        try:
            code = cli.main([*words, value])
        except SystemExit as ended:  # argparse: a usage line, then the sentence
            code = ended.code
        said = capsys.readouterr()
        assert code in (1, 2), (value, said.out)
        lines = said.err.strip().splitlines()
        assert lines and all(line.isprintable() for line in lines), value
        assert "Traceback" not in said.err and (code == 2 or len(lines) == 1), said.err
        assert not list(sandbox.iterdir()), value


def test_a_wrong_profile_is_one_sentence():
    done = digitcnn("status", DIGITCNN_PROFILE="fast")
    assert done.returncode == 1
    assert "DIGITCNN_PROFILE" in one_sentence(done)


def finished(name: str) -> None:
    """Write what a finished run leaves, without training; it took two minutes."""
    run = runs.get(name)
    split = {k: {"images": 9, "indices_sha256": k} for k in ("train", "validation", "test")}
    files.write_json(files.cache_path("data", f"{run.data}.json"), {"digest": "d", "split": split})
    about = {"ingredients": runs.ingredients(run), "seconds": 120, "seconds_per_epoch": 2.0,
             "images": 9}  # fmt: skip
    files.write_json(runs.record_path(run), runs.sealed(about))
    rows = "".join(f"{n}\t0.1\t0.98765\t0.9\t0.9\n" for n in range(1, run.epochs + 1))
    for part in ("train", *run.held_out):
        path = files.cache_path("metrics", run.id, f"{part}.txt")
        files.write_whole(path, "epoch\tloss\taccuracy\tprecision\trecall\n" + rows)
    files.write_whole(files.model_path(run.model_file), b"weights")


class Trainer:
    """Stands for `digitcnn.checkpoints` and finishes every run at once."""

    def __init__(self, monkeypatch, folder: Path):
        self.trained = []
        for name in ("ensure", "train"):
            monkeypatch.setattr(checkpoints, name, self.ensure)
        self.folder = folder

    def ensure(self, run):
        self.trained.append(run.id)


def test_train_takes_the_main_runs_that_are_missing(empty, monkeypatch, capsys):
    trainer = Trainer(monkeypatch, empty)
    finished("svhn")
    assert cli.main(["train"]) == 0
    assert set(trainer.trained) == {"mnist"}
    assert "1 of 2 runs are current" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--experiments", "--all"])
def test_train_takes_the_experiments_too(flag, empty, monkeypatch, capsys):
    trainer = Trainer(monkeypatch, empty)
    assert cli.main(["train", flag]) == 0
    assert set(trainer.trained) == set(runs.registry())
    output = capsys.readouterr().out
    assert output.index("about") < output.index("[1/")  # the estimate comes first


def test_train_takes_what_is_named(empty, monkeypatch):
    trainer = Trainer(monkeypatch, empty)
    name = next(name for name, run in runs.registry().items() if not cli.is_main(run))
    assert cli.main(["train", name, name]) == 0
    assert set(trainer.trained) == {name}
    assert cli.main(["train", "mnist", "--all"]) == 1


def test_ctrl_c_is_one_line_and_130(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.doctor, "diagnose", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_saved_interruption_says_so_and_is_130(monkeypatch, capsys):
    def interrupted():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise files.Interrupted("mnist is saved up to epoch 3.") from None

    monkeypatch.setattr(cli.doctor, "diagnose", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "mnist is saved up to epoch 3.\n"


def test_a_missing_package_is_one_sentence(monkeypatch, capsys):
    def needs_torch():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli.doctor, "diagnose", needs_torch)
    assert cli.main(["doctor"]) == 1
    assert "tools/environment.py full" in capsys.readouterr().err


def test_data_of_the_quick_profile_needs_no_files(tmp_path):
    done = digitcnn("data", DIGITCNN_PROFILE="quick", DIGITCNN_ROOT=str(tmp_path))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and "1,797 images (train 1,257, validation" in lines[0]
    assert (tmp_path / "_quick" / "cache" / "data" / "mnist.json").is_file()


def test_doctor_names_a_remedy_for_missing_data(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    assert cli.main(["doctor"]) == 1
    line = next(x for x in capsys.readouterr().out.splitlines() if " data " in x)
    assert line.startswith("NO") and "make data" in line
