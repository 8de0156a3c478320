"""Pack what is handed in: `make submission NAME="Ada Lovelace" ROLL=M23-001`.

    python tools/submission.py NAME ROLL

Checks everything that it packs first, and stops with a list if anything is missing. The same
input gives the same bytes. Data sets, environments and other people's names are never packed.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import sys
import time
import unicodedata
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import environment  # noqa: E402
import notebooks  # noqa: E402
import offline as portable  # noqa: E402
import report  # noqa: E402
from environment import ROOT, SetupError  # noqa: E402

from digitcnn import files, provenance, runs  # noqa: E402
from digitcnn.report import check  # noqa: E402

PROFILE = ROOT / "_quarto-submission.yml"
BOOK = ROOT / "_book.submission"
FOLDERS = (
    "_freeze", "assets", "benchmarks", "cache", "chapters", "digitcnn", "models", "requirements",
    "tests", "tools",
)  # fmt: skip
AT_ROOT = ("*.md", "*.qmd", "*.yml", "*.bib", "*.toml", "Makefile", ".gitignore")
NOT_PACKED = re.compile(  # caches, leftovers, and whatever may be a data set
    r"__pycache__|\.(?!gitignore).*|.*\.part|.*_files|.*\.quarto_ipynb|_quarto-submission\.yml"
    r"|.*\.(mat|gz|zip|npy|pt|pth|pkl)|.*-ubyte.*"
)
STAMP = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP archive can hold
LONGEST = 60  # characters of a name
README = """# {author}

The report "{title}" and everything that it was made from.

| what | is |
|:--|:--|
| `report.pdf` | the report, to read or print |
| `report/index.html` | the same report for the browser, with the code of every figure |
| `notebooks/` | each chapter as an executed Jupyter notebook; its first cell finds `project/` |
| `project/` | the code, and what follows below |
| `project/digitcnn/` | the module that does the work; `project/README.md` explains it |
| `project/chapters/` | the report's source (Quarto) |
| `project/models/` | the trained networks (safetensors): {models} |
| `project/cache/metrics/<run>/` | `train.txt`, `validation.txt`, `test.txt`: metrics per epoch |
| `project/cache/`, `project/_freeze/` | all other stored results, and the executed chapters |

To render the report again, type `make report` in `project/` (Python 3.11 or newer and make).
The report's appendix lists where each requirement of the assignment is answered.

