"""Controls: test images with one thing changed, or two, and what that does to a model's answers.

MNIST's images are made more like photographs, SVHN's more like scans, so that what a model lacks on
the other data set can be given to it. Judged by macro recall.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import predictions, runs, stats, store
from ..sources import TITLES
from .representation import OTHER
from .values import Average, Count, Number, Points, Share

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 1000  # test images of each data set that are changed
EXAMPLES = (2, 4, 7)  # digits that show a control
Changes = tuple[str, ...]
PRINTED: Changes = ("upright", "blurred")  # what makes handwriting most like print
SCANNED: Changes = ("bright digit", "two tones")  # and photographs most like scans
TOGETHER = {"mnist": PRINTED, "svhn": SCANNED}  # shown together, by data set

# Each takes float images (N, 3, 32, 32) in [0, 1] and returns as many.


def grey(images: Tensor) -> Tensor:
    """Luminance (ITU-R BT.601) in all three channels."""
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None].expand_as(images)


def inverted(images: Tensor) -> Tensor:
    """The negative."""
    return 1 - images


def low_contrast(images: Tensor) -> Tensor:
    """Four tenths of the contrast about each image's mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + 0.4 * (images - mean)


def full_contrast(images: Tensor) -> Tensor:
    """Each image stretched from its 2nd and 98th percentile to 0 and 1."""
    limits = images.flatten(1).quantile(images.new_tensor([0.02, 0.98]), dim=1)
    low, high = limits.view(2, -1, 1, 1, 1)
    return (images - low) / (high - low).clamp(min=1 / 255)


def bright_digit(images: Tensor) -> Tensor:
    """The negative of images that are darker in the middle (12 x 12) than at the border."""
    total, middle = images.sum((1, 2, 3)), images[:, :, 10:22, 10:22].sum((1, 2, 3))
    border = total - images[:, :, 3:29, 3:29].sum((1, 2, 3))
    darker = middle / (12 * 12) < border / (32 * 32 - 26 * 26)
    return (1 - images).where(darker.view(-1, 1, 1, 1), images)


def blurred(images: Tensor) -> Tensor:
    """Gaussian blur of one pixel."""
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(images, [7, 7], [1.0, 1.0])


