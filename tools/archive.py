"""Pack: what of the project goes into the archive that is handed in, and in which form.

`make submission` (tools/submission.py) says what is packed beside the project.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import re
import sys
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from environment import ROOT, SetupError  # noqa: E402

from digitcnn import files, provenance, runs  # noqa: E402

LIMIT = 18_000_000  # bytes: a mail takes 25 MB, and base64 adds a third
FOLDERS = (
    "_freeze", "assets", "audit", "benchmarks", "cache", "chapters", "digitcnn", "models",
    "requirements", "tests", "tools",
)  # fmt: skip
AT_ROOT = ("*.md", "*.qmd", "*.yml", "*.bib", "*.toml", "*.cff", "LICENSE", "Makefile",
           "_environment", ".gitignore")  # fmt: skip
NOT_PACKED = re.compile(  # caches, leftovers, archives, and whatever may be a data set
    r"__pycache__|\.(?!gitignore).*|.*\.part|.*_files|.*\.quarto_ipynb|_quarto-submission\.yml"
    r"|.*\.(mat|gz|zip|npy|pt|pth|pkl)|.*-ubyte.*"
)
# Scripts go under another ending, because mail services refuse them; `environment` puts it back.
SCRIPT = ".js"
# What the notebook and `make demo` show; other results may be left out where space is short.
NEEDED = re.compile(r"cache/(data/.*|umap/.*|imbalance/umap-.*|answers/\w+(-case\d)?\.npz)")
# Endings that Gmail or Exchange refuse, in archives too.
REFUSED = """
7z ace ade adp ani apk app appcontent-ms appx appxbundle arj bat bz2 cab chm cmd com cpl deb
dex diagcab diagcfg diagpkg dll dmg docm elf ex ex_ exe gz hta img ins iso isp jar jnlp js jse
kext lha lib library library-ms lnk lzh macho mde mjs msc msi msix msixbundle msp mst nsh pif
ppa ppam ps1 rar reg rev scf scr sct shb sys tar tgz uif vb vbe vbs vhd vxd whl wsc wsf wsh
xll xz z zip
"""
README = """# {who}

The report "{title}", its notebook, and everything that both were made from.

| what | is |
|:--|:--|
| `report.pdf` | the report |
| `Assignment-2.ipynb` | the notebook: data, network, training, evaluation, with its outputs |
| `project/` | the code, and what follows |
| `project/README.md` | how to use it |
| `project/digitcnn/` | the module that does the work |
| `project/chapters/` | the report's source (Quarto) |
| `project/models/` | the trained networks of both data sets |
| `project/cache/metrics/` | a folder a run: `train.txt`, `validation.txt`, `test.txt` |
| `project/cache/`, `project/_freeze/` | other stored results, and the executed chapters |

* **The report again, also as web pages:** type `make report` in `project/` (Linux, macOS or WSL,
  Python 3.11 or newer). It needs no data set and trains nothing.
* **The demonstration:** type `make demo` there.
* **The notebook:** `python3 tools/environment.py full` in `project/` makes an environment for it.
  Open it where it lies, in JupyterLab or VS Code, with the Python of `project/.venv`. On Google
  Colab, upload the notebook, run it, and choose this archive when it asks.

Not in this archive: the data sets, which `make data` downloads (SVHN is for non-commercial use
only, Netzer et al. 2011){left_out}.
"""


def digest(content: bytes) -> str:
    """The digest by which a file that is left out is known (see `provenance.file_digest`)."""
    return hashlib.sha256(content).hexdigest()[:16]


def packed_size(where: str, content: bytes, whose: str) -> int:
    """About how many bytes a file takes in an archive of this name, rather too many than few."""
    name = len(f"{whose}/project/{where}".encode())
    return len(zlib.compress(content, 9)) + 76 + 2 * name  # two headers, the name in both


def packable() -> dict[str, bytes]:
    """The project's files by their path, as they are."""
    found = [path for pattern in AT_ROOT for path in ROOT.glob(pattern)]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    packed = {}
    for path in found:
        where = path.relative_to(ROOT)
        if path.is_symlink() or not path.is_file() or path.is_relative_to(files.data_root()):
            continue
        if any(NOT_PACKED.fullmatch(part) for part in where.parts):
            continue
        if where.parts[0] in ("cache", "models") and not provenance.committed(where.as_posix()):
            continue
        packed[where.as_posix()] = path.read_bytes()
    return packed


