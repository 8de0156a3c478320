"""The ``digitcnn`` command: data, training, and what is there.

Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable

from . import __version__, doctor, files, prediction_table, provenance, runs, status
from .demo import command
from .files import DigitcnnError, Interrupted
from .status import reason


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit status. An error is one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not all(argument.isprintable() for argument in arguments):
            raise DigitcnnError("An argument holds control characters: type plain names only.")
        options = parser().parse_args(arguments)
        for document in provenance.put_back():
            files.say(f"{document}: put back after an interruption.")
        status = options.command(options) or 0
        sys.stdout.flush()  # a full disk is noticed here, not when Python has ended
        return status
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
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # what is not written yet never will be
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, `head` for one, has seen enough
            return 0
        where = f" ({error.filename})" if error.filename else ""
        print(f"{error.strerror or error}{where}: fix that, then start again.", file=sys.stderr)
        return 1


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

    def add(function: Callable, name: str, text: str, *examples: str) -> argparse.ArgumentParser:
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
    data.add_argument("--verify", action="store_true", help="only verify; never use the network")

    train = add(
        train_command, "train", "train the runs that are missing or stale, several at once",
        "digitcnn train", "digitcnn train svhn", "digitcnn train --all", "digitcnn train imbalance",
        "digitcnn train 'mnist-exp-*' --jobs 4", "DIGITCNN_PROFILE=quick digitcnn train mnist",
        "digitcnn train --all --scheduler tcp://127.0.0.1:8786",
    )  # fmt: skip
    train.add_argument(
        "runs", metavar="RUN", nargs="*",
        help=f"a run, a group ({', '.join(runs.GROUPS)}) or a pattern; default: mnist and svhn",
    )  # fmt: skip
    train.add_argument("--all", action="store_true", help="every run that `digitcnn status` lists")
    train.add_argument(
        "--jobs", metavar="N", type=int, help="processes at once, one thread each (default: cores)"
    )
    train.add_argument(
        "--scheduler", metavar="ADDRESS", help="train on the workers of a Dask cluster (see README)"
    )
    train.add_argument(
        "--checkpoints", metavar="DIR", help="keep unfinished training there instead of in cache/"
    )

    allow = add(
        accept_command, "accept", "make runs current again after a change of keyed code that does "
        "not matter, if old and new code train alike bit for bit",
        'digitcnn accept --because "a loop written more clearly"',
    )  # fmt: skip
    allow.add_argument("--because", metavar="WHY", required=True, help="goes into the records")

    state = add(
        lambda options: status.print_status(options.all), "status",
        "show what is current, stale (why) or missing, and what re-making it would cost; "
        "exit status 1 if a main run or a chapter is not current",
        "digitcnn status", "digitcnn status --all | grep stale",
    )  # fmt: skip
    state.add_argument("--all", action="store_true", help="a line for each experiment and file")
    add(lambda options: doctor.diagnose(), "doctor", "check this machine and say how to mend what "
        "is wrong", "digitcnn doctor")  # fmt: skip
    check = add(
        check_command, "check", "say what the report and its results lack; exit status 1 if "
        "anything", "digitcnn check", "digitcnn check --claims",
    )  # fmt: skip
    check.add_argument(
        "--claims", action="store_true", help="instead, list what the text claims, and its truth"
    )
    predict = add(
        lambda options: print(prediction_table.predict_command(options)), "predict",
        "classify pictures with a saved model", *prediction_table.EXAMPLES,
    )  # fmt: skip
    prediction_table.add_arguments(predict)
    show = add(
        command.demo_command, "demo", "show the saved models at work, on a local page or as text",
        *command.EXAMPLES,
    )  # fmt: skip
    command.add_arguments(show)
    return top


def data_command(options: argparse.Namespace) -> None:
    """Download or verify data sets; one line each."""
    from . import sources

    for name in [sources.checked(name) for name in options.names] or sources.NAMES:
        files.say(f"{name}: reading and verifying …")
        from . import division

        if not options.verify and files.profile() == "full" and sources.missing(name):
            files.say(f"{name}: downloading to {files.shown(files.data_root())} …")
            sources.read(name, download=True)
        source, indices = division.pool(name), division.split_indices(name)
        sizes = ", ".join(f"{split} {len(chosen):,}" for split, chosen in indices.items())
        print(f"{name}: {source.copy}; {len(source.labels):,} images ({sizes})")


def train_command(options: argparse.Namespace) -> int:
    """Train what is missing or stale, after saying how long it will take; 1 if a run failed."""
    from . import checkpoints, grid  # import torch

    if options.jobs is not None and options.jobs < 1:
        raise DigitcnnError("--jobs must be at least 1: omit it for one process per core.")
    if options.scheduler and (options.jobs or options.checkpoints):
        raise DigitcnnError(
            "--scheduler goes without --jobs and --checkpoints: the workers decide, with their "
            "number and their own DIGITCNN_CHECKPOINTS."
        )
    if options.checkpoints:
        os.environ["DIGITCNN_CHECKPOINTS"] = options.checkpoints
    chosen = grid.chosen(options.runs or ([] if options.all else list(runs.MAIN)), options.all)
    for name in dict.fromkeys(run.data for run in chosen):
        if not runs.has_manifest(name):
            data_command(argparse.Namespace(names=[name], verify=True))
    waiting = [run for run in chosen if reason(run)]
    print(f"{len(chosen) - len(waiting)} of {len(chosen)} runs are current.", flush=True)
    if not waiting:
        return 0
    if checkpoints.forbidden():
        raise DigitcnnError(
            f"{len(waiting)} runs would have to be trained ({', '.join(r.id for r in waiting[:3])}"
            f"{', …' if len(waiting) > 3 else ''}), but DIGITCNN_TRAIN is 'never': unset it."
        )
    if options.scheduler:
        from . import cluster

        print(f"To train: {len(waiting)}, on the workers of {options.scheduler}.", flush=True)
        return _report_failures(cluster.train(waiting, options.scheduler), len(waiting))
    device = checkpoints.pick_device().type
    jobs = options.jobs or (status.cores() if device == "cpu" else 1)
    jobs = min(jobs, len(waiting))
    left = status.together(sum(status.seconds(run) for run in waiting), jobs)
    estimate = f", about {status.duration(left)} on idle cores" if device == "cpu" else ""
    print(f"To train: {len(waiting)}, {jobs} at once on {device}{estimate}.", flush=True)
    return _report_failures(grid.train(waiting, jobs), len(waiting))


def _report_failures(failed: dict[str, str], tried: int) -> int:
    """Say which of the runs that were tried failed, and why; 1 if any did."""
    if failed:
        wide = max(map(len, failed))
        print(f"{len(failed)} of {tried} runs failed:", file=sys.stderr)
        for name, why in failed.items():
            print(f"  {name:<{wide}}  {why}", file=sys.stderr)
        print(
            "What is saved of them is kept: the same command tries them again, and "
            f"`digitcnn train {next(iter(failed))}` one of them.",
            file=sys.stderr,
        )
    return int(bool(failed))


def accept_command(options: argparse.Namespace) -> None:
    """Accept what the evidence allows, and say how much that is."""
    from . import accept

    print(f"{accept.accept(options.because)} runs are current again.")


def check_command(options: argparse.Namespace) -> int:
    """Print what the report and its results lack, or what its text claims."""
    from .report import check, claims

    return claims.print_claims() if options.claims else check.check()
