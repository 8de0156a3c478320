"""Predictions: what trained models say about images; computed once, cached under their keys.

Works from ``models/`` alone: `load` a model, turn any picture into the input format with
`to_images`, ask for `probabilities`. Over whole splits, logits are kept with
each run (``cache/answers/``, committed) and features in ``cache/local/features/`` (large, made
again when needed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import checkpoints, data, runs, store
from .files import DigitcnnError
from .model import DigitCNN
from .training import EVALUATION_BATCH, float32, predict_logits, to_unit

SIZE = 32
MAX_PIXELS = 50_000_000


def load(run: str | runs.RunConfig) -> DigitCNN:
    """The trained model of a run from ``models/`` alone; see `checkpoints.load_model`."""
    return checkpoints.load_model(run)


def to_images(pictures: object) -> Tensor:
    """Pictures in the networks' input format: uint8 (N, 3, 32, 32).

    Args:
        pictures: a path, PIL image, array or tensor, or a sequence of them. Arrays are (H, W),
            (H, W, C) or (C, H, W) with 1, 3 or 4 channels, or a batch (N, 3, H, W); integers in
            0 to 255 or fractions in [0, 1].

    A picture of 28 x 28 is zero-padded, as MNIST is; any other is padded to a square with its
    border pixels and resized to 32 x 32 (antialiased bicubic). Raises `DigitcnnError`.
    """
    if isinstance(pictures, str | Path | Image.Image):
        pictures = [pictures]
    elif isinstance(pictures, np.ndarray | Tensor):
        pictures = list(pictures) if pictures.ndim == 4 else [pictures]
    elif not isinstance(pictures, Sequence):
        raise DigitcnnError(
            f"A {type(pictures).__name__} is no picture: give a file name, an array or a tensor."
        )
    if not len(pictures):
        raise DigitcnnError("No picture was given: name at least one.")
    return torch.from_numpy(np.stack([_to_image(picture) for picture in pictures]))


def _to_image(picture: object) -> np.ndarray:
    pixels = _rgb_pixels(picture)
    height, width = pixels.shape[:2]
    if (height, width) == (28, 28):
        pixels = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
    elif (height, width) != (SIZE, SIZE):
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        margins = ((top, side - height - top), (left, side - width - left), (0, 0))
        square = Image.fromarray(np.pad(pixels, margins, mode="edge"))
        pixels = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _rgb_pixels(picture: object) -> np.ndarray:
    """One picture as uint8 (H, W, 3)."""
    if isinstance(picture, str | Path):
        return _read_file(Path(picture))
    if isinstance(picture, Image.Image):
        return np.array(picture.convert("RGB"))
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().numpy()
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise DigitcnnError(
            f"An array of shape {np.shape(picture)} is no picture: give (H, W), (H, W, C) or "
            "(C, H, W) with 1, 3 or 4 channels."
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DigitcnnError("A picture of fractions must lie in [0, 1]: divide it by 255.")
        array = np.rint(array * 255)
    elif array.dtype != bool and (array.min() < 0 or array.max() > 255):
        raise DigitcnnError("A picture of whole numbers must lie in 0 to 255.")
    array = (array * 255 if array.dtype == bool else array).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def _read_file(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DigitcnnError(
                    f"{path.name} has {image.width} x {image.height} pixels: give one of at most "
                    f"{MAX_PIXELS // 1_000_000} million."
                )
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise DigitcnnError(f"There is no file {path}: check its name.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DigitcnnError(f"{path} is no readable picture: give a PNG or JPEG file.") from error


def probabilities(model: DigitCNN, pictures: object) -> np.ndarray:
    """Class probabilities float32 (N, 10) of pictures in any form that `to_images` takes."""
    return softmax(predict_logits(model, to_images(pictures)).cpu().numpy())


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax over the last axis, float64, of logits divided by a `temperature` above 0."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split.

    Attributes:
        logits: float32 (N, 10), kept with half precision.
        predicted: most probable class of each sample, int64 (N,), decided in float32.
        labels, indices: true classes and pool indices, int64 (N,).
    """

    logits: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, (N, 10)."""
        return softmax(self.logits)

    @property
    def wrong(self) -> np.ndarray:
        """True where the prediction is not the label, (N,)."""
        return self.predicted != self.labels


def predict(run: str | runs.RunConfig, data_name: str, split: str = "test") -> Predictions:
    """A run's predictions on a whole split of a data set, as it gave them when it was finished.

    Raises `DigitcnnError` for a split of which the run's logits are not kept
    (`runs.kept_answers`).
    """
    run = runs.get(run)
    if (data_name, split) not in runs.kept_answers(run) or runs.kept_form(run) != "logits":
        raise DigitcnnError(
            f"The logits of {run.id} on {data_name}'s {split} split are not kept: see "
            "digitcnn.runs.kept_answers."
        )
    kept = checkpoints.answers(run)
    division = run.split if data_name == run.data else "pooled"
    indices = data.split_indices(data_name, division)[split]
    return Predictions(
        kept[f"{data_name}-{split}-logits"].astype(np.float32),
        kept[f"{data_name}-{split}-answer"].astype(np.int64),
        data.labels(data_name).labels[indices],
        indices,
    )


@store.stored(
    lambda run, data_name, split="test", trained=True: (
        f"features/{'' if trained else 'untrained-'}{run}-on-{data_name}-{split}"
    ),
    lambda run, data_name, split="test", trained=True: [
        store.weights(run),
        store.images(data_name, split),
    ],
    committed=False,
)
def features(
    run: str, data_name: str, split: str = "test", trained: bool = True
) -> dict[str, np.ndarray]:
    """``features`` float32 (N, 128) of a whole split; if not ``trained``, of the initial weights.

    The untrained network has the run's own seed and input statistics, so training is the only
    difference; its batch normalisation uses the statistics of the batch.
    """
    model = load(run) if trained else untrained(run)
    return {"features": extract_features(model, data.load(data_name, split).images)}


def untrained(run: str | runs.RunConfig) -> DigitCNN:
    """The network of a run before its first training step, in evaluation mode.

    Batch normalisation then has no running statistics, so it is set to use each batch's own.
    """
    run = runs.get(run)
    trained_model = load(run)
    data.seed_everything(run.seed)
    from .training import build_model

    model = build_model(
        run, trained_model.mean.flatten().tolist(), trained_model.std.flatten().tolist()
    )
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return model.to(trained_model.mean.device, memory_format=torch.channels_last).eval()


def extract_features(model: DigitCNN, images: Tensor) -> np.ndarray:
    """Output of the feature layer, float32 (N, 128), of uint8 images (N, 3, 32, 32)."""
    device = model.mean.device
    with float32():
        batches = images.split(EVALUATION_BATCH)
        return torch.cat([model.features(to_unit(b.to(device))).cpu() for b in batches]).numpy()


@torch.no_grad()
def output_layer(model: DigitCNN, found: np.ndarray) -> np.ndarray:
    """Logits float32 (N, 10) of features (N, 128) as `extract_features` gives them."""
    return model.output(torch.from_numpy(found).to(model.mean.device)).cpu().numpy()
