"""Inference: load a trained model and ask it, for probabilities or for features.

Works from ``models/`` alone: `load` a model, ask for `probabilities` of pictures in any form that
`pictures.to_images` takes. Features of whole splits are kept in ``cache/local/features/`` (large,
made again when needed).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checkpoints, data, files, runs, store
from .files import DigitcnnError
from .model import DigitCNN
from .pictures import to_images
from .predictions import softmax
from .training import EVALUATION_BATCH, float32, predict_logits, to_unit


def load(run: str | runs.RunConfig) -> DigitCNN:
    """The trained model of a run from ``models/`` alone; see `checkpoints.load_model`."""
    return checkpoints.load_model(run)


def network(run: str | runs.RunConfig) -> DigitCNN:
    """`load`, or, of a run whose weights are not kept, the network trained again.

    On another machine that is another training of the same seed, whose answers differ a little from
    the stored ones. Raises `DigitcnnError` where training is forbidden.
    """
    run = runs.get(run)
    if runs.keeps_weights(run):
        return load(run)
    if checkpoints.forbidden():
        raise DigitcnnError(
            f"{run.id}, whose weights are not kept, would have to be trained again, but "
            "DIGITCNN_TRAIN is 'never': run `make report` without it."
        )
    with files.lock(run.id):
        training, _ = checkpoints.learned(run, runs.ingredients(run), checkpoints.say_epoch)
        model: Any = training.averaged.module
        model.load_state_dict(checkpoints.kept_weights(model))  # rounded as those that are kept
        runs.checkpoint_path(run).unlink(missing_ok=True)
    return model.eval()


def probabilities(model: DigitCNN, pictures: object) -> np.ndarray:
    """Class probabilities float64 (N, 10) of pictures in any form that `to_images` takes."""
    return softmax(predict_logits(model, to_images(pictures)).cpu().numpy())


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
    trained_model: Any = load(run)  # its buffers have no types of their own
    data.seed_everything(run.seed)
    from .training import build_model

    model: Any = build_model(
        run, trained_model.mean.flatten().tolist(), trained_model.std.flatten().tolist()
    )
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return model.to(trained_model.mean.device, memory_format=torch.channels_last).eval()


def extract_features(model: DigitCNN, images: Tensor) -> np.ndarray:
    """Output of the feature layer, float32 (N, 128), of uint8 images (N, 3, 32, 32)."""
    device: Any = model.mean.device
    with float32():
        batches = images.split(EVALUATION_BATCH)
        return torch.cat([model.features(to_unit(b.to(device))).cpu() for b in batches]).numpy()


@torch.no_grad()
def output_layer(model: DigitCNN, found: np.ndarray) -> np.ndarray:
    """Logits float32 (N, 10) of features (N, 128) as `extract_features` gives them."""
    device: Any = model.mean.device
    return model.output(torch.from_numpy(found).to(device)).cpu().numpy()
