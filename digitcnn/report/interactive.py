"""Interactive: maps that show a sample's image, class and prediction under the pointer, in HTML.

They need no network and no other file. `shared` is called once a page, `hover_map` for each
figure; where a page does not run scripts, the figure's static picture stays.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from IPython.display import HTML
from PIL import Image
from torch import Tensor

from .. import data, predictions
from ..sources import NAMES, TITLES
from .representation import Map
from .representation_figures import class_anchors
from .style import DATA_COLOUR

TILE, QUALITY = 24, 20  # pixels of a thumbnail, and WebP's quality from 0 to 100


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def mosaic(images: Tensor, tile: int = TILE) -> tuple[Image.Image, int]:
    """Thumbnails of uint8 images (N, 3, H, W) in rows, and how many columns there are."""
    small = F.interpolate(images.float(), size=(tile, tile), mode="area").round().byte().numpy()
    columns = int(np.ceil(np.sqrt(len(small))))
    cells = np.zeros((-(-len(small) // columns) * columns, tile, tile, 3), np.uint8)
    cells[: len(small)] = small.transpose(0, 2, 3, 1)
    rows = cells.reshape(-1, columns, tile, tile, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(rows.reshape(-1, columns * tile, 3)), columns


def shared() -> HTML:
    """Script, style, labels, predictions and thumbnails of all test samples of both data sets."""
    folder = Path(__file__).parent
    style, script = ((folder / f"interactive.{kind}").read_text("utf-8") for kind in ("css", "js"))
    calls = []
    for name in NAMES:
        split, buffer = data.load(name, "test"), io.BytesIO()
        picture, columns = mosaic(split.images)
        picture.save(buffer, "WEBP", quality=QUALITY, method=3)
        said = {m: predictions.predict(m, name).predicted.astype("u1").tobytes() for m in NAMES}
        about = {
            "title": TITLES[name],
            "colour": DATA_COLOUR[name],
            "labels": _base64(split.labels.numpy().astype("u1").tobytes()),
            "said": {model: _base64(found) for model, found in said.items()},
            "sprite": "data:image/webp;base64," + _base64(buffer.getvalue()),
            "columns": columns,
            "tile": TILE,
        }
        calls.append(f"digitcnnHover.share({json.dumps(name)}, {json.dumps(about)});")
    return _html(f"<style>\n{style}</style>\n<script>\n{script}{chr(10).join(calls)}\n</script>")


def hover_map(shown: Map, panels: list[tuple[str, np.ndarray, str]], errors: bool = False) -> HTML:
    """Interactive panels of the same samples, side by side.

    Args:
        shown: whose samples and predictions they are.
        panels: title, coordinates (N, 2) and what the colour means: ``class`` (the true one),
            ``prediction`` or ``data`` (the data set).
        errors: whether misclassified samples are crossed.
    """
    found = [predictions.predict(shown.model, name) for name in shown.data]
    classes = {
        "class": np.concatenate([each.labels for each in found]),
        "prediction": np.concatenate([each.predicted for each in found]),
    }
    first = len(found[0].labels)  # names are written at the classes of the first data set
    described = []
    for title, points, kind in panels:
        names = class_anchors(points[:first], classes[kind][:first]) if kind != "data" else {}
        places = quantised(np.stack(list(names.values())), points) if names else b""
        panel = {"title": title, "colour": kind, "xy": _base64(quantised(points, points))}
        described.append(panel | {"names": list(names), "places": _base64(places)})
    spec = {"model": shown.model, "data": shown.data, "panels": described, "errors": errors}
    call = f"digitcnnHover.show(document.currentScript.previousElementSibling, {json.dumps(spec)});"
    return _html(f'<div class="hover-map"></div><script>\n{call}\n</script>')


def quantised(points: np.ndarray, frame: np.ndarray) -> bytes:
    """Points (N, 2) as little-endian uint16 pairs; those of `frame` fill the square of the map."""
    low, high = frame.min(0), frame.max(0)
    scaled = (points - low) / np.maximum(high - low, 1e-9)
    return np.rint(65535 * scaled).astype("<u2").tobytes()


def _html(text: str) -> HTML:
    """HTML whose lines do not end the raw block that Quarto puts it into."""
    return HTML("\n".join(line for line in text.splitlines() if line.strip()))
