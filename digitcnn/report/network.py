"""Chapter 2: the network as code and by stage, and the pilot runs that the recipe rests on."""

from __future__ import annotations

import ast
import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from IPython.display import Markdown

from .. import runs, store
from . import source
from .values import Average, Count, Share


def code(*wanted: str) -> Markdown:
    """The source of definitions (see `report.source`) without their docstrings."""
    lines = source(*wanted).data.splitlines()  # the first one is the fence
    kept = dict(enumerate(lines))
    for node in ast.walk(ast.parse("\n".join(lines[1:-1]))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            last = node.body[0].end_lineno
            for number in range(node.body[0].lineno, last + 1 + (lines[last + 1] == "")):
                del kept[number]
    return Markdown("\n".join(kept.values()))


class Stage(NamedTuple):
    """A stage of the network: its layers in the order of computation, and what comes out.

    Attributes:
        shape: of the output for one image, (channels, height, width) or (features,).
        parameters: trainable ones.
    """

    name: str
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int


LAYERS = {
    "Conv2d": "conv 3 × 3", "MaxPool2d": "max-pool", "BatchNorm2d": "batch norm",
    "BatchNorm1d": "batch norm", "ReLU": "ReLU", "Flatten": "flatten", "Linear": "linear",
}  # fmt: skip


@store.stored("results/architecture")
def architecture() -> dict[str, np.ndarray]:
    """The recipe's network as it computes: a row a stage of `Stage`'s fields, joined by commas."""
    import torch

    from ..training import build_model

    model = build_model(runs.RECIPE["mnist"]).eval()
    stages, numbers = {}, {"ConvBlock": "block", "Residual": "residual"}
    for module in model.convolutions:
        kind = numbers[type(module).__name__]
        stages[f"{kind} {1 + sum(name.startswith(kind) for name in stages)}"] = module
    stages |= {"features": model.feature_layer, "output": model.output}
    rows, signal = [], torch.zeros(1, 3, 32, 32)
    for name, module in stages.items():
        signal = module(signal)
        kinds = [LAYERS.get(type(part).__name__) for part in module.modules()]
        kinds += ["+ input"] if name.startswith("residual") else []
        kinds += ["softmax"] if name == "output" else []  # `DigitCNN.probabilities`
        count = sum(parameter.numel() for parameter in module.parameters())
        shape = ",".join(map(str, signal.shape[1:]))
        rows.append((name, ",".join(filter(None, kinds)), shape, str(count)))
    return {"stages": np.array(rows)}


def stages() -> list[Stage]:
    """The network's stages in the order of computation."""
    return [
        Stage(name, tuple(layers.split(",")), tuple(map(int, shape.split(","))), int(count))
        for name, layers, shape, count in architecture()["stages"].tolist()
    ]


# The largest probability that a second softmax could give, applied to the first one's.
TWICE = Average((math.e / (math.e + 9), math.nan, math.nan))


class Pilot(NamedTuple):
    """A setting in the pilot runs, one seed each: its errors, those of the other, of how many."""

    errors: Count
    other: Count
    images: Count

    @property
    def read(self) -> Share:
        """Share of the images that the setting reads."""
        return Share(self.images - self.errors, self.images)


# From the records of the pilot runs of 22 to 26 November, before the recipe was fixed; the runs are
# no longer part of the repository (the comment on `runs.RECIPE` says how long they were).
PILOTS = SimpleNamespace(
    gelu=Pilot(Count(2_907), Count(3_058), Count(63_431)),
    gelu_long=Pilot(Count(342), Count(340), Count(9_929)),
    gelu_long_mnist=Pilot(Count(13), Count(12), Count(7_000)),
    small_batch=Pilot(Count(3_058), Count(3_073), Count(63_431)),
    no_augmentation=Pilot(Count(4_042), Count(3_073), Count(63_431)),
    resolutions=Pilot(Count(430 + 452), Count(419 + 407), Count(2 * 9_929)),
)
