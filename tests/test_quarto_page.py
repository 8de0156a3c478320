"""Quarto's own pages of the report in a real browser, where there is Quarto and Chromium."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
browser = pytest.importorskip("browser")

import environment  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.CHROMIUM, reason="there is no Chromium"),
    pytest.mark.skipif(not environment.quarto(), reason="there is no Quarto of 1.9 or newer"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository here"),
]
WIDE, PHONE = (1280, 900), (400, 800)
VIEWS = [(WIDE, False), (WIDE, True), (PHONE, False), (PHONE, True)]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The tracked files, rendered by a plain `quarto render`."""
    root = tmp_path_factory.mktemp("quarto")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    done = subprocess.run(
        [environment.quarto(), "render"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return root / "_book"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A browser loads Quarto's scripts from a server only."""

    def log_message(self, *about: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(book):
    handler = functools.partial(Quiet, directory=book)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page():
    with browser.Browser() as page:
        yield page


@pytest.mark.parametrize(("size", "dark"), VIEWS, ids=["wide", "wide-dark", "phone", "phone-dark"])
def test_its_pages_are_as_good_as_the_other_renderers(book, address, page, size, dark):
    """No other host, no image without alternative text, no scrolling sideways, WCAG 2.2 AA."""
    found = {}
    for path in sorted(book.rglob("*.html")):
        name = path.relative_to(book).as_posix()
        page.view(*size, phone=size == PHONE, dark=dark)
        page.open(address + name)
        inside = (address, "data:", "blob:")
        width = page.evaluate("document.documentElement.scrollWidth")
        found[name] = [
            *(url for url in page.requests if not url.startswith(inside)),
            *(error for error in page.errors if "favicon" not in error),
            *page.evaluate("[...document.images].filter(i => !i.alt).map(i => i.src)"),
            *page.accessibility(),
            *[f"{width} px wide"] * (width > size[0]),
        ]
    assert len(found) >= 9
    assert {name: what for name, what in found.items() if what} == {}
