"""Make the chapters' notebooks: `make notebooks`.

    python tools/notebooks.py                       # what is missing or stale, into notebooks/
    python tools/notebooks.py chapters/01-data.qmd  # this chapter's

A notebook is a chapter without Quarto: its text with numbers and references as words, its cells,
executed here from the first to the last, and a first cell that finds the project. With
``DIGITCNN_PROFILE=quick`` it is made from small embedded data, into `_quick/notebooks/`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import offline as portable  # noqa: E402
from environment import only_one  # noqa: E402
from report import BANNER  # noqa: E402

from digitcnn import files, provenance  # noqa: E402
from digitcnn.provenance import Freshness  # noqa: E402

CURRENT = Freshness.CURRENT

MARK = re.compile(r"^NOTEBOOK(CELL|OUTPUT|REFERENCES)(\d*)$", re.MULTILINE)
REFERENCE = re.compile(r"(?:fig|tbl|sec|eq|lst)-[\w-]+")
HIDDEN = {"jupyter": {"source_hidden": True}, "cellView": "form", "tags": ["hide-input"]}
INTRODUCTION = """
*This is a chapter of the report “{title}” as a notebook; all its cells were executed, from first
to last. The numbers in its text were computed with it and do not change when a cell is run again.
The cell below finds the project. JupyterLab: open the notebook where it lies, in the project or in
the unpacked submission. Colab: upload the submission's archive and run `!unzip -q '*.zip'` first.
Cells that show images need the data sets, which `!python -m digitcnn data` downloads; the stored
results belong to the copies that chapter 1 names. Nothing is trained here.*
"""
FIRST_CELL = """
# Finds the project's folder and what it needs; run this cell before all others.
import importlib.util
import os
import sys
from pathlib import Path

here = Path.cwd()
near = [here, *here.parents, *sorted(path for path in here.iterdir() if path.is_dir())]
places = [folder / name for folder in near for name in ("", "project")]
project = next((p for p in places if (p / "digitcnn" / "runs.py").is_file()), None)
if project is None:
    raise FileNotFoundError(
        "The project is not here: unpack the submission's archive (or clone the project) "
        f"into {here}, then run this cell again."
    )
os.chdir(project)
sys.path.insert(0, str(project))
os.environ.setdefault("DIGITCNN_TRAIN", "never")
needed = {"torch": "torch", "torchvision": "torchvision", "sklearn": "scikit-learn",
          "pandas": "pandas", "seaborn": "seaborn", "safetensors": "safetensors",
          "filelock": "filelock"}
missing = [package for name, package in needed.items() if not importlib.util.find_spec(name)]
if missing:
    raise ModuleNotFoundError(
        f"Run `%pip install {' '.join(missing)}` in a cell of its own, then this cell again."
    )
""".strip()


class Chapter:
    """A chapter's source as passages of text and cells, without what only Quarto needs."""

    def __init__(self, root: Path, document: str, config: dict, names: dict):
        self.root, self.document, self.config, self.names = root, document, config, names
        path = root / document
        self.text = portable.read_source(path, root)
        title = portable.book_info(config)["title"]
        quick = f"**{BANNER}.**\n\n" if files.profile() == "quick" else ""
        start = f"\n{quick}{INTRODUCTION.format(title=title)}\n{mark('CELL', 0)}"
        head = re.match(r"\s*# [^\n]*\n", self.text)
        at = head.end() if head else 0
        self.parts: list[str] = [self.text[:at], start]
        self.cells: list[tuple[dict, str]] = [({"label": "find-the-project"}, FIRST_CELL)]
        for passage, own, code in portable.passages(self.text[at:]):
            self.parts.append(passage)
            if code is None:
                continue
            self.parts.append(mark("CELL", len(self.cells)) + self.caption(own))
            self.cells.append((own, code))

    def caption(self, own: dict) -> str:
        """The numbered caption below a cell."""
        label = str(own.get("label") or "")
        words = own.get(f"{label[:3]}-cap", "")
        return f"**{self.names[label]}.** {words}\n\n" if label in self.names else ""

    def key(self) -> str:
        """What the notebook is made from, as a fingerprint."""
        used = {x: self.names[x] for x in REFERENCE.findall(self.text) if x in self.names}
        made = provenance.read_record(provenance.frozen(self.document.removesuffix(".qmd"))).get(
            "frozen"
        )
        paths = [Path(__file__), HERE / "notebook.lua", *bibliography(self.root, self.config)]
        return files.fingerprint(self.text, used, made, [path.read_text("utf-8") for path in paths])

    def convert(self, text: str) -> list[tuple[str, str, str]]:
        """Plain Markdown of Quarto's, as (mark, its number, the text that follows)."""
        import pypandoc

        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "names.json"
            path.write_text(json.dumps(self.names), "utf-8")
            command = [pypandoc.get_pandoc_path(), "--from=markdown", "--wrap=none"]
            command += ["--to=gfm-raw_html-tex_math_gfm+tex_math_dollars"]
            command += [f"--metadata=names:{path}"]
            command += [f"--lua-filter={HERE / 'notebook.lua'}", "--citeproc", "--fail-if-warnings"]
            command += [f"--bibliography={path}" for path in bibliography(self.root, self.config)]
            command += [f"--resource-path={self.root / 'chapters'}"]
            done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8")
        if done.returncode:
            why = " ".join(done.stderr.split()) or f"status {done.returncode}"
            raise portable.Problem(f"{self.document} cannot be made a notebook ({why}).")
        pieces = MARK.split(done.stdout)
        if any("NOTEBOOKCELL" in text for text in pieces[::3]):
            raise portable.Problem(
                f"{self.document} has a cell in a list or quotation, where a notebook cannot have "
                "one: move it out of there."
            )
        triples = zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True)
        return [("", "", pieces[0]), *triples]

    def execute(self, folder: Path, environment: dict):
        """The chapter as an executed notebook; its kernel starts in `folder`."""
        import nbformat

        # What the PDF leaves out is left out here, before anything runs.
        shown = {int(n) for what, n, _ in self.convert("".join(self.parts)) if what == "CELL"}
        ran, texts, outputs = {}, [], {}
        with portable.kernel(self.document, folder, environment) as run:
            for part in self.parts:
                if (found := MARK.search(part)) and (number := int(found[2])) in shown:
                    ran[number] = self.run_cell(number, run)
                texts.append(portable.inline(part, run))
        for count, cell in enumerate(ran.values(), 1):
            cell.execution_count = count  # the text's numbers were evaluated between the cells
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
                markdown = output.get("data", {}).get("text/markdown", "")
                if "@" in markdown:
                    outputs[len(outputs)] = output.data
                    texts.append(mark("OUTPUT", len(outputs) - 1) + markdown + "\n")
        cells = []
        for what, number, text in self.convert("".join(texts)):
            if what == "OUTPUT":
                outputs[int(number)]["text/markdown"] = text.strip()
                continue
            if what == "CELL":
                cells.append(ran[int(number)])
            if text.strip():
                cell = nbformat.v4.new_markdown_cell(text.strip())
                cell.id = f"text-{len(cells)}"
                cells.append(cell)
        about = {"document": self.document, "key": self.key(), "profile": files.profile()}
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        metadata = {"kernelspec": spec, "language_info": {"name": "python"}, "digitcnn": about}
        book = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
        nbformat.validate(book)
        return book

    def run_cell(self, number: int, run):
        """Run one cell; what the chapter hides is folded away, warnings are left out as there."""
        own, code = self.cells[number]
        label = str(own.get("label") or f"cell-{number}")
        cell = run(code, f"cell {label}")
        cell.id = re.sub(r"[^\w-]", "-", label, flags=re.ASCII)[:64]
        cell.metadata = HIDDEN if own.get("include") is False else {}
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        return cell


