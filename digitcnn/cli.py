"""The ``digitcnn`` command: data, training, and what is there.

Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from . import __version__, doctor, files, prediction_table, runs
from .files import DigitcnnError, Interrupted

# Seconds per image and epoch where no run has been trained yet: 2 CPU cores, all of SVHN.
SECONDS_PER_IMAGE = 45 / 69_502
TRAIN_IMAGES = {
    "full": {"mnist": 49_000, "svhn": 69_502},
    "quick": {"mnist": 1_257, "svhn": 2_515},
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit status. An error is one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not all(argument.isprintable() for argument in arguments):
            raise DigitcnnError("An argument holds control characters: type plain names only.")
        options = parser().parse_args(arguments)
        return options.command(options) or 0
    except DigitcnnError as error:
        print(error, file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except ImportError as error:
        name = (error.name or "").split(".")[0]
        print(
            f"The Python package {name or error!s} is missing: run `python3 tools/environment.py "
            "full` and use .venv/bin/digitcnn.",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="digitcnn",
        description="Convolutional networks for MNIST and SVHN: data, training, state.",
        epilog="examples:\n  digitcnn data\n  digitcnn train mnist\n  digitcnn status",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"digitcnn {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(function, name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(command=function)
        return command

    data = add(
        data_command, "data", "download the data sets, or verify what is there",
        "digitcnn data", "digitcnn data svhn --verify",
        "DIGITCNN_DATA=~/datasets digitcnn data --verify",
    )  # fmt: skip
    data.add_argument("names", metavar="NAME", nargs="*", help="mnist, svhn (default: both)")
    how = data.add_mutually_exclusive_group()
    how.add_argument("--download", action="store_true", help="fetch what is missing (the default)")
    how.add_argument("--verify", action="store_true", help="only verify; never use the network")

    train = add(
        train_command, "train", "train the runs that are missing or stale",
        "digitcnn train", "digitcnn train svhn", "digitcnn train --all",
        "DIGITCNN_PROFILE=quick digitcnn train mnist",
    )  # fmt: skip
    train.add_argument("runs", metavar="RUN", nargs="*", help="default: mnist and svhn")
    train.add_argument("--experiments", action="store_true", help="the experiments' short runs too")
    train.add_argument("--all", action="store_true", help="every run that `digitcnn status` lists")

    add(status_command, "status", "list the runs and their state; exit status 1 if a main run is "
        "not current", "digitcnn status", "digitcnn status | grep stale")  # fmt: skip
    add(lambda options: doctor.diagnose(), "doctor", "check this machine and say how to mend what "
        "is wrong", "digitcnn doctor")  # fmt: skip
    predict = add(
        lambda options: print(prediction_table.predict_command(options)), "predict",
        "classify pictures with a saved model", *prediction_table.EXAMPLES,
    )  # fmt: skip
    prediction_table.add_arguments(predict)
    return top


def data_command(options: argparse.Namespace) -> None:
    """Download or verify data sets; one line each."""
    from . import sources

    for name in [sources.checked(name) for name in options.names] or sources.NAMES:
        files.say(f"{name}: reading and verifying …")
        from . import data

        if not options.verify and files.profile() == "full" and sources.missing(name):
            files.say(f"{name}: downloading to {files.shown(files.data_root())} …")
            sources.read(name, download=True)
        source, indices = data.pool(name)
        sizes = ", ".join(f"{split} {len(chosen):,}" for split, chosen in indices.items())
        print(f"{name}: {source.copy}; {len(source.labels):,} images ({sizes})")


def train_command(options: argparse.Namespace) -> None:
    """Train what is missing or stale, after saying how long it will take."""
    if options.runs:
        chosen = [runs.get(name) for name in dict.fromkeys(options.runs)]
        if options.all or options.experiments:
            raise DigitcnnError("Name runs, or give --all or --experiments, but not both.")
    else:
        chosen = list(runs.registry().values())
        if not (options.all or options.experiments):
            chosen = [run for run in chosen if is_main(run)]
    waiting = [(run, why) for run in chosen if (why := reason(run))]
    print(f"{len(chosen) - len(waiting)} of {len(chosen)} runs are current.", flush=True)
    if not waiting:
        return
    left = sum((run.epochs - saved_epochs(run)) * images(run) for run, _ in waiting)
    print(f"To train: {len(waiting)}, about {duration(left * pace())}.", flush=True)
    from . import checkpoints  # imports torch

    for position, (run, why) in enumerate(waiting, start=1):
        print(f"[{position}/{len(waiting)}] {run.id} ({why})", flush=True)
        checkpoints.ensure(run)
        if reason(run):  # the record is there, the weights are not
            checkpoints.train(run)


def is_main(run: runs.RunConfig) -> bool:
    """Whether a run is one of the report's main runs, whose weights are in the repository."""
    return run.name in runs.MAIN and run.seed == runs.SEED


def reason(run: runs.RunConfig) -> str:
    """Why a run has to be trained; empty if it is current."""
    why = runs.stale(run)
    if not why and is_main(run) and not runs.weights_path(run).is_file():
        return "weights missing"
    return why


def saved_epochs(run: runs.RunConfig) -> int:
    """How many epochs of an unfinished run are saved."""
    return last_metrics(run)[0] if runs.checkpoint_path(run).is_file() else 0


def images(run: runs.RunConfig) -> int:
    """How many images a run learns from in an epoch."""
    count = TRAIN_IMAGES[files.profile()][run.data]
    with contextlib.suppress(DigitcnnError, KeyError):
        count = runs.manifest(run.data)["split"]["train"]["images"]
    return min(count, run.train_size or count)


def pace() -> float:
    """Seconds per image and epoch of the last recorded run, else a typical figure."""
    for run in runs.registry().values():
        with contextlib.suppress(DigitcnnError, KeyError, TypeError, ZeroDivisionError):
            record = files.read_json(runs.record_path(run))
            return record["seconds_per_epoch"] / record["images"]
    return SECONDS_PER_IMAGE


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def status_command(options: argparse.Namespace) -> int:
    """Print a line per run; exit status 1 unless the main runs are current."""
    line = "{:<40} {:<29} {:>7} {:>11} {:>8} {:>8}"
    print(line.format("run", "state", "epochs", "validation", "test", "time"))
    wrong = 0
    for run in runs.registry().values():
        why = reason(run)
        if why == "missing" and runs.checkpoint_path(run).is_file():
            why = "missing, training unfinished"
        state = "current" if not why else why if "missing" in why else f"stale: {why}"
        wrong += bool(why) and is_main(run)
        epochs, last = last_metrics(run)
        taken = "-"
        with contextlib.suppress(DigitcnnError, KeyError, TypeError):
            taken = duration(files.read_json(runs.record_path(run))["seconds"])
        print(line.format(run.id, state, f"{epochs}/{run.epochs}", *last, taken))
    return int(wrong > 0)


def last_metrics(run: runs.RunConfig) -> tuple[int, list[str]]:
    """Epochs done, and the last validation and test accuracy, as the metrics files say."""
    epochs, last = 0, []
    for split in ("validation", "test"):
        last.append("-")
        with contextlib.suppress(OSError, ValueError, IndexError):
            header, *rows = runs.metrics_path(run, split).read_text("utf-8").splitlines()
            accuracy = float(rows[-1].split("\t")[header.split("\t").index("accuracy")])
            epochs, last[-1] = len(rows), f"{accuracy:.2%}"
    return epochs, last
