"""Our training loop against the loop that most tutorials use, on the same network and images.

    python benchmarks/loop.py [--data svhn] [--steps 60] [--repeats 3]

*ours*: the whole split as one uint8 tensor, batches cut, augmented and normalised in bulk,
``channels_last`` and bfloat16 autocast, averaged weights (`digitcnn.training.Training`).
*usual*: the loop of ``pytorch/examples/mnist``: a `DataLoader` that turns one image at a time into
a float32 tensor and normalises it, no augmentation, plain SGD. Both train `digitcnn.model.DigitCNN`
from scratch with the recipe's batches, on part of the training split. Prints images per second
(the best of the repeats, taken in turn), their ratio, and the peak memory; `epochs.py` times whole
epochs.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import time

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from digitcnn import data, division, runs
from digitcnn.training import Training, build_model, pick_device, reproducible


class OneByOne(Dataset):
    """Images as torchvision's data sets give them: a PIL image, transformed on its own."""

    def __init__(self, split: data.Split):
        self.images = split.images.permute(0, 2, 3, 1).numpy()
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.45,) * 3, (0.2,) * 3)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual(config: runs.RunConfig, train: data.Split) -> float:
    """Images per second of the usual loop over `train`."""
    torch.manual_seed(config.seed)
    model = build_model(config).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader = DataLoader(OneByOne(train), batch_size=config.batch_size, shuffle=True, drop_last=True)
    began = time.perf_counter()
    count = 0
    for images, labels in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        count += len(labels)
    return count / (time.perf_counter() - began)


def ours(config: runs.RunConfig) -> float:
    """Images per second of `Training` over a run's training images, without evaluation."""
    device = pick_device()
    with reproducible(config.seed, device):
        training = Training(config, division.pool(config.data), device)
        began = time.perf_counter()
        training.run_epoch()
        return training.steps * training.batch / (time.perf_counter() - began)


def main() -> None:
    """Run both loops in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=runs.MAIN, default="svhn")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    config = runs.MAIN[options.data]
    size = options.steps * config.batch_size
    config = dataclasses.replace(
        config, epochs=1, train_size=size, held_out=(), evaluate_every_epoch=False
    )
    part = data.training_part(config, division.pool(config.data))
    loops = {"ours": lambda: ours(config), "usual": lambda: usual(config, part)}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(options.repeats):
        for name, loop in loops.items():
            print(f"{name}, repeat {repeat + 1} of {options.repeats} …", file=sys.stderr)
            rates[name].append(loop())
    best = {name: max(values) for name, values in rates.items()}
    print(f"{options.data}, {len(part) // config.batch_size} steps of {config.batch_size}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    for name, value in best.items():
        print(f"{name:>6}: {value:7,.0f} images/s")
    print(f" ratio: {best['ours'] / best['usual']:.2f}")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most")


if __name__ == "__main__":
    main()
