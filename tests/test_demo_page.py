"""The demonstration's page in a browser, and the script of ten minutes done literally."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import png

from digitcnn.demo import server

pytest_plugins = ["demonstration"]
ROOT = Path(__file__).resolve().parent.parent
SCRIPT = (ROOT / "DEMONSTRATION.md").read_text("utf-8")
STEPS = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \| (.*?) \|$", SCRIPT, re.MULTILINE)
SHARES = 'all(".bar span").map(share => share.textContent)'
POSITIONS = "drawn.map(sample => sample.position).join()"
SAID = 'all(".answer span").map(words => words.textContent)'
IMAGES = 'all(".answer img").map(image => image.hidden ? "" : image.src)'
RESTS = "!asking && !sent.busy && !sent.due && Object.values(parts).every(part => part === 'ready')"
PAINTED = """all(".map canvas").filter(canvas => !canvas.closest("figure").hidden && canvas.width &&
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean))"""
LINE = [(0.5, 0.25 + 0.05 * i) for i in range(11)]
ANGLES = np.linspace(-2.6, 1.57, 9)
THREE = [(0.48 + 0.17 * np.cos(a), 0.36 + 0.14 * np.sin(a)) for a in ANGLES]
THREE += [(0.48 + 0.2 * np.cos(a), 0.66 + 0.17 * np.sin(a)) for a in -ANGLES[::-1]]


@pytest.fixture
def page(browser, served):
    """The demonstration, with samples and both maps shown."""
    browser.open(served.url)
    browser.wait_for(f"{RESTS} && drawn.length && {PAINTED}.length === 2")
    yield browser
    assert not browser.errors
    local = (served.url, "data:", "blob:")
    assert not [address for address in browser.requests if not address.startswith(local)]


def test_samples_in_a_browser(page):
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
    grounds = []
    for _ in range(2):
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
    assert len(set(grounds)) == 2
    page.view(1280, 900, dark=True)
    page.open(page.evaluate("location.href"))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") in grounds


def test_keys_work_whatever_has_the_focus(page):
    assert not page.evaluate('all("select, input:not([type=file])").length')
    # A screen reader is told of each step once, in one place: a bar's share is no live region.
    assert page.evaluate('all("output, [aria-live], [role=status], [role=alert]").length') == 1
    steps = {"s": "svhn,,", "7": "svhn,7,", "w": "svhn,7,svhn", "m": "mnist,,"}
    for focus in ("[data-digit='4']", "[data-wrong=svhn]", "#next", "[data-view=photo]", "#theme"):
        page.click(focus)
        for key, then in steps.items():
            page.evaluate(f"document.querySelector({json.dumps(focus)}).focus()")
            page.press(key)
            assert page.evaluate("[view, ...Object.values(filter)].join()") == f"samples,{then}"
    page.press("ArrowRight", modifiers=2)  # the browser's own
    page.press("Tab")
    page.wait_for(RESTS)
    at = page.evaluate("at")
    page.press("ArrowRight")
    assert page.evaluate("at") == at + 1


def test_the_newest_step_wins_and_an_old_map_goes_at_once(page):
    page.evaluate("""(() => {
      const old = fetch; let first = true;
      self.fetch = (path, ...more) => path.startsWith("api/map") ? new Promise(done => {
        self.go = () => done(old(path, ...more)); }) : old(path, ...more); })()""")
    page.press("s")
    page.wait_for('drawn[0].data === "svhn" && Boolean(self.go)')
    captions = 'all(".map figcaption").map(caption => caption.textContent)'
    assert page.evaluate(captions) == ["The map is loading …"] * 2
    assert page.evaluate(f"{PAINTED}.length") == 0
    page.press("m")
    page.press("s")
    page.press("m")
    page.wait_for('drawn[0].data === "mnist" && filter.data === "mnist"')
    page.wait_for(f"{PAINTED}.length === 2")  # MNIST's maps are there already


def test_a_drawing_in_a_browser(page):
    page.click("[data-view=draw]")
    assert page.evaluate(SHARES) == [""] * 20
    page.click("#pad", *LINE)
    page.wait_for(f"{RESTS} && {SHARES}.every(Boolean)")
    found = page.evaluate(IMAGES)
    page.click("[data-prepare=none]")
    page.wait_for(f"{RESTS} && {IMAGES}[0] !== {json.dumps(found[0])}")
    whole = page.evaluate(IMAGES)
    assert all(src.startswith("data:image/png;base64,") for src in found + whole)
    assert len(set(found + whole)) == 3  # as it is, both get the same
    page.click("[data-prepare=auto]")
    page.wait_for(f"{RESTS} && {IMAGES}[0] === {json.dumps(found[0])}")
    page.click("#clear")
    assert page.evaluate(SHARES) == [""] * 20


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_a_test_sample_on_the_board_is_the_same_until_it_is_changed(page, name):
    page.press(name[0])
    page.wait_for(f"{RESTS} && drawn[0].data === '{name}'")
    shares, pixels = page.evaluate(SHARES), page.evaluate("seen.samples.pixels")
    page.click("#lift")
    page.wait_for(f"view === 'draw' && {RESTS} && {SHARES}.every(Boolean)")
    assert page.evaluate(SHARES) == shares
    assert "labelled" in page.evaluate('$("taken").textContent')
    difference = f"""(async () => {{
      const read = async src => {{ const image = new Image(); image.src = src; await image.decode();
        const canvas = Object.assign(document.createElement("canvas"), {{ width: 32, height: 32 }});
        const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0);
        return pen.getImageData(0, 0, 32, 32).data; }};
      const [a, b] = [await read({json.dumps(pixels)}), await read({IMAGES}[0])];
      return a.reduce((sum, value, i) => sum + (value !== b[i] ? 1 : 0), 0); }})()"""
    assert page.evaluate(difference) == 0
    page.click("#pad", (0.5, 0.3), (0.5, 0.7))  # the rubber is in the hand
    page.wait_for(f"{RESTS} && {IMAGES}[0] !== {json.dumps(pixels)}")
    changed = page.evaluate(difference)
    assert 0 < changed < 3 * 32 * 32 / 3
    page.press("r")
    assert page.evaluate("tool") == "pen"
    page.press("c")
    assert page.evaluate("[prepare.draw, taken]") == ["auto", ""]


def test_a_lifted_sample_does_not_show_the_answer_to_what_was_on_the_board(page):
    page.click("[data-view=draw]")
    page.click("#pad", *LINE)
    page.wait_for(f"{RESTS} && {SHARES}.every(Boolean)")
    page.click("[data-view=samples]")
    page.evaluate(
        "let answered; const real = ask; "
        "ask = async (...of) => { await answered; return real(...of); }"
    )
    page.evaluate("let free; answered = new Promise(done => free = done); 0")
    page.click("#lift")
    page.wait_for("view === 'draw' && sent.busy")
    assert page.evaluate(SHARES) == [""] * 20  # its own is still being computed
    page.evaluate("free()")
    page.wait_for(f"{RESTS} && {SHARES}.every(Boolean)")


def test_files_and_examples_in_a_browser(served, page, tmp_path, monkeypatch):
    text, blank, huge = (tmp_path / name for name in ("notes.png", "blank.png", "huge.png"))
    text.write_text("this is no picture")
    blank.write_bytes(png(np.zeros((64, 64), np.uint8)))
    huge.write_bytes(bytes(2000))
    notice = '$("notice").textContent'
    page.click("[data-view=photo]")
    page.choose_file("#file", text)
    assert page.wait_for(f"{RESTS} && {notice}").startswith("The file is not a readable picture")
    page.choose_file("#file", blank)
    page.wait_for(f'!{notice} && {SAID}.every(said => said === "Blank: no ink was found")')
    count = page.wait_for('all("#examples button").length')
    for i in range(count):
        before = page.evaluate(IMAGES)
        page.click(f"#examples button:nth-child({i + 1})")
        page.wait_for(
            f"{RESTS} && {SHARES}.every(Boolean) && {IMAGES} + '' !== '{','.join(before)}'"
        )
    monkeypatch.setattr(server, "LIMIT", 1000)
    page.open(served.url)
    page.wait_for(f"limit === 1000 && drawn.length && {RESTS}")
    page.choose_file("#file", huge)
    assert page.wait_for(f"{RESTS} && {notice}").startswith("The file is too large")


def test_while_a_picture_is_read_no_earlier_answer_stands_beside_it(page):
    page.click("[data-view=photo]")
    page.wait_for('all("#examples button").length')
    page.click("#examples button:nth-child(1)")
    page.wait_for(f"{RESTS} && {SHARES}.every(Boolean)")
    page.evaluate("""(() => {
      const old = fetch; self.held = [];
      self.fetch = (path, ...more) => path.startsWith("api/picture") ? new Promise(done => {
        held.push(() => done(old(path, ...more))); }) : old(path, ...more); })()""")
    empty = [["", ""], [""] * 20]
    page.click("#examples button:nth-child(2)")
    page.wait_for("held.length === 1")
    assert [page.evaluate(IMAGES), page.evaluate(SHARES)] == empty
    assert page.evaluate('$("notice").textContent') == "Reading the picture …"
    page.click("#examples button:nth-child(3)")
    page.wait_for("Boolean(sent.next)")
    page.evaluate("held.shift()()")
    page.wait_for("held.length === 1")  # the second's answer has come, and is nobody's any more
    assert [page.evaluate(IMAGES), page.evaluate(SHARES)] == empty
    page.evaluate("held.shift()()")
    page.wait_for(f"{RESTS} && {SHARES}.every(Boolean)")
    assert "small and in a corner" in page.evaluate("seen.photo.spoken")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(served, page, dark):
    """WCAG 2.2 AA, as far as a machine can tell."""
    page.view(1280, 900, dark=dark)
    page.open(served.url)
    page.wait_for(f"{RESTS} && drawn.length")
    for view in ("samples", "draw", "photo"):
        page.click(f"[data-view={view}]")
        assert page.accessibility() == [], view


def test_on_a_phone_both_answers_are_in_sight(page):
    page.view(400, 800, phone=True)
    seen = """all(".answer").map(answer => { const f = answer.getBoundingClientRect();
      const top = document.elementFromPoint(f.left + f.width / 2, f.top + f.height / 2);
      return f.width > 99 && f.top >= 0 && f.bottom < innerHeight + 1 && answer.contains(top); })"""
    for view in ("samples", "draw", "photo"):
        page.click(f"[data-view={view}]")
        assert page.evaluate("scrollY") == 0
        assert page.evaluate(seen) == [True, True]
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        if view == "draw":
            page.click("#pad", *LINE)
            page.wait_for(f"{RESTS} && {SHARES}.every(Boolean)")
            assert page.evaluate("scrollY") == 0
    page.click("#examples button")
    page.wait_for(f"{RESTS} && seen.photo")
    assert page.evaluate(seen) == [True, True]


# The script


def settle(page):
    """Wait until the step's answer is there; return what the screen reader was told of it."""
    page.wait_for(RESTS)
    with contextlib.suppress(AssertionError):  # nothing is told where the answer is the same
        page.wait_for("told.length", 5)
    told = page.evaluate("told.splice(0)")
    assert len(told) <= 1, told
    return told


