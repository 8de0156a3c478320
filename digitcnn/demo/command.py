"""``digitcnn demo``: the saved models at work, on a local web page or in the terminal.

Needs no torch to be imported, so that ``--help`` answers at once and the page opens while the
models load.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import webbrowser
from typing import TYPE_CHECKING

from .. import files
from ..files import DigitcnnError

if TYPE_CHECKING:
    import numpy as np

    from .session import Answers

EXAMPLES = (
    "digitcnn demo",
    "digitcnn demo --port 9000 --no-browser",
    "digitcnn demo --terminal",
    "digitcnn demo --terminal --seed 1",
)
SHADES = " .:-=+*#%@"  # from dark to bright, where there is no colour
BAR = 10  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    page = parser.add_argument_group("the page")
    page.add_argument("--port", metavar="P", type=int, help="default: the first free one from 8765")
    page.add_argument("--no-browser", action="store_true", help="only print the page's address")
    text = parser.add_argument_group("the terminal")
    text.add_argument("--terminal", action="store_true", help="the page's samples as text")
    text.add_argument("--seed", metavar="S", type=int, help="the same samples each time")


def demo_command(options: argparse.Namespace) -> None:
    """Show the demonstration until Ctrl-C, q or the end of the input."""
    if not options.terminal and options.seed is not None:
        raise DigitcnnError("--seed belongs to --terminal: add it.")
    if options.terminal and (options.port is not None or options.no_browser):
        raise DigitcnnError("--port and --no-browser belong to the page: omit them.")
    if options.seed is not None and options.seed < 0:
        raise DigitcnnError(f"--seed {options.seed}: give a number from 0.")
    if options.terminal and sys.stdin is None:
        raise DigitcnnError("--terminal reads keys, and the input is closed: start it without <&-.")
    files.profile()
    try:
        (in_terminal if options.terminal else on_page)(options)
    except (KeyboardInterrupt, EOFError):
        print("\nThe demonstration has ended.")


def on_page(options: argparse.Namespace) -> None:
    """Serve the page at once, and load what it shows meanwhile."""
    from . import server

    began, serving = time.perf_counter(), server.listen(options.port)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        print(f"Demonstration: {serving.url} (Ctrl-C ends it)", flush=True)
        # Without a display, the browser would be one that takes over this terminal.
        display = sys.platform != "linux" or os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")
        if display and not options.no_browser:
            webbrowser.open(serving.url)
        from .session import Answers  # imports torch

        serving.answers = Answers()
        for sentence in dict.fromkeys(serving.answers.load()):
            print(f"Missing: {sentence}", flush=True)
        if any(name != "ready" for name in serving.answers.state().values()):
            print(
                "What does not need it works: drawing and pictures need the models alone.",
                flush=True,
            )
        print(f"Ready after {time.perf_counter() - began:.0f} s.", flush=True)
        threading.Event().wait()
    finally:
        serving.shutdown()
        serving.server_close()


def in_terminal(options: argparse.Namespace) -> None:
    """Show a random test sample at each Enter; the page's keys choose among which."""
    files.say("Reading models and data …")
    from .. import sources
    from .session import Answers

    answers = Answers(options.seed)
    name, digit, wrong = "svhn", None, None
    load(answers, *(f"model {model}" for model in sources.NAMES), f"data {name}")
    fancy = colourful()
    while True:
        try:
            load(answers, f"data {name}", *([f"stored {wrong} {name}"] if wrong else []))
            drawn = answers.draw(name, digit, wrong)
            print(shown(drawn["samples"][0], drawn["among"], fancy), flush=True)
        except DigitcnnError as error:
            print(error, flush=True)
        for key in asked():
            if key == "q":
                return
            if key in "ms":
                name, digit, wrong = {"m": "mnist", "s": "svhn"}[key], None, None
            elif key == "a":
                digit = wrong = None
            elif key == "w":  # errors of the data set's own network, then the other's, then all
                order = [None, name, *(other for other in sources.NAMES if other != name)]
                wrong = order[(order.index(wrong) + 1) % 3]
            elif key in "0123456789":
                digit = int(key)


def asked() -> str:
    """The keys that were typed, all of them known ones; none for the next sample."""
    while True:
        reply = input("Enter next, m or s data, 0-9 class, a all, w misread, q quit > ")
        keys = reply.strip().lower()
        if not (unknown := keys.strip("msawq0123456789")):
            return keys
        print(f"There is no key {unknown[0]!r}.", flush=True)


def load(answers: Answers, *parts: str) -> None:
    """Load what is not there yet of `parts`. Raises `DigitcnnError` for the first missing."""
    state = answers.state()
    needed = [part for part in parts if state[part] != "ready"]
    for sentence in answers.load(needed) if needed else ():
        raise DigitcnnError(sentence)


def colourful() -> bool:
    """Whether the terminal shows colours and block characters (see no-color.org)."""
    try:
        "▀█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not plain


def shown(sample: dict, among: int, fancy: bool) -> str:
    """A test sample and both models' answers in 16 lines of at most 80 characters."""
    from ..sources import TITLES

    columns = [picture_lines(sample["pixels"], fancy)]
    for model, answer in sample["answers"].items():
        shares, label = answer["probabilities"], sample["label"]
        said = max(range(10), key=shares.__getitem__)
        verdict, colour = ("right", 32) if said == label else ("WRONG", 31)
        lines = ["", f"{TITLES[model]} network", painted(f"reads {said}: {verdict}", colour, fancy)]
        for digit, share in enumerate(shares):
            bar = ("█" if fancy else "#") * round(BAR * share)
            line = f"{digit} {bar:<{BAR}} {100 * share:5.1f} %"
            lines.append(painted(line, colour if digit == said else 0, fancy))
        columns.append([f"{line:<20}" for line in (*lines, "", "", "")])
    title = f"{TITLES[sample['data']]} test sample {sample['position']}, labelled {sample['label']}"
    body = "\n".join("   ".join(row) for row in zip(*columns, strict=True))
    return f"\n{title} (one of {among:,})\n{body}"


def painted(text: str, colour: int, fancy: bool) -> str:
    """Text padded to 20 characters, in an ANSI colour (0: the usual one) if `fancy`."""
    return f"\x1b[{colour}m{text:<20}\x1b[0m" if fancy and colour else f"{text:<20}"


def picture_lines(pixels: np.ndarray, fancy: bool) -> list[str]:
    """An image uint8 (3, 32, 32) as 16 lines of 32 characters, two pixels in each."""
    upper, lower = (pixels[:, start::2].transpose(1, 2, 0).astype(int) for start in (0, 1))
    if not fancy:
        bright = (upper + lower).sum(2) * len(SHADES) // (6 * 256)
        return ["".join(SHADES[value] for value in row) for row in bright]
    cell = "\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format
    return [
        "".join(cell(*a, *b) for a, b in zip(*rows, strict=True)) + "\x1b[0m"
        for rows in zip(upper.tolist(), lower.tolist(), strict=True)
    ]
