"""Cells: run a document's Python cells in one kernel, and freeze what they show for both formats.

The Markdown is what Quarto would write, so that each takes the other's frozen results as its own.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

from digitcnn import files

from .book import (
    FORMATS,
    Problem,
    document_hash,
    load_config,
    of_format,
    option,
    passages,
    read_source,
)

INLINE = re.compile(r"(?<!`)`\{python\}\s+([^`\n]+)`")
# What Quarto runs first in every kernel, as far as it changes what a document shows.
SETUP = """
try:
    import matplotlib.pyplot as plt
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    plt.rcParams.update({{"figure.figsize": ({width}, {height}), "figure.dpi": {dpi},
                         "savefig.dpi": "figure"}})
    set_matplotlib_formats("svg")
except Exception:
    pass
"""
# One drawing serves both formats: Quarto copies a document's whole frozen folder for each.
FIGURES = "figure-html"
MIME = {  # the outputs that a format shows, best first (as Quarto orders them)
    "html": ("text/html", "text/markdown", "image/svg+xml", "image/png", "text/plain"),
    "pdf": ("text/markdown", "image/svg+xml", "image/png", "text/plain"),
}
ON = dict.fromkeys(["echo", "output", "warning", "include", "eval"], True)  # by default
OWN = {"label", "fig-cap", "fig-alt", "tbl-cap", "tbl-colwidths", "code-fold", "code-summary"}


def execute(
    qmd_path: Path, folder: Path, root: Path, config=None, first="", last="", more=()
) -> str:
    """Run a document's Python cells in one kernel and write frozen results for both formats.

    `folder` is where they go; `first` and `last` are cells of the caller's, around the document's;
    returned is what the last one prints. `more` is added to the kernel's environment.
    """
    qmd_path, root = Path(qmd_path).resolve(), root.resolve()
    config = load_config(root) if config is None else config
    name = qmd_path.relative_to(root).as_posix()
    source = read_source(qmd_path, root)
    defaults = {fmt: execution(fmt, config) for fmt in FORMATS}
    size = {"width": 7, "height": 5, "dpi": 96}
    size = {key: option(f"fig-{key}", config, value) for key, value in size.items()}
    environment = {
        **os.environ,
        "QUARTO_PROJECT_ROOT": str(root),
        "QUARTO_DOCUMENT_FILE": qmd_path.name,
        **dict(more),
    }
    texts: dict[str, list[str]] = {fmt: [] for fmt in FORMATS}
    figures: dict[str, bytes] = {}
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
            if strange := sorted(set(own) - OWN - set(ON)):
                raise Problem(
                    f"{name}, cell {label}: the option {strange[0]} is not what the executor "
                    "knows; do without it."
                )
            evaluated = (defaults["html"] | own)["eval"] and code  # once for both formats
            begins = next((line for line in code.splitlines() if line.strip()), "")
            where = f"cell {label}" if "label" in own else f"the cell that begins {begins!r}"
            outputs = run(code, where).outputs if evaluated else []
            for fmt, text in texts.items():
                opts = defaults[fmt] | own
                text.append(
                    cell_markdown(fmt, code, own, opts, outputs, label, qmd_path.stem, figures)
                )
        told = run(last, "the last cell").outputs[-1].text if last else ""
    shutil.rmtree(folder, ignore_errors=True)
    for file, data in figures.items():
        files.write_whole(folder / FIGURES / file, data)
    for fmt, ending in FORMATS.items():
        result = {"engine": "jupyter", "markdown": "".join(texts[fmt])}
        # When it has made a PDF, Quarto removes what the PDF's result names here. The page shows
        # the same drawings, so only the page's result names them.
        supporting = [f"{qmd_path.stem}_files"] if fmt == "html" else []
        result |= {"supporting": supporting, "filters": [], "includes": {}}
        data = json.dumps({"hash": document_hash(qmd_path), "result": result}, indent=2)
        files.write_whole(folder / "execute-results" / f"{ending}.json", data)
    return told


def execution(fmt: str, config: dict) -> dict:
    """Options of cells in a format, of which its own count before those of all formats."""
    own = of_format(config, "typst" if fmt == "pdf" else fmt)
    return ON | (config.get("execute") or {}) | {key: own[key] for key in ON if key in own}


def outline(source: str, fmt: str) -> str:
    """A document's Markdown with its cells not executed, and so without outputs."""
    return "".join(
        passage + ("" if code is None else cell_markdown(fmt, code, own, ON | own))
        for passage, own, code in passages(source)
    )


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
            what = " ".join(what.split())[:300].rstrip(".")
            raise Problem(f"{name}, {where} failed ({what}): fix that.") from None
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
    """One executed cell as the Markdown that Quarto would write for it."""
    label = label or str(own.get("label") or "")
    if not opts["include"]:
        return ""
    asis, md = opts["output"] == "asis", []
    if opts["echo"] and code:
        ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
        kept = (key for key in ("code-fold", "code-summary") if key in own)
        extra = "".join(f" {key}={quoted(own[key])}" for key in kept)
        md.append(f"{ticks} {{.python .cell-code{extra}}}\n{code}\n{ticks}\n")
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
    # A table's label belongs to the cell, a figure's to what is displayed: one thing.
    table, figure = label.startswith("tbl-"), label.startswith("fig-")
    if figure and len(displays) > 1:
        raise Problem(f"{stem}.qmd, cell {label} displays {len(displays)} things, not one figure.")
    caption = " ".join(str(own.get("fig-cap", "")).split()) if figure else ""
    order = itertools.count(1)  # of the outputs
    for n, out in zip(order, shown, strict=False):
        if out.output_type == "stream":
            box = f"\n::: {{.cell-output .cell-output-{out.name}}}\n{fenced(out.text)}:::\n"
            md.append(out.text if asis and out.name == "stdout" else box)
            continue
        ident = f"#{label} " if figure else ""
        image = output_image(fmt, out, f"{label}-output-{n}", stem, figures)
        if image:
            alt = own.get("fig-alt")
            extra = f" fig-alt={quoted(alt)}" if alt else ""
            body, ident = f"![{caption}]({image[0]}){{{ident}{image[1]}{extra}}}", ""
        else:
            body = output_text(fmt, out) + (f"\n{caption}\n" if caption else "")
        if asis:
            md.append(body + "\n")
        elif body:
            md.append(f"\n::: {{{ident}.cell-output .cell-output-display}}\n{body}\n:::\n")
    if asis or not md:
        return "".join(md)
    kept = (key for key in own if key in ("tbl-colwidths", "tbl-cap"))
    attributes = "".join(f" {key}={quoted(own[key])}" for key in kept)
    return f"::: {{{f'#{label} ' if table else ''}.cell{attributes}}}\n{''.join(md)}:::\n"


