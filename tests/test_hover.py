"""Interactive maps: what is in the page, and, in headless Chromium, what it does."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from digitcnn import data, predictions  # noqa: E402
from digitcnn.report import interactive  # noqa: E402
from digitcnn.report.representation import Map  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
COUNT = {"mnist": 40, "svhn": 60}
PROBE = """
<script>
addEventListener("load", function probe() {
  const root = document.querySelector(".hover-map"), tip = root.querySelector(".hover-tip");
  const canvas = root.querySelector(".hover-panel canvas"), found = {};
  const pixels = (c, ...area) => Array.from(c.getContext("2d").getImageData(...area).data);
  const shown = () => pixels(canvas, 0, 0, canvas.width, canvas.height)
    .filter((value, i) => i % 4 == 3 && value > 150).length;
  if (!shown()) return setTimeout(probe, 50);  // not painted yet
  const move = (x, y) => {
    const frame = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new PointerEvent("pointermove",
      {clientX: frame.left + x * frame.width, clientY: frame.top + y * frame.height}));
  };
  found.before = tip.hidden;
  found.all = shown();
  move(0.02, 0.98);  // sample 0 is the lower left corner
  found.text = tip.textContent;
  found.after = tip.hidden;
  found.picture = pixels(tip.querySelector("canvas"), 36, 36, 1, 1);
  const button = root.querySelectorAll(".hover-legend button")[1];
  button.click();
  found.pressed = root.querySelectorAll("[aria-pressed=true]").length;
  found.one = shown();
  move(0.02, 0.98);
  found.isolated = tip.hidden;  // sample 0 is of class 0, which is not shown now
  button.click();
  found.again = shown();
  canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  found.key = tip.textContent;
  canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
  found.escaped = tip.hidden;
  const frame = canvas.getBoundingClientRect();
  const touch = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {pointerType: "touch",
    clientX: frame.left + x * frame.width, clientY: frame.top + y * frame.height}));
  touch("pointerdown", 0.02, 0.96);  // a finger beside the sample, lifted again
  touch("pointerleave", 0.02, 0.96);
  found.touched = !tip.hidden && tip.textContent;
  touch("pointerdown", 0.5, 0.5);  // between the samples
  found.hidden = getComputedStyle(document.querySelector("figure img")).display;
  const output = document.createElement("pre");
  output.id = "probe";
  output.textContent = JSON.stringify(found);
  document.body.append(output);
});
</script>
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Test splits of known pictures, and models that err in the last sample alone."""

    def load(name, split):
        count = COUNT[name]
        images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
        images[:, 0] = 200  # red
        return data.Split(images, torch.arange(count) % 10, np.arange(count))

    def predict(model, name, split="test"):
        labels = np.arange(COUNT[name]) % 10
        logits = np.eye(10, dtype=np.float32)[labels]
        logits[-1] = np.eye(10)[(labels[-1] + 1) % 10]
        return predictions.Predictions(logits, logits.argmax(1), labels, np.arange(len(labels)))

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(predictions, "predict", predict)


def _points(count: int) -> np.ndarray:
    return np.stack([np.arange(count) % 10, np.arange(count) // 10], axis=1).astype(np.float32)


def _specification(html: str) -> dict:
    return json.loads(re.search(r"previousElementSibling, (\{.*\})\);", html).group(1))


def test_mosaic_keeps_order_and_colour():
    images = torch.zeros(5, 3, 32, 32, dtype=torch.uint8)
    images[4, 2] = 255
    picture, columns = interactive.mosaic(images, tile=8)
    assert (columns, picture.size) == (3, (24, 16))
    assert picture.getpixel((12, 12)) == (0, 0, 255)
    assert picture.getpixel((4, 4)) == (0, 0, 0)


def test_quantised_fills_the_square():
    points = np.array([[-1.0, 5], [1, 9], [0, 6]])
    found = np.frombuffer(interactive.quantised(points, points), "<u2").reshape(-1, 2)
    assert found.tolist() == [[0, 0], [65535, 65535], [32768, 16384]]
    assert len(interactive.quantised(np.zeros((3, 2)), np.zeros((3, 2)))) == 12


def test_page_holds_every_sample_and_no_address(stand_in):
    shared = interactive.shared().data
    labels = re.findall(r'"labels": "([^"]*)"', shared)
    assert [len(base64.b64decode(text)) for text in labels] == list(COUNT.values())
    html = interactive.hover_map(Map("svhn", ("svhn", "mnist")), [("m", _points(100), "data")]).data
    assert len(base64.b64decode(_specification(html)["panels"][0]["xy"])) == 4 * 100
    assert not re.search(r"https?://|src\s*=\s*[\"']?//", shared + html)
    assert not re.search(r"^\s*$", shared + html, re.MULTILINE)  # would end Markdown's raw block


def test_names_stand_at_clusters_only(stand_in):
    count = COUNT["mnist"]
    clusters = np.array([[label, 0] for label in np.arange(count) % 10], np.float32)
    shown, mixed = Map("mnist", ("mnist",)), np.zeros((count, 2), np.float32)
    html = interactive.hover_map(shown, [("a", clusters, "class"), ("b", mixed, "class")]).data
    named, unnamed = _specification(html)["panels"]
    assert named["names"] == list(range(10))
    assert unnamed["names"] == []


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_hover_and_legend_in_a_browser(stand_in, tmp_path):
    shown = Map("mnist", ("mnist",))
    panels = [("left", _points(40), "class"), ("right", _points(40), "prediction")]
    body = (
        interactive.shared().data
        + '<figure id="f"><img alt="">'
        + interactive.hover_map(shown, panels).data
    )
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{body}</figure>{PROBE}", "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--disable-background-networking"]
    command += ["--virtual-time-budget=5000", "--window-size=900,700", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    probe = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert probe, "the page's script failed"
    found = json.loads(probe.group(1))
    assert found["before"] and not found["after"]
    assert found["text"] == "MNIST digit 0, read as 0"
    red, green, blue, _ = found["picture"]
    assert red > 150 and green < 60 and blue < 60  # the sample's own picture
    assert found["pressed"] == 1 and found["isolated"]
    assert 0 < found["one"] < found["all"] / 4
    assert abs(found["again"] - found["all"]) < 20
    assert found["key"] == "MNIST digit 9, read as 0"
    assert found["escaped"] and found["touched"] == "MNIST digit 0, read as 0"
    assert found["hidden"] == "none"  # the static picture gives way
