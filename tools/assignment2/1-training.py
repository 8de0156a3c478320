# The text of Assignment-2.ipynb, cell by cell; tools/notebook.py makes the notebook of it.
#
# "# %% [markdown]" begins text, "# %%" code, and "# %% source MODULE: NAMES" stands for the source
# of these definitions of digitcnn.MODULE, as it is. "# %% needs GROUP" begins code that shows
# results of runs of that group. Later cells may use whatever an earlier one has defined.

# %% [markdown]
# # Assignment 2: deep learning with MNIST and SVHN
#
# CS411, Applications of Computer Vision and Deep Learning
#
# One small convolutional network, built and trained from scratch with PyTorch, reads handwritten
# digits (MNIST) and house numbers (SVHN). The headings carry the assignment's letters, (a) to (f).
# The report, `report.pdf`, says more about each of them: its chapters have the same letters.
#
# **How to run it.** From the first cell to the last, nothing else is needed.
#
# * *JupyterLab or VS Code*: unpack the archive and open this notebook where it lies.
# * *Google Colab*: upload this notebook. The first cell then asks for the archive, `NAME.ROLL.zip`.
#
# Cells that begin with `# From digitcnn/…` hold the source of the project's module, unchanged, so
# what is read here is what trained the saved networks.

# %% [markdown]
# ## Setting up
#
# The cell below finds the project that belongs to this notebook, or unpacks it.

# %%
from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from pathlib import Path

PACKAGES = {"torch": "torch", "torchvision": "torchvision", "sklearn": "scikit-learn"}
PACKAGES |= {"pandas": "pandas", "matplotlib": "matplotlib", "umap": "umap-learn"}
PACKAGES |= {"safetensors": "safetensors", "filelock": "filelock"}


def find_project() -> Path | None:
    """The folder that holds the module `digitcnn`, here, above, or one or two folders below."""
    near = [Path.cwd(), *Path.cwd().parents, *sorted(Path.cwd().glob("*/"))]
    places = [folder / name for folder in near for name in ("", "project")]
    return next((path for path in places if (path / "digitcnn" / "runs.py").is_file()), None)


def unpack_archive() -> None:
    """Unpack the archive that was handed in, if it lies in this folder."""
    for path in sorted(Path.cwd().glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("project/digitcnn/runs.py") for name in archive.namelist()):
                archive.extractall()
                return


if not find_project():
    unpack_archive()
if not find_project() and "google.colab" in sys.modules:
    from google.colab import files as colab_files

    print("Choose the archive that was handed in, NAME.ROLL.zip:")
    colab_files.upload()  # into this folder
    unpack_archive()
project = find_project()
if project is None:
    raise FileNotFoundError(
        f"The project is not here: put the archive NAME.ROLL.zip into {Path.cwd()}, then run this "
        "cell again."
    )
if absent := [package for name, package in PACKAGES.items() if not importlib.util.find_spec(name)]:
    raise ModuleNotFoundError(
        f"Run `%pip install {' '.join(absent)}` in a cell of its own, then this cell again."
    )
os.chdir(project)
sys.path.insert(0, str(project))

# %% [markdown]
# ### The one switch
#
# `TRAIN = False` loads the saved networks and finishes in minutes. `TRAIN = True` trains every
# network of this notebook from nothing and uses those below; it shows each epoch as it ends. 50
# epochs of all take hours on a CPU; `EPOCHS = 1` shows quickly that it works.

# %%
TRAIN = False
EPOCHS = 50  # with TRAIN = True

# %%
import contextlib
import dataclasses
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from IPython.display import display
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.metrics import precision_recall_fscore_support as precision_recall
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

os.environ.setdefault("DIGITCNN_TRAIN", "never")  # no stored run is made again unasked
from digitcnn import augmentation, checkpoints, files, predictions, results, runs, sources
from digitcnn.checkpoints import differences, record_path, weights_path
from digitcnn.data import held_out_part, training_part
from digitcnn.files import DigitcnnError
from digitcnn.pictures import to_images
from digitcnn.report import imbalance_features, representation
from digitcnn.runs import RunConfig
from digitcnn.sources import TITLES, Source
from digitcnn.tensors import read_tensors, stored_value

NAMES = tuple(TITLES)  # "mnist", "svhn"
plt.rcParams.update({"figure.dpi": 80, "font.size": 8, "figure.constrained_layout.use": True})

# %% [markdown]
# ## (a) Dataset loading and preprocessing
#
# Both data sets come through `torchvision.datasets`. MNIST's 28 × 28 grey images get a border of
# two pixels and three equal channels, so both are 3 × 32 × 32 and one network serves both.

