"""The demonstration: samples, pictures and places, the server's defences, terminal and page."""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import one_sentence
from finished import finish
from PIL import Image

from digitcnn import cli, data, division, files, inference, pictures, predictions, preparation
from digitcnn.demo import command as demo
from digitcnn.demo import server
from digitcnn.demo import session as module
from digitcnn.files import DigitcnnError
from digitcnn.report import representation
from digitcnn.sources import NAMES

ROOT = Path(__file__).resolve().parent.parent
UMAP_LAYOUT = representation.layout


def layout(points):
    """Stands for UMAP."""
    axes = np.random.default_rng(0).normal(size=(points.shape[1], 2))
    return (points @ axes).astype(np.float16)


@pytest.fixture(scope="module")
def quick_root(tmp_path_factory):
    """A results tree of the quick profile: untrained models, their predictions, and maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITCNN_PROFILE", "quick")
        patch.setenv("DIGITCNN_TRAIN", "never")
        patch.setenv("DIGITCNN_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.setattr(representation, "layout", layout)
        division._pool.cache_clear()  # reading writes the manifest into this tree
        for name in NAMES:
            finish(name)
        for model in NAMES:
            for name in NAMES:
                representation.coordinates(representation.Map(model, (name,)))
                predictions.predict(model, name)
        yield
    division._pool.cache_clear()


@pytest.fixture(scope="module")
def answers(quick_root):
    """Everything loaded; nothing may be missing."""
    found = module.Answers(seed=0)
    assert list(found.load()) == []
    assert set(found.state().values()) == {"ready"}
    return found


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Samples and pictures


def test_samples_are_random_test_images_with_both_models_answers(answers):
    split = data.load("svhn", "test")
    drawn = answers.draw("svhn", count=7)
    positions = [sample["position"] for sample in drawn["samples"]]
    assert len(set(positions)) == 7 and drawn["among"] == len(split)
    assert positions != [s["position"] for s in answers.draw("svhn", count=7)["samples"]]
    for sample in drawn["samples"]:
        at = sample["position"]
        assert sample["label"] == split.labels[at]
        assert np.array_equal(sample["pixels"], split.images[at])
        for model in NAMES:
            stored = predictions.predict(model, "svhn").probabilities[at]
            found = sample["answers"][model]["probabilities"]
            np.testing.assert_allclose(found, stored, atol=0.02)  # bfloat16 on some processors


def most_wrong(name: str) -> int:
    """The class of a data set of which its own network misreads most test images."""
    said = predictions.predict(name, name)
    return int(np.bincount(said.labels[said.wrong], minlength=10).argmax())


def test_filters_keep_what_they_say(answers):
    for sample in answers.draw("mnist", digit=3, count=9)["samples"]:
        assert sample["label"] == 3
    wrong = predictions.predict("svhn", "mnist").wrong
    drawn = answers.draw("mnist", wrong="svhn", count=9)
    assert drawn["among"] == wrong.sum() > 9
    assert all(wrong[sample["position"]] for sample in drawn["samples"])
    digit = most_wrong("svhn")
    few = answers.draw("svhn", digit=digit, wrong="svhn", count=10_000)
    assert len(few["samples"]) == few["among"] < 10_000


def test_a_seed_draws_the_same_again(quick_root):
    drawn = []
    for _ in range(2):
        again = module.Answers(seed=4)
        assert list(again.load(["data mnist"])) == []
        drawn.append([s["position"] for s in again.draw("mnist", count=5)["samples"]])
    assert drawn[0] == drawn[1]


def test_what_cannot_be_drawn_is_a_sentence(answers, monkeypatch):
    with pytest.raises(DigitcnnError, match="cifar"):
        answers.draw("cifar")
    one = np.ones(1, int)
    right = predictions.Predictions(np.eye(10)[[1]], one, one, np.arange(1))
    monkeypatch.setitem(answers._ready, "stored mnist mnist", right)
    with pytest.raises(DigitcnnError, match="another class") as caught:
        answers.draw("mnist", wrong="mnist")
    one_sentence(caught.value)


def test_a_sample_stands_where_the_stored_map_has_it(answers):
    xy = representation.coordinates(representation.Map("svhn", ("mnist",)))["xy"].astype("f4")
    low, high = xy.min(0), xy.max(0)
    for sample in answers.draw("mnist", count=5)["samples"]:
        expected = 1000 * (xy[sample["position"]] - low) / (high - low)
        np.testing.assert_allclose(sample["answers"]["svhn"]["place"], expected, atol=0.51)


def test_a_picture_goes_the_usual_way_and_stands_among_its_neighbours(answers):
    split = data.load("mnist", "test")
    pixels = split.images[8].numpy().transpose(1, 2, 0)
    for how in ("auto", "none"):
        found = answers.picture(pictures.Picture(pixels, "said"), how)
        assert found["note"] == "said"
        for model in NAMES:
            answer = found["answers"][model]
            image = preparation.prepare_for([model], pixels, how)[model][0].image
            assert np.array_equal(answer["pixels"], image) and not answer["blank"]
            expected = inference.probabilities(inference.load(model), image)[0]
            np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    own = module.stored_map("mnist", "mnist")["points"][8].tolist()
    assert own in found["answers"]["mnist"]["near"]  # the sample itself is its nearest


def test_places_by_logits_are_close_to_the_true_ones(monkeypatch):
    """The claim behind a drawing's place, on the report's own maps."""
    for variable in ("DIGITCNN_ROOT", "DIGITCNN_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(representation, "layout", UMAP_LAYOUT)
    tried = 0
    for model in NAMES:
        try:
            points = module.stored_map(model, model)["points"]
        except DigitcnnError:
            continue  # results that are being made anew
        logits, tried = module.stored_predictions(model, model).logits, tried + 1
        errors = []
        for at in range(0, len(points), 97):
            order = np.argsort(((logits - logits[at]) ** 2).sum(1))[1 : module.NEAREST + 1]
            errors.append(np.linalg.norm(np.median(points[order], axis=0) - points[at]))
        assert np.median(errors) < 0.05 * module.MAP_SIZE
    if not tried:
        pytest.skip("no map in cache/umap is current")


# What is missing


def test_another_copy_of_the_data_is_refused_and_not_recorded(quick_root):
    path = files.cache_path("data", "mnist.json")
    before = path.read_bytes()
    try:
        files.write_json(path, json.loads(before) | {"digest": "another"})
        changed = path.read_bytes()
        with pytest.raises(DigitcnnError, match="another data set") as caught:
            module.test_images("mnist")
        one_sentence(caught.value)
        assert path.read_bytes() == changed
    finally:
        path.write_bytes(before)


def test_without_data_and_results_pictures_still_work(quick_root, monkeypatch):
    def absent(name):
        raise DigitcnnError(f"{name} is not here.")

    monkeypatch.setattr(module.sources, "read", absent)
    found = module.Answers()
    kept = files.cache_path("umap", "mnist-on-mnist.npz")
    kept.rename(kept.with_suffix(".away"))
    try:
        said = list(found.load())
    finally:
        kept.with_suffix(".away").rename(kept)
    assert len(said) == 3 and "cache/umap/mnist-on-mnist.npz is missing" in said[0]
    assert said[1:] == ["mnist is not here.", "svhn is not here."]
    strokes = np.zeros((90, 90, 3), np.uint8)
    strokes[20:70, 42:48] = 255
    drawing = found.picture(pictures.Picture(strokes, ""))
    assert "place" not in drawing["answers"]["mnist"] and "place" in drawing["answers"]["svhn"]
    with pytest.raises(DigitcnnError, match=r"mnist is not here\."):
        found.draw("mnist")


def test_a_bug_in_one_part_does_not_end_the_others(quick_root, monkeypatch, capsys):
    monkeypatch.setattr(module.sources, "read", lambda name: 1 / 0)
    found = module.Answers()
    (said,) = found.load(["data svhn", "model mnist"])
    assert "ZeroDivisionError" in said and "Traceback" in capsys.readouterr().err
    assert found.state()["model mnist"] == "ready"
    assert found.state()["data mnist"] == "loading"


# The server


@pytest.fixture
def served(answers):
    """A running server."""
    running = server.listen(0)
    running.answers = answers
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def ask(running, path, method="GET", body=None, **headers):
    """Status, content type and body of a request, the body parsed if it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    kind, content = reply.headers["Content-Type"], reply.read()
    connection.close()
    return reply.status, kind, json.loads(content) if "json" in kind else content.decode()


