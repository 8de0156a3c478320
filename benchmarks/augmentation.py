"""Which augmentation suits MNIST, judged on images that no run has been tested on.

    python benchmarks/augmentation.py [SETTING…]

The validation split holds 7,000 images, of which a good network misreads some twenty: too
few to tell settings apart. So each setting learns from 16,000 images of the training split and is
judged on the other 33,000 together with the validation split. The test split is not loaded.
Writes ``cache/results/augmentation.csv``, which chapter 2 shows; a setting that is in it already
is not tried again, so it can be interrupted. Some five minutes a setting.
"""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np
import pandas as pd
import torch

from digitcnn import data, files, runs
from digitcnn.training import Training, predict_logits

IMAGES, EPOCHS = 16_000, 16
SETTINGS = {
    "affine + elastic": {},
    "affine": {"augmentation": ("affine",)},
    "affine + erase": {"augmentation": ("affine", "erase")},
    "affine + elastic + erase": {"augmentation": ("affine", "elastic", "erase")},
    "affine + elastic, dropout 0.5": {"dropout": 0.5},
    "affine + elastic, no label smoothing": {"label_smoothing": 0.0},
    "affine, no label smoothing": {"augmentation": ("affine",), "label_smoothing": 0.0},
    "affine + elastic, peak rate 0.05": {"learning_rate": 0.05},
    "affine + elastic, batch 64": {"batch_size": 64, "learning_rate": 0.1},
}
PATH = files.cache_path("results", "augmentation.csv")


def main(names: list[str]) -> int:
    """Try the settings that have no result yet."""
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        print(f"There is no setting {unknown[0]!r}: choose of {', '.join(SETTINGS)}.")
        return 2
    done = pd.read_csv(PATH) if PATH.is_file() else pd.DataFrame()
    train, validation = (data.load("mnist", split) for split in ("train", "validation"))
    learnt = data.stratified_subset(train, IMAGES)
    rest = train.take(np.flatnonzero(~np.isin(train.indices, learnt.indices)))
    images = torch.cat([rest.images, validation.images])
    labels = torch.cat([rest.labels, validation.labels])
    for name in names or SETTINGS:
        if len(done) and name in set(done["setting"]):
            continue
        began = time.perf_counter()
        run = dataclasses.replace(
            runs.BASELINE["mnist"], epochs=EPOCHS, held_out=(), **SETTINGS[name]
        )
        training = Training(run, learnt, {})
        for epoch in range(EPOCHS):
            metrics = training.run_epoch()["train"]
            files.say(f"{name}: epoch {epoch + 1}/{EPOCHS}, {time.perf_counter() - began:.0f} s")
        wrong = predict_logits(training.averaged.module, images).argmax(1).cpu() != labels
        row = {
            "setting": name,
            "augmentation": " ".join(run.augmentation),
            "held_out": len(wrong),
            "wrong": int(wrong.sum()),
            "wrong_validation": int(wrong[len(rest) :].sum()),
            "train_accuracy": round(metrics.accuracy, 4),
            "seconds": round(time.perf_counter() - began),
        }
        done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
        files.write_whole(PATH, done.to_csv(index=False))
    print(done.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