def rub(page):
    page.click("#pad", (0.3, 0.2), (0.3, 0.4), (0.4, 0.3))


def three(page):
    page.click("#pad", *THREE)


def both_misread(page):
    wrong = "drawn.findIndex(s => MODELS.every(m => most(s.answers[m].probabilities) !== s.label))"
    if index := page.evaluate(wrong):
        page.click(f"#strip button:nth-child({index + 1})")
        settle(page)


def each_example(page):
    count = page.evaluate('all("#examples button").length')
    for i in [*range(count), 3]:
        page.click(f"#examples button:nth-child({i + 1})")
        settle(page)
    page.click("#photo", (0.52, 0.22), (0.9, 0.85))  # a square around the 4


# What the words beside a key or button say, before and after it.
BEFORE = {"To the drawing board": both_misread}
AFTER = {"To the drawing board": rub, "D": three, "P": each_example}


def test_the_script_literally(page):
    page.evaluate("""self.told = [];
      new MutationObserver(changes => changes.forEach(change => change.addedNodes.forEach(
        node => told.push(node.textContent)))).observe($("said"), { childList: true })""")
    page.wait_for("$('said').textContent")
    page.evaluate("told.splice(0)")
    seen, steps = {}, []
    for minute, does, _, _ in STEPS:
        for key, button in re.findall(r"<kbd>(.)</kbd>|\*([^*]+)\*", does):
            BEFORE.get(button, lambda page: None)(page)
            if key:
                page.press({"→": "ArrowRight"}.get(key, key.lower()))
            else:
                index = page.evaluate(f"""(() => {{ const every = all("button");
                  every.forEach((one, i) => one.dataset.index = i); return every.findIndex(one =>
                  one.textContent === {json.dumps(button)} && one.offsetParent); }})()""")
                page.click(f'[data-index="{index}"]')
            if button != "Test samples":  # which is shown from the first
                steps.append(settle(page))
            if after := AFTER.get(button or key):
                after(page)
                steps.append(settle(page))
        seen[int(minute)] = json.loads(
            page.evaluate("JSON.stringify([view, filter, at, paper, prepare, tool, taken])")
        )
    assert [(view, *f.values()) for view, f, *_ in map(seen.get, range(1, 11))] == [
        ("samples", "mnist", "", ""), ("samples", "svhn", "", ""),
        ("samples", "svhn", "", "svhn"), ("samples", "mnist", "", "mnist"),
        ("samples", "mnist", "", "mnist"), ("draw", "mnist", "1", "mnist"),
        ("samples", "svhn", "", ""), ("samples", "mnist", "0", "svhn"),
        ("draw", "mnist", "0", "svhn"), ("photo", "mnist", "0", "svhn"),
    ]  # fmt: skip
    # The networks here are not trained: of a changed digit they may say what they said before.
    assert sum(not told for told in steps) <= 2, steps
    prepared = {"draw": "none", "photo": "auto"}
    assert seen[1][2] == 2 and seen[6][5:] == ["rubber", seen[6][6]] and seen[6][6]
    # The sample of minute 6 is gone from the board, and with it the rubber.
    assert seen[9][3:] == ["white", prepared, "pen", ""]


def test_the_script_names_figures_that_the_report_has():
    named = set(re.findall(r"`(fig-[a-z-]+)`", SCRIPT))
    assert len(named) > 10 and [int(minute) for minute, *_ in STEPS] == list(range(1, 11))
    there = set()
    for chapter in (ROOT / "chapters").glob("[0-9]*.qmd"):
        there |= set(re.findall(
            r"^(?:#\| label: |:::+ *\{#)(fig-[a-z-]+)", chapter.read_text("utf-8"), re.MULTILINE
        ))  # fmt: skip
    assert named <= there, named - there
