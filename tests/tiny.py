"""A tiny book with hand-made frozen Markdown, for the tests of the renderer without Quarto."""

import hashlib
import html
import json
import re
import struct
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import offline  # noqa: E402


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0" + b"\x80" * 8 + (b"\0" + b"\x80" * 8) * 7))
    + _chunk(b"IEND", b"")
)
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="60">'
    b'<rect width="80" height="60" fill="teal"/></svg>'
)

CONFIG = """
project: {type: book, execute-dir: project, resources: [/cache/metrics/*/*.txt]}
book:
  title: "A tiny book: how & why"
  author: "An Author"
  date: 2025-02-03
  chapters: [index.qmd, chapters/01-data.qmd, chapters/02-model.qmd, references.qmd]
  appendices: [chapters/app.qmd]
bibliography: refs.bib
lang: en-GB
format:
  html: {code-fold: true}
  typst: {toc-depth: 2}
"""

INDEX = """# Preface {.unnumbered}

Forward: @fig-wave, @sec-model, @sec-app, @tbl-squares; it took 20 s, that is 97.2 ± 0.2 % of '1's.
"""

DATA = """# The data {#sec-data}

```{python}
#| label: fig-wave
1
```
"""

FROZEN = """# The data {#sec-data}

Refs: @fig-wave; [-@fig-wave]; [Figures @fig-wave]; @fig-pair; @eq-euler; @sec-sub; @lecun98.

::: {#cell-fig-wave .cell execution_count=1}
``` {.python .cell-code}
secret_source = 1
```

::: {.cell-output .cell-output-display}
![A wave.](01-data_files/FIGURES/fig-wave-output-1.EXT){#fig-wave fig-alt='It\\'s a wave'}
:::
:::

::: {#cell-plain .cell execution_count=2}
``` {.python .cell-code code-fold="false"}
print("unfolded")
```

::: {.cell-output .cell-output-stdout}
```
printed output
```
:::
:::

::: {#fig-pair}

::: {.cell execution_count=3}
::: {.cell-output .cell-output-display}
![](01-data_files/FIGURES/fig-wave-output-1.EXT)
:::
:::

Both of them.
:::

::: {#tbl-squares .cell tbl-cap='Squares.' execution_count=4}

::: {.cell-output .cell-output-display .cell-output-markdown execution_count=4}
| number | square |
|--:|--:|
ROWS
:::
:::

::: {.content-visible when-format="html"}
```{=html}
<div id="widget"></div><script>document.getElementById("widget").textContent = "alive";</script>
```
[train.txt](../cache/metrics/mnist/train.txt)
:::

## Same title {#sec-sub}

$$
e^{i\\pi} + 1 = 0
$$ {#eq-euler}

And $x^2$. [The key]{.colophon}

### Same title

## Not counted {.unnumbered}

## Counted {#sec-counted}

@sec-counted
"""

MODEL = """# The model {#sec-model}

## Same title

See [a section](#sec-sub), [the web](https://example.org) and @fig-div, @tbl-pipe.

::: {#fig-div}

![](../img.png){fig-alt="Grey" width=50%}

The figure of the div.
:::

| a | b |
|---|--:|
| 1 | 2 |

: A pipe table {#tbl-pipe tbl-colwidths="[30,70]"}

::: {.callout-warning collapse="true"}
## Careful now
Folded body.
:::

::: {.callout-important title="A `titled` box"}
Box body.
:::

## After boxes {#sec-after}

@sec-after

::: {.content-visible when-format="html"}
WebOnly
:::
::: {.content-visible when-format="typst"}
PaperOnly
:::
[SpanWeb]{.content-visible when-format="html"}[SpanPaper]{.content-visible when-format="typst"}

```{=latex}
\\NoLatexHere
```
"""

APP = """# Extras {#sec-app}

![Last](../img.png){#fig-app}

$$ x = y $$ {#eq-app}

## Inside {#sec-inside}

@fig-app, @eq-app, @sec-inside.
"""

BIB = "@article{lecun98, author={LeCun, Yann}, title={Gradient}, journal={IEEE}, year={1998}}\n"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def freeze(root: Path, frozen: str = FROZEN, folder: str = "_freeze") -> None:
    """Write frozen results for chapter 1 as Quarto does."""
    rows = "\n".join(f"| {i} | {i * i} |" for i in range(80))
    base = root / folder / "chapters" / "01-data"
    for ending, figures, ext, data in (
        ("html", "figure-html", "png", PNG),
        ("typ", "figure-typst", "svg", SVG),
    ):
        text = frozen.replace("FIGURES", figures).replace("EXT", ext).replace("ROWS", rows)
        result = {"engine": "jupyter", "markdown": text, "supporting": [], "filters": []}
        if ending == "html":  # Quarto notes this whenever a cell shows HTML
            result["includes"] = {
                "include-in-header": ['<script src="https://cdn.example.org/require.js"></script>']
            }
        (base / "execute-results").mkdir(parents=True, exist_ok=True)
        (base / figures).mkdir(exist_ok=True)
        (base / figures / f"fig-wave-output-1.{ext}").write_bytes(data)
        content = {"hash": md5(root / "chapters/01-data.qmd"), "result": result}
        (base / "execute-results" / f"{ending}.json").write_text(json.dumps(content))


def make_book(root: Path) -> Path:
    files = {
        "_quarto.yml": CONFIG,
        "_quarto-quick.yml": "book: {subtitle: The quick one}\nproject: {output-dir: _fast}\n",
        "index.qmd": INDEX,
        "chapters/01-data.qmd": DATA,
        "chapters/02-model.qmd": MODEL,
        "chapters/app.qmd": APP,
        "references.qmd": "# References {.unnumbered}\n\n::: {#refs}\n:::\n",
        "refs.bib": BIB,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (root / "img.png").write_bytes(PNG)
    metrics = root / "cache/metrics/mnist/train.txt"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("epoch\tloss\n")
    freeze(root)
    return root


def run(root: Path, *args: str) -> int:
    return offline.main(["--project", str(root), *args])


def plain(markup: str) -> str:
    """Return the text of HTML with single spaces."""
    markup = re.sub(r"<annotation.*?</annotation>|<style.*?</style>", "", markup, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", markup)).split())


def between(page: str, element: str) -> list[str]:
    return [plain(x) for x in re.findall(rf"<{element}\b.*?</{element}>", page, re.DOTALL)]
