"""How well pictures of people's own are read, with and without preparation.

    python benchmarks/pictures.py                 # what is missing of the table, 1,000 a condition
    python benchmarks/pictures.py --again [CONDITION…]
    python benchmarks/pictures.py --show          # the table, and the sentence for README
    python benchmarks/pictures.py --tune --count 200 [CONDITION…]
    python benchmarks/pictures.py --digits        # scikit-learn's load_digits, never tuned on

Each condition of ``conditions.py`` has as many printed digits as handwritten ones; ``--writers``
names the file ``mnist_writers.npz``, whose array ``test_writer`` says who wrote each MNIST test
image (else the halves are by position). Every picture is written to a file's content and read
back, so the reader is measured too. Each finished condition is kept at once in
``cache/results/pictures.npz``, with the weights and the code that it was measured with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from conditions import CONDITIONS, KINDS, generate

from digitcnn import (
    files,
    inference,
    pictures,
    preparation,
    rejection,
    runs,
    sources,
    store,
)

PATH = files.cache_path("results", "pictures.npz")
ROOT = "pictures.read preparation.prepare_for rejection.unlike training.predict_logits"
HOWS = preparation.HOW
COUNT = 500  # of each kind
DIGITS = "scikit-learn's load_digits"


def tokens() -> list[str]:
    """What the table is measured with, besides the code."""
    scripts = [store.asset(f"benchmarks/{name}.py") for name in ("conditions", "pictures")]
    return [store.weights(name) for name in runs.MAIN] + scripts


def right(models: dict, found: Iterable[np.ndarray], labels: np.ndarray) -> tuple[dict, dict]:
    """By model and way of preparing, which pictures uint8 (H, W, 3) are read rightly; and by
    model, which are flagged as nothing like a digit, prepared."""
    prepared = [{how: preparation.prepare_for(models, each, how) for how in HOWS} for each in found]
    hits, flagged = {}, {}
    for how in HOWS:
        for name, model in models.items():
            digits = [each[how][name][0] for each in prepared]
            images = torch.from_numpy(np.stack([digit.image for digit in digits]))
            logits = inference.predict_logits(model, images).cpu().numpy()
            hits[name, how] = logits.argmax(1) == labels
            if how == "auto":
                beside = [digit.blank or digit.cluttered for digit in digits]
                flagged[name] = beside | rejection.unlike(logits, name)
    return hits, flagged


def worse(none: np.ndarray, auto: np.ndarray) -> bool:
    """Whether preparing loses more than a point and two standard errors of the paired difference,
    of pictures that were read rightly (bool) without and with it."""
    loss = none.astype(float) - auto
    return bool(loss.mean() > 0.01 + 2 * loss.std() / np.sqrt(len(loss)))


def measure(condition: str, part: str, count: int, writers: str | None) -> pd.DataFrame:
    """A row for each model: shares that are right, printed and handwritten, and flagged."""
    models = {name: inference.load(name) for name in sources.NAMES}
    by = {}
    for kind in KINDS:
        batch = generate(condition, kind, part, count, writers)
        read = (pictures.read(content).pixels for content in batch.contents)
        by[kind] = right(models, read, batch.labels)
    rows = []
    for name in models:
        row = {"condition": condition, "model": name, "count": count}
        for how in HOWS:
            row |= {f"{how} {kind}": by[kind][0][name, how].mean() for kind in KINDS}
        row["flagged"] = np.mean([by[kind][1][name].mean() for kind in KINDS])
        row["worse"] = any(worse(*(by[k][0][name, how] for how in reversed(HOWS))) for k in KINDS)
        rows.append(row)
    return pd.DataFrame(rows)


def measure_digits() -> pd.DataFrame:
    """The same of scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, white on black."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    found = [np.uint8(np.repeat(255 * image[..., None] / 16, 3, 2)) for image in bunch.images]
    models = {name: inference.load(name) for name in sources.NAMES}
    hits, flagged = right(models, found, bunch.target)
    return pd.DataFrame(
        {"condition": DIGITS, "model": name, "count": len(found)}
        | {f"{how} handwritten": hits[name, how].mean() for how in HOWS}
        | {"flagged": flagged[name].mean(), "worse": worse(hits[name, "none"], hits[name, "auto"])}
        for name in models
    )


def text(rows: pd.DataFrame) -> str:
    """A line for each condition and model: per cent right, printed / handwritten."""
    lines = []
    for row in rows.to_dict("records"):
        shares = [[row.get(f"{how} {kind}", np.nan) for kind in KINDS] for how in HOWS]
        auto, none = (
            " / ".join("    –" if np.isnan(share) else f"{100 * share:5.1f}" for share in each)
            for each in shares
        )
        lines.append(
            f"{row['condition']:<30} {row['model']:<6} auto {auto}   none {none}   "
            f"flagged {100 * row['flagged']:4.1f}{'   worse than none' if row['worse'] else ''}"
        )
    return "\n".join(lines)


def kept() -> pd.DataFrame:
    """The rows that were kept, if they count; else none."""
    if store.stale(PATH, tokens()):
        return pd.DataFrame()
    return pd.DataFrame(store.read(PATH)[0])


def keep(rows: pd.DataFrame) -> None:
    """Put rows in the place of those of the same condition, or behind all."""
    before = kept()
    if len(before):
        rows = pd.concat([before[~before["condition"].isin(rows["condition"])], rows])
    order = {name: number for number, name in enumerate([*CONDITIONS, DIGITS])}
    rows = rows.sort_values("condition", key=lambda names: names.map(order), kind="stable")
    arrays = {name: np.array(column.tolist()) for name, column in rows.items()}
    store.write(PATH, arrays, ROOT, tokens())


def sentence(rows: pd.DataFrame) -> str:
    """What README says of the rows."""
    generated = rows[rows["condition"].isin(CONDITIONS)]
    mnist, svhn = (generated[generated["model"] == name] for name in runs.MAIN)
    least = 100 * mnist[[f"auto {kind}" for kind in KINDS]].min(axis=None)
    return (
        f"Of generated pictures in {len(mnist)} conditions, {2 * mnist['count'].min():,} in each, "
        f"the MNIST network reads at least {least:.1f} % and the SVHN network at least "
        f"{100 * svhn['auto printed'].min():.1f} % of the printed digits"
    )


def main() -> None:
    """Measure and keep, or try on the tuning set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("conditions", metavar="CONDITION", nargs="*", help="a part of its name")
    parser.add_argument("--again", action="store_true", help="also what has been measured")
    parser.add_argument("--show", action="store_true", help="print what was kept")
    parser.add_argument("--tune", action="store_true", help="on what may be tuned on; keep nothing")
    parser.add_argument("--count", type=int, help=f"of each kind, keep nothing; default {COUNT}")
    parser.add_argument("--writers", metavar="FILE", help="who wrote each MNIST image")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits only")
    options = parser.parse_args()
    if options.show:
        print(text(kept()), sentence(kept()), sep="\n\n")
        return
    if options.digits:
        keep(found := measure_digits())
        print(text(found))
        return
    trial = options.tune or options.count is not None
    known = set() if trial or options.again else set(kept().get("condition", ()))
    for name in CONDITIONS:
        if name not in known and any(part in name for part in options.conditions or [name]):
            part = "tune" if options.tune else "measure"
            rows = measure(name, part, options.count or COUNT, options.writers)
            if not trial:
                keep(rows)
            print(text(rows), flush=True)


if __name__ == "__main__":
    main()