def refused(running, path, **more) -> tuple[int, str]:
    status, _, found = ask(running, path, **more)
    return status, one_sentence(DigitcnnError(found["error"]))


def test_the_page_needs_nothing_from_elsewhere(served):
    kinds = {}
    for path in ("/", "/demo.css", "/demo.js"):
        status, kinds[path], text = ask(served, path)
        assert status == 200 and len(text) > 1000
        assert not re.search(r"https?:|//[a-z]+\.|@import", text)
    assert [kind.split(";")[0] for kind in kinds.values()] == [
        "text/html", "text/css", "text/javascript"
    ]  # fmt: skip


def test_json_of_samples_maps_and_pictures(served, answers):
    status, kind, found = ask(served, "/api/samples?data=mnist&digit=4")
    assert status == 200 and kind == "application/json" and len(found["samples"]) == server.DRAWN
    sample = found["samples"][0]
    assert sample["label"] == 4 and sample["pixels"].startswith("data:image/png;base64,")
    status, _, found = ask(served, "/api/map?model=svhn&data=mnist")
    assert status == 200 and len(found["points"]) == len(found["labels"]) == 360
    assert len(found["colours"]) == 10 and np.ptp(found["points"], axis=0).tolist() == [1000, 1000]
    body = png(np.full((50, 50), 7, np.uint8))
    for how in ("", "?prepare=auto", "?prepare=none"):
        status, _, found = ask(served, f"/api/picture{how}", "POST", body)
        assert status == 200
        for answer in (found["answers"][model] for model in NAMES):
            assert sum(answer["probabilities"]) == pytest.approx(1)
            assert answer["pixels"].startswith("data:image/png;base64,")
            assert answer["blank"] == (how != "?prepare=none")
    assert "auto, none" in refused(served, "/api/picture?prepare=x", method="POST", body=body)[1]
    status, _, found = ask(served, "/api/state")
    assert found["parts"] == answers.state() and found["limit"] == server.LIMIT


