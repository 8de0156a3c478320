"""A cause shown by changing it: pictures edited where the cause is, and elsewhere as a control.

MNIST: edits made by hand (``audit/edits.json``), each undone by `CONTROLS` edits of the same ink at
random places of the stroke. SVHN: three rules applied to every test image, whatever it shows, so
that what the same edit does to other pictures is their control.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy import ndimage

from .. import division, files, predictions, runs, store
from . import attributes

if TYPE_CHECKING:
    from ..model import DigitCNN

EDITS = "audit/edits.json"
CONTROLS, SEED = 50, 42
THICKNESS = 2.0  # pixels of a drawn line
MARGIN = 6  # columns at each side that hold neighbours; half a digit's width is less than 10
STRETCHED = (2, 98)  # percentiles of grey that become black and white
_ROWS, _COLUMNS = np.mgrid[:32, :32]


@dataclass(frozen=True)
class Edit:
    """An edit of the image at `index` of MNIST's pool.

    Attributes:
        kind: what it does, in words.
        erase: boxes (top, left, bottom, right) in pixels of 32 x 32, ends included.
        draw: lines (row, column, row, column) of their ends; an edit erases or draws.
    """

    index: int
    kind: str
    erase: tuple[tuple[int, ...], ...] = ()
    draw: tuple[tuple[int, ...], ...] = ()


def edits() -> list[Edit]:
    """The edits kept with the audit. Raises `DigitcnnError` if the file says something else."""
    path = files.noted(files.project_root() / EDITS)
    found = []
    try:
        for entry in json.loads(path.read_text("utf-8"))["edits"]:
            marks = {name: tuple(map(tuple, entry.pop(name, ()))) for name in ("erase", "draw")}
            found.append(Edit(**entry, **marks))
            inside = all(
                len(mark) == 4 and all(isinstance(end, int) and 0 <= end < 32 for end in mark)
                for mark in (*marks["erase"], *marks["draw"])
            )
            if not inside or bool(marks["erase"]) == bool(marks["draw"]):
                raise ValueError
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise files.DigitcnnError(
            f"{EDITS} is damaged at edit {len(found)}: each has an index, a kind, and boxes to "
            "`erase` or lines to `draw` as four whole numbers from 0 to 31."
        ) from error
    return found


def erased(edit: Edit) -> np.ndarray:
    """The pixels inside an edit's boxes, bool (32, 32)."""
    mask = np.zeros((32, 32), bool)
    for top, left, bottom, right in edit.erase:
        mask[top : bottom + 1, left : right + 1] = True
    return mask


def drawn(edit: Edit) -> np.ndarray:
    """An edit's lines on black, uint8 (32, 32), with edges as soft as a pixel."""
    ink = np.zeros((32, 32))
    for row, column, end_row, end_column in edit.draw:
        along = np.array([end_row - row, end_column - column], float)
        offset = np.stack([_ROWS - row, _COLUMNS - column], -1)
        share = (offset @ along / max(along @ along, 1e-9)).clip(0, 1)
        distance = np.linalg.norm(offset - share[..., None] * along, axis=-1)
        ink = np.maximum(ink, (THICKNESS / 2 + 0.5 - distance).clip(0, 1))
    return np.rint(255 * ink).astype(np.uint8)


def apply(grey: np.ndarray, edit: Edit) -> np.ndarray:
    """The edited picture, uint8 (32, 32)."""
    return np.maximum(np.where(erased(edit), 0, grey), drawn(edit)).astype(np.uint8)


def controls(grey: np.ndarray, edit: Edit, count: int = CONTROLS, seed: int = SEED) -> np.ndarray:
    """The same ink taken or added elsewhere on the stroke at random, uint8 (count, 32, 32)."""
    generator = np.random.default_rng([seed, edit.index])
    if edit.erase:
        return _erased_elsewhere(grey, erased(edit), count, generator)
    return _drawn_elsewhere(grey, drawn(edit), count, generator)


