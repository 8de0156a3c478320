"""Answers: what both models say of test samples and of any picture, for the demonstration.

Works from ``models/`` alone; test samples need the data sets, the filter and the maps what is
stored in ``cache/``. A part that cannot be had says so, and the others work. Computes no
stored result anew.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .. import (
    data,
    division,
    files,
    inference,
    pictures,
    predictions,
    preparation,
    rejection,
    runs,
    sources,
)
from ..files import DigitcnnError
from ..model import CLASSES
from ..sources import NAMES, TITLES
from .examples import examples

NEAREST = 15  # samples that say where a picture belongs in a map
MAP_SIZE = 1000  # places in a map are whole numbers from 0 to this


class Answers:
    """The demonstration's parts, loaded one by one: ``model m``, ``stored m d``, ``map m d``,
    ``data d`` for models m and data sets d, ``examples``.

    Args:
        seed: for the same random samples each time.
    """

    def __init__(self, seed: int | None = None):
        self._random = np.random.default_rng(seed)
        self._steps: dict[str, Callable[[], object]] = {
            **{f"model {model}": partial(inference.load, model) for model in NAMES},
            **{f"data {name}": partial(test_images, name) for name in NAMES},
            **{f"stored {m} {d}": partial(stored_predictions, m, d) for m in NAMES for d in NAMES},
            "examples": examples,
            **{f"map {m} {d}": partial(stored_map, m, d) for m in NAMES for d in NAMES},
        }
        self._ready: dict[str, object] = {}
        self._missing: dict[str, str] = {}

    def load(self, parts: Iterable[str] = ()) -> Iterator[str]:
        """Load `parts` (default: all), the first shown first; yield a sentence for each missing.

        Three at once: most of the time goes into checksums and decompression, outside of Python.
        """
        with ThreadPoolExecutor(3) as pool:
            yield from filter(None, pool.map(self._load, parts or list(self._steps)))

    def _load(self, name: str) -> str:
        """Load one part; the sentence that says why if it is missing."""
        try:
            self._ready[name] = self._steps[name]()
        except DigitcnnError as error:
            self._missing[name] = str(error)
        except Exception as error:  # the demonstration goes on without this part
            traceback.print_exc()
            self._missing[name] = f"The {name} failed ({type(error).__name__}): see terminal."
        return self._missing.get(name, "")

    def state(self) -> dict[str, str]:
        """Each part as ``ready``, ``loading`` or the sentence that says why it is missing."""
        return {
            name: "ready" if name in self._ready else self._missing.get(name, "loading")
            for name in self._steps
        }

    def part(self, name: str) -> object:
        """A loaded part. Raises `DigitcnnError` if it is missing or not loaded yet."""
        if name not in self._ready:
            raise DigitcnnError(
                self._missing.get(name, f"The {name} is still loading: try again in a moment.")
            )
        return self._ready[name]

    def draw(
        self, name: str, digit: int | None = None, wrong: str | None = None, count: int = 1
    ) -> dict:
        """Random test ``samples``, all different, and ``among`` how many they were drawn.

        Args:
            digit: of this class only.
            wrong: misclassified by this model only, as its stored predictions say.
            count: how many, if there are so many.
        """
        split = self.part(f"data {sources.checked(name)}")
        fits = np.ones(len(split), bool)
        if digit is not None:
            fits &= split.labels.numpy() == digit
        if wrong:
            fits &= self.part(f"stored {sources.checked(wrong)} {name}").wrong
        among = np.flatnonzero(fits)
        if not len(among):
            raise DigitcnnError(f"No {TITLES[name]} test image is like this: choose another class.")
        chosen = self._random.choice(among, min(count, len(among)), replace=False)

        def own_place(model: str, i: int, logits: np.ndarray) -> dict:
            if f"map {model} {name}" not in self._ready:
                return {}
            points = self.part(f"map {model} {name}")["points"]
            return {"map": name, "place": points[chosen[i]].tolist()}

        samples = self._read(split.take(chosen).images, own_place)
        for sample, position in zip(samples, chosen.tolist(), strict=True):
            sample |= {"data": name, "position": position, "label": int(split.labels[position])}
        return {"samples": samples, "among": len(among)}

    def picture(self, picture: pictures.Picture, how: str = "auto") -> dict:
        """Both models' answers to a picture prepared for each, or ``none``, taken whole.

        Each answer has the ``pixels`` that the network got, a ``note``, and whether the picture is
        ``blank`` or ``unlike`` a digit. In each model's own map it stands in the median ``place``
        of the ``near`` test samples, those with the nearest logits: the features are not stored,
        and the logits are a linear image of them.
        """

        def likely_place(model: str, i: int, logits: np.ndarray) -> dict:
            if f"map {model} {model}" not in self._ready:
                return {}
            distance = ((self.part(f"stored {model} {model}").logits - logits) ** 2).sum(1)
            near = self.part(f"map {model} {model}")["points"][np.argsort(distance)[:NEAREST]]
            return {"map": model, "place": np.median(near, axis=0).tolist(), "near": near.tolist()}

        found = {"note": picture.note, "answers": {}}
        for name, (digit,) in preparation.prepare_for(NAMES, picture.pixels, how).items():
            image = torch.from_numpy(digit.image[None])
            about = {"pixels": digit.image, "note": digit.note, "box": digit.box}
            for answer in self._read(image, likely_place, [name])[0]["answers"].values():
                about |= {"blank": digit.blank, "unlike": answer["unlike"] or digit.cluttered}
                found["answers"][name] = answer | about
        return found

    def _read(
        self,
        images: Tensor,
        place: Callable[[str, int, np.ndarray], dict],
        names: Iterable[str] = NAMES,
    ) -> list[dict]:
        """``pixels`` and ``answers`` by model of uint8 images (N, 3, 32, 32), computed now."""
        found = [{"pixels": image, "answers": {}} for image in images.numpy()]
        for name in names:
            if model := self._ready.get(f"model {name}"):
                for i, logits in enumerate(inference.predict_logits(model, images).cpu().numpy()):
                    answer = {"probabilities": predictions.softmax(logits).tolist()}
                    answer["unlike"] = bool(rejection.unlike(logits, name))
                    found[i]["answers"][name] = answer | place(name, i, logits)
        return found


def test_images(name: str) -> data.Split:
    """The test split, read without recording the data set that it is from.

    `data.load` would record another data set, and a demonstration must not make every run stale.
    """
    source = sources.read(name)
    if runs.has_manifest(name) and source.identity != runs.manifest(name)["digest"]:
        raise DigitcnnError(
            f"{TITLES[name]} in {files.shown(files.data_root())} is another data set than the "
            "models learned from: set DIGITCNN_DATA to that one's folder, or run `make data train`."
        )
    return data.select(source, division.divide(source, "pooled")["test"])


def stored_predictions(model: str, name: str) -> predictions.Predictions:
    """What a model said of a test split when it was finished; nothing is computed or trained."""
    if why := runs.stale(runs.get(model)):
        raise DigitcnnError(f"The run {model} is {why}: `digitcnn train {model}` makes it.")
    return predictions.predict(model, name, "test")


def stored_map(model: str, name: str) -> dict:
    """A UMAP of the report: ``points`` int (N, 2) from 0 to `MAP_SIZE`, y upwards, ``labels``,
    ``names`` (the places to write classes at) and ``colours`` (of the classes).
    """
    from matplotlib.colors import to_hex

    from ..report import representation
    from ..report.representation_figures import class_anchors
    from ..report.style import CLASS_COLOURS

    labels = stored_predictions(model, name).labels
    xy = representation.coordinates.load(representation.Map(model, (name,)))["xy"].astype("f4")
    low, high = xy.min(0), xy.max(0)
    points = np.rint(MAP_SIZE * (xy - low) / np.maximum(high - low, 1e-9)).astype(int)
    names = {digit: at.round().tolist() for digit, at in class_anchors(points, labels).items()}
    colours = [to_hex(CLASS_COLOURS[digit]) for digit in range(CLASSES)]
    return {"points": points, "labels": labels, "names": names, "colours": colours}
