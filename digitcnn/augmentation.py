"""Augmentation: randomly changed copies of a batch of training images.

Each function takes a batch (N, 3, S, S) in [0, 1] and returns one like it. Every image draws its
own parameters, all of them from torch's CPU generator. Only the entries of `AUGMENTATIONS` that a
run names are part of its key.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 32  # of the images, and of those that a finished network reads


def _uniform(images: Tensor, *shape: int, limit: float = 1.0) -> Tensor:
    """Uniform numbers in [-limit, limit] on the device of the images."""
    return ((torch.rand(shape) * 2 - 1) * limit).to(images.device)


def _smooth(images: Tensor, noise: Tensor) -> Tensor:
    """A coarse grid of noise (N, C, g, g), interpolated to the images' size."""
    return F.interpolate(noise, images.shape[-2:], mode="bicubic", align_corners=True)


def _resampled(images: Tensor, grid: Tensor) -> Tensor:
    """The images at the places of a grid (N, S, S, 2); the border goes on outside."""
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def affine(images: Tensor) -> Tensor:
    """Shift up to 2 pixels of 32 in each direction, rotation up to 10 degrees, scale up to 12 %
    (and 8 % more in height), shear up to 0.15; never flipped."""
    count = len(images)
    angle = _uniform(images, count, limit=math.pi / 18)
    scale_x = 1 + _uniform(images, count, limit=0.12)
    scale_y = scale_x * (1 + _uniform(images, count, limit=0.08))
    shear = _uniform(images, count, limit=0.15)
    shift = _uniform(images, 2, count, limit=4 / SIZE)
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.stack(
        [cosine * scale_x, shear - sine * scale_y, shift[0]]
        + [sine * scale_x, cosine * scale_y, shift[1]],
        dim=1,
    ).view(count, 2, 3)
    return _resampled(images, F.affine_grid(matrix, list(images.shape), align_corners=False))


def shift(images: Tensor) -> Tensor:
    """Shift up to 2 pixels of 32 in each direction."""
    matrix = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    matrix[:, :, 2] = _uniform(images, len(images), 2, limit=4 / SIZE)
    return _resampled(images, F.affine_grid(matrix, list(images.shape), align_corners=False))


def colour(images: Tensor) -> Tensor:
    """Contrast up to 30 %, brightness per channel up to 9 %, and in half of the images inverted
    polarity (the operations that AutoAugment found for SVHN, arXiv 1805.09501)."""
    count = len(images)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + _uniform(images, count, 1, 1, 1, limit=0.3)) + mean
    images = images + _uniform(images, count, 3, 1, 1, limit=0.09)
    return torch.where(_uniform(images, count, 1, 1, 1) < 0, 1 - images, images)


def erase(images: Tensor) -> Tensor:
    """An 8 x 8 square of grey anywhere (cutout, arXiv 1708.04552)."""
    width = images.shape[-1]
    centre = (_uniform(images, 2, len(images), 1) + 1) * width / 2
    pixel = torch.arange(width, device=images.device) + 0.5
    rows, columns = ((pixel - middle).abs() < 4 for middle in centre)
    hole = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(hole, images.new_tensor(0.5), images)


# The four properties of photographs that handwriting lacks, each on its own: controls of the
# transfer from MNIST to SVHN. They take white ink on black ground.


def ground(images: Tensor) -> Tensor:
    """Grey ground that varies smoothly, up to half as bright as the ink, behind the ink."""
    random = torch.rand((len(images), 1, 5, 5)).to(images.device)
    behind = 0.5 * _smooth(images, random).clamp(0, 1)
    return images + (1 - images) * behind


def polarity(images: Tensor) -> Tensor:
    """Half of the images inverted."""
    return torch.where(_uniform(images, len(images), 1, 1, 1) < 0, 1 - images, images)


def contrast(images: Tensor) -> Tensor:
    """The range of grey values compressed to 15 to 100 % and put anywhere in [0, 1]."""
    share = 0.15 + 0.85 * torch.rand((len(images), 1, 1, 1)).to(images.device)
    lowest = torch.rand((len(images), 1, 1, 1)).to(images.device) * (1 - share)
    return lowest + share * images


def colours(images: Tensor) -> Tensor:
    """Ink and ground in two random colours: each channel moves by up to 0.4, their mean stays, but
    for what leaves [0, 1] and is cut."""
    ink, paper = (_uniform(images, len(images), 3, 1, 1, limit=0.4) for _ in range(2))
    ink, paper = ink - ink.mean(1, keepdim=True), paper - paper.mean(1, keepdim=True)
    return (images + images * ink + (1 - images) * paper).clamp(0, 1)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": affine,
    "shift": shift,
    "colour": colour,
    "erase": erase,
    "ground": ground,
    "polarity": polarity,
    "contrast": contrast,
    "colours": colours,
}


def augment(images: Tensor, kinds: tuple[str, ...]) -> Tensor:
    """A batch (N, 3, S, S) in [0, 1] changed by each of the named `AUGMENTATIONS` in turn."""
    for kind in kinds:
        images = AUGMENTATIONS[kind](images)
    return images
