"""Render the Quarto book without Quarto: one self-contained HTML file and one PDF.

The book's results are frozen Markdown (``_freeze/…/execute-results/{html,typ}.json``), so all that
is needed to read the report is pandoc and Typst, both of which come as Python wheels
(``pypandoc-binary`` and ``typst``).  This script reads ``_quarto.yml`` and the frozen documents,
lets ``portable.lua`` number and cross-reference them the way Quarto does, and has pandoc write
HTML and Typst.  A document whose frozen results are missing or stale is refused by name.

    python tools/portable.py                       # _book/index.html and _book/<title>.pdf
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import datetime
import functools
import hashlib
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
FORMATS = {"html": ("html", "figure-html"), "pdf": ("typ", "figure-typst")}  # json, figure folder
CELL = re.compile(
    r"^([\t >]*)(```+)\s*\{python\b[^}\n]*\}[ \t]*\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL
)
INLINE = re.compile(r"(?<!`)`\{python\}\s+([^`\n]+)`")
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
SHORTCODE = re.compile(r"(\{?)\{\{<\s*(.*?)\s*>\}\}(\}?)")
TEMPLATE = """<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
{header}</head>
<body>
{banner}<nav id="TOC" aria-label="Contents"><p class="book">{title}</p>
$toc$
</nav>
<main>
<header>
<h1 class="title">{title}</h1>
{lines}</header>
$body$
</main>
</body>
</html>
"""


class Problem(Exception):
    """Something the user has to put right; its text is the whole message."""


# Project configuration and documents -------------------------------------------------------------


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


def load_config(root: Path, profiles: list[str]) -> dict:
    """Read ``_quarto.yml`` and merge the files of the active profiles over it."""
    if not (root / "_quarto.yml").exists():
        raise Problem(f"{root} has no _quarto.yml; give the project's folder with --project.")
    config = read_yaml(root / "_quarto.yml")
    for profile in reversed(profiles):
        config = merge(config, read_yaml(root / f"_quarto-{profile}.yml"))
    return config


def split_front_matter(text: str, name: str) -> tuple[dict, str]:
    """Split a document into its YAML front matter and its body."""
    match = FRONT_MATTER.match(text)
    if not match:
        return {}, text
    try:
        meta = yaml.safe_load(match[1])
    except yaml.YAMLError as err:
        raise Problem(f"{name}: the front matter is not valid YAML.") from err
    return (meta, text[match.end() :]) if isinstance(meta, dict) else ({}, text)


def items(config: dict) -> list[dict]:
    """List the book's documents in order; a part is an item with a title or a file of its own."""
    found: list[dict] = []

    def add(entries, kind):
        for entry in entries or []:
            entry = entry if isinstance(entry, dict) else {"file": entry}
            if "part" in entry:
                is_file = str(entry["part"]).endswith(".qmd")
                found.append({"kind": "part", "file" if is_file else "title": entry["part"]})
                add(entry.get("chapters"), kind)
            else:
                found.append({"kind": kind, "file": entry.get("file") or entry.get("href")})

    book = config.get("book") or {}
    add(book.get("chapters"), "chapter")
    if book.get("appendices"):
        found.append({"kind": "part", "title": "Appendices"})
        add(book["appendices"], "appendix")
    return sorted(found, key=lambda item: item.get("file") != "index.qmd")  # the index comes first


def option(key: str, config: dict, meta: dict, default=None):
    """Look up a document option: front matter first, then ``_quarto.yml``, then its html format."""
    for source in (meta, config):
        formats = source.get("format")
        nested = formats.get("html") if isinstance(formats, dict) else None
        for place in (source, nested if isinstance(nested, dict) else {}):
            if key in place:
                return place[key]
    return default


def execution(fmt: str, config: dict, meta: dict) -> dict:
    """Options of a document's cells in a format: front matter, else ``_quarto.yml``.

    In each of the two, what is said of the format counts before what is said of all.
    """
    found = dict(OUTLINE)
    for source in (config, meta):
        formats = source.get("format")
        formats = formats if isinstance(formats, dict) else {}
        nested = formats.get("typst" if fmt == "pdf" else fmt)
        nested = nested if isinstance(nested, dict) else {}
        found |= source.get("execute") or {}
        found |= {key: nested[key] for key in DEFAULTS if key in nested}
    return found


