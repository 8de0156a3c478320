"""The network: a small residual CNN with a fully connected feature layer.

Convolution, batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167), activation and
max-pooling, with identity shortcuts (He et al. 2015, arXiv 1512.03385) around two pairs of
convolutions. Max-pooling comes directly after its convolution, so that batch normalisation and
activation touch a quarter of the values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
CLASSES = 10
FEATURES = 128


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, optional 2 x 2 max-pooling, batch normalisation, activation."""

    def __init__(
        self, inputs: int, outputs: int, activation: str, batch_norm: bool, pool: bool = False
    ):
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)]
        if pool:
            layers.append(nn.MaxPool2d(2))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        super().__init__(*layers, ACTIVATIONS[activation]())


class Residual(nn.Module):
    """Two convolution blocks, with an identity shortcut around them or without; shape is kept."""

    def __init__(self, channels: int, activation: str, batch_norm: bool, shortcut: bool = True):
        super().__init__()
        self.first = ConvBlock(channels, channels, activation, batch_norm)
        self.second = ConvBlock(channels, channels, activation, batch_norm)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        transformed = self.second(self.first(x))
        return x + transformed if self.shortcut else transformed


class MapSize(nn.Module):
    """Averages or repeats the cells of a map (N, C, h, h) so that it becomes (N, C, side, side).

    A map that has that size already, as that of a 32 x 32 image has at side 4, passes unchanged.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[-1] == self.side else F.adaptive_avg_pool2d(x, self.side)


class DigitCNN(nn.Module):
    """Classifier of digit images, 3 x 32 x 32 or, while it learns at lower resolution, smaller.

    Args:
        activation: a key of `ACTIVATIONS`.
        batch_norm: whether convolutions and the feature layer are batch-normalised.
        shortcuts: whether identity shortcuts lead around the two pairs of convolutions.
        map_side: side of the map that the feature layer reads, flattened: 4, which is the last
            map of a 32 x 32 image as it is; 1 is global average pooling.
        dropout: probability of dropping a feature before the output layer, in [0, 1).
        width: factor on every number of channels; 1 gives 16, 48, 96 and 128.
        mean, std: per-channel statistics of the training images in [0, 1], kept in the model as
            buffers, so that a saved model needs nothing else to classify a picture.

    Input is (N, 3, S, S) in [0, 1], S a multiple of 8. At `width` 1 the network has about 0.63
    million parameters.
    """

    def __init__(
        self,
        activation: str = "relu",
        batch_norm: bool = True,
        shortcuts: bool = True,
        map_side: int = 4,
        dropout: float = 0.0,
        width: float = 1.0,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        std: tuple[float, ...] = (0.25, 0.25, 0.25),
    ):
        super().__init__()
        a, b, c, d = (8 * round(width * channels / 8) for channels in (16, 48, 96, 128))
        block: dict[str, Any] = {"activation": activation, "batch_norm": batch_norm}
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.convolutions = nn.Sequential(
            ConvBlock(3, a, **block),
            ConvBlock(a, b, pool=True, **block),
            Residual(b, shortcut=shortcuts, **block),
            ConvBlock(b, c, pool=True, **block),
            Residual(c, shortcut=shortcuts, **block),
            ConvBlock(c, d, pool=True, **block),
        )
        feature_layer = [
            MapSize(map_side),
            nn.Flatten(),
            nn.Linear(d * map_side * map_side, FEATURES, bias=not batch_norm),
        ]
        if batch_norm:
            feature_layer.append(nn.BatchNorm1d(FEATURES))
        self.feature_layer = nn.Sequential(*feature_layer, ACTIVATIONS[activation]())
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """Output of the fully connected feature layer after its activation: (N, 128)."""
        normalised = (images - self.mean) / self.std  # type: ignore[operator]  # buffers
        return self.feature_layer(self.convolutions(normalised))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10), the input that `torch.nn.CrossEntropyLoss` expects."""
        return self.output(self.dropout(self.features(images)))

    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the logits: (N, 10), each row in [0, 1] and summing to 1."""
        return self.forward(images).float().softmax(dim=1)