def mark(what: str, number: int) -> str:
    """A paragraph that stands for a cell or an output while pandoc works on the text around it."""
    return f"\n\nNOTEBOOK{what}{number}\n\n"


def bibliography(root: Path, config: dict) -> list[Path]:
    """The book's bibliography files."""
    found = config.get("bibliography") or []
    return [root / name for name in (found if isinstance(found, list) else [found])]


def chapters(root: Path) -> list[Chapter]:
    """The numbered chapters of a book."""
    config = portable.load_config(root, [])
    items = portable.items(config)
    outlines = [portable.load_document(root, item, "html", None, config) for item in items]
    names = portable.references(outlines, "html", root, config)["names"]
    found = [item.get("file", "") for item in items]
    return [
        Chapter(root, name, config, names) for name in found if re.match(r"chapters/\d\d-", name)
    ]


def path_of(chapter: Chapter) -> Path:
    """Where a chapter's notebook lies."""
    return files.results_root() / "notebooks" / f"{Path(chapter.document).stem}.ipynb"


def is_current(chapter: Chapter) -> bool:
    """Whether a chapter's notebook is there and made from what is there now."""
    try:
        about = json.loads(path_of(chapter).read_text("utf-8"))["metadata"]["digitcnn"]
        return about["key"] == chapter.key()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def make(chapter: Chapter) -> Path:
    """Execute a chapter's notebook and write it."""
    import nbformat

    path = path_of(chapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if files.profile() == "full":
        environment["DIGITCNN_TRAIN"] = "never"
    book = chapter.execute(path.parent, environment)
    portable.write_whole(path, (nbformat.writes(book) + "\n").encode())
    return path


def main(arguments: list) -> int:
    """Make the notebooks that the command line names, or all that are missing or stale."""
    root = files.project_root()
    try:
        found = chapters(root)
        if unknown := set(arguments) - {chapter.document for chapter in found}:
            known = ", ".join(chapter.document for chapter in found)
            raise portable.Problem(f"There is no chapter {min(unknown)!r}: choose from {known}.")
        with only_one("notebooks"):
            wanted = [c for c in found if c.document in arguments or not arguments]
            waiting = [c for c in wanted if not is_current(c)]
            print(f"{len(wanted) - len(waiting)} of {len(wanted)} notebooks are current.")
            full = files.profile() == "full"
            for number, chapter in enumerate(waiting, 1):
                name = chapter.document.removesuffix(".qmd")
                if full and (state := provenance.state(name)).freshness is not CURRENT:
                    raise portable.Problem(
                        f"{chapter.document} cannot be a notebook yet, it is {state}: run "
                        "`make report`."
                    )
                print(f"[{number}/{len(waiting)}] {chapter.document} …", flush=True)
                began = time.monotonic()
                path = make(chapter)
                size, seconds = path.stat().st_size / 1e6, time.monotonic() - began
                print(f"  {files.shown(path)}  ({size:.1f} MB, {seconds:.0f} s)", flush=True)
    except (portable.Problem, files.DigitcnnError) as problem:
        print(f"make notebooks: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; start it again: finished notebooks are kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
