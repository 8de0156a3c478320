"""Interactive: the maps of chapter 4 in HTML, where a digit is shown under pointer, finger or keys.

They need no network and no other file. `shared` is called once a page and holds everything once;
`live` makes a figure above it interactive. Where scripts do not run, the static picture stays.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from IPython.display import HTML

from .. import predictions, runs, store
from ..sources import NAMES, TITLES
from .representation import MAPS, Map, Panel, points
from .representation_figures import class_anchors
from .style import CLASS_COLOURS, DATA_COLOUR

TILE, COLUMNS, QUALITY = 24, 32, 20  # pixels of a thumbnail, of them in a row; WebP's quality
PICTURED = 800  # images of each data set that have a thumbnail


@store.stored(
    lambda name: f"representation/thumbnails-{name}",
    lambda name: [store.weights(name), store.images(name)],
)
def thumbnails(name: str) -> dict[str, np.ndarray]:
    """Small pictures of test images: as many of the own model's errors as there is room for, and
    random others. ``at`` int64 (n,), their positions, and ``webp`` uint8, the sheet as a file.
    """
    from PIL import Image

    from .. import data

    wrong = predictions.predict(name, name).wrong
    order = np.random.default_rng(runs.SEED).permutation(len(wrong))
    order = order[np.argsort(~wrong[order], kind="stable")]
    errors = min(int(wrong.sum()), PICTURED * 3 // 4)
    at = np.sort(np.concatenate([order[:errors], order[wrong.sum() :][: PICTURED - errors]]))
    sheet = Image.new("RGB", (COLUMNS * TILE, -(-len(at) // COLUMNS) * TILE))
    for place, image in enumerate(data.load(name, "test").take(at).images.numpy()):
        small = Image.fromarray(image.transpose(1, 2, 0)).resize((TILE, TILE), Image.Resampling.BOX)
        sheet.paste(small, (place % COLUMNS * TILE, place // COLUMNS * TILE))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=QUALITY, method=6)
    return {"at": at, "webp": np.frombuffer(buffer.getvalue(), np.uint8)}


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def quantised(places: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Places (n, 2) in 256 steps, uint8; those of `frame` (N, 2) fill the square of the map."""
    low, high = frame.min(0), frame.max(0)
    return np.rint(255 * (places - low) / np.maximum(high - low, 1e-9)).astype(np.uint8)


def shared(maps: tuple[Map, ...] = MAPS) -> HTML:
    """Script and style, and once a page labels, answers, thumbnails and the places of `maps`."""
    folder, sets = Path(__file__).parent, {}
    style, script = ((folder / f"interactive.{kind}").read_text("utf-8") for kind in ("css", "js"))
    for name in NAMES:
        kept, every = thumbnails(name), [predictions.predict(model, name) for model in NAMES]
        digits = every[0].labels + 10 * every[0].predicted + 100 * every[1].predicted
        webp = base64.b64encode(kept["webp"].tobytes()).decode("ascii")
        sets[name] = {
            "title": TITLES[name],
            "colour": DATA_COLOUR[name],
            "digits": _base64(digits, "<u2"),
            "at": _base64(kept["at"], "<u2"),
            "sprite": f"data:image/webp;base64,{webp}",
        }
    about = {"models": NAMES, "colours": CLASS_COLOURS, "tile": TILE, "columns": COLUMNS}
    calls = [f"digitcnnMaps.share({json.dumps(about | {'sets': sets})});"]
    for shown in maps:
        places = points(shown)
        spec = json.dumps([shown.name, _base64(quantised(places, places), "u1")])
        calls.append(f"digitcnnMaps.lay(...{spec});")
    return _html(f"<style>\n{style}</style>\n<script>\n{script}{chr(10).join(calls)}\n</script>")


def live(figure: str, rows: list[list[Panel]]) -> HTML:
    """What makes a figure of the page, by its label, interactive; its panels as it was drawn of."""
    panels = []
    for panel in (panel for row in rows for panel in row):
        anchors = class_anchors(panel.points, panel.groups) if panel.by != "data" else {}
        names = [
            [digit, *quantised(place[None], panel.points)[0].tolist()]
            for digit, place in anchors.items()
        ]
        about = {"title": panel.title, "map": panel.shown.name, "model": panel.shown.model}
        about |= {"data": panel.shown.data, "by": panel.by, "names": names}
        panels.append(about | {"marked": panel.wrong is not None})
    spec = {"figure": figure, "columns": len(rows[0]), "panels": panels}
    return _html(f"<script>\ndigitcnnMaps.show({json.dumps(spec)});\n</script>")


def _html(text: str) -> HTML:
    """HTML whose lines do not end the raw block that Quarto puts it into."""
    return HTML("\n".join(line for line in text.splitlines() if line.strip()))