# %% source sources: _read_mnist _read_svhn _official_test to_input_format

# %% [markdown]
# The project checks the MD5 of every file before these functions read it, and downloads what is
# missing.

# %%
pools = {name: sources.read(name, download=True) for name in NAMES}
for name, pool in pools.items():
    print(f"{TITLES[name]}: {len(pool.labels):,} images of shape {pool.images.shape[1:]}")

# %% [markdown]
# ### Seed 42
#
# for Python's `random`, NumPy and PyTorch.

# %% source division: SEED

# %% source data: seed_everything

# %%
seed_everything()

# %% [markdown]
# ### Training 70 %, validation 10 %, test 20 %
#
# The official training and test images are pooled and divided anew, as the assignment asks. The
# division is stratified: each class has the same share of every part.

# %% source division: POOLED_SHARES pooled_division

# %% source data: Split select

# %%
splits = {}
for name, pool in pools.items():
    parts = pooled_division(pool.labels, pool.official_test)
    splits[name] = {
        split: select(pool, np.sort(part)) for split, part in zip(runs.SPLITS, parts, strict=True)
    }
sizes = {TITLES[n]: {s: len(part) for s, part in splits[n].items()} for n in NAMES}
pd.DataFrame(sizes).T

# %% [markdown]
# ### The first two images of each class
#
# 2 images × 10 classes × 3 parts × 2 data sets are 120 images; the label stands above each.


# %%
def show(axis, image: np.ndarray, title: str = "", **style) -> None:
    """Draw one uint8 image (3, 32, 32) without axes."""
    axis.imshow(np.transpose(image, (1, 2, 0)))
    axis.set_title(title, fontsize=7, pad=2, **style)
    axis.set_axis_off()


drawn = 0
for name in NAMES:
    figure, axes = plt.subplots(6, 10, figsize=(8, 5.6))
    figure.suptitle(f"{TITLES[name]}: training, validation and test (two rows each)")
    for block, part in enumerate(splits[name].values()):
        for digit in range(10):
            for row, at in enumerate(np.flatnonzero(part.labels.numpy() == digit)[:2]):
                show(axes[2 * block + row, digit], part.images[at].numpy(), f"label {digit}")
                drawn += 1
    plt.show()
print(f"{drawn} images")

# %% [markdown]
# ### Distribution of the classes

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6))
for axis, name in zip(axes, NAMES, strict=True):
    counts = {s: np.bincount(part.labels, minlength=10) for s, part in splits[name].items()}
    table = pd.DataFrame(counts).rename_axis("class")
    table.plot.bar(ax=axis, rot=0, width=0.8, title=TITLES[name], ylabel="images")
plt.show()

# %% [markdown]
# ## (b) Building and training the CNN
#
# ### (b.a) The network
#
# Convolutions with batch normalisation, ReLU and max-pooling, two of them with a shortcut around
# them, then a fully connected layer of 128 features and one of 10 outputs. The softmax is applied
# to the outputs, inside the loss while training (`CrossEntropyLoss` expects logits) and in
# `probabilities`. Images enter in [0, 1], for both data sets alike; the network itself subtracts
# the mean of its training images and divides by their standard deviation. Nothing is pre-trained.

# %% source model: ACTIVATIONS CLASSES FEATURES ConvBlock Residual MapSize DigitCNN