def upright(images: Tensor) -> Tensor:
    """Sheared, about the middle of the ink, until strokes lean to neither side on average.

    Grey values are the ink's masses; the shear brings their mixed second moment to zero.
    """
    import torch
    import torch.nn.functional as F

    mass = images.mean(1)
    mass = mass / mass.sum((1, 2), keepdim=True).clamp(min=1e-6)
    axis = torch.linspace(-1, 1, images.shape[-1])
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    middle = (mass * down).sum((1, 2)), (mass * right).sum((1, 2))
    below, beside = down - middle[0].view(-1, 1, 1), right - middle[1].view(-1, 1, 1)
    lean = (mass * below * beside).sum((1, 2)) / (mass * below**2).sum((1, 2)).clamp(min=1e-4)
    matrix = torch.eye(2, 3).repeat(len(images), 1, 1)
    matrix[:, 0, 1], matrix[:, 0, 2] = lean, -lean * middle[0]
    grid = F.affine_grid(matrix, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def coloured_ground(images: Tensor) -> Tensor:
    """A random, uneven coloured ground behind white digits, of brightness up to 0.6."""
    import torch
    import torch.nn.functional as F

    random = torch.rand((len(images), 3, 3, 3), generator=torch.Generator().manual_seed(runs.SEED))
    ground = F.interpolate(0.6 * random, (32, 32), mode="bicubic")
    return images + (1 - images) * ground.clamp(0, 1)


def neighbours(images: Tensor) -> Tensor:
    """Parts of two other digits, 20 pixels to the left and to the right."""
    import torch
    import torch.nn.functional as F

    shifted, generator = F.pad(images, (20, 20)), torch.Generator().manual_seed(runs.SEED)
    left, right = (shifted[torch.randperm(len(images), generator=generator)] for _ in range(2))
    return torch.maximum(images, torch.maximum(left[..., 40:], right[..., :32]))


def two_tones(images: Tensor) -> Tensor:
    """White where the stretched luminance is over a half, black elsewhere."""
    return full_contrast(grey(images)).clamp(0, 1).round()


def shrunk(images: Tensor) -> Tensor:
    """The picture at 20 x 20 pixels, its border repeated outwards."""
    import torch.nn.functional as F

    small = F.interpolate(images, (20, 20), mode="bilinear", antialias=True)
    return F.pad(small, (6, 6, 6, 6), mode="replicate")


def without_sides(images: Tensor) -> Tensor:
    """The outer 8 columns on both sides replaced by the column next to them."""
    import torch.nn.functional as F

    return F.pad(images[..., 8:24], (8, 8, 0, 0), mode="replicate")


CONTROLS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {  # in the order of application
    "mnist": {
        "upright": upright,
        "neighbours": neighbours,
        "ground": coloured_ground,
        "blurred": blurred,
        "low contrast": low_contrast,
        "inverted": inverted,
    },
    "svhn": {
        "grey": grey,
        "sides covered": without_sides,
        "bright digit": bright_digit,
        "full contrast": full_contrast,
        "two tones": two_tones,
        "shrunk": shrunk,
    },
}


def combinations(name: str) -> list[Changes]:
    """Nothing, each control of a data set, and each two of them."""
    return [c for size in (0, 1, 2) for c in itertools.combinations(CONTROLS[name], size)]


def changed(images: Tensor, name: str, changes: Changes) -> Tensor:
    """uint8 images (N, 3, 32, 32) of a data set as some of its controls change them."""
    pictures = images.float() / 255
    for change in changes:
        pictures = CONTROLS[name][change](pictures)
    return (pictures.clamp(0, 1) * 255).round().byte()


def sampled(name: str) -> np.ndarray:
    """Positions int64 (n,) in the test split of the random images that are changed (fixed seed)."""
    total = runs.split_sizes(name)["test"]["images"]
    return np.sort(np.random.default_rng(runs.SEED).permutation(total)[:SAMPLE])


@store.stored(
    lambda run, name: f"representation/changed-{run}-on-{name}",
    lambda run, name: [store.weights(run), store.images(name)],
)
def answers(run: str, name: str) -> dict[str, np.ndarray]:
    """``answers`` uint8 (`combinations`, n) of a trained run to the `sampled` images, changed."""
    from .. import data, inference

    network, images = inference.load(run), data.load(name, "test").take(sampled(name)).images
    pictures = (changed(images, name, changes) for changes in combinations(name))
    found = [inference.predict_logits(network, each).argmax(1).cpu().numpy() for each in pictures]
    return {"answers": np.array(found).astype("u1")}


@store.stored(
    lambda run, name: f"representation/nothing-{run}-on-{name}",
    lambda run, name: [store.weights(run), store.images(name)],
)
def answers_to_nothing(run: str, name: str) -> dict[str, np.ndarray]:
    """What a trained run answers where there is no digit, uint8: to the `sampled` images
    ``smeared`` until none can be told (n,), and to eleven ``plain`` grey pictures, black to white.
    """
    import torch
    from torchvision.transforms.functional import gaussian_blur

    from .. import data, inference

    images = data.load(name, "test").take(sampled(name)).images.float()
    plain = torch.linspace(0, 255, 11).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    shown = {"smeared": gaussian_blur(images, [31, 31], [6.0, 6.0]), "plain": plain}
    network = inference.load(run)
    asked = {kind: pictures.round().byte().contiguous() for kind, pictures in shown.items()}
    return {
        kind: inference.predict_logits(network, each).argmax(1).cpu().numpy().astype("u1")
        for kind, each in asked.items()
    }


@store.stored(lambda name: f"representation/controls-{name}", lambda name: [store.images(name)])
def examples(name: str) -> dict[str, np.ndarray]:
    """``images`` uint8 (1 + controls + 1, n, 3, 32, 32): the first test image of each of
    `EXAMPLES`, as it is, under each control, and under the two of `TOGETHER`."""
    from .. import data

    split = data.load(name, "test")
    labels = split.labels.tolist()
    first = split.take(np.array([labels.index(digit) for digit in EXAMPLES])).images
    shown = [c for c in combinations(name) if len(c) < 2] + [TOGETHER[name]]
    return {"images": np.stack([changed(first, name, c).numpy() for c in shown])}


@dataclass(frozen=True)
class Effects:
    """What changes of a data set's test images do to a run's macro recall.

    Attributes:
        controls: their names.
        hits: by what is changed, in the order of `controls`: for each image, 0 where it is misread,
            else a weight such that the mean is the macro recall, (n,).
    """

    controls: tuple[str, ...]
    hits: dict[Changes, np.ndarray]

    @property
    def images(self) -> Count:
        """How many images were changed."""
        return Count(len(self.hits[()]))

    def recall(self, *changes: str) -> Average:
        """Macro recall on the pictures with these changes, with Student's interval over images."""
        nothing = np.zeros_like(self.hits[()])
        return Average(stats.difference(self.hits[changes], nothing, paired=True))

    def gain(self, *changes: str, over: Changes = ()) -> Points:
        """Change of the macro recall by one control or two, with its interval, paired by image.

        From the pictures as they are, or from those with the changes `over`.
        """
        return Points(stats.difference(self.hits[changes], self.hits[over], paired=True))

    def best(self, size: int) -> Changes:
        """The control, or the two, that gain most."""
        return max((c for c in self.hits if len(c) == size), key=lambda c: self.hits[c].mean())

    @property
    def half_width(self) -> Number:
        """Half the width of the 95 % interval of a gain in points, the median of all changes."""
        gains = [self.gain(*changes) for changes in self.hits if changes]
        return Number(100 * np.median([(gain.high - gain.low) / 2 for gain in gains]), 1, "points")

    @property
    def gains(self) -> np.ndarray:
        """Points gained by each two controls, each alone on the diagonal, nan above it: (k, k)."""
        found, base = np.full((len(self.controls),) * 2, np.nan), self.hits[()].mean()
        for changes, hits in self.hits.items():
            if changes:
                places = [self.controls.index(change) for change in changes]
                found[max(places), min(places)] = 100 * (hits.mean() - base)
        return found


def effects(run: str, name: str) -> Effects:
    """What the controls of a data set do to a run's answers."""
    labels = predictions.predict(run, name).labels[sampled(name)]
    sizes = np.bincount(labels, minlength=10)
    weights = len(labels) / (np.count_nonzero(sizes) * sizes[labels])
    hits = weights * (answers(run, name)["answers"] == labels)
    return Effects(tuple(CONTROLS[name]), dict(zip(combinations(name), hits, strict=True)))


def panels() -> dict[str, tuple[np.ndarray, list[str], Effects]]:
    """Both models on the other data set: a title, `examples`, their names, and `effects`."""
    found = {}
    for model, other in OTHER.items():
        names = ["unchanged", *CONTROLS[other], ",\n".join(TOGETHER[other])]
        title = f"{TITLES[model]} model on {TITLES[other]}"
        found[title] = (examples(other)["images"], names, effects(model, other))
    return found


class Nothing(NamedTuple):
    """What a run answers where there is no digit: to plain grey pictures, and to smeared ones."""

    answer: int
    plain: Share
    smeared: Share


def nothing(run: str) -> Nothing:
    """The most frequent answer of an MNIST training to smeared SVHN images, and its shares."""
    found = answers_to_nothing(run, "svhn")
    answer = int(np.bincount(found["smeared"]).argmax())
    hits = (found[kind] == answer for kind in ("plain", "smeared"))
    return Nothing(answer, *(Share(each.sum(), len(each)) for each in hits))


class Form(NamedTuple):
    """The share of a class that is misread in one way: as `written`, under each of the changes that
    make it like print, and `printed`, under both."""

    written: Share
    upright: Share
    blurred: Share
    printed: Share


def form(true: int, answer: int) -> Form:
    """How often the SVHN model reads one of MNIST's digits as another, and when it is changed."""
    labels = predictions.predict("svhn", "mnist").labels[sampled("mnist")]
    said, order = answers("svhn", "mnist")["answers"], combinations("mnist")
    upright, blurred = PRINTED
    changes: tuple[Changes, ...] = ((), (upright,), (blurred,), PRINTED)
    taken = [said[order.index(how)][labels == true] == answer for how in changes]
    return Form(*(Share(found.sum(), len(found)) for found in taken))