def _erased_elsewhere(
    grey: np.ndarray, mask: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Round pieces around random pixels of the stroke, until as much ink is gone."""
    wanted = int(grey[mask].sum())
    near = ndimage.binary_dilation(mask, iterations=2)
    centres = np.argwhere((grey > 127) & ~near)
    rest = np.argwhere((grey > 0) & ~mask)
    found = []
    for row, column in generator.choice(centres, count):
        order = np.argsort(np.hypot(rest[:, 0] - row, rest[:, 1] - column), kind="stable")
        picture, left = grey.copy(), wanted
        for y, x in rest[order]:
            taken = min(left, int(picture[y, x]))
            picture[y, x] -= taken
            left -= taken
        found.append(picture)
    return np.stack(found)


def _drawn_elsewhere(
    grey: np.ndarray, line: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """The line turned and moved to where it touches the stroke and adds about as much ink."""
    wanted = float(np.maximum(grey, line).sum(dtype=float) - grey.sum(dtype=float))
    found = []
    for turns in range(4):
        turned = np.rot90(line, turns)
        rows, columns = ndimage.find_objects(np.int8(turned > 0))[0]
        piece = turned[rows, columns]
        for top in range(32 - piece.shape[0] + 1):
            for left in range(32 - piece.shape[1] + 1):
                moved = np.zeros_like(grey)
                moved[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
                picture = np.maximum(grey, moved)
                added = picture.sum(dtype=float) - grey.sum(dtype=float)
                touches = ((moved > 127) & (grey > 127)).any()
                elsewhere = np.minimum(moved, line).sum(dtype=float) < line.sum(dtype=float) / 4
                if touches and elsewhere and abs(added - wanted) <= wanted / 5:
                    found.append(picture)
    return np.stack(found)[generator.choice(len(found), count)]


@store.stored(
    lambda run: f"audit/edits-{run}",
    lambda run: [store.weights(run), store.images("mnist"), store.asset(EDITS)],
)
def edited_answers(run: str) -> dict[str, np.ndarray]:
    """What a network of MNIST answers to each of `edits`; of none in the quick profile.

    ``index`` and ``edited`` (n,), and ``controls`` (n, `CONTROLS`): classes, int8.
    """
    made = edits() if files.profile() == "full" else []  # toy data are other pictures
    from .. import inference

    images, model = division.pool("mnist").images, inference.load(run)
    rows = []
    for edit in made:
        grey = images[edit.index, 0]
        pictures = np.stack([apply(grey, edit), *controls(grey, edit)])
        rows.append(_answers(model, np.repeat(pictures[:, None], 3, axis=1)))
    found = np.array(rows, np.int8).reshape(len(made), 1 + CONTROLS)
    indices = np.array([edit.index for edit in made], np.int64)
    return {"index": indices, "edited": found[:, 0], "controls": found[:, 1:]}


@store.stored("audit/edited-pictures", lambda: [store.images("mnist"), store.asset(EDITS)])
def pictures() -> dict[str, np.ndarray]:
    """Of each edit: ``before``, ``edited`` and a ``control``, uint8 (n, 3, 32, 32)."""
    made = edits() if files.profile() == "full" else []
    images = division.pool("mnist").images
    greys = [images[edit.index, 0] for edit in made]
    pairs = list(zip(greys, made, strict=True))
    found = {
        "before": greys,
        "edited": [apply(grey, edit) for grey, edit in pairs],
        "control": [controls(grey, edit)[0] for grey, edit in pairs],
    }
    return {
        name: np.repeat(np.reshape(part, (-1, 1, 32, 32)), 3, axis=1).astype(np.uint8)
        for name, part in found.items()
    }


def _answers(model: DigitCNN, images: np.ndarray) -> np.ndarray:
    import torch

    from ..training import predict_logits

    return predict_logits(model, torch.from_numpy(images)).argmax(1).cpu().numpy()


class Flips(NamedTuple):
    """What edits do to errors of one kind.

    Attributes:
        edited: how many of a training's errors were edited.
        flipped: how many of these it reads right when edited.
        flipped_control: how many with as much ink changed elsewhere, in the mean of the controls.
    """

    edited: int
    flipped: int
    flipped_control: float


def flips(run: str) -> dict[tuple[int, int], Flips]:
    """`Flips` of a training of MNIST by (true, predicted class).

    The edits are of the first training's errors; of another training those count that it makes too.
    """
    p, found = predictions.predict(run, "mnist"), edited_answers(run)
    at = np.searchsorted(p.indices, found["index"])
    labels, predicted = p.labels[at], p.predicted[at]
    counted = {}
    for pair in dict.fromkeys(zip(labels.tolist(), predicted.tolist(), strict=True)):
        chosen = (labels == pair[0]) & (predicted == pair[1])
        if pair[0] != pair[1]:
            counted[pair] = Flips(
                int(chosen.sum()),
                int((found["edited"][chosen] == pair[0]).sum()),
                float((found["controls"][chosen] == pair[0]).mean(1).sum()),
            )
    return counted


def flips_by_seed() -> pd.DataFrame:
    """`flips` of every training: ``run``, ``true``, ``predicted`` and the fields of `Flips`."""
    every = {run: flips(run) for run in runs.trainings("mnist")}
    rows = [(run, *pair, *found) for run, pairs in every.items() for pair, found in pairs.items()]
    return pd.DataFrame(rows, columns=["run", "true", "predicted", *Flips._fields])


# Photographs --------------------------------------------------------------------------------------


def cover_sides(image: np.ndarray) -> np.ndarray:
    """The outer `MARGIN` columns at both sides in the colour of the ground, (3, 32, 32).

    Ground is the more frequent of the picture's two tones; its colour is the median of the pixels.
    """
    ground = ~attributes.foreground(attributes.tones(image[None]))[0]
    colour = np.median(image[:, ground], axis=1) if ground.any() else image.mean((1, 2))
    covered = image.copy()
    for side in (np.s_[:, :, :MARGIN], np.s_[:, :, -MARGIN:]):
        covered[side] = colour[:, None, None].astype(np.uint8)
    return covered


def sharpen(image: np.ndarray) -> np.ndarray:
    """Unsharp masking with Pillow's usual radius of 2 pixels and 150 %, (3, 32, 32)."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    filtered = picture.filter(ImageFilter.UnsharpMask(2, 150, 0))
    return np.asarray(filtered).transpose(2, 0, 1)


def stretch(image: np.ndarray) -> np.ndarray:
    """All channels stretched alike, so that `STRETCHED` percentiles become 0 and 255."""
    low, high = np.percentile(image, STRETCHED)
    scaled = (image.astype(np.float32) - low) * (255 / max(high - low, 1.0))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


# The code that an edit is meant for, and the edit; decided before any network saw its result.
REMEDIES = {"neighbour": cover_sides, "blur": sharpen, "low-contrast": stretch}


@store.stored(
    lambda run: f"audit/remedies-{run}", lambda run: [store.weights(run), store.images("svhn")]
)
def remedied_answers(run: str) -> dict[str, np.ndarray]:
    """A class int8 (N,) for each test image of SVHN after each of `REMEDIES`, by its code."""
    from .. import data, inference

    images, model = data.load("svhn", "test").images.numpy(), inference.load(run)
    return {
        code: np.concatenate(
            [
                _answers(model, np.stack([edit(image) for image in images[start : start + 2000]]))
                for start in range(0, len(images), 2000)
            ]
        ).astype(np.int8)
        for code, edit in REMEDIES.items()
    }
