"""``digitcnn predict``: what a saved model says of picture files or of random test images.

Needs no torch to be imported, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse

from .files import DigitcnnError

EXAMPLES = (
    "digitcnn predict house.png",
    "digitcnn predict --model mnist *.png",
    "digitcnn predict --random 5 --data mnist",
    "digitcnn predict --random 5 --seed 1",
)
TOP = 3  # classes shown
MOST = 1000  # random samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="picture files, PNG or JPEG")
    parser.add_argument(
        "--model", metavar="NAME", help="mnist or svhn (default: as --data, for files svhn)"
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

    Raises `DigitcnnError` for contradictory arguments, an image that cannot be read, and a model
    that is missing, damaged or stale.
    """
    data_name, model_name = _checked(options)
    import numpy as np

    from . import data, predictions, sources

    model = predictions.load(model_name)
    if options.images:
        names = list(options.images)
        pictures, labels = predictions.to_images(options.images), None
    else:
        test = data.load(data_name, "test")
        count = min(options.random, len(test))
        chosen = test.take(np.random.default_rng(options.seed).choice(len(test), count, False))
        names = [f"{data_name} test image {index}" for index in chosen.indices]
        pictures, labels = chosen.images, chosen.labels.tolist()
    probabilities = predictions.probabilities(model, pictures)
    width = max(len("image"), *(len(name) for name in names))
    header = f"{'image':<{width}}  " + ("true  " if labels else "")
    lines = [header + f"most probable classes, by the {sources.TITLES[model_name]} network"]
    right = 0
    for position, (name, shares) in enumerate(zip(names, probabilities, strict=True)):
        best = np.argsort(-shares, kind="stable")[:TOP]
        line = f"{name:<{width}}  " + (f"{labels[position]:<4}  " if labels else "")
        line += "   ".join(f"{digit} {shares[digit]:6.1%}" for digit in best)
        if labels and best[0] != labels[position]:
            line += "   wrong"
        else:
            right += 1
        lines.append(line)
    if labels:
        lines.append(f"{right} of {len(labels)} are right.")
    return "\n".join(lines)


def _checked(options: argparse.Namespace) -> tuple[str, str]:
    """Names of the data and of the model; raises `DigitcnnError` if the arguments do not fit."""
    words = [*options.images, options.model or "", options.data or ""]
    if not all(word.isprintable() for word in words):
        raise DigitcnnError("An argument holds control characters: type plain names only.")
    if bool(options.images) == (options.random is not None):
        raise DigitcnnError("Name picture files, or give --random N, one of the two.")
    if options.random is None and (options.data or options.seed is not None):
        raise DigitcnnError("--data and --seed belong to --random N: leave them away for files.")
    if options.random is not None and not 1 <= options.random <= MOST:
        raise DigitcnnError(f"--random {options.random}: give a number from 1 to {MOST}.")
    if options.seed is not None and options.seed < 0:
        raise DigitcnnError(f"--seed {options.seed}: give a number from 0.")
    from . import sources

    data_name = sources.checked(options.data or "svhn")
    return data_name, sources.checked(options.model or data_name)