# %%
network = DigitCNN()
print(network)
print(f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters")

# %% [markdown]
# ### (b.b) Training
#
# **Augmentation.** Each training image is changed a little at random: moved, turned and stretched,
# a square of it covered, and on SVHN also its colours, so that the network learns what stays.

# %% source augmentation: SIZE _uniform _resampled affine colour erase augment

# %%
AUGMENTATIONS = augmentation.AUGMENTATIONS | {"affine": affine, "colour": colour, "erase": erase}

# %% [markdown]
# **Loss, optimiser, learning rate.** Cross-entropy with label smoothing; SGD with Nesterov momentum
# and weight decay; the rate rises over the first fifth of the steps and then falls to almost
# nothing. What is evaluated and kept is a moving average of the weights.

# %% source training: OPTIMIZERS one_cycle

# %%
SCHEDULES = {"one-cycle": one_cycle}

# %% [markdown]
# **Arithmetic.** bfloat16 is used in training where the processor itself has it. A GPU that only
# emulates it, as Colab's T4 does, trains in float32. Evaluation is in float32 everywhere.

# %% source training: pick_device native_bfloat16 autocast float32 reproducible to_unit resized

# %% [markdown]
# **Metrics** after each epoch, on the validation and on the test split: loss, accuracy, and
# precision and recall as means over the classes.

# %% source training: Metrics metrics_from_confusion _confusion

# %% source training: EVALUATION_BATCH predict_logits evaluate

# %% [markdown]
# **The loop.** One `Training` is one run; `run_epoch` is where the network learns.

# %% source training: Training stage build_model _moving_average learn

# %% [markdown]
# ### (c.b) Loading a trained network and inference
#
# Asked for under (c); needed from here on. A saved network is one `safetensors` file that holds its
# configuration and a checksum, so damaged or foreign weights are refused.

# %% source checkpoints: checked_weights load_model

# %% source predictions: softmax

# %% source inference: probabilities

# %% [markdown]
# ### Train, or load
#
# The configuration was chosen on validation images, by the short runs shown below.

# %%
pd.DataFrame({TITLES[name]: dataclasses.asdict(runs.get(name)) for name in NAMES}).astype(str)


# %%
def trained(run: RunConfig) -> tuple[DigitCNN, dict[str, pd.DataFrame]]:
    """A run's network and its metrics by split: loaded, or with `TRAIN` trained and saved.

    What is trained here goes to `trained/` in the project's folder; saved results stay.
    """
    if not TRAIN:
        return load_model(run), results.history(run)
    run, began = dataclasses.replace(run, epochs=EPOCHS), time.monotonic()

    def tell(training: Training) -> None:
        seconds = time.monotonic() - began
        left = seconds / training.epoch * (EPOCHS - training.epoch)
        found = ", ".join(f"{s} {rows[-1].accuracy:.2%}" for s, rows in training.rows.items())
        print(
            f"{run.id} epoch {training.epoch}/{EPOCHS}: loss {training.rows['train'][-1].loss:.4f},"
            f" accuracy {found} ({seconds:.0f} s, {left:.0f} s left)"
        )

    done = learn(run, pools[run.data], pick_device(), after_epoch=tell)
    folder = Path("trained")
    for split, rows in done.rows.items():  # the metrics of each epoch, in separate text files
        path = folder / run.id / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(results.metrics_text(rows))
    network = done.averaged.module.eval()
    weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(weights, folder / run.model_file)
    return network, {
        split: pd.DataFrame([dataclasses.asdict(row) for row in rows])
        for split, rows in done.rows.items()
    }


device = pick_device()
precision = "bfloat16" if native_bfloat16(device) else "float32"
print(f"{'Training' if TRAIN else 'Loading; training would be'} on {device.type} in {precision}")
networks, histories = {}, {}
for name in NAMES:
    networks[name], histories[name] = trained(runs.get(name))

# %% [markdown]
# ### (b.c) Metrics of each epoch
#
# Saved as text, a file for each part: `cache/metrics/<run>/train.txt`, `validation.txt` and
# `test.txt`. Here the last epochs; the `train` row is of augmented images while they are learnt.

# %%
for name in NAMES:
    last = pd.concat({split: table.tail(3) for split, table in histories[name].items()})
    print(TITLES[name])
    display(last.round(4))

# %% [markdown]
# ### (b.d, b.e) Curves, for MNIST and for SVHN

# %%
figure, axes = plt.subplots(2, 2, figsize=(8, 4.6), sharex="col")
for column, name in enumerate(NAMES):
    for split, table in histories[name].items():
        style = {"linestyle": ":" if split == "test" else "-", "label": split}
        axes[0, column].plot(table["epoch"], table["loss"], **style)
        axes[1, column].plot(table["epoch"], 100 * table["accuracy"], **style)
    axes[0, column].set(title=TITLES[name], ylabel="cross-entropy (nats)", yscale="log")
    axes[1, column].set(xlabel="epoch", ylabel="accuracy (%)")
axes[0, 0].legend()
plt.show()

# %% [markdown]
# ### Choosing optimiser, learning rate, batch size and activation
#
# Short runs, each with one change of the configuration, on three seeds. Mean validation accuracy
# in per cent and its standard deviation; `recipe` is the configuration without a change.

# %% needs experiments
tried = []
for run in runs.registry().values():
    if run.group == "experiments":
        accuracy = results.history(run)["validation"]["accuracy"].iloc[-1]
        setting = run.name.partition("-exp-")[2]
        tried.append({"setting": setting, "data": TITLES[run.data], "accuracy": 100 * accuracy})
tried = pd.DataFrame(tried).groupby(["setting", "data"], sort=False)["accuracy"]
tried.agg(["mean", "std"]).unstack().round(2)
