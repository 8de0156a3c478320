"""The `digitcnn` command: quick answers, one sentence for an error, no traceback."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from digitcnn import checkpoints, cli, data, division, files, grid, provenance, runs, status

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("data", "train", "accept", "status", "doctor", "check", "predict", "demo")


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
    monkeypatch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
    return tmp_path


def test_help_loads_nothing_heavy():
    code = "import sys; from digitcnn import cli; cli.main(['--help'])"
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "digitcnn.cli" in loaded and not loaded & {"torch", "sklearn", "scipy", "pandas", "umap"}


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


@pytest.mark.parametrize("arguments", [["frobnicate"], ["train", "--frobnicate"], []])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "digitcnn" in capsys.readouterr().err.splitlines()[-1]


def test_an_error_is_one_sentence_and_no_traceback(tmp_path):
    """As a process of its own, torch and all."""
    done = digitcnn("data", "mnist", "--verify", DIGITCNN_DATA=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "MNIST is not complete" in one_sentence(done)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["status"], ["status", "--all"]])  # little and much output
def test_a_full_disk_behind_the_output_is_one_sentence(tmp_path, arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN_")}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "digitcnn", *arguments], stdout=full, stderr=subprocess.PIPE,
            text=True, cwd=ROOT, env=env | {"DIGITCNN_ROOT": str(tmp_path)}, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1 and "No space left on device" in one_sentence(done)


def test_a_folder_that_is_a_link_to_itself_is_no_traceback(tmp_path):
    (tmp_path / "cache").symlink_to(tmp_path / "cache")
    done = digitcnn("status", DIGITCNN_ROOT=str(tmp_path))
    assert done.returncode == 1 and done.stderr == "" and " missing " in done.stdout
    done = digitcnn("data", "--verify", DIGITCNN_ROOT=str(tmp_path), DIGITCNN_PROFILE="quick")
    assert done.returncode == 0  # its tree is another


def test_an_unknown_data_set_is_one_sentence(capsys):
    assert cli.main(["data", "cifar"]) == 1
    error = capsys.readouterr().err
    assert "There is no data set 'cifar'" in error and error.count("\n") == 1


def test_a_damaged_data_folder_is_one_sentence(empty, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        files.write_whole(tmp_path / "MNIST" / "raw" / f"{name}-ubyte", "rubbish")
    assert cli.main(["data", "mnist"]) == 1
    error = capsys.readouterr().err
    assert "is damaged" in error and error.count("\n") == 1


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
    assert {
        ("data",), ("train",), ("train", "--jobs"), ("train", "--checkpoints"),
        ("accept", "--because"), ("predict", "--model"), ("demo", "--port"),
    } < set(command_lines())  # fmt: skip


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_a_hostile_value_is_refused_in_a_sentence(words, sandbox, monkeypatch, capsys):
    """Nothing is written or executed, and nothing that steers a terminal is echoed."""

    def refused(options):
        raise files.DigitcnnError("It would begin.")

    monkeypatch.chdir(sandbox)
    if words[0] == "train":  # some of the values are good names of folders, or numbers
        monkeypatch.setattr(cli, "data_command", refused)
        monkeypatch.setenv("DIGITCNN_CHECKPOINTS", "")
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


def write_manifest(name: str) -> None:
    """What is known of a data set that was read."""
    part = {"images": 9, "class_counts": [0, 4, 5]}
    divisions = {
        kind: {split: part | {"indices_sha256": split} for split in data.SPLITS}
        for kind in division.DIVISIONS
    }
    about = {"digest": "d", "copy": f"a copy of {name}", "divisions": divisions}
    files.write_json(files.cache_path("data", f"{name}.json"), about)


def finished(name: str) -> None:
    """Write what a finished run leaves, without training; it took two minutes."""
    run = runs.get(name)
    for known in runs.DATA:
        if not runs.has_manifest(known):
            write_manifest(known)
    about = {
        "ingredients": runs.ingredients(run), "code": runs.code(run), "key": runs.key(run),
        "seconds": 120, "seconds_per_epoch": 2.0, "images": 9, "weights_sha256": "w" * 64,
        "diverged": None,
    }  # fmt: skip
    files.write_json(runs.record_path(run), runs.sealed(about))
    rows = "".join(f"{n}\t0.1\t0.98765\t0.9\t0.9\n" for n in range(1, run.epochs + 1))
    for part in ("train", *run.held_out):
        path = files.cache_path("metrics", run.id, f"{part}.txt")
        files.write_whole(path, "epoch\tloss\taccuracy\tprecision\trecall\n" + rows)
    files.write_whole(runs.answers_path(run), b"answers")
    if runs.keeps_weights(run):
        files.write_whole(files.model_path(run.model_file), b"weights")


@pytest.fixture
def asked(empty, monkeypatch):
    """What `digitcnn train` asks of the grid, in the place of training."""
    calls = []

    def train(waiting, jobs):
        calls.append(([run.id for run in waiting], jobs))
        return {}

    for name in runs.DATA:
        write_manifest(name)
    monkeypatch.setattr(grid, "train", train)
    monkeypatch.setattr(status, "cores", lambda: 3)
    monkeypatch.setattr(checkpoints, "pick_device", lambda: types.SimpleNamespace(type="cpu"))
    monkeypatch.delenv("DIGITCNN_TRAIN", raising=False)
    monkeypatch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
    return calls


def test_train_on_a_cluster(asked, monkeypatch, capsys):
    """What failed there is told as ever."""
    from digitcnn import cluster

    monkeypatch.setattr(
        cluster, "train", lambda waiting, at: {run.id: f"no luck at {at}" for run in waiting}
    )
    assert cli.main(["train", "svhn", "--scheduler", "tcp://127.0.0.1:1"]) == 1
    said = capsys.readouterr()
    assert "To train: 1, on the workers of tcp://127.0.0.1:1." in said.out and not asked
    assert "1 of 1 runs failed" in said.err and "no luck at tcp://127.0.0.1:1" in said.err


def test_train_takes_the_main_runs_that_are_missing(asked, capsys):
    finished("svhn")
    assert cli.main(["train"]) == 0
    assert asked == [(["mnist"], 1)]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 of 2 runs are current."
    assert said[1].startswith("To train: 1, 1 at once on cpu, about ")  # the estimate comes first
    finished("mnist")
    assert cli.main(["train"]) == 0 and len(asked) == 1
    assert capsys.readouterr().out == "2 of 2 runs are current.\n"


def test_train_all_takes_everything_in_the_order_of_the_grid(asked):
    assert cli.main(["train", "--all"]) == 0
    assert asked == [([run.id for run in grid.chosen([], every=True)], 3)]
    assert set(asked[0][0]) == runs.registry().keys()


def test_train_takes_names_groups_and_patterns(asked):
    assert cli.main(["train", "official", "svhn", "svhn", "mnist-exp-adam*"]) == 0
    names, jobs = asked[0]
    assert names[:3] == ["svhn", "mnist-official", "svhn-official"] and jobs == 3
    assert len(names) == 12 and all(name.startswith("mnist-exp-adam") for name in names[3:])


@pytest.mark.parametrize(("jobs", "expected"), [("1", 1), ("2", 2), ("99", 6)])
def test_the_number_of_processes(asked, capsys, jobs, expected):
    assert cli.main(["train", "main", "--jobs", jobs]) == 0
    assert asked[0][1] == expected
    assert f"To train: 6, {expected} at once on cpu" in capsys.readouterr().out


def test_other_devices_train_one_run_at_a_time(asked, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "pick_device", lambda: types.SimpleNamespace(type="cuda"))
    assert cli.main(["train", "main"]) == 0
    assert asked[0][1] == 1
    assert capsys.readouterr().out.endswith("To train: 6, 1 at once on cuda.\n")


def test_checkpoints_may_lie_elsewhere(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("DIGITCNN_CHECKPOINTS", "")  # so that it is restored
    assert cli.main(["train", "mnist", "--checkpoints", str(tmp_path / "fast")]) == 0
    assert files.checkpoints_root() == tmp_path / "fast"
    assert runs.checkpoint_path(runs.get("mnist")).parent == tmp_path / "fast"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["mnist", "--all"], "not both"), (["--jobs", "0"], "--jobs must be at least 1"),
     (["--jobs", "-3", "mnist"], "--jobs must be at least 1"), (["nothing*"], "No run matches"),
     (["cifar"], "There is no run 'cifar'")],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(asked, capsys, arguments, text):
    assert cli.main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1 and error.endswith(".\n")
    assert not asked


def test_where_training_is_forbidden_nothing_begins(asked, monkeypatch, capsys):
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    assert cli.main(["train", "main"]) == 1
    error = capsys.readouterr().err
    assert "6 runs would have to be trained (mnist, svhn, mnist-s43, …)" in error
    assert error.count("\n") == 1 and not asked


def test_what_failed_is_a_table_at_the_end(asked, monkeypatch, capsys):
    failed = {"mnist": "its process was killed twice (out of memory?)", "svhn-s43": "No disk."}
    monkeypatch.setattr(grid, "train", lambda waiting, jobs: failed)
    assert cli.main(["train", "main"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "2 of 6 runs failed:",
        "  mnist     its process was killed twice (out of memory?)",
        "  svhn-s43  No disk.",
        "What is saved of them is kept: the same command tries them again, and `digitcnn train "
        "mnist` one of them.",
    ]


def test_an_interrupted_training_is_130(asked, monkeypatch, capsys):
    def interrupted(waiting, jobs):
        raise files.Interrupted("Interrupted: each run is saved.")

    monkeypatch.setattr(grid, "train", interrupted)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "Interrupted: each run is saved.\n"


def test_data_never_read_are_read_first(empty, asked, monkeypatch):
    read = []
    files.cache_path("data", "svhn.json").unlink()
    monkeypatch.setattr(cli, "data_command", lambda options: read.append(vars(options)))
    monkeypatch.setattr(cli, "reason", lambda run: "missing")
    cli.main(["train", "mnist", "svhn"])
    assert read == [{"names": ["svhn"], "verify": True}]


def test_status_takes_under_a_second_of_cpu_and_no_torch():
    """Of this project as it is; of a machine that counts to two million in an eighth of one.

    So a slower machine has as much longer as it needs; and the least of three counts, as what runs
    beside it can only add.
    """
    code = (
        "import sys, time\nsum(i * i for i in range(2_000_000))\nunit = time.process_time()\n"
        "from digitcnn import cli\ncli.main(['status'])\n"
        "print(time.process_time() / unit - 1, 'torch' in sys.modules, file=sys.stderr)"
    )
    eighths = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
            env={k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN_")},
        )  # fmt: skip
        used, torch = done.stderr.splitlines()[-1].split()
        eighths.append(float(used))
        assert torch == "False", done.stderr
        assert all(name in done.stdout for name in (*runs.MAIN, *provenance.documents()))
    assert min(eighths) < 8, eighths


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


def test_data_of_the_quick_profile_needs_no_files(sandbox, capsys):
    assert cli.main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "900 images (train 630, validation" in lines[0]
    assert (sandbox / "_quick" / "cache" / "data" / "mnist.json").is_file()


def test_doctor_names_a_remedy_for_missing_data(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    assert cli.main(["doctor"]) == 1
    line = next(x for x in capsys.readouterr().out.splitlines() if " data " in x)
    assert line.startswith("NO") and "make data" in line