def project(author: str, day: datetime.date, beside: int) -> tuple[dict[str, bytes], list[str]]:
    """The project's files as they are packed, by their path, and the paths of what is left out.

    Whose it is stands in `_quarto.yml`, and the digests of all that is left out in
    `files.LEFT_OUT`, so that nothing counts as changed for being absent.

    Args:
        beside: bytes that the archive holds beside them.
    """
    packed = packable()
    known = files.left_out()
    main = {runs.weights_path(run).name for run in runs.MAIN.values()}
    out = [w for w in packed if w.startswith("models/") and Path(w).name not in main]
    sizes = {where: packed_size(where, content, author) for where, content in packed.items()}
    results = [where for where in sizes if where.startswith("cache/") and where.endswith(".npz")]
    spare = [where for where in results if not NEEDED.match(where)]
    # Answers first: nothing but chapters that are executed again reads them.
    spare.sort(key=lambda where: (not where.startswith("cache/answers/"), -sizes[where], where))
    total = beside + sum(sizes.values()) - sum(sizes[where] for where in out)
    while total > LIMIT and spare:
        out.append(spare.pop(0))
        total -= sizes[out[-1]] - 60  # its digest
    known |= {where: digest(packed.pop(where)) for where in out}
    for where in [where for where in packed if where.endswith(SCRIPT)]:
        known[where] = digest(packed[where])
        packed[where.removesuffix(SCRIPT) + "_js.txt"] = packed.pop(where)
    packed["_quarto.yml"] = named(packed["_quarto.yml"].decode(), author, day).encode()
    packed[files.LEFT_OUT] = (json.dumps(known, indent=1, sort_keys=True) + "\n").encode()
    return packed, [where for where in known if where not in packed and not where.endswith(SCRIPT)]


def named(config: str, author: str, day: datetime.date) -> str:
    """`_quarto.yml` with whose the report is, and of when."""
    config = re.sub(r"(?m)^  author: .*\n", "", config)
    lines = f"  author: {json.dumps(author, ensure_ascii=False)}\n  date: {day.isoformat()}"
    config, count = re.subn(r"(?m)^  date: .*$", lambda match: lines, config)
    if count != 1:
        raise SetupError("_quarto.yml has no line `  date: …` below `book:`: add it.")
    return config


def words(left_out: list[str]) -> str:
    """What is left out beside what always is, in words."""
    models = sum(where.startswith("models/") for where in left_out)
    results = len(left_out) - models
    found = [f"{models} model{'s' * (models > 1)} of further runs"] * bool(models)
    found += [f"{results} stored result{'s' * (results > 1)}"] * bool(results)
    about = "their digests are in it"
    if results:
        about += ", most chapters need them to be executed again"
    return f", {' and '.join(found)} ({about})" if found else ""


def problems(packed: dict[str, bytes]) -> list[str]:
    """What must not be packed: paths of this machine, and files that no mail takes."""
    found = []
    for where, content in packed.items():
        if f"{ROOT}/".encode() in content:
            found.append(f"{where} holds the path {ROOT} of this machine: make it again.")
        if where.rpartition(".")[2].lower() in REFUSED.split():
            found.append(f"{where} is of a kind that mail services refuse: remove it.")
    return found


def zipped(stem: str, packed: dict[str, bytes], day: datetime.date) -> bytes:
    """A ZIP archive of files in one folder, the same bytes for the same files and day."""
    target = io.BytesIO()
    dated = (day.year, day.month, day.day, 0, 0, 0)  # not later: make warns of files of the future
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as book:
        for where in sorted(packed):
            entry = zipfile.ZipInfo(f"{stem}/{where}", dated)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            book.writestr(entry, packed[where], zipfile.ZIP_DEFLATED, 9)
    return target.getvalue()
