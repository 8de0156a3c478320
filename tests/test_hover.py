"""Interactive maps: what is in the page, and, in headless Chromium, what it does."""

import base64
import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from digitcnn import data, predictions, store  # noqa: E402
from digitcnn.report import interactive  # noqa: E402
from digitcnn.report.representation import Map, Panel  # noqa: E402

COUNT = {"mnist": 40, "svhn": 60}
SHOWN = Map("mnist", ("mnist",))
PLACES = np.stack([np.arange(40) % 10, np.arange(40) // 10], axis=1).astype(np.float32)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Test splits of red pictures, and models that err in the last sample alone."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    monkeypatch.setattr(store, "digest_of", lambda token: f"digest of {token}")
    monkeypatch.setattr(store.Stored, "_provide", staticmethod(lambda tokens: None))

    def load(name, split):
        images = torch.zeros(COUNT[name], 3, 32, 32, dtype=torch.uint8)
        images[:, 0] = 200
        return data.Split(images, torch.arange(COUNT[name]) % 10, np.arange(COUNT[name]))

    def predict(model, name, split="test"):
        labels = np.arange(COUNT[name]) % 10
        said = labels.copy()
        said[-1] = (said[-1] + 1) % 10
        return predictions.Predictions(np.eye(10)[said], said, labels, np.arange(len(labels)))

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(predictions, "predict", predict)
    monkeypatch.setattr(interactive, "points", lambda shown: PLACES)


def _rows(marked: bool = False) -> list[list[Panel]]:
    classes = np.arange(40) % 10
    wrong = np.arange(40) == 39 if marked else None
    return [[Panel(by, SHOWN, by, PLACES, classes, wrong) for by in ("class", "answer")]]


def _page(marked: bool = False) -> str:
    figure = '<figure id="fig-x"><p><img alt="static" src="data:,"></p></figure>'
    html = (
        interactive.shared((SHOWN,)).data + figure + interactive.live("fig-x", _rows(marked)).data
    )
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content=width=device-width>"
    return f"{head}<body>{html}</body>"


def test_quantised_fills_the_square():
    points = np.array([[-1.0, 5], [1, 9], [0, 6]])
    assert interactive.quantised(points, points).tolist() == [[0, 0], [255, 255], [128, 64]]
    assert interactive.quantised(np.zeros((3, 2)), np.zeros((3, 2))).tolist() == [[0, 0]] * 3


def test_thumbnails_keep_order_and_colour_and_all_errors(stand_in, monkeypatch):
    monkeypatch.setattr(interactive, "PICTURED", 8)
    from io import BytesIO

    from PIL import Image

    found = interactive.thumbnails("svhn")
    assert len(found["at"]) == 8 and 59 in found["at"] and (np.diff(found["at"]) > 0).all()
    picture = Image.open(BytesIO(found["webp"].tobytes()))
    assert picture.size == (interactive.COLUMNS * interactive.TILE, interactive.TILE)
    red, green, blue = picture.getpixel((7 * interactive.TILE + 12, 12))
    assert red > 150 and max(green, blue) < 60
    assert max(picture.getpixel((8 * interactive.TILE + 12, 12))) < 30


def test_page_holds_every_sample_once_and_no_address(stand_in):
    html = _page()
    digits = re.findall(r'"digits": "([^"]*)"', html)
    assert [len(base64.b64decode(text)) for text in digits] == [2 * n for n in COUNT.values()]
    first = np.frombuffer(base64.b64decode(digits[0]), "<u2")
    assert first[[3, 39]].tolist() == [333, 9]  # label and both answers
    places = re.findall(r'lay\(\.\.\.\["mnist-on-mnist", "([^"]*)"\]', html)
    assert [len(base64.b64decode(text)) for text in places] == [2 * 40]
    assert not re.search(r"https?://|src\s*=\s*[\"']?//", html)
    assert not re.search(r"^\s*$", html, re.MULTILINE)  # would end Markdown's raw block


def test_names_stand_at_clusters_only(stand_in):
    classes = np.arange(40) % 10
    clusters = np.array([[label, 0] for label in classes], np.float32)
    rows = [
        Panel("a", SHOWN, "class", clusters, classes),
        Panel("b", SHOWN, "class", np.zeros((40, 2), np.float32), classes),
    ]
    html = interactive.live("fig-x", [rows]).data
    named, unnamed = json.loads(re.search(r"show\((\{.*\})\);", html).group(1))["panels"]
    assert [name for name, *_ in named["names"]] == list(range(10)) and unnamed["names"] == []


HELPERS = """
const canvas = document.querySelector(".hover-panel canvas");
const tip = document.querySelector(".hover-tip");
const shown = () => Array.from(canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data)
  .filter((value, i) => i % 4 == 3 && value > 150).length;
"""


def test_pointer_keys_and_legend_in_a_browser(stand_in, tmp_path, browser):
    path = tmp_path / "page.html"
    path.write_text(_page().replace("</body>", f"<script>{HELPERS}</script></body>"), "utf-8")
    browser.open(path.as_uri())
    browser.wait_for("shown() > 0")
    everything = browser.evaluate("shown()")
    assert browser.evaluate("tip.hidden")
    assert browser.evaluate("getComputedStyle(document.querySelector('img')).display") == "none"
    browser.evaluate(
        """(() => { const box = canvas.getBoundingClientRect(); canvas.dispatchEvent(
        new PointerEvent("pointermove", {clientX: box.left + 0.02 * box.width,
          clientY: box.top + 0.98 * box.height})); })()"""
    )  # sample 0 is the lower left corner
    assert browser.evaluate("tip.textContent") == "MNIST digit 0, read as 0"
    red, green, *_ = browser.evaluate(
        "Array.from(tip.querySelector('canvas').getContext('2d').getImageData(36, 36, 1, 1).data)"
    )
    assert red > 150 and green < 60  # the sample's own picture
    browser.evaluate("document.querySelectorAll('.hover-legend button')[1].click()")
    assert browser.evaluate("document.querySelectorAll('[aria-pressed=true]').length") == 1
    assert 0 < browser.evaluate("shown()") < everything / 4
    browser.evaluate("document.querySelectorAll('.hover-legend button')[1].click()")
    browser.evaluate("canvas.focus()")
    browser.press("ArrowRight")
    assert browser.evaluate("tip.textContent") == "MNIST digit 9, read as 0"
    browser.press("Escape")
    assert browser.evaluate("tip.hidden")


@pytest.mark.parametrize("marked", [False, True])
def test_misread_images_are_marked_where_the_figure_marks_them(stand_in, tmp_path, browser, marked):
    path = tmp_path / "page.html"
    style = "<style>.hover-map { color: rgb(1, 2, 3); }</style></body>"
    path.write_text(_page(marked).replace("</body>", style), "utf-8")
    browser.open(path.as_uri())
    browser.wait_for("document.querySelector('.hover-panel canvas').width > 300")
    middle = """(([x, y]) => { const canvas = document.querySelector('.hover-panel canvas');
        const at = [x, y].map(share => Math.floor(share * canvas.width));
        return Array.from(canvas.getContext('2d').getImageData(...at, 1, 1).data); })"""
    misread, other = (
        browser.evaluate(f"{middle}([{x}, 0.02])") for x in (0.98, 0.98 - 0.96 / 9)
    )  # samples 39 and 38, in the upper row
    assert (misread[:3] == [1, 2, 3]) == marked and other[:3] != [1, 2, 3]
    last = (
        "getComputedStyle([...document.querySelectorAll('.hover-legend button')].pop(), '::before')"
    )
    assert (browser.evaluate(f"{last}.backgroundColor") == "rgb(1, 2, 3)") == marked


def test_a_finger_shows_a_digit_on_a_phone(stand_in, tmp_path, browser):
    path = tmp_path / "page.html"
    path.write_text(_page().replace("</body>", f"<script>{HELPERS}</script></body>"), "utf-8")
    browser.view(400, 800, phone=True)
    browser.open(path.as_uri())
    browser.wait_for("shown() > 0")
    browser.click(".hover-panel canvas", (0.03, 0.96))
    assert browser.evaluate("!tip.hidden && tip.textContent") == "MNIST digit 0, read as 0"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
