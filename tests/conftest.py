"""Shared by all tests: one thread each, a results tree of one's own, the count of faults."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal

import pytest

# Started in the background of a script, pytest ignores Ctrl-C, and so would the commands it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: the networks here are tiny, and one thread is then the fastest.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

SLOW = {"browser", "packed", "project", "machines"}  # fixtures: Chromium, an archive, a cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever drives a browser, packs an archive or starts a cluster is slow."""
    for item in items:
        if SLOW.intersection(item.fixturenames):
            item.add_marker("slow")


FAULTS: dict[str, list[int]] = {}  # by kind: tried, survived


class Faults:
    """Counts the faults that the reliability tests inject, for the summary at the end."""

    def add(self, kind: str, tried: int, survived: int) -> None:
        """Count `tried` faults of a kind, of which `survived` did no harm."""
        count = FAULTS.setdefault(kind, [0, 0])
        count[0] += tried
        count[1] += survived

    @contextlib.contextmanager
    def one(self, kind: str):
        """Count one fault: survived unless the body raises."""
        try:
            yield
        except BaseException:
            self.add(kind, 1, 0)
            raise
        self.add(kind, 1, 1)


@pytest.fixture(scope="session")
def faults() -> Faults:
    """The session's count of faults."""
    return Faults()


@functools.cache
def toy_data(name: str):
    """The toy data, made once: it takes a second."""
    from digitcnn import toy

    return toy.READERS[name]()


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """An empty results tree of the quick profile, away from the project's."""
    from digitcnn import toy

    for name in toy.READERS:
        images, labels = toy_data(name)
        monkeypatch.setitem(
            toy.READERS, name, lambda images=images, labels=labels: (images.copy(), labels)
        )
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.delenv("DIGITCNN_DATA", raising=False)
    monkeypatch.delenv("DIGITCNN_TRAIN", raising=False)
    monkeypatch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
    return tmp_path


@pytest.fixture
def browser():
    """A page in headless Chromium."""
    from browser import CHROMIUM, Browser

    if not CHROMIUM:
        pytest.skip("There is no Chromium on this machine: install the package chromium.")
    with Browser() as page:
        yield page


def png(pixels) -> bytes:
    """The content of a PNG file with these pixels, uint8 (H, W) or (H, W, 3)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def one_sentence(error: BaseException) -> str:
    """The text of an error, after checking that it is one printable sentence."""
    text = str(error)
    assert "\n" not in text and text.isprintable() and text.endswith(".") and len(text) < 600, text
    return text


def pytest_terminal_summary(terminalreporter) -> None:
    """Say what the reliability tests tried and what was lost."""
    if not FAULTS:
        return
    terminalreporter.section("reliability")
    for kind, (tried, survived) in sorted(FAULTS.items()):
        terminalreporter.line(f"{kind:<44} {tried:>6,} tried {survived:>6,} survived")
    tried, survived = (sum(count[i] for count in FAULTS.values()) for i in (0, 1))
    terminalreporter.line(f"{tried:,} faults tried, {survived:,} survived, {tried - survived} lost")