No data set is part of this archive: `make data` downloads them. SVHN is for non-commercial use
only (Netzer et al. 2011).
"""


class Incomplete(Exception):
    """What is missing from a submission, as a list of sentences."""


def checked(text: str, what: str, example: str, others: str, digits: bool = False) -> str:
    """A name or roll number as it goes into the report and the file name, or a `SetupError`.

    Letters of any script, digits where they are allowed, and inside `others`: so it is safe as a
    file name on every system.
    """
    text = unicodedata.normalize("NFC", text).strip(" ")
    allowed = "LMN" if digits else "LM"  # letters, their marks, numbers: Unicode's categories
    solid = [unicodedata.category(c)[0] in allowed for c in text]
    fits = (
        0 < len(text) <= LONGEST
        and solid[0]
        and solid[-1]
        and all(good or c in others for good, c in zip(solid, text, strict=True))
        and not re.search(r"\.\.|--|''|  ", text)
    )
    if not fits:
        kind = "letters and digits" if digits else "letters"
        shown = repr(text[:LONGEST]) if text else "nothing"
        raise SetupError(
            f"{what} is {shown}: give {kind} of any script, inside also spaces, hyphens and dots, "
            f"at most {LONGEST}, such as {what}={example!r}."
        )
    return text


def main(arguments: list) -> int:
    """Check, render with the name on the title page, and pack; return the exit status."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        name = checked(arguments[0], "NAME", "Ada Lovelace", " -'’.\u200c\u200d")
        roll = checked(arguments[1], "ROLL", "M23-001", " -._", digits=True)
        with environment.only_one("render"):
            submit(name, roll)
    except Incomplete as problem:
        lines = problem.args[0]
        print(f"make submission: nothing was packed, {len(lines)} to mend:", file=sys.stderr)
        print("\n".join(f"- {line}" for line in lines), file=sys.stderr)
        return 1
    except (SetupError, files.DigitcnnError, portable.Problem) as error:
        print(f"make submission: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"make submission: {error}; mend that, then start again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was packed.", file=sys.stderr)
        return 130
    return 0


def submit(name: str, roll: str) -> Path:
    """Write ``NAME.ROLL.zip`` into the project's folder."""
    began = time.monotonic()
    stem = f"{name}.{roll}"
    if len(stem.encode()) > 200:  # file systems allow 255 bytes
        raise SetupError("NAME and ROLL are too long together: shorten one of them.")
    print("Checking report, results, models and notebooks …", flush=True)
    stop_if(check.problems() + notebook_problems() + model_problems())
    config = portable.load_config(ROOT, [])
    author = f"{name} (roll number {roll})"
    print(f"Rendering the report of {author} (up to 2 minutes) …", flush=True)
    try:
        pdf = render(author, config)
        stop_if(page_problems(pdf, author))
        packed = {"report.pdf": pdf.read_bytes()}
        packed |= {
            f"report/{path.relative_to(BOOK).as_posix()}": path.read_bytes()
            for path in sorted(BOOK.rglob("*"))
            if path.is_file()
        }
    finally:
        report.remove(BOOK)
        PROFILE.unlink(missing_ok=True)
    packed = {where: tidy(where, content) for where, content in packed.items()}
    for chapter in notebooks.chapters(ROOT):
        path = notebooks.path_of(chapter)
        packed[f"notebooks/{path.name}"] = path.read_bytes()
    packed |= {f"project/{where}": content for where, content in project(author).items()}
    models = sorted(Path(where).stem for where in packed if where.startswith("project/models/"))
    title = portable.book_info(config)["title"]
    readme = README.format(author=author, title=title, models=", ".join(models))
    packed["README.md"] = readme.encode()
    stop_if(content_problems(packed, config, author))
    path = ROOT / f"{stem}.zip"
    files.write_whole(path, archive(stem, packed))
    seconds, size = time.monotonic() - began, path.stat().st_size / 1e6
    print(f"{path.name}: {len(packed)} files, {size:.1f} MB, after {seconds:.0f} s. It holds")
    for top in ("README.md", "report.pdf", "report/", "notebooks/", "project/"):
        inside = [len(content) for where, content in packed.items() if where.startswith(top)]
        print(f"  {top:<11} {len(inside):>4} files {sum(inside) / 1e6:>6.1f} MB")
    return path


def stop_if(problems: list[str]) -> None:
    """Raise `Incomplete` if there are any problems."""
    if problems:
        raise Incomplete(problems)


# Checks ------------------------------------------------------------------------------------------


def notebook_problems() -> list[str]:
    """Notebooks that are missing, stale, not executed, or that show an error."""
    found = []
    for chapter in notebooks.chapters(ROOT):
        path = notebooks.path_of(chapter)
        if not notebooks.is_current(chapter):
            state = "stale" if path.is_file() else "missing"
            found.append(f"{files.shown(path)} is {state}: run `make notebooks`.")
            continue
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        if not all(cell["execution_count"] for cell in code):
            found.append(f"{files.shown(path)} is not executed: delete it, run `make notebooks`.")
        if any(output["output_type"] == "error" for cell in code for output in cell["outputs"]):
            found.append(f"{files.shown(path)} shows an error: delete it, run `make notebooks`.")
    return found


def model_problems() -> list[str]:
    """Models that are there but do not load; what is missing `digitcnn.report.check` says."""
    found = []
    for run in runs.registry().values():
        if packs_result(runs.weights_path(run)):
            from digitcnn import checkpoints  # imports torch

            try:
                checkpoints.load_model(run)
            except files.DigitcnnError as error:
                found.append(str(error))
    return found


def page_problems(pdf: Path, author: str) -> list[str]:
    """What is wrong with the rendered report: it has to open and to name the author."""
    import pypdf

    try:
        reader = pypdf.PdfReader(pdf)
        named = (reader.metadata or {}).get("/Author") or ""
        drawn = reader.pages[0].extract_text()
    except Exception as error:  # pypdf raises many kinds; whichever it is, the PDF is no good
        return [f"The PDF does not open ({' '.join(str(error).split())[:100]}): start again."]
    page = (BOOK / "index.html").read_text("utf-8")
    shown = {"PDF": named, "HTML": re.sub(r"<[^>]+>", "", page)}
    found = [
        f"The {what} does not name {author}: see {report.LOG.name}."
        for what, text in shown.items()
        if letters(author) not in letters(text)
    ]
    if lost := sorted(set(letters(author)) - set(letters(drawn))):
        found.append(
            f"The fonts of the PDF have no {' '.join(lost)}: give NAME in another script, or "
            "render with Quarto where such a font is installed."
        )
    return found


def content_problems(packed: dict[str, bytes], config: dict, author: str) -> list[str]:
    """Another's name, or a path of this machine, in what is to be packed."""
    others = [name for name in portable.book_info(config)["author"] if name != author]
    others += [name.split(" (")[0] for name in others if name.split(" (")[0] not in author]
    found = []
    for where, content in packed.items():
        found += [
            f"{where} names {name}: remove that, because this is the submission of {author}."
            for name in others
            if name.encode() in content
        ][:1]
        if f"{ROOT}/".encode() in content:
            found.append(f"{where} holds the path {ROOT} of this machine: make it again.")
    return found


def letters(text: str) -> str:
    """The letters and digits of a text, by which names are compared: apostrophes may change."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if c.isalnum())


# Packing -----------------------------------------------------------------------------------------


def render(author: str, config: dict) -> Path:
    """Render the frozen report with the author on its title page; return the PDF.

    A Quarto profile, which exists as long as the render, replaces the author. It changes no
    document, so that the frozen results stay valid and nothing is executed.
    """
    names = json.dumps({"book": {"author": author}}, ensure_ascii=False)
    files.write_whole(PROFILE, names + "\n")  # JSON is YAML
    try:
        day = datetime.date.fromisoformat(str(config["book"]["date"]))
    except (KeyError, ValueError):
        day = datetime.date(*STAMP[:3])
    noon = datetime.datetime(day.year, day.month, day.day, 12, tzinfo=datetime.UTC)
    dated = {"SOURCE_DATE_EPOCH": str(int(noon.timestamp()))}
    report.render(
        ROOT, environment.quarto(), BOOK, profile="submission",
        **report.READING, **dated,
    )  # fmt: skip
    return BOOK / report.check(BOOK)[1]


def tidy(where: str, content: bytes) -> bytes:
    """A page with the data attributes of each element in order: Quarto's order changes."""
    if not where.endswith(".html"):
        return content
    run = rb'(?: data-[\w-]+="[^"]*"){2,}'
    one = rb' data-[\w-]+="[^"]*"'
    return re.sub(run, lambda match: b"".join(sorted(re.findall(one, match[0]))), content)


def project(author: str) -> dict[str, bytes]:
    """The project's files by their path, as they are but for the author in `_quarto.yml`."""
    found = [path for pattern in AT_ROOT for path in ROOT.glob(pattern)]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    packed = {}
    for path in found:
        where = path.relative_to(ROOT)
        if path.is_symlink() or not path.is_file() or path.is_relative_to(files.data_root()):
            continue
        if any(NOT_PACKED.fullmatch(part) for part in where.parts):
            continue
        if where.parts[0] in ("cache", "models") and not packs_result(path):
            continue
        packed[where.as_posix()] = path.read_bytes()
    config, name = packed["_quarto.yml"].decode(), json.dumps(author, ensure_ascii=False)
    config, count = re.subn(r"(?m)^(  author: ).*$", lambda match: match[1] + name, config)
    if count != 1:
        raise SetupError("_quarto.yml has no line `  author: …` below `book:`: add it.")
    return packed | {"_quarto.yml": config.encode()}


def packs_result(path: Path) -> bool:
    """Whether a file below `cache/` or `models/` is there and part of the repository."""
    where = path.relative_to(ROOT).as_posix()
    return path.is_file() and provenance.committed(where)


def archive(stem: str, packed: dict[str, bytes]) -> bytes:
    """A ZIP archive of files in one folder, the same bytes for the same files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as book:
        for where in sorted(packed):
            entry = zipfile.ZipInfo(f"{stem}/{where}", STAMP)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            book.writestr(entry, packed[where], zipfile.ZIP_DEFLATED, 9)
    return target.getvalue()


if __name__ == "__main__":
    os.environ["DIGITCNN_PROFILE"] = "full"  # a quick run's results are not handed in
    sys.exit(main(sys.argv[1:]))