@pytest.mark.parametrize(
    "path",
    [
        "/../digitcnn/cli.py",
        "/%2e%2e/README.md",
        "//etc/passwd",
        "/index.html",
        "/api/",
        "/demo.js/",
    ],
)
def test_only_the_page_is_served(served, path):
    assert refused(served, path)[0] == 404


def test_other_names_and_other_sites_are_refused(served):
    port = served.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
        assert refused(served, "/api/state", Host=host)[0] == 403
    assert refused(served, "/", Host="evil.example")[0] == 403
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert refused(served, "/api/picture", method="POST", body=b"x", Origin=origin)[0] == 403
    assert ask(served, "/api/state", Host=f"localhost:{port}")[0] == 200
    own = f"http://127.0.0.1:{port}"
    assert refused(served, "/api/picture", method="POST", body=b"x", Origin=own)[0] == 400


def test_bad_requests_are_sentences(served):
    for path, said in {
        "/api/samples": "There is no data set ''",
        "/api/samples?data=%1b[31m": "There is no data set",
        "/api/samples?data=mnist&digit=10": "0 to 9",
        "/api/samples?data=mnist&wrong=x": "There is no data set 'x'",
        "/api/map?model=mnist&data=../x": "../x",
    }.items():
        status, sentence = refused(served, path)
        assert status == 400 and said in sentence
    post = {"path": "/api/picture", "method": "POST"}
    assert "not a readable picture" in refused(served, **post, body=b"text")[1]
    assert refused(served, **post, Content_Length=str(server.LIMIT + 1))[0] == 413
    assert refused(served, **post, Content_Length="9" * 5000)[0] == 413
    assert refused(served, **post, Content_Length="-1")[0] == 411
    assert refused(served, "/api/state", method="DELETE")[0] == 501


def test_before_anything_is_loaded_the_page_is_there(served):
    loaded, served.answers = served.answers, None
    try:
        assert ask(served, "/")[0] == 200
        assert ask(served, "/api/state")[2]["parts"] == {}
        status, sentence = refused(served, "/api/samples?data=mnist")
        assert status == 503 and "loading" in sentence
    finally:
        served.answers = loaded


