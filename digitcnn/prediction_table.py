"""``digitcnn predict``: what a saved model says of picture files or of random test images.

Needs no torch to be imported, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses

from . import files
from .files import DigitcnnError

EXAMPLES = (
    "digitcnn predict house.png",
    "digitcnn predict --model mnist *.png",
    "digitcnn predict --model mnist --all number.jpg",
    "digitcnn predict --prepare none crop.png",
    "digitcnn predict --random 5 --data mnist",
    "digitcnn predict --random 5 --seed 1",
)
TOP = 3  # classes shown
MOST = 1000  # random samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="picture files")
    parser.add_argument(
        "--model", metavar="NAME", help="mnist or svhn (default: as --data, for files svhn)"
    )
    parser.add_argument(
        "--prepare",
        metavar="HOW",
        default="auto",
        help="auto: find the digit and bring it into the data set's form (the default); none: take "
        "the whole picture",
    )
    parser.add_argument(
        "--all", action="store_true", help="answer every digit of a picture, from left to right"
    )
    parser.add_argument(
        "--random", metavar="N", type=int, help="take N random test images, others each time"
    )
    parser.add_argument(
        "--data", metavar="NAME", help="whose test images: mnist or svhn (default: svhn)"
    )
    parser.add_argument("--seed", metavar="S", type=int, help="the same random images each time")


def predict_command(options: argparse.Namespace) -> str:
    """The table that the command prints: an image a line, its most probable classes in order.

    Raises `DigitcnnError` for contradictory arguments, an image that cannot be read (after the
    table of those that can), and a model that is missing, damaged or stale.
    """
    data_name, model_name = _checked(options)
    bad = 0
    if options.images:  # before torch is imported: a file that is not there is said at once
        names, found, bad = _read(options, model_name)
    import numpy as np
    import torch

    from . import data, inference, predictions, preparation, rejection, sources

    model = inference.load(model_name)
    if options.images:
        labels = [None] * len(found)
    else:
        test = data.load(data_name, "test")
        count = min(options.random, len(test))
        chosen = test.take(np.random.default_rng(options.seed).choice(len(test), count, False))
        names = [f"{data_name} test image {index}" for index in chosen.indices]
        found = [preparation.Prepared(image) for image in chosen.images.numpy()]
        labels = chosen.labels.tolist()
    images = torch.from_numpy(np.stack([each.image for each in found]))
    logits = inference.predict_logits(model, images).cpu().numpy()
    order = np.argsort(-logits, axis=1, kind="stable")
    width = max(len("image"), *(len(name) for name in names))
    header = f"{'image':<{width}}  " + ("" if options.images else "true  ")
    lines = [header + f"most probable classes, by the {sources.TITLES[model_name]} network"]
    for name, label, each, row, shares, best in zip(
        names, labels, found, logits, predictions.softmax(logits), order, strict=True
    ):
        line = f"{name:<{width}}  " + ("" if label is None else f"{label:<4}  ")
        if not each.blank:
            line += "   ".join(f"{digit} {shares[digit]:6.1%}" for digit in best[:TOP])
        if label is not None:
            line += "" if best[0] == label else "   wrong"
        elif not each.blank and (each.cluttered or rejection.unlike(row, model_name)):
            line += "   nothing like a digit"
        lines.append(line + (f"   ({each.note})" if each.note else ""))
    if not options.images:
        lines.append(f"{(order[:, 0] == labels).sum()} of {len(labels)} are right.")
    if bad:
        print("\n".join(lines))
        raise DigitcnnError(
            f"{bad} of {len(options.images)} files could not be read: see the lines above."
        )
    return "\n".join(lines)


def _read(options: argparse.Namespace, model_name: str) -> tuple[list, list, int]:
    """Names and prepared digits of the files that can be read, and how many cannot.

    Says why a file cannot; raises `DigitcnnError` if it is the only one.
    """
    from . import pictures, preparation

    names, found, bad = [], [], 0
    for name in options.images:
        try:
            picture = pictures.read(name)
        except DigitcnnError as error:
            if len(options.images) == 1:
                raise
            files.say(str(error))
            bad += 1
            continue
        digits = preparation.prepare_for(
            [model_name], picture.pixels, options.prepare, options.all
        )[model_name]
        for number, digit in enumerate(digits, start=1):
            names.append(f"{name} [{number}]" if len(digits) > 1 else name)
            note = "; ".join(note for note in (picture.note, digit.note) if note)
            found.append(dataclasses.replace(digit, note=note))
    if not found:
        raise DigitcnnError(f"None of the {bad} files could be read: see the lines above.")
    return names, found, bad


def _checked(options: argparse.Namespace) -> tuple[str, str]:
    """Names of the data and of the model; raises `DigitcnnError` if the arguments do not fit."""
    if bool(options.images) == (options.random is not None):
        raise DigitcnnError("Name picture files, or give --random N, one of the two.")
    if options.random is None and (options.data or options.seed is not None):
        raise DigitcnnError("--data and --seed belong to --random N: omit them for files.")
    if options.prepare not in ("auto", "none"):
        raise DigitcnnError(f"There is no --prepare {options.prepare!r}: choose auto or none.")
    if options.all and (options.random is not None or options.prepare == "none"):
        raise DigitcnnError("--all belongs to picture files that are prepared: omit it.")
    if options.random is not None and not 1 <= options.random <= MOST:
        raise DigitcnnError(f"--random {options.random}: give a number from 1 to {MOST}.")
    if options.seed is not None and options.seed < 0:
        raise DigitcnnError(f"--seed {options.seed}: give a number from 0.")
    from . import sources

    data_name = sources.checked((options.data or "svhn").lower())
    model_name = (options.model or data_name).lower()
    if model_name not in sources.NAMES:
        raise DigitcnnError(
            f"There is no model {options.model!r} to choose: give {' or '.join(sources.NAMES)}."
        )
    return data_name, model_name
