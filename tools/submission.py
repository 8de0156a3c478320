"""Pack what is handed in: `make submission NAME="Ada Lovelace" ROLL=M23-001`.

    python tools/submission.py NAME ROLL [DATE [DRAFT]]

Makes what is missing or stale, training excepted, and packs the PDF with name, roll number and date
on its first page, the notebook, the main models, the metrics and the project. DATE is 2025-03-09 or
the like, default the last commit's. Anything for DRAFT packs what there is before all runs are
trained. The same input gives the same bytes. Data sets and environments are never packed.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import archive  # noqa: E402
import environment  # noqa: E402
import notebook  # noqa: E402
import report  # noqa: E402
from environment import ROOT, SetupError  # noqa: E402

from digitcnn import files, runs, status  # noqa: E402
from digitcnn.report import check  # noqa: E402

PROFILE = ROOT / "_quarto-submission.yml"
BOOK = ROOT / "_book.submission"
LONGEST = 60  # characters of a name
MARKS = "'’‘ʼʻ·・׳״"  # signs in the place of letters
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])")  # by Windows


# What was typed ----------------------------------------------------------------------------------


def checked(text: str, what: str, example: str, others: str) -> str:
    """A name or roll number as it goes into the report and the file name, or a `SetupError`.

    Letters of any script and digits, and inside also `others`; `MARKS` anywhere. So it is safe as
    a file name on every system.
    """
    with_bytes = os.fsencode(text)  # where the locale is not that of the terminal
    try:
        text = unicodedata.normalize("NFC", with_bytes.decode()).strip(" ")
    except UnicodeDecodeError:
        raise SetupError(f"{what} is not UTF-8: type it in a terminal whose text is.") from None
    solid = [unicodedata.category(c)[0] in "LMN" or c in MARKS for c in text]
    fits = (
        0 < len(text) <= LONGEST
        and any(c.isalnum() for c in text)
        and solid[0]
        and (solid[-1] or (text[-1] == "." and what == "NAME"))
        and all(good or c in others for good, c in zip(solid, text, strict=True))
        and not re.search(rf"\.\.|--|  |[{MARKS}]{{2}}", text)
    )
    if not fits:
        shown = ascii(text[:LONGEST]) if text else "nothing"
        raise SetupError(
            f"{what} is {shown}: give letters and digits of any script, inside also spaces, hyphens"
            f" and dots, at most {LONGEST}, such as {what}={example!r}."
        )
    return text


def stem_of(name: str, roll: str) -> str:
    """What the archive and its folder are called: ``NAME.ROLL``, or a `SetupError`."""
    stem = f"{name.rstrip(' .')}.{roll}"  # "Ada Lovelace Jr." would give two dots
    if len(stem.encode()) > 200:  # file systems allow 255 bytes
        raise SetupError("NAME and ROLL are too long together: shorten one of them.")
    if RESERVED.fullmatch(stem.partition(".")[0].strip()):
        raise SetupError(
            f"Windows reserves the name {stem.partition('.')[0]!r} and could not unpack the "
            "archive: give NAME in full, such as NAME='Con O’Neill'."
        )
    return stem


def day_of(text: str) -> datetime.date:
    """The date that was typed, else that of the last commit, else the book's."""
    if text:
        try:
            day = datetime.date.fromisoformat(text)
        except ValueError:
            day = datetime.date.min
        if not 1980 <= day.year < 2100:  # what an archive can hold
            raise SetupError(f"DATE is {text[:40]!a}: give it as DATE=2025-03-09.")
        return day
    if (ROOT / ".git").exists():
        command = ["git", "log", "-1", "--format=%cs"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if found.returncode == 0 and found.stdout.strip():
            return datetime.date.fromisoformat(found.stdout.strip())
    try:
        return datetime.date.fromisoformat(str(book()["date"]))
    except (KeyError, ValueError):
        raise SetupError("There is no commit to take the date from: add DATE=2025-03-09.") from None


def book() -> dict:
    """What `_quarto.yml` says of the book."""
    import yaml

    return yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["book"]


def main(arguments: list) -> int:
    """Make, check and pack; return the exit status."""
    environment.any_encoding()
    if not 2 <= len(arguments) <= 4:
        print(__doc__, file=sys.stderr)
        return 2
    name, roll, date, draft = [*arguments, "", ""][:4]

    def work() -> None:
        missing = [what for what, text in (("NAME", name), ("ROLL", roll)) if not text.strip()]
        if missing:
            give = "Give" if len(missing) > 1 else f"{missing[0]} is missing: give"
            raise SetupError(
                f"{give} both, in quotes: make submission NAME='Ada Lovelace' ROLL=M23-001."
            )
        named = checked(name, "NAME", "Ada Lovelace", " -.,\u200c\u200d")
        number = checked(roll, "ROLL", "M23-001", " -_.")
        stem, day = stem_of(named, number), day_of(date)
        with environment.only_one("render"):
            try:
                submit(named, number, stem, day, bool(draft))
            except files.DigitcnnError as error:
                raise SetupError(str(error)) from error

    return environment.status_of("make submission", work)


# The steps ---------------------------------------------------------------------------------------


def submit(name: str, roll: str, stem: str, day: datetime.date, draft: bool) -> Path:
    """Write the archive into the project's folder."""
    say(1, "models and metrics")
    lacking = training_needed(draft)
    stop_if(model_problems() + check.metrics_problems())
    say(2, "chapters")
    report.freshen()
    problems = check.report_problems()
    if not draft:
        stop_if(problems)
    say(3, "notebook")
    author = f"{name} (roll number {roll})"
    packed = {notebook.NAME: the_notebook(author, day, draft).encode()}
    say(4, "PDF")
    try:
        pdf = render(author, day)
        stop_if(page_problems(pdf, author, day))
        packed["report.pdf"] = pdf.read_bytes()
    finally:
        report.remove(BOOK)
        PROFILE.unlink(missing_ok=True)
    say(5, "archive")
    beside = sum(archive.packed_size(where, content, author) for where, content in packed.items())
    sources, left_out = archive.project(author, day, beside)
    packed |= {f"project/{where}": content for where, content in sources.items()}
    about = {
        "who": f"{author}, {day}",
        "title": book()["title"],
        "left_out": archive.words(left_out),
    }
    packed["README.md"] = archive.README.format(**about).encode()
    stop_if(archive.problems(packed))
    path = ROOT / os.fsdecode(f"{stem}.zip".encode())
    files.write_whole(path, archive.zipped(stem, packed, day))
    if problems := [*lacking, *problems]:
        more = f" and {len(problems) - 1} more (`digitcnn check`)" if len(problems) > 1 else ""
        print(f"A draft: {problems[0].rstrip('.')}{more}.")
    size = path.stat().st_size
    limit = archive.LIMIT / 1e6
    fits = "fits a mail" if size <= archive.LIMIT else f"too large for a mail (at most {limit:.0f})"
    out = f"the data sets, the web pages{about['left_out']}"
    print(f"{stem}.zip: {size / 1e6:.1f} MB, {fits}; left out: {out}.")
    return path


def say(number: int, what: str) -> None:
    """Say how far it is."""
    print(f"[{number}/5] {what}", flush=True)


def stop_if(problems: list[str]) -> None:
    """Raise a `SetupError` that lists the problems if there are any."""
    if problems:
        lines = "\n- ".join([f"nothing was packed, {len(problems)} to mend:", *problems])
        raise SetupError(lines)


def training_needed(draft: bool) -> list[str]:
    """A sentence on the runs that have to be trained first; a `SetupError` unless for a `draft`."""
    absent = [run for run in runs.registry().values() if status.state(run) != "current"]
    if not absent:
        return []
    names = ", ".join(run.id for run in absent[:3]) + (", …" if absent[3:] else "")
    told = f"{len(absent)} runs are not trained ({names}), about {notebook.hours(absent)} of work"
    if not draft:
        raise SetupError(
            f"{told}: type `make train`, then this again, or add DRAFT=yes to pack what there is."
        )
    return [told]


def the_notebook(author: str, day: datetime.date, draft: bool) -> str:
    """The executed notebook with whose it is; kept until something that it shows has changed."""
    folder = files.project_root() / "cache" / "local" / "notebook"
    if not (kept := folder / f"{notebook_key(draft)}.ipynb").is_file():
        told = [0]

        def tell(done: int, of: int) -> None:
            if done * 10 // of > told[0]:
                told[0] = done * 10 // of
                print(f"  cell {done} of {of}", flush=True)

        text = notebook.build(draft, tell)
        for old in folder.glob("*.ipynb"):
            old.unlink()
        kept = folder / f"{notebook_key(draft)}.ipynb"  # it may have stored results on its way
        files.write_whole(kept, text)
    return notebook.titled(kept.read_text(encoding="utf-8"), f"{author}, {day}")


def notebook_key(draft: bool) -> str:
    """A fingerprint of all that the notebook is made from."""
    made_from = ("cache/", "models/", "digitcnn/", "requirements/", "tools/notebook", "tools/assi")
    known = {
        where: archive.digest(content)
        for where, content in archive.packable().items()
        if where.startswith(made_from)
    }
    return files.fingerprint(known, draft)


def render(author: str, day: datetime.date) -> Path:
    """Render the frozen report with author and date on its title page; return the PDF.

    A Quarto profile, which exists as long as the render, brings both. It changes no document, so
    that the frozen results stay valid and nothing is executed.
    """
    about = {"book": {"author": author, "date": day.isoformat()}}
    files.write_whole(PROFILE, json.dumps(about, ensure_ascii=False) + "\n")  # JSON is YAML
    noon = datetime.datetime(day.year, day.month, day.day, 12, tzinfo=datetime.UTC)
    dated = {"SOURCE_DATE_EPOCH": str(int(noon.timestamp()))}
    report.render(ROOT, environment.quarto(), BOOK, profile="submission", **report.READING, **dated)
    return BOOK / report.check(BOOK)[1]


# Checks ------------------------------------------------------------------------------------------


def model_problems() -> list[str]:
    """Models that are there but do not load."""
    found = []
    for run in runs.registry().values():
        if runs.weights_path(run).is_file():
            from digitcnn import checkpoints  # imports torch

            try:
                checkpoints.load_model(run)
            except files.DigitcnnError as error:
                found.append(str(error))
    return found


def page_problems(pdf: Path, author: str, day: datetime.date) -> list[str]:
    """What is wrong with the PDF: it has to open, say on page 1 whose and of when it is, and link
    to the web or into itself alone."""
    import pypdf

    try:
        reader = pypdf.PdfReader(pdf)
        named = (reader.metadata or {}).get("/Author") or ""
        drawn = letters(reader.pages[0].extract_text())
        links = {
            str(note.get_object().get("/A", {}).get("/URI", "http:"))
            for page in reader.pages
            for note in page.get("/Annots") or ()
        }
    except Exception as error:  # pypdf raises many kinds; whichever it is, the PDF is no good
        return [f"The PDF does not open ({' '.join(str(error).split())[:100]}): start again."]
    found = [
        f"The PDF links to {link}, which is not in it: fix the chapter."
        for link in sorted(links)
        if not link.startswith(("http:", "https:", "mailto:"))
    ]
    dated = f"{day:%B}" in drawn and str(day.year) in drawn
    if letters(author) not in letters(named) or not dated:
        why = f"see {report.LOG.name}"
        found.append(f"The PDF's first page does not name {author} and {day}: {why}.")
    if lost := sorted(set(letters(author)) - set(drawn)):
        found.append(
            f"The fonts of the PDF have no {' '.join(lost)}: install one that has, Noto for "
            "example, or give NAME in another script."
        )
    return found


def letters(text: str) -> str:
    """The letters and digits of a text, by which names are compared: apostrophes may change."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if c.isalnum())


if __name__ == "__main__":
    os.environ["DIGITCNN_PROFILE"] = "full"  # a quick run's results are not handed in
    sys.exit(main(sys.argv[1:]))