def test_a_bug_is_a_sentence_and_a_traceback_in_the_terminal(served, monkeypatch, capsys):
    monkeypatch.setattr(module.Answers, "draw", lambda *arguments: 1 / 0)
    status, sentence = refused(served, "/api/samples?data=mnist")
    assert status == 500 and "terminal" in sentence
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_only_this_machine_and_a_free_port(monkeypatch):
    first = server.listen()
    second = server.listen()
    try:
        assert first.server_address[0] == "127.0.0.1"
        assert second.server_port > first.server_port >= server.PORT
        monkeypatch.setattr(server, "PORT", first.server_port)
        monkeypatch.setattr(server, "TRIES", 1)
        for port in (first.server_port, -1, 65536, None):
            with pytest.raises(DigitcnnError) as caught:
                server.listen(port)
            one_sentence(caught.value)
    finally:
        first.server_close()
        second.server_close()


def test_ctrl_c_ends_the_command_cleanly(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"DIGITCNN_ROOT": str(tmp_path), "DIGITCNN_PROFILE": "full"}
    kept = {name: value for name, value in os.environ.items() if name != "DIGITCNN_DATA"}
    process = subprocess.Popen(
        [sys.executable, "-m", "digitcnn", "demo", "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=kept | variables,
    )  # fmt: skip
    try:
        assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
        for line in process.stdout:
            if line.startswith("Ready"):
                break
            assert one_sentence(DigitcnnError(line.strip())).startswith("Missing: ")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and output.strip() == "The demonstration has ended."
    assert errors == ""


# The terminal


def command(*words):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    demo.demo_command(parser.parse_args(["--terminal", *words]))


def test_the_terminal_shows_a_sample_at_each_enter(quick_root, monkeypatch, capsys):
    replies = iter(["", "", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(replies))
    digit = str(most_wrong("svhn"))
    words = ("--data", "svhn", "--class", digit, "--wrong", "--seed", "1")
    command(*words)
    first = capsys.readouterr().out
    assert first.count("SVHN test sample") == first.count(f"labelled {digit}") == 3
    assert "MNIST network" in first and "SVHN network" in first and "WRONG" in first
    assert all(len(line) <= 80 for line in first.splitlines()) and first.isascii()
    replies = iter(["", "", "q"])
    command(*words)
    assert capsys.readouterr().out == first


def test_colour_only_where_a_terminal_shows_it(monkeypatch):
    pixels = np.zeros((3, 32, 32), np.uint8)
    pixels[0, 0], pixels[2, 1] = 255, 9
    lines = demo.picture_lines(pixels, fancy=True)
    assert len(lines) == 16 and lines[0].startswith("\x1b[38;2;255;0;0;48;2;0;0;9m▀")
    plain = demo.picture_lines(pixels + np.uint8(246) * (pixels == 0), fancy=False)
    assert len(plain) == 16 and plain[5] == "@" * 32 and plain[0] != plain[5]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for terminal, no_colour, encoding in [(1, "", "utf-8"), (0, "", "utf-8"), (1, "1", "utf-8"),
                                          (1, "", "ascii")]:  # fmt: skip
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        stream.isatty = lambda terminal=terminal: bool(terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("NO_COLOR", no_colour)
        assert demo.colourful() == (terminal == 1 and not no_colour and encoding == "utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["--class", "3"], ["--wrong"], ["--seed", "1"], ["--data", "mnist"],
        ["--terminal", "--port", "1"], ["--terminal", "--no-browser"],
        ["--terminal", "--class", "10"], ["--terminal", "--seed", "-1"],
        ["--terminal", "--data", "cifar"],
    ],
)  # fmt: skip
def test_contradictory_arguments_are_one_sentence(words, capsys):
    assert cli.main(["demo", *words]) == 1
    one_sentence(DigitcnnError(capsys.readouterr().err.strip().splitlines()[-1]))


# The page

SHARES = 'all(".bar output").map(output => output.textContent)'
POSITIONS = "drawn.map(sample => sample.position).join()"
SAID = 'all(".answer span").map(words => words.textContent)'
IMAGES = 'all(".answer img").map(image => image.hidden ? "" : image.src)'
PAINTED = """all(".map canvas").filter(canvas => !canvas.closest("figure").hidden && canvas.width &&
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean))"""
LINE = [(0.5, 0.25 + 0.05 * i) for i in range(11)]


@pytest.fixture
def page(browser, served):
    """The demonstration, with samples and both maps shown."""
    browser.open(served.url)
    browser.wait_for(f"drawn.length && {PAINTED}.length === 2")
    yield browser
    assert not browser.errors
    local = (served.url, "data:", "blob:")
    assert not [address for address in browser.requests if not address.startswith(local)]


def test_samples_in_a_browser(page):
    assert page.evaluate(f"new Set([{POSITIONS}]).size") == 1
    correct = page.evaluate("""drawn.map(sample => MODELS.map(model =>
        most(sample.answers[model].probabilities) === sample.label))""")
    marks = page.evaluate('all("#strip span").map(mark => mark.className === "right")')
    assert marks == [right for pair in correct for right in pair]
    assert len(marks) == 2 * server.DRAWN
    shares = page.evaluate(SHARES)
    assert len(shares) == 20 and all(re.fullmatch(r"[<>]? ?[\d.]+ %", s) for s in shares)
    assert "MNIST test sample" in page.evaluate('$("caption").textContent')
    first = page.evaluate(POSITIONS)
    page.click("#next")
    page.wait_for(f'{POSITIONS} !== "{first}"')
    page.press("ArrowRight")
    page.wait_for("at === 1")
    page.press("s")
    page.wait_for('drawn[0].data === "svhn"')
    page.press("7")
    page.wait_for("drawn.every(sample => sample.label === 7)")
    assert page.evaluate("drawn.length") == server.DRAWN
    grounds = []
    for _ in range(2):
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
    assert len(set(grounds)) == 2


def test_a_drawing_in_a_browser(page):
    page.click("[data-view=draw]")
    assert page.evaluate(SHARES) == [""] * 20
    page.click("#pad", *LINE)
    page.wait_for(f"!sent.busy && {SHARES}.every(Boolean)")
    found = page.evaluate(IMAGES)
    page.click("[data-prepare=none]")
    page.wait_for(f"!sent.busy && {IMAGES}[0] !== {json.dumps(found[0])}")
    whole = page.evaluate(IMAGES)
    assert all(src.startswith("data:image/png;base64,") for src in found + whole)
    assert len(set(found + whole)) == 3  # as it is, both get the same
    page.click("[data-prepare=auto]")
    page.wait_for(f"!sent.busy && {IMAGES}[0] === {json.dumps(found[0])}")
    page.click("#clear")
    assert page.evaluate(SHARES) == [""] * 20


def test_files_in_a_browser(served, page, tmp_path, monkeypatch):
    text, blank, huge = (tmp_path / name for name in ("notes.png", "blank.png", "huge.png"))
    text.write_text("this is no picture")
    blank.write_bytes(png(np.zeros((64, 64), np.uint8)))
    huge.write_bytes(bytes(2000))
    notice = '$("notice").textContent'
    page.click("[data-view=photo]")
    page.choose_file("#file", text)
    assert page.wait_for(notice).startswith("The file is not a readable picture")
    page.choose_file("#file", blank)
    page.wait_for(f'!{notice} && {SAID}.every(said => said === "Blank: no ink was found")')
    monkeypatch.setattr(server, "LIMIT", 1000)
    page.open(served.url)
    page.wait_for("limit === 1000 && drawn.length")
    page.choose_file("#file", huge)
    assert page.wait_for(notice).startswith("The file is too large")


# The script


def test_the_script_names_figures_that_the_report_has():
    script = (ROOT / "DEMONSTRATION.md").read_text("utf-8")
    named = set(re.findall(r"`(fig-[a-z-]+)`", script))
    assert len(named) > 10
    there = set()
    for chapter in (ROOT / "chapters").glob("[0-9]*.qmd"):
        there |= set(re.findall(
            r"^(?:#\| label: |:::+ *\{#)(fig-[a-z-]+)", chapter.read_text("utf-8"), re.MULTILINE
        ))  # fmt: skip
    assert named <= there, named - there
