"""The project: its configuration, its documents in order, and what is frozen of them."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from digitcnn.files import DigitcnnError

FORMATS = {"html": "html", "pdf": "typ"}  # the name of the frozen file: the ending of the output
CELL = re.compile(
    r"^([\t >]*)(```+)\s*\{python\b[^}\n]*\}[ \t]*\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL
)


class Problem(DigitcnnError):
    """Something the user has to put right; its text is the whole message."""


def merge(base, over):
    """Merge a profile over the configuration as Quarto does: lists are joined, maps are merged."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{k: merge(base[k], v) if k in base else v for k, v in over.items()}}
    if isinstance(base, list) or isinstance(over, list):
        both = [x for v in (base, over) for x in (v if isinstance(v, list) else [v])]
        return [x for i, x in enumerate(both) if x not in both[:i]]
    return over


def read_yaml(path: Path) -> dict:
    """Read a YAML file that holds a map; a file that does not exist is an empty map."""
    try:
        return yaml.safe_load(path.read_text("utf-8")) or {} if path.exists() else {}
    except yaml.YAMLError as err:
        raise Problem(f"{path.name} is not valid YAML: {' '.join(str(err).split())}.") from err


def load_config(root: Path, profile: str = "") -> dict:
    """Read ``_quarto.yml`` and merge the file of the active profile over it."""
    if not (root / "_quarto.yml").exists():
        raise Problem(f"{root} has no _quarto.yml; give the project's folder with --project.")
    config = read_yaml(root / "_quarto.yml")
    return merge(config, read_yaml(root / f"_quarto-{profile}.yml")) if profile else config


def items(config: dict) -> list[dict]:
    """The book's documents in order, each with its ``kind``, chapter or appendix, and ``file``."""
    book, found = config.get("book") or {}, []
    for kind, key in (("chapter", "chapters"), ("appendix", "appendices")):
        for file in book.get(key) or []:
            if not isinstance(file, str):
                raise Problem(f"_quarto.yml: book: {key} may only name files, not {file}.")
            found.append({"kind": kind, "file": file})
    return found


def option(key: str, config: dict, default=None):
    """An option of the project, or of its HTML format."""
    return config.get(key, of_format(config, "html").get(key, default))


def of_format(config: dict, name: str) -> dict:
    """The options of a format, by Quarto's name for it."""
    own = (config.get("format") or {}).get(name)
    return own if isinstance(own, dict) else {}  # "default" stands for none


def book_info(config: dict) -> dict:
    """Title, subtitle, authors (a list), date and language of the book as plain text."""
    book = config.get("book") or {}
    authors = book.get("author") or []
    date = str(book.get("date") or "")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        day = datetime.date.fromisoformat(date)
        date = f"{day.day} {day:%B %Y}"
    words = {key: str(book.get(key) or "") for key in ("title", "subtitle")}
    authors = [str(name) for name in (authors if isinstance(authors, list) else [authors])]
    return {**words, "author": authors, "date": date, "lang": str(config.get("lang") or "en-GB")}


def output_stem(config: dict, root: Path) -> str:
    """The name of the PDF, without ending, by Quarto's rule."""
    book = config.get("book") or {}
    name = str(book.get("output-file") or book.get("title") or root.name)
    return re.sub(r"[ <>()|:&;#?*'\\/]", "-", name)


def document_hash(path: Path) -> str:
    """The hash that Quarto's freezer gives a document (MD5, with LF line endings)."""
    return hashlib.md5(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def read_source(path: Path, root: Path) -> str:
    """A document's text. Raises `Problem` for what is not known here."""
    name = os.path.relpath(path, root)
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        raise Problem(f"{name} does not exist, but the book names it.") from None
    known = "is not what the renderer without Quarto knows; do without it or render with Quarto"
    if text.startswith("---\n"):
        raise Problem(f"{name}: a YAML header {known}.")
    if found := re.search(r"\{\{<.*?>\}\}", text):
        raise Problem(f"{name}: the shortcode {found[0]} {known}.")
    return text


def passages(source: str) -> Iterator[tuple[str, dict, str | None]]:
    """Each passage of text with the options and code of the cell after it (at the end: None)."""
    position = 0
    for match in CELL.finditer(source):
        lines = match[3].splitlines(keepends=True)
        count = next((i for i, x in enumerate(lines) if not x.startswith("#|")), len(lines))
        own = yaml.safe_load("".join(x[2:].removeprefix(" ") for x in lines[:count])) or {}
        yield source[position : match.start()], own, "".join(lines[count:]).strip("\n")
        position = match.end()
    yield source[position:], {}, None


def load_document(root: Path, item: dict, fmt: str, freeze: Path | None, config: dict) -> dict:
    """What book.lua needs of one document: its Markdown, places and options.

    Without a `freeze` folder its cells have no outputs: enough to know what is numbered how.
    """
    from .cells import outline

    file = item["file"]
    path, frozen = root / file, ""
    text = read_source(path, root)
    if not freeze:
        text = outline(text, fmt)
    elif CELL.search(text):
        folder = freeze / Path(file).with_suffix("")
        result = folder / "execute-results" / f"{FORMATS[fmt]}.json"
        remedy = "run `make report`"
        if not result.exists():
            raise Problem(f"{file} has no frozen results for {fmt}; {remedy}.")
        try:
            data = json.loads(result.read_text("utf-8"))
            text = data["result"]["markdown"]
        except (ValueError, KeyError, TypeError):
            raise Problem(f"{file} has unreadable frozen results for {fmt}; {remedy}.") from None
        if data.get("hash") != document_hash(path):
            raise Problem(f"{file} has changed since its results were frozen; {remedy}.")
        frozen = str(folder.resolve())
    return {
        **item,
        "markdown": text,
        "dir": str(path.parent),
        "stem": path.stem,
        "frozen": frozen,
        "code_fold": str(option("code-fold", config, False)).lower(),
        "code_summary": str(option("code-summary", config, "Code")),
    }