def read_source(path: Path, root: Path) -> str:
    """Read a document with its ``{{< include >}}`` files in place."""
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        name = os.path.relpath(path, root)
        raise Problem(f"{name} does not exist, but the book names it.") from None

    def include(match):
        base = root if match[1].startswith("/") else path.parent
        return read_source((base / match[1].lstrip("/")).resolve(), root)

    return re.sub(r"(?<!\{)\{\{<\s*include\s+(\S+)\s*>\}\}", include, text)


def shortcodes(text: str, name: str, config: dict, meta: dict, root: Path) -> str:
    """Replace the shortcodes meta, var, env and pagebreak; drop others with a warning."""

    def replace(match):
        if match[1] or match[3]:  # {{{< … >}}} is how a shortcode is shown as text
            return match[0][len(match[1]) : len(match[0]) - len(match[3])]
        words = match[2].split() or [""]
        if words[0] == "pagebreak":
            return "\n\n```{=typst}\n#pagebreak(weak: true)\n```\n\n"
        places = {"meta": (meta, config), "var": (read_yaml(root / "_variables.yml"),)}
        for place in places.get(words[0], ()):
            for key in words[1].split("."):
                place = place.get(key) if isinstance(place, dict) else None
            if place is not None:
                return str(place)
        if words[0] == "env" and len(words) > 1:
            return os.environ.get(words[1], words[2] if len(words) > 2 else "")
        warn(f"{name}: the shortcode {match[0]} is not supported and was left out")
        return ""

    return SHORTCODE.sub(replace, text)


def warn(message: str) -> None:
    """Print a warning line."""
    print(f"warning: {message}", file=sys.stderr)


