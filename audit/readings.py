"""The audit by looking: draw the sample, print it for readers, collect what they read.

    python audit/readings.py draw FOLDER      # contact sheets, key.csv and HOWTO.md for the readers
    python audit/readings.py merge FOLDER     # their answers into audit/mnist.csv and svhn.csv

Pictures that have been read already are not drawn again, so after a new training only its new
errors are read. ``FOLDER`` is no part of the repository: its key says why each picture was drawn,
and readers must not see it. A reader writes ``FOLDER/reading1/<sheet>.csv``, another ``reading2``.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from digitcnn import division, files, predictions
from digitcnn.report import audit, evaluation
from digitcnn.sources import NAMES

SEED = 42
RULE = "codebook of 2026-11-26"
ERRORS = {"mnist": None, "svhn": 200}  # None: all
CORRECT, TRAINING, CLASSES, SEVENS = 100, 100, 4, 50
ACROSS, DOWN, SIDE, HEAD = 5, 4, 170, 22  # a sheet in pictures, a picture in pixels
HOWTO = """# For readers

Look at every picture of every sheet (`sheets/*.png`) with your own eyes, enlarged as it is, and
write down what you see. Do not guess what a network made of it, and do not look at anything else
in this folder: not at `key.csv`, not at another reading. Do not let a program answer for you.

Each sheet holds up to {per_sheet} numbered pictures, 5 to a row, numbers above the pictures. For
sheet `mnist-01` write `reading<R>/mnist-01.csv` with this first line and a line a picture:

    sheet,position,digit,second,codes
    mnist-01,1,7,,flag bar
    mnist-01,2,4,9,closed between
    mnist-01,3,?,3,cut blur

`codes` are separated by spaces; `second` and `codes` may be empty. MNIST has {mnist} sheets and
SVHN {svhn}. Pictures of MNIST are light on dark.