def quoted(value) -> str:
    """A value the way pandoc reads it in attributes."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "'" + " ".join(text.split()).replace("'", "\\'") + "'"


def fenced(text: str, kind: str = "") -> str:
    """Text in a code fence, without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip("\n")
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{kind}\n{text}\n{ticks}\n"


def output_image(fmt, out, name, stem, figures) -> tuple[str, str] | None:
    """Put a displayed picture into `figures`; its path and its size as attributes."""
    mime = next((m for m in MIME[fmt] if m in out.data), "")
    if not mime.startswith("image/"):
        return None
    png = mime == "image/png"
    name += ".png" if png else ".svg"
    figures[name] = base64.b64decode(out.data[mime]) if png else out.data[mime].encode()
    size = out.metadata.get(mime, {}) if fmt == "html" else {}
    size = "".join(f" {key}={size[key]}" for key in ("width", "height") if key in size)
    return f"{stem}_files/{FIGURES}/{name}", size


def output_text(fmt, out) -> str:
    """A displayed output that is not a picture, as Markdown."""
    mime = next((m for m in MIME[fmt] if m in out.data), "")
    data = out.data.get(mime, "")
    if mime == "text/html":
        return fenced(data, "{=html}")
    nameless = fmt == "pdf" and re.fullmatch(r"<[\w.]+ object.*>", data)  # <IPython….HTML object>
    return data if mime == "text/markdown" or not data else "" if nameless else fenced(data)
