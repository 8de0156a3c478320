"""Rendering: pandoc with book.lua makes one HTML file of all documents, and with Typst a PDF."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

from digitcnn import files

from .book import (
    FORMATS,
    Problem,
    book_info,
    items,
    load_config,
    load_document,
    of_format,
    option,
    output_stem,
)

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parents[1] / "assets"  # the template and the style sheet that Quarto uses as well


def run_pandoc(job: dict, config: dict, root: Path, extra: list[str]) -> tuple[str, dict]:
    """Run pandoc with book.lua; return the text and what book.lua reports of the book.

    The report has ``names`` (what each label is called: ``Figure 2.1``) and ``problems``, each a
    sentence: references, images and citations that lead nowhere, and what is not known here.
    """
    import pypandoc

    work = Path(job["work"])
    (work / "job.json").write_text(json.dumps(job), "utf-8")
    target = {"html": "html5", "typst": "typst"}[job["format"]]
    command = [pypandoc.get_pandoc_path(), "--from=markdown", f"--to={target}", "--wrap=none"]
    command += [f"--metadata=job:{work / 'job.json'}", f"--lua-filter={HERE / 'book.lua'}"]
    command += [f"--lua-filter={ASSETS / 'typography.lua'}"]
    command += ["--citeproc", f"--log={work / 'log.json'}", "--quiet", *extra]
    for key in ("bibliography", "csl"):
        value = config.get(key) or []
        for path in value if isinstance(value, list) else [value]:
            command.append(f"--{key}={root / path}")
    done = subprocess.run(command, input="", capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise Problem(f"pandoc failed: {' '.join(done.stderr.split()) or done.returncode}")
    report = json.loads((work / "report.json").read_text("utf-8"))
    report = {"names": dict(report["names"]), "problems": list(report["problems"])}
    for entry in json.loads((work / "log.json").read_text("utf-8")):
        if entry.get("verbosity") == "WARNING":
            words = entry.get("message") or entry.get("pretty") or entry.get("type", "")
            report["problems"].append("pandoc: " + " ".join(words.split()))
    return done.stdout, report


def new_job(docs: list, fmt: str, root: Path, work: str) -> dict:
    """What book.lua needs of the whole book."""
    kind = "html" if fmt == "html" else "typst"
    return {"format": kind, "root": str(root), "work": work, "docs": docs}


def references(docs: list, fmt: str, root: Path, config: dict) -> dict:
    """The ``names`` of all labels of the documents, and the ``problems``."""
    with tempfile.TemporaryDirectory() as work:
        return run_pandoc(new_job(docs, fmt, root, work), config, root, [])[1]


def converted(job: dict, config: dict, root: Path, template: str, about: dict) -> str:
    """The book in the template, with `about` as metadata. Raises `Problem` with all problems."""
    work = Path(job["work"])
    (work / "template.html").write_text(template, "utf-8")
    (work / "about.json").write_text(json.dumps(about, ensure_ascii=False), "utf-8")
    extra = ["--standalone", f"--template={work / 'template.html'}"]
    extra += [f"--metadata-file={work / 'about.json'}"]
    if job["format"] == "html":
        depth = int(option("toc-depth", config, 3))
        extra += ["--mathml", "--section-divs", "--reference-location=section"]
        extra += ["--toc", f"--toc-depth={depth}", "--syntax-highlighting=pygments"]
    else:
        extra += ["--syntax-highlighting=idiomatic"]
    text, report = run_pandoc(job, config, root, extra)
    if report["problems"]:
        raise Problem("\nerror: ".join(dict.fromkeys(report["problems"])))
    return text


def escaped(text: str) -> str:
    """Text as metadata, which pandoc reads as Markdown."""
    return re.sub(r"[\\`*_{}\[\]<>#|$^~@]", r"\\\g<0>", text)


def about_book(config: dict) -> dict:
    """Title, authors, date and language as metadata."""
    info = book_info(config)
    names = [escaped(name) for name in info.pop("author")]
    return {**{key: escaped(text) for key, text in info.items()}, "author": names}


def to_html(job: dict, config: dict, root: Path, banner: str, pdf: str, resources: list) -> bytes:
    """The book as one HTML page that asks for nothing; `pdf` and `resources` lie beside it."""

    def literal(path: object) -> str:  # Markdown would make dashes of its hyphens
        return f"`{urllib.parse.quote(str(path))}`{{=html}}"

    info = about_book(config)
    groups = {}
    for path in resources:
        file = {"path": literal(path), "name": literal(path.name)}
        groups.setdefault(path.parent.name, []).append(file)
    about = {
        **info,
        "pagetitle": info["title"],
        "banner": escaped(banner),
        "pdf": literal(pdf) if pdf else "",
        "lines": [line for line in (info["subtitle"], *info["author"], info["date"]) if line],
        "metrics": [{"name": name, "files": files} for name, files in groups.items()],
    }
    css = (ASSETS / "report.css").read_text("utf-8") + (HERE / "page.css").read_text("utf-8")
    template = (HERE / "page.html").read_text("utf-8").replace("$css$", css.replace("$", "$$"))
    page = converted(job, config, root, template, {k: v for k, v in about.items() if v})
    for tag in re.findall(r"<(?:script|img|link|iframe|source|video|audio)\b[^>]*>", page):
        if re.search(r"(?:src|href|srcset)\s*=\s*[\"']?(?:https?:)?//", tag):
            raise Problem(f"index.html would ask the network for {tag[:120]}")
    return page.encode("utf-8")


def to_typst(job: dict, config: dict, root: Path, banner: str) -> str:
    """The book in Typst's markup, in the template that Quarto uses too."""
    info = about_book(config)
    about = {**info, "by-author": [{"name": {"literal": name}} for name in info["author"]]}
    about["toc-depth"] = of_format(config, "typst").get("toc-depth", 2)
    about["banner"] = escaped(banner)
    parts = [HERE / "definitions.typ", ASSETS / "page.typ", ASSETS / "typst-show.typ"]
    template = "\n".join([*(path.read_text("utf-8") for path in parts), "$body$"])
    return converted(job, config, root, template, {k: v for k, v in about.items() if v})