def document_hash(path: Path) -> str:
    """Return the hash that Quarto's freezer gives a document (MD5, with LF line endings)."""
    return hashlib.md5(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def frozen_dir(freeze: Path, file: str) -> Path:
    """Return the folder of a document's frozen results."""
    return freeze / Path(file).with_suffix("")


def load_document(root: Path, item: dict, fmt: str, freeze: Path | None, config: dict) -> dict:
    """Return what portable.lua needs of one item: its Markdown, title, places and options.

    Without a `freeze` folder its cells have no outputs: enough to know what is numbered how.
    """
    file = item.get("file")
    if not file:
        return {**item, "file": "", "markdown": "", "dir": str(root), "stem": "", "code_fold": ""}
    path = root / file
    source = read_source(path, root)
    meta, text = split_front_matter(source, file)
    frozen = header = ""
    if not freeze:
        text = "".join(
            passage + ("" if code is None else cell_markdown(fmt, code, own, OUTLINE | own))
            for passage, own, code in passages(text)
        )
    elif CELL.search(text) or "jupyter" in meta or meta.get("engine") == "jupyter":
        folder = frozen_dir(freeze, file)
        result = folder / "execute-results" / f"{FORMATS[fmt][0]}.json"
        remedy = "run `make report`"
        if not result.exists():
            raise Problem(f"{file} has no frozen results for {fmt}; {remedy}.")
        try:
            data = json.loads(result.read_text("utf-8"))
            executed = data["result"]["markdown"]
        except (ValueError, KeyError, TypeError):
            raise Problem(f"{file} has unreadable frozen results for {fmt}; {remedy}.") from None
        if data.get("hash") != document_hash(path):
            raise Problem(f"{file} has changed since its results were frozen; {remedy}.")
        meta, text = split_front_matter(executed, file)
        frozen = str(folder.resolve())
        parts = (data["result"].get("includes") or {}).get("include-in-header") or []
        # Jupyter asks for require.js from the network; a file that stands alone cannot have it.
        header = "\n".join(p for p in parts if not re.search(r"https?://", p))
    return {
        "kind": item["kind"],
        "file": file,
        "title": str(meta.get("title") or ""),
        "markdown": shortcodes(text, file, config, meta, root),
        "dir": str(path.parent),
        "stem": path.stem,
        "frozen": frozen,
        "header": header,
        "nocite": str(meta.get("nocite") or ""),
        "code_fold": str(option("code-fold", config, meta, False)).lower(),
        "code_summary": str(option("code-summary", config, meta, "Code")),
    }


# Rendering ---------------------------------------------------------------------------------------


def book_info(config: dict) -> dict:
    """Return the title, subtitle, authors and date of the book as plain text."""
    book = {**config, **(config.get("book") or {})}
    authors = book.get("author") or book.get("authors") or []
    names = []
    for author in authors if isinstance(authors, list) else [authors]:
        name = author.get("name", "") if isinstance(author, dict) else author
        names.append(" ".join(name.values()) if isinstance(name, dict) else str(name))
    date = str(book.get("date") or "")
    if date in ("today", "now", "last-modified"):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")  # for reproducible builds
        now = datetime.datetime.now(datetime.UTC)
        date = (datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else now).date()
        date = date.isoformat()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        day = datetime.date.fromisoformat(date)
        date = f"{day:%B} {day.day}, {day.year}"
    words = {key: str(book.get(key) or "") for key in ("title", "subtitle")}
    return {**words, "author": names, "date": date, "lang": str(config.get("lang") or "en")}


def output_stem(config: dict, root: Path) -> str:
    """Return the name of the PDF, without ending, by Quarto's rule."""
    book = config.get("book") or {}
    name = str(book.get("output-file") or book.get("title") or root.name)
    return re.sub(r"[ <>()|:&;#?*'\\/]", "-", name)


def run_pandoc(job: dict, config: dict, root: Path, extra: list[str]) -> str:
    """Run pandoc with portable.lua over the job; unresolved references are a Problem."""
    text, report = read_book(job, config, root, extra)
    for message in report["warnings"]:
        warn(message)
    if report["unresolved"]:
        raise Problem("Unresolved: " + "; ".join(report["unresolved"]) + ".")
    return text


def read_book(job: dict, config: dict, root: Path, extra: list[str]) -> tuple[str, dict]:
    """Run pandoc with portable.lua; return the text and what portable.lua reports of the book.

    The report has ``names`` (what each label is called: ``Figure 2.1``), ``unresolved`` references,
    citations and images, and ``warnings``.
    """
    import pypandoc

    work = Path(job["work"])
    (work / "job.json").write_text(json.dumps(job), "utf-8")
    target = {"html": "html5", "typst": "typst"}[job["format"]]
    command = [pypandoc.get_pandoc_path(), "--from=markdown", f"--to={target}", "--wrap=none"]
    command += [f"--metadata=job:{work / 'job.json'}", f"--lua-filter={HERE / 'portable.lua'}"]
    command += ["--citeproc", f"--log={work / 'log.json'}", "--quiet", *extra]
    for key in ("bibliography", "csl"):
        value = config.get(key) or []
        for path in value if isinstance(value, list) else [value]:
            command.append(f"--{key}={root / path}")
    done = subprocess.run(command, input="", capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise Problem(f"pandoc failed: {' '.join(done.stderr.split()) or done.returncode}")
    report = json.loads((work / "report.json").read_text("utf-8"))
    for key in ("unresolved", "warnings"):
        report[key] = list(report[key])  # Lua's empty table is a map
    for entry in json.loads((work / "log.json").read_text("utf-8")):
        if entry.get("type") == "CiteprocWarning":
            report["unresolved"].append(entry["message"])
        elif entry.get("verbosity") == "WARNING":
            report["warnings"].append(" ".join(entry.get("pretty", entry.get("type", "")).split()))
    report["unresolved"] = list(dict.fromkeys(report["unresolved"]))
    return done.stdout, report


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def render(
    root: Path, fmt: str, freeze: Path, output: Path, config: dict, banner="", profiles=()
) -> Path:
    """Render one format, "html" or "pdf", and return the file written."""
    info, depth = book_info(config), int(option("toc-depth", config, {}, 3))
    docs = [load_document(root, item, fmt, freeze, config) for item in items(config)]
    with tempfile.TemporaryDirectory() as work:
        job = new_job(docs, fmt, root, work, config, profiles)
        if fmt == "html":
            path = output / "index.html"
            data = to_html(job, config, root, info, banner, depth)
        else:
            path = output / f"{output_stem(config, root)}.pdf"
            data = to_pdf(run_pandoc(job, config, root, []), Path(work), info, banner, depth)
    write_whole(path, data)
    return path


def render_page(
    root: Path, document: str, freeze: Path, path: Path, config: dict, banner="", profiles=()
) -> Path:
    """Render one document alone as HTML; what it refers to elsewhere is only numbered."""
    docs = [
        load_document(root, item, "html", freeze if item.get("file") == f"{document}.qmd" else None,
                      config)
        for item in items(config)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        job = new_job(docs, "html", root, work, config, profiles) | {"only": f"{document}.qmd"}
        info = book_info(config)
        page = to_html(job, config, root, info, banner, int(option("toc-depth", config, {}, 3)))
    write_whole(path, page)
    return path


def new_job(docs: list, fmt: str, root: Path, work: str, config: dict, profiles=()) -> dict:
    """Return what portable.lua needs of the whole book."""
    numbered = option("number-sections", config, {}, True)
    nocite = [config.get("nocite"), *(doc.get("nocite") for doc in docs)]
    return {
        "format": "html" if fmt == "html" else "typst",
        "root": str(root),
        "work": work,
        "docs": docs,
        "profiles": list(profiles),
        "bibliography": bool(config.get("bibliography")),
        "nocite": " ".join(str(keys) for keys in nocite if keys),
        "number_depth": int(option("number-depth", config, {}, 6)) if numbered else 0,
    }


def references(docs: list, fmt: str, root: Path, config: dict) -> dict:
    """Return the ``names`` of all labels of the documents and what is ``unresolved``."""
    with tempfile.TemporaryDirectory() as work:
        return read_book(new_job(docs, fmt, root, work, config), config, root, [])[1]


def to_html(job: dict, config: dict, root: Path, info: dict, banner: str, depth: int) -> bytes:
    """Return the book as one HTML page that needs no other file."""
    esc, work = html.escape, Path(job["work"])
    authors = [("author", name) for name in info["author"]]
    lines = [("subtitle", info["subtitle"]), *authors, ("date", info["date"])]
    values = {
        "lang": esc(info["lang"]),
        "title": esc(info["title"]),
        "css": (HERE / "portable.css").read_text("utf-8"),
        "header": "".join(dict.fromkeys(doc.get("header") or "" for doc in job["docs"])),
        "banner": f'<div class="banner" role="note">{esc(banner)}</div>\n' if banner else "",
        "lines": "".join(f'<p class="{name}">{esc(text)}</p>\n' for name, text in lines if text),
    }
    values = {name: text.replace("$", "$$") for name, text in values.items()}  # pandoc's escape
    (work / "page.html").write_text(TEMPLATE.format(**values), "utf-8")
    extra = ["--standalone", f"--template={work / 'page.html'}", "--mathml", "--section-divs"]
    extra += ["--toc", f"--toc-depth={depth}", f"--metadata=pagetitle:{info['title']}"]
    extra += ["--reference-location=section", "--syntax-highlighting=pygments"]
    page = run_pandoc(job, config, root, extra)
    for tag in re.findall(r"<(?:script|img|link|iframe|source|video|audio)\b[^>]*>", page):
        if re.search(r"(?:src|href|srcset)\s*=\s*[\"']?(?:https?:)?//", tag):
            warn(f"index.html asks the network for {tag[:120]}")
    return page.encode("utf-8")


def to_pdf(text: str, work: Path, info: dict, banner: str, depth: int) -> bytes:
    """Compile the book's Typst text and return the PDF."""
    import typst

    quote = functools.partial(json.dumps, ensure_ascii=False)  # Typst strings look like JSON's
    authors = "".join(quote(name) + ", " for name in info["author"])
    (work / "book.typ").write_text(
        (HERE / "portable.typ").read_text("utf-8")
        + f"\n#show: book.with(title: {quote(info['title'])}, subtitle: {quote(info['subtitle'])}, "
        f"authors: ({authors}), date: {quote(info['date'])}, banner: {quote(banner)}, "
        f'lang: {quote(info["lang"].split("-")[0])}, toc: "Contents", depth: {depth})\n\n' + text,
        "utf-8",
    )
    try:
        return typst.compile(str(work / "book.typ"), root=str(work), ignore_system_fonts=True)
    except RuntimeError as err:  # the compiler's own error type derives from it
        raise Problem(f"Typst failed: {' '.join(str(err).split())}") from err


# Execution without Quarto ------------------------------------------------------------------------

# What Quarto runs first in every kernel, as far as it changes what a document shows.
SETUP = """
try:
    import matplotlib.pyplot as plt
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    plt.rcParams.update({{"figure.figsize": ({width}, {height}), "figure.dpi": {dpi},
                         "savefig.dpi": "figure"}})
    set_matplotlib_formats("retina", "svg")
except Exception:
    pass
try:
    import plotly.io
    plotly.io.renderers.default = "notebook"
except Exception:
    pass
"""
MIME = {  # the outputs that a format shows, best first (as Quarto orders them)
    "html": ("text/html", "text/markdown", "image/png", "image/svg+xml", "text/plain"),
    "pdf": ("text/markdown", "image/svg+xml", "image/png", "text/html", "text/plain"),
}
DEFAULTS = ["echo", "output", "warning", "include", "eval"]  # options that are on by default
OUTLINE = dict.fromkeys(DEFAULTS, True)
INTERNAL = [  # options that are not passed on as attributes of the cell
    *(*DEFAULTS, "error", "label", "classes", "column"),
    *("fig-cap", "fig-subcap", "fig-alt", "fig-align", "lst-cap", "lst-label"),
    *("code-fold", "code-summary"),
]


def execute(
    qmd_path: Path, folder: Path, root: Path, config=None, profiles=(), first="", last="", more=()
) -> str:
    """Run a document's Python cells in one kernel and write frozen results for both formats.

    `folder` is where they go; `first` and `last` are cells of the caller's, around the document's;
    returned is what the last one prints. `more` is added to the kernel's environment.
    """
    qmd_path = Path(qmd_path).resolve()
    root = root.resolve()
    config = load_config(root, list(profiles)) if config is None else config
    name = qmd_path.relative_to(root).as_posix()
    source = read_source(qmd_path, root)
    meta, _ = split_front_matter(source, name)
    defaults = {fmt: execution(fmt, config, meta) for fmt in FORMATS}
    size = {"width": 7, "height": 5, "dpi": 96}
    size = {key: option(f"fig-{key}", config, meta, value) for key, value in size.items()}
    environment = {
        **os.environ,
        "QUARTO_PROJECT_ROOT": str(root),
        "QUARTO_PROJECT_DIR": str(root),
        "QUARTO_DOCUMENT_PATH": str(qmd_path.parent),
        "QUARTO_DOCUMENT_FILE": qmd_path.name,
        "QUARTO_PROFILE": ",".join(profiles),
        "QUARTO_FIG_WIDTH": str(size["width"]),
        "QUARTO_FIG_HEIGHT": str(size["height"]),
        "QUARTO_FIG_DPI": str(size["dpi"]),
        "QUARTO_FIG_FORMAT": "retina",
        **dict(more),
    }
    texts: dict[str, list[str]] = {fmt: [] for fmt in FORMATS}
    figures: dict[str, dict[str, bytes]] = {fmt: {} for fmt in FORMATS}
    with kernel(name, root, environment) as run:  # in the root: execute-dir is project
        run(SETUP.format(**size), "the setup cell")
        if first:
            run(first, "the first cell")
        for number, (passage, own, code) in enumerate(passages(source), start=2):
            passage = inline(passage, run)
            for text in texts.values():
                text.append(passage)
            if code is None:
                break
            label = str(own.get("label") or f"cell-{number}")
            evaluated = (defaults["html"] | own)["eval"] and code  # once for both formats
            outputs = run(code, f"cell {label}").outputs if evaluated else []
            for fmt, text in texts.items():
                opts = defaults[fmt] | own
                text.append(
                    cell_markdown(fmt, code, own, opts, outputs, label, qmd_path.stem, figures[fmt])
                )
        told = run(last, "the last cell").outputs[-1].text if last else ""
    shutil.rmtree(folder, ignore_errors=True)
    for fmt, (ending, figure_folder) in FORMATS.items():
        for file, data in figures[fmt].items():
            write_whole(folder / figure_folder / file, data)
        result = {"engine": "jupyter", "markdown": "".join(texts[fmt])}
        result |= {"supporting": [f"{qmd_path.stem}_files"], "filters": [], "includes": {}}
        data = json.dumps({"hash": document_hash(qmd_path), "result": result}, indent=2)
        write_whole(folder / "execute-results" / f"{ending}.json", data.encode())
    return told


def passages(source: str):
    """Yield each passage of text with the options and code of the cell after it (end: None)."""
    position = 0
    for match in CELL.finditer(source):
        lines = match[3].splitlines(keepends=True)
        count = next((i for i, x in enumerate(lines) if not x.startswith("#|")), len(lines))
        own = yaml.safe_load("".join(x[2:].removeprefix(" ") for x in lines[:count])) or {}
        yield source[position : match.start()], own, "".join(lines[count:]).strip("\n")
        position = match.end()
    yield source[position:], {}, None


@contextlib.contextmanager
def kernel(name: str, folder: Path, environment: dict):
    """Start a Python kernel in a folder; yield a function that runs code there, as a cell."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    book, place = nbformat.v4.new_notebook(), {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        book, timeout=None, kernel_name="python3", resources=place, record_timing=False,
        extra_arguments=["--log-level=40"],  # else each start warns that it listens on localhost
    )  # fmt: skip

    def run(code: str, where: str):
        cell = nbformat.v4.new_code_cell(code)
        book.cells.append(cell)
        try:
            client.execute_cell(cell, len(book.cells) - 1)
        except (CellExecutionError, DeadKernelError) as err:
            what = f"{getattr(err, 'ename', type(err).__name__)}: {getattr(err, 'evalue', err)}"
            raise Problem(f"{name}, {where} failed with {' '.join(what.split())}") from None
        outputs = []  # the kernel may send what a cell prints in several pieces
        for out in cell.outputs:
            last = outputs[-1] if outputs else {}
            if out.output_type == "stream" and last.get("name") == out.name:
                last.text += out.text
            else:
                outputs.append(out)
        cell.outputs = outputs
        return cell

    with client.setup_kernel(env=environment):
        yield run


def inline(text: str, run) -> str:
    """Replace inline code, which Quarto evaluates in the kernel, by its value."""

    def value(match):
        outputs = run(match[1], f"inline code `{match[1].strip()}`").outputs
        data = next((o.data for o in outputs if o.output_type == "execute_result"), {})
        plain = data.get("text/plain", "")
        if "text/markdown" not in data and re.match(r"['\"]", plain):
            return str(ast.literal_eval(plain))
        return data.get("text/markdown", plain)

    return INLINE.sub(value, text)


def cell_markdown(fmt, code, own, opts, outputs=(), label="", stem="", figures=None) -> str:
    """Return one executed cell as the Markdown Quarto would write for it."""
    label = label or str(own.get("label") or "")
    if not opts["include"]:
        return ""
    asis, md = opts["output"] == "asis", []
    if opts["echo"] and code:
        ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
        kept = (key for key in ("lst-cap", "code-fold", "code-summary") if key in own)
        extra = "".join(f" {key}={quoted(own[key])}" for key in kept)
        listing = f"#{own['lst-label']} " if "lst-label" in own else ""
        md.append(f"{ticks} {{{listing}.python .cell-code{extra}}}\n{code}\n{ticks}\n")
    # Warnings as wanted; never the objects that matplotlib's functions return.
    artist = re.compile(r"\[?<(matplotlib|Axes|Figure)|Text\(")
    shown = []
    for out in outputs if opts["output"] else []:
        returned = out.output_type == "execute_result" and list(out.data) == ["text/plain"]
        if returned and artist.match(out.data["text/plain"]):
            continue
        if opts["warning"] or out.get("name") != "stderr":
            shown.append(out)
    displays = [o for o in shown if o.output_type in ("display_data", "execute_result")]
    # One displayed output takes the cell's label; of several, the cell does, and they are -1, -2, …
    caption, alt, table = own.get("fig-cap", ""), own.get("fig-alt"), label.startswith("tbl-")
    cross = table or label.startswith(("fig-", "lst-"))
    container = table or (cross and len(displays) != 1 and not isinstance(caption, list))
    captions = own.get("fig-subcap") if container else caption
    captions = captions if isinstance(captions, list) else ["" if container else captions]
    order = itertools.count()  # of the displayed outputs
    for n, out in enumerate(shown, 1):
        if out.output_type == "stream":
            box = f"\n::: {{.cell-output .cell-output-{out.name}}}\n{fenced(out.text)}:::\n"
            md.append(out.text if asis and out.name == "stdout" else box)
            continue
        i = next(order)
        ident = "" if table or not cross else f"#{label}-{i + 1} " if container else f"#{label} "
        words = " ".join(str(captions[i]).split()) if i < len(captions) else ""
        text = alt[i] if isinstance(alt, list) and i < len(alt) else alt
        image = output_image(fmt, out, f"{label}-output-{n}", stem, figures)
        if image:
            extra = f" fig-alt={quoted(text)}" if text else ""
            body, ident = f"![{words}]({image[0]}){{{ident}{image[1]}{extra}}}", ""
        else:
            body = output_text(fmt, out) + (f"\n{words}\n" if words else "")
        if asis:
            md.append(body + "\n")
        elif body:
            md.append(f"\n::: {{{ident}.cell-output .cell-output-display}}\n{body}\n:::\n")
    if asis or not md:
        return "".join(md)
    attributes = "".join(f" {k}={quoted(v)}" for k, v in own.items() if k not in INTERNAL)
    ident = f"#{label} " if container else ""
    tail = f"\n{caption}\n" if container and caption and not table else ""
    return f"::: {{{ident}.cell{attributes}}}\n{''.join(md)}{tail}:::\n"


def quoted(value) -> str:
    """Return a value the way pandoc reads it in attributes."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "'" + " ".join(text.split()).replace("'", "\\'") + "'"


def fenced(text: str, kind: str = "") -> str:
    """Return text in a code fence, without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip("\n")
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{kind}\n{text}\n{ticks}\n"


def best_mime(fmt, out) -> str:
    """Return the representation of an output that a format shows; HTML in a PDF must be a table."""
    wanted = (m for m in MIME[fmt] if m in out.data)
    return next(
        (m for m in wanted if fmt == "html" or m != "text/html" or "<table" in out.data[m]), ""
    )


def output_image(fmt, out, name, stem, figures) -> tuple[str, str] | None:
    """Put a displayed picture into ``figures``; return its path and its size as attributes."""
    mime = best_mime(fmt, out)
    if not mime.startswith("image/"):
        return None
    png = mime == "image/png"
    name += ".png" if png else ".svg"
    figures[name] = base64.b64decode(out.data[mime]) if png else out.data[mime].encode()
    size = out.metadata.get(mime, {}) if fmt == "html" else {}
    size = "".join(f" {key}={size[key]}" for key in ("width", "height") if key in size)
    return f"{stem}_files/{FORMATS[fmt][1]}/{name}", size


def output_text(fmt, out) -> str:
    """Return a displayed output that is not a picture as Markdown."""
    mime = best_mime(fmt, out)
    data = out.data.get(mime, "")
    if mime == "text/html":
        return fenced(data, "{=html}")
    nameless = fmt == "pdf" and re.fullmatch(r"<[\w.]+ object.*>", data)  # <IPython….HTML object>
    return data if mime == "text/markdown" or not data else "" if nameless else fenced(data)


# Command line ------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Render the book; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=HERE.parent, help="folder of _quarto.yml")
    parser.add_argument("--to", choices=[*FORMATS], action="append", help="format (default: both)")
    profile = os.environ.get("QUARTO_PROFILE", "")
    parser.add_argument("--profile", default=profile, help="profiles, with commas between them")
    parser.add_argument("--freeze", type=Path, help="folder of frozen results (default: _freeze)")
    parser.add_argument("--output", type=Path, help="output folder (default: the project's)")
    parser.add_argument("--page", metavar="DOCUMENT", help="one document alone, as HTML")
    parser.add_argument("--banner", default="", help="text to show on every page")
    args = parser.parse_args(argv)
    root = args.project.resolve()
    profiles = [p.strip() for p in args.profile.split(",") if p.strip()]
    try:
        config = load_config(root, profiles)
        freeze = (args.freeze or root / "_freeze").resolve()
        output = args.output or root / (config.get("project") or {}).get("output-dir", "_book")
        if args.page:
            path = render_page(root, args.page, freeze, args.output, config, args.banner, profiles)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
            return 0
        for fmt in args.to or FORMATS:
            path = render(root, fmt, freeze, output, config, args.banner, profiles)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except ImportError as err:
        print(f"error: the Python package {err.name} is missing; install it.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
