"""The threshold below which an answer is flagged as nothing like a digit.

    python benchmarks/rejection.py [--scenes FOLDER]

Prints, for each model, the threshold to enter in ``digitcnn/rejection.py``, how many digits it
flags and how many pictures without a digit. It is the score that `QUANTILE` of the validation
images of the model's own data set fall below: no other picture takes part in the choice, and no
test image. What is then measured on: the test images of the data set; blank pictures, noise of
several kinds and sizes, and scenes (crops of scikit-learn's two sample photographs, and of the
photographs in FOLDER); and letters, which no threshold can be expected to tell from digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from digitcnn import inference, pictures, predictions, preparation, rejection

QUANTILE = 0.006  # of the validation images, whose digits are harder than people's own
COUNT = 200  # pictures of each kind


def blank(random: np.random.Generator) -> np.ndarray:
    """One colour, or paper in uneven light with a little noise."""
    height, width = random.integers(28, 400, 2)
    pixels = np.ones((height, width, 3)) * random.uniform(0, 255, 3)
    if random.random() < 0.5:
        slope = np.linspace(0.7, 1, width)[None, :, None]
        pixels = 240 * slope + random.normal(0, 3, (height, width, 3))
    return pixels


def noise(random: np.random.Generator) -> np.ndarray:
    """White or coloured noise, smoothed by up to a tenth of the side."""
    side = int(random.integers(28, 300))
    pixels = random.normal(0, 1, (side, side, 3 if random.random() < 0.5 else 1))
    sigma = random.choice([0, 1, side / 30, side / 10])
    pixels = ndimage.gaussian_filter(pixels, (sigma, sigma, 0))
    low, high = pixels.min(), pixels.max()
    return (255 * (pixels - low) / (high - low)) * np.ones(3)


def scenes(folder: str | None):
    """A maker of square crops of photographs that show no digit."""
    from sklearn.datasets import load_sample_images

    photographs = list(load_sample_images().images)
    if folder:
        photographs = [pictures.read(path).pixels for path in sorted(Path(folder).iterdir())]

    def scene(random: np.random.Generator) -> np.ndarray:
        photograph = photographs[random.integers(len(photographs))]
        side = int(random.integers(32, min(photograph.shape[:2])))
        top, left = (random.integers(n - side + 1) for n in photograph.shape[:2])
        return photograph[top : top + side, left : left + side]

    return scene


def letters(random: np.random.Generator) -> np.ndarray:
    """A capital letter, black on white; O and I are left out, for they are 0 and 1."""
    letter = "ABCDEFGHJKLMNPQRSTUVWXYZ"[random.integers(24)]
    image = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(image).text((60, 40), letter, 0, ImageFont.load_default(120))
    return np.asarray(image)[..., None] * np.ones(3)


def flagged(model: torch.nn.Module, name: str, made: list[np.ndarray]) -> float:
    """Share of pictures that are called blank or cluttered, or score below the threshold."""
    found = [
        preparation.prepare_for([name], np.clip(pixels, 0, 255).astype(np.uint8))[name][0]
        for pixels in made
    ]
    images = torch.from_numpy(np.stack([each.image for each in found]))
    below = rejection.unlike(inference.predict_logits(model, images).cpu().numpy(), name)
    return float(np.mean(below | [each.blank or each.cluttered for each in found]))


def main() -> None:
    """Choose and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", metavar="FOLDER", help="photographs without a digit")
    parser.add_argument("--count", type=int, default=COUNT, help=f"of each kind; default {COUNT}")
    options = parser.parse_args()
    makers = {
        "blank": blank, "noise": noise, "scenes": scenes(options.scenes), "letters": letters
    }  # fmt: skip
    for name in rejection.THRESHOLDS:
        model = inference.load(name)
        scores = {}
        for split in ("validation", "test"):
            scores[split] = rejection.score(predictions.predict(name, name, split).logits)
        threshold = float(np.floor(1000 * np.quantile(scores["validation"], QUANTILE)) / 1000)
        rejection.THRESHOLDS[name] = threshold
        print(f"{name}: threshold {threshold:.3f}", flush=True)
        for split, values in scores.items():
            print(f"  {split} images flagged: {np.mean(values < threshold):.2%} of {len(values):,}")
        for kind, maker in makers.items():
            random = np.random.default_rng(16)
            share = flagged(model, name, [maker(random) for _ in range(options.count)])
            print(f"  {kind} flagged: {share:.1%} of {options.count}", flush=True)


if __name__ == "__main__":
    main()