def compiled(work: Path, system_fonts: bool) -> tuple[bytes, list]:
    """PDF/UA-1 of ``book.typ`` with the compiler's warnings. Raises `Problem`."""
    import typst

    try:
        return typst.compile_with_warnings(
            str(work / "book.typ"),
            root=str(work),
            ignore_system_fonts=not system_fonts,
            pdf_standards=["ua-1"],
        )
    except RuntimeError as err:  # the compiler's own error type derives from it
        about = [str(err), *getattr(err, "hints", ())]
        raise Problem(f"Typst failed: {' '.join(' '.join(about).split())}") from err


def to_pdf(text: str, work: Path) -> bytes:
    """Compile the book's Typst text, tagged and with alternative texts."""
    (work / "book.typ").write_text(text, "utf-8")
    try:
        pdf, warnings = compiled(work, system_fonts=False)
    except Problem as first:
        if "could not be displayed" not in str(first):
            raise
        try:  # a name, perhaps, in a script that the embedded fonts lack
            pdf, warnings = compiled(work, system_fonts=True)
        except Problem as err:
            lost = dict.fromkeys(re.findall(r'the text `"(.+?)"` could not', str(err)))
            if not lost:
                raise
            raise Problem(
                f"The fonts of the PDF have no {' '.join(lost)}: install one that has, Noto for "
                "example, or write it in other letters."
            ) from err
    if warnings:
        raise Problem(f"Typst warns: {'; '.join(str(each) for each in warnings)}")
    return pdf


def render(root: Path, fmt: str, freeze: Path, output: Path, config: dict, banner: str) -> Path:
    """Render one format, "html" or "pdf", and return the file written."""
    docs = [load_document(root, item, fmt, freeze, config) for item in items(config)]
    pdf = f"{output_stem(config, root)}.pdf"
    with tempfile.TemporaryDirectory() as work:
        job = new_job(docs, fmt, root, work)
        if fmt == "html":
            patterns = (config.get("project") or {}).get("resources") or []
            found = [path for each in patterns for path in sorted(root.glob(each.lstrip("/")))]
            resources = [path.relative_to(root) for path in found]
            path, data = output / "index.html", to_html(job, config, root, banner, pdf, resources)
            for name in resources:
                files.write_whole(output / name, (root / name).read_bytes())
        else:
            path = output / pdf
            data = to_pdf(to_typst(job, config, root, banner), Path(work))
    files.write_whole(path, data)
    return path


def render_page(
    root: Path, document: str, freeze: Path, path: Path, config: dict, banner: str
) -> Path:
    """Render one document alone as HTML; what it refers to elsewhere is only numbered."""
    file = f"{document}.qmd"
    docs = [
        load_document(root, item, "html", freeze if item["file"] == file else None, config)
        for item in items(config)
    ]
    with tempfile.TemporaryDirectory() as work:
        job = new_job(docs, "html", root, work) | {"only": file}
        page = to_html(job, config, root, banner, "", [])
    files.write_whole(path, page)
    return path


def main(argv: list[str] | None = None) -> int:
    """Render the book; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    project = HERE.parents[1]
    parser.add_argument("--project", type=Path, default=project, help="folder of _quarto.yml")
    parser.add_argument("--to", choices=[*FORMATS], action="append", help="format (default: both)")
    parser.add_argument("--profile", default="", help="of _quarto-PROFILE.yml")
    parser.add_argument("--freeze", type=Path, help="folder of frozen results (default: _freeze)")
    parser.add_argument("--output", type=Path, help="output folder (default: the project's)")
    parser.add_argument("--page", metavar="DOCUMENT", help="one document alone, as HTML")
    parser.add_argument("--banner", default="", help="text to show on every page")
    args = parser.parse_args(argv)
    root = args.project.resolve()
    try:
        config = load_config(root, args.profile)
        freeze = (args.freeze or root / "_freeze").resolve()
        output = args.output or root / (config.get("project") or {}).get("output-dir", "_book")
        for fmt in ["html"] if args.page else args.to or FORMATS:
            if args.page:
                path = render_page(root, args.page, freeze, output, config, args.banner)
            else:
                path = render(root, fmt, freeze, output, config, args.banner)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    except files.DigitcnnError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except ImportError as err:
        print(f"error: the Python package {err.name} is missing; install it.", file=sys.stderr)
        return 1
    return 0
