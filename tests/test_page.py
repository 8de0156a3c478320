"""The page of the renderer without Quarto in a real browser: narrow, wide, dark, by keyboard."""

import json

import pytest

browser = pytest.importorskip("browser")
pytest.importorskip("pypandoc")
pytest.importorskip("typst")

from tiny import make_book, offline, run  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.CHROMIUM, reason="there is no Chromium"),
]
WIDE, PHONE = (1280, 900), (400, 800)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = make_book(tmp_path_factory.mktemp("page") / "book")
    model = root / "chapters/02-model.qmd"
    wide = "| " + " | ".join(f"column{n}" for n in range(12)) + " |\n" + "|--" * 12 + "|\n"
    wide += "| " + " | ".join(["number"] * 12) + " |\n\n: A wide one {#tbl-wide}\n\n"
    wide += "$$ " + " + ".join(f"x_{{{n}}}" for n in range(60)) + " = 1 $$ {#eq-wide}\n\n"
    model.write_text(model.read_text() + "\n\n" + wide + "A paragraph about zebras.\n\n" * 30)
    assert run(root, "--to", "html") == 0
    return (root / "_book" / "index.html").as_uri()


@pytest.fixture(scope="module")
def page():
    with browser.Browser() as page:
        yield page


def value(page, script):
    return page.evaluate(script)


def test_it_asks_for_nothing_and_has_no_error(page, address):
    page.view(*WIDE)
    page.open(address)
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.errors == []


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_but_tables_scrolls_sideways_and_these_say_so(page, address, size):
    page.view(*size, phone=size == PHONE)
    page.open(address)
    assert value(page, "document.documentElement.scrollWidth") == size[0]
    said = "getComputedStyle(document.querySelector('#tbl-wide .scroll'), '::after').content"
    assert "sideways" in value(page, said)
    assert value(page, "document.querySelector('#tbl-wide .scroll').tabIndex") == 0
    assert value(page, "document.querySelector('#tbl-pipe .scroll').tabIndex") == -1


def test_on_a_phone_the_title_comes_first_and_the_contents_open_by_a_tap(page, address):
    page.view(*PHONE, phone=True)
    page.open(address)
    assert value(page, "document.querySelector('h1.title').getBoundingClientRect().bottom") < 300
    assert not value(page, "document.querySelector('nav details').open")
    page.click("nav summary")
    page.wait_for("document.querySelector('nav details').open")


def test_the_contents_follow_what_is_read(page, address):
    page.view(*WIDE)
    page.open(address)
    for label in ("sec-model", "sec-counted"):
        value(page, f"document.getElementById('{label}').scrollIntoView({{behavior: 'instant'}})")
        page.wait_for(f"document.querySelector('nav [aria-current]').hash === '#{label}'")
    assert value(page, "document.querySelector('nav [aria-current]').offsetParent !== null")


def test_every_heading_and_figure_has_a_link_to_itself_that_shows_by_keyboard(page, address):
    page.view(*WIDE)
    page.open(address)
    hashes = "[...document.querySelectorAll('main :is(h1, h2, h3) .anchor')].map(a => a.hash)"
    assert {"#sec-model", "#sec-counted"} <= set(value(page, hashes))
    link = "document.querySelector('#fig-wave figcaption .anchor')"
    assert value(page, f"getComputedStyle({link}).opacity") == "0"
    value(page, f"{link}.focus()")
    assert value(page, f"getComputedStyle({link}).opacity") == "1"
    page.press("Enter")
    page.wait_for("document.querySelector(':target')?.id === 'fig-wave'")


def test_the_search_finds_and_leads_there(page, address):
    page.view(*WIDE)
    page.open(address)
    page.click("#search")
    for key in "zebras paragraph":
        page.press(key)
    assert value(page, "document.querySelector('nav output').textContent") == "30 places"
    page.press("Tab")
    page.press("Enter")
    page.wait_for("document.querySelector(':target')?.textContent.includes('zebras')")
    where = "document.querySelector(':target').getBoundingClientRect()"
    assert 0 < value(page, f"{where}.top") < WIDE[1]


def test_a_figure_enlarges_by_click_and_by_keyboard_and_escape_closes_it(page, address):
    page.view(*WIDE)
    page.open(address)
    opened = "document.querySelector('dialog').open"
    page.click("#fig-wave img")
    page.wait_for(opened)
    assert value(page, "document.querySelector('dialog img').alt") == "It's a wave"
    page.press("Escape")
    page.wait_for(f"!{opened}")
    value(page, "document.querySelector('#fig-wave .zoom').focus()")
    page.press("Enter")
    page.wait_for(opened)
    name = "document.querySelector('#fig-wave .zoom').ariaLabel"
    assert value(page, name) == "Enlarge Figure\u00a01.1"


def test_dark_is_what_the_system_prefers_until_the_button_says_otherwise(page, address):
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    page.view(*WIDE, dark=True)
    page.open(address)
    assert max(value(page, ground)) < 60
    shown = "getComputedStyle(document.querySelector('#fig-wave img')).filter"
    assert "brightness" in value(page, shown)
    page.click("#theme")
    assert min(value(page, ground)) > 240 and value(page, shown) == "none"


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(page, address, size, dark):
    """WCAG 2.2 AA, as far as a machine can tell."""
    page.view(*size, phone=size == PHONE, dark=dark)
    page.open(address)
    value(page, "document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.accessibility() == []
    value(page, "document.querySelector('main').append(document.createElement('img'))")
    assert [rule.partition(":")[0] for rule in page.accessibility()] == ["image-alt"]


def test_axe_finds_nothing_in_the_report(page, tmp_path, monkeypatch):
    """The frozen report, as a reader gets it."""
    monkeypatch.setattr(browser, "LIMIT", 600.0)
    assert offline.main(["--to", "html", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").stat().st_size < 10_000_000
    for size, dark in ((WIDE, False), (WIDE, True), (PHONE, False)):
        page.view(*size, phone=size == PHONE, dark=dark)
        page.open(address := (tmp_path / "index.html").as_uri())
        assert {url for url in page.requests if not url.startswith("data:")} == {address}
        assert page.errors == [] and value(page, "document.documentElement.scrollWidth") == size[0]
        assert page.accessibility() == [], (size, dark)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_stand_out_from_their_ground(page, address, dark):
    """WCAG 2.2 AA: a contrast of 4.5 for every kind of text."""
    page.view(*WIDE, dark=dark)
    page.open(address)
    found = json.loads(value(page, CONTRAST))
    assert found["seen"] > 100 and found["weak"] == []


CONTRAST = """JSON.stringify((() => {
  document.querySelectorAll("details").forEach(details => details.open = true);
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => rgba(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = at => !at || rgba(getComputedStyle(at).backgroundColor)[3] > 250
    ? getComputedStyle(at || document.body).backgroundColor : ground(at.parentElement);
  const texts = [...document.querySelectorAll("body *")].filter(at => at.checkVisibility({
    checkOpacity: true }) && [...at.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const weak = texts.filter(at => {
    const pair = [light(getComputedStyle(at).color), light(ground(at))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05) < 4.5;
  });
  return { seen: texts.length, weak: weak.map(at => at.outerHTML.slice(0, 120)) };
})())"""