"""


def shuffled(members: np.ndarray, *salt: int) -> np.ndarray:
    """Members in an order that depends on the seed alone."""
    return np.random.default_rng([SEED, *salt]).permutation(np.sort(members))


def training_classes(p: predictions.Predictions) -> list[int]:
    """The true classes of the most frequent confusions, of a class once, until there are four."""
    classes = [true for true, _, _ in evaluation.most_confused(p, 90)]
    return list(dict.fromkeys(classes))[:CLASSES]


def drawn(name: str) -> dict[int, list[str]]:
    """Why each image of the sample was drawn, by its index in the pool.

    Test images come in one random order: the errors looked at are the first of it that the
    network gets wrong, the correct images the first that it gets right.
    """
    p = predictions.predict(name, name)
    reasons: dict[int, list[str]] = defaultdict(list)
    order = shuffled(np.arange(len(p.labels)))
    wrong = p.wrong[order]
    groups = {
        "error": p.indices[order[wrong][: ERRORS[name]]],
        "suspect": p.indices[audit.suspects(name)],
        "correct": p.indices[order[~wrong][:CORRECT]],
    }
    known = division.split_indices(name)["train"]
    for digit in training_classes(p):
        of_class = known[division.labels(name).labels[known] == digit]
        groups[f"train-{digit}"] = shuffled(of_class, digit)[:TRAINING]
    if name == "mnist":
        clusters = audit.sevens(name)
        for number, letter in enumerate("ab"):
            members = clusters["index"][clusters["cluster"] == number]
            groups[f"seven-{letter}"] = shuffled(members, 7, number)[:SEVENS]
    for reason, indices in groups.items():
        for index in indices:
            reasons[int(index)].append(reason)
    return reasons


def sheet(pictures: np.ndarray) -> Image.Image:
    """Numbered pictures uint8 (n, 3, 32, 32), n at most 20, enlarged on one sheet."""
    page = Image.new("RGB", (ACROSS * (SIDE + 10), DOWN * (SIDE + HEAD + 6)), "#808080")
    draw = ImageDraw.Draw(page)
    for at, picture in enumerate(pictures):
        x, y = at % ACROSS * (SIDE + 10) + 5, at // ACROSS * (SIDE + HEAD + 6)
        draw.text((x + SIDE / 2, y + HEAD / 2), str(at + 1), "white", anchor="mm", font_size=17)
        large = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
        page.paste(large.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y + HEAD))
    return page


def draw(folder: Path) -> None:
    """Sheets, key and instructions of what has not been read yet."""
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    keys, sheets = [], {}
    for name in NAMES:
        reasons = drawn(name)
        read = set(audit.readings(name)["index"])
        todo = shuffled(np.array([index for index in reasons if index not in read], int), 1)
        images = division.pool(name).images
        per_sheet = ACROSS * DOWN
        sheets[name] = -(-len(todo) // per_sheet)
        for number in range(sheets[name]):
            part = todo[number * per_sheet :][:per_sheet]
            title = f"{name}-{number + 1:02d}"
            sheet(images[part]).save(folder / "sheets" / f"{title}.png")
            keys += [(title, at + 1, name, i, " ".join(reasons[i])) for at, i in enumerate(part)]
    columns = ["sheet", "position", "set", "index", "reasons"]
    pd.DataFrame(keys, columns=columns).to_csv(folder / "key.csv", index=False)
    codebook = (files.project_root() / "audit" / "CODEBOOK.md").read_text("utf-8")
    howto = HOWTO.format(per_sheet=ACROSS * DOWN, **sheets)
    files.write_whole(folder / "HOWTO.md", howto + codebook.replace("# ", "## ", 1))
    print(f"{len(keys):,} pictures on {sheets} sheets in {folder}.")


def answers(folder: Path, reading: int) -> pd.DataFrame:
    """A reader's answers of all sheets, checked. Stops at the first that the codebook refuses."""
    parts = []
    for path in sorted((folder / f"reading{reading}").glob("*.csv")):
        part = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        # "Or no digit at all" is not a second digit: the codebook has no such answer.
        part["second"] = part["second"].replace(audit.NO_DIGIT, "")
        for line, row in enumerate(part.to_dict("records"), start=2):
            if why := audit.fault(row["digit"], row["second"], row["codes"]):
                sys.exit(f"{path}, line {line}: {why}")
        parts.append(part)
    every = pd.concat(parts)
    if (double := every.duplicated(["sheet", "position"])).any():
        sys.exit(f"Reading {reading} answers twice: {every[double].iloc[0].to_dict()}.")
    return every.astype({"position": int})


def merge(folder: Path, reader: str) -> None:
    """Both readings beside what is kept already; a row that a person wrote stays."""
    every = pd.read_csv(folder / "key.csv", dtype=str).astype({"position": int})
    for reading in audit.READINGS:
        renamed = {name: f"{name}{reading}" for name in ("digit", "second", "codes")}
        part = answers(folder, reading).rename(columns=renamed)
        every = every.merge(part, on=["sheet", "position"], how="left", validate="one_to_one")
        if (missing := every[f"digit{reading}"].isna()).any():
            first = every[missing].iloc[0]
            sys.exit(
                f"Reading {reading} lacks {missing.sum()} pictures, the first of them number "
                f"{first['position']} of {first['sheet']}."
            )
    every = every.assign(reader=reader, date=str(datetime.date.today()), rule=RULE)
    for name, new in every.groupby("set"):
        path, columns = audit.path(name), list(audit.COLUMNS)
        kept = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else None
        rows = pd.concat([kept, new[columns]]).drop_duplicates("index")
        rows = rows.sort_values("index", key=lambda column: column.astype(int))
        files.write_whole(path, rows.to_csv(index=False))
        print(f"{files.shown(path)}: {len(rows):,} pictures.")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Draw the audit's sample, collect its readings.")
    parser.add_argument("step", choices=["draw", "merge"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reader", default="vision model", help="what kind of reader it was")
    chosen = parser.parse_args(arguments)
    if chosen.step == "draw":
        draw(chosen.folder)
    else:
        merge(chosen.folder, chosen.reader)
    return 0


if __name__ == "__main__":
    sys.exit(main())
