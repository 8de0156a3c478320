"""Predictions: what trained models say about images; computed once, cached under their keys.

Works from ``models/`` alone: `load` a model, ask for `probabilities` of pictures in any form that
`pictures.to_images` takes. Over whole splits, logits are kept in ``cache/predictions/`` (committed)
and features in ``cache/features/`` (large, made again when needed).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import checkpoints, data, files, runs, sources
from .files import DigitcnnError
from .model import DigitCNN
from .pictures import to_images
from .training import EVALUATION_BATCH, autocast, predict_logits, to_unit


def load(run: str | runs.RunConfig) -> DigitCNN:
    """The trained model of a run from ``models/`` alone; see `checkpoints.load_model`."""
    return checkpoints.load_model(run)


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
    """A model's logits float32 (N, 10) on a split, with the labels and pool indices (N,)."""

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, (N, 10)."""
        return softmax(self.logits)

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class of each sample, (N,)."""
        return self.logits.argmax(1)

    @property
    def wrong(self) -> np.ndarray:
        """True where the prediction is not the label, (N,)."""
        return self.predicted != self.labels


def predict(run: str | runs.RunConfig, data_name: str, split: str = "test") -> Predictions:
    """A run's predictions on a whole split of a data set, cached."""
    run = runs.get(run)

    def make() -> dict[str, np.ndarray]:
        chosen = data.load(data_name, split)
        logits = predict_logits(load(run), chosen.images).cpu().numpy()
        return {"logits": logits, "labels": chosen.labels.numpy(), "indices": chosen.indices}

    name = f"predictions/{run.id}-on-{data_name}-{split}"
    arrays = cached_arrays(name, depends_on(run, data_name, split), make)
    return Predictions(arrays["logits"], arrays["labels"], arrays["indices"])


def features(
    run: str | runs.RunConfig, data_name: str, split: str = "test", trained: bool = True
) -> np.ndarray:
    """Features float32 (N, 128) of a whole split; with ``trained=False`` of the initial weights.

    The untrained network has the run's own seed and input statistics, so training is the only
    difference; its batch normalisation uses the statistics of the batch.
    """
    run = runs.get(run)

    def make() -> dict[str, np.ndarray]:
        model = load(run) if trained else untrained(run)
        return {"features": extract_features(model, data.load(data_name, split).images)}

    state = "" if trained else "untrained-"
    name = f"features/{state}{run.id}-on-{data_name}-{split}"
    return cached_arrays(name, depends_on(run, data_name, split), make)["features"]


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


@torch.no_grad()
def extract_features(model: DigitCNN, images: Tensor) -> np.ndarray:
    """Output of the feature layer, float32 (N, 128), of uint8 images (N, 3, 32, 32)."""
    device = model.mean.device
    parts = []
    for start in range(0, len(images), EVALUATION_BATCH):
        with autocast(device):
            batch = to_unit(images[start : start + EVALUATION_BATCH].to(device))
            parts.append(model.features(batch).float().cpu())
    return torch.cat(parts).numpy()


@torch.no_grad()
def output_layer(model: DigitCNN, found: np.ndarray) -> np.ndarray:
    """Logits float32 (N, 10) of features (N, 128) as `extract_features` gives them."""
    return model.output(torch.from_numpy(found).to(model.mean.device)).cpu().numpy()


def depends_on(run: runs.RunConfig, data_name: str, split: str) -> dict:
    """What a result of a model on a split depends on, for `cached_arrays`."""
    if not runs.has_manifest(sources.checked(data_name)):
        data.pool(data_name)
    manifest = runs.manifest(data_name)
    return {
        "model": runs.key(run),
        "data": manifest["digest"],
        "split": manifest["split"][split]["indices_sha256"],
    }


def cached_arrays(
    name: str, ingredients: dict | list, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays from ``cache/<name>.npz`` if made of the same `ingredients`, else made and kept.

    Raises `DigitcnnError` if the file is damaged; nothing in it can be executed.
    """
    path = files.noted(files.cache_path(f"{name}.npz"))
    key = files.fingerprint(ingredients)
    arrays = _read_arrays(path) if path.is_file() else {}
    if str(arrays.pop("key", "")) == key:
        return arrays
    with files.lock(name.replace("/", "-")):
        arrays = make()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, key=np.array(key), **arrays)
        files.write_whole(path, buffer.getvalue())
    return arrays


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged bytes
        raise DigitcnnError(
            f"{files.shown(path)} is damaged: delete it, and it is made again."
        ) from error
