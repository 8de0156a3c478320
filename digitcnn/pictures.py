"""Pictures: any picture file read as people see it, for the command line and the page.

Upright (EXIF), opaque (alpha composed on the ground that it belongs to), eight bits a channel.
What a file costs in memory is known from its head, so it is refused before it is decoded; so are
formats that Pillow would hand to another program, and what is not a file at all. `to_images` turns
pictures into the networks' input as they are; `digitcnn.preparation` finds the digit first.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, features
from scipy import ndimage

from .files import DigitcnnError

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS, MAX_SIDE = 50_000_000, 20_000
MAX_BYTES = 200_000_000  # of a file
ENOUGH = 2048  # pixels of the longer side: a larger picture is reduced once it is read
FRAMES = 100  # of an animation, looked at for one with something in it
RANGES = (1, 255, 4095, 65535)  # greatest values of fractions and of 8, 12 and 16 bits
CARD, INK_RANGE = 0.6, 40  # see `_opaque`
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class Picture:
    """A picture as people see it: ``pixels`` uint8 (H, W, 3) and what has to be said about it."""

    pixels: np.ndarray
    note: str = ""


def read(source: str | Path | bytes) -> Picture:
    """The picture in a file, or in a file's content. Raises `DigitcnnError`, one sentence."""
    name, content = ("The file", source) if isinstance(source, bytes) else _content(Path(source))
    if kind := _refused(content[:4096]):
        raise DigitcnnError(f"{name} is {kind}, which is not read here: {_CONVERT[kind]}.")
    known = [kind for kind in FORMATS if kind != "AVIF" or features.check("avif")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata; size has a limit of our own
            with Image.open(io.BytesIO(content), formats=known) as image:
                return _first_frame(image, name)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "too many") from error
    except DigitcnnError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
        raise DigitcnnError(
            f"{name} is not a readable picture: give a PNG, JPEG, WebP, GIF, BMP or TIFF file."
        ) from error


def _content(path: Path) -> tuple[str, bytes]:
    """A regular file's name as a sentence may show it, and its content."""
    name = str(path) if str(path).isprintable() else ascii(str(path))
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise DigitcnnError(f"{name} is not a file: name a picture file.")
            if about.st_size > MAX_BYTES:
                raise DigitcnnError(
                    f"{name} has {about.st_size // 1_000_000:,} MB: give a file of at most "
                    f"{MAX_BYTES // 1_000_000} MB."
                )
            return name, file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise DigitcnnError(f"There is no file {name}: check its name.") from None
    except IsADirectoryError:
        raise DigitcnnError(f"{name} is a folder: name the picture files in it.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its name is not a valid one"
        raise DigitcnnError(f"{name} cannot be opened ({why}): check it.") from error


_CONVERT = {
    "a HEIC picture": "export it as JPEG from the photo app, or choose 'Most Compatible' under "
    "Settings, Camera, Formats on an iPhone",
    "an AVIF picture": "open it in the program that shows it and export it as PNG or JPEG",
    "an SVG drawing": "export it as PNG from a drawing program such as Inkscape",
    "an EPS or PostScript file": "export it as PNG from a drawing program such as Inkscape",
    "a PDF file": "export the page as PNG, or type `pdftoppm -png FILE page`",
    "an empty file": "give a picture file",
}


def _refused(head: bytes) -> str:
    """The kind of file that a content begins like, if it is one that is refused by name."""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, min(head[3], 64), 4))}
        if brands & {b"avif", b"avis"}:
            return "" if features.check("avif") else "an AVIF picture"
        return "a HEIC picture" if brands & set(_HEIF) else ""
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "an EPS or PostScript file"
    if head.lstrip().startswith(b"%PDF"):
        return "a PDF file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return "an SVG drawing" if text.startswith(b"<") and b"<svg" in head else ""


def _too_large(name: str, size: str) -> DigitcnnError:
    return DigitcnnError(
        f"{name} has {size} pixels: give a picture of at most {MAX_PIXELS // 1_000_000} million, "
        f"its longer side at most {MAX_SIDE:,}."
    )


def _first_frame(image: Image.Image, name: str) -> Picture:
    """The picture, or an animation's first frame that is not of one colour."""
    several = image.format != "MPO"  # a phone's JPEG with a second view of the same
    count = getattr(image, "n_frames", 1) if several else 1
    first: Picture | None = None
    for index in range(min(count, FRAMES)):
        if count > 1:
            image.seek(index)
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise _too_large(name, f"{width} x {height}")
        if count == 1:
            image.draft("RGB", (ENOUGH, ENOUGH))  # a JPEG file is decoded at a fraction of its size
        pixels = _rgb(image)
        note = f"frame {index + 1} of {count}" if count > 1 else ""
        first = first or Picture(pixels, note)
        if count == 1 or np.ptp(pixels, axis=(0, 1)).any():
            return Picture(pixels, note)
    assert first
    return first


def _rgb(image: Image.Image) -> np.ndarray:
    """An image of any mode as uint8 (H, W, 3), upright and opaque, at most `ENOUGH` x 2 wide."""
    factor = max(1, max(image.size) // ENOUGH)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    else:
        image = image.convert("RGB")
    with contextlib.suppress(Exception):  # damaged EXIF says nothing
        image = ImageOps.exif_transpose(image)
    if factor > 1:
        premultiplied = image.convert("RGBa") if image.mode == "RGBA" else image
        image = premultiplied.reduce(factor)
        image = image.convert("RGBA") if image.mode == "RGBa" else image
    return _opaque(np.array(image)) if image.mode == "RGBA" else np.array(image.convert("RGB"))


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Whole numbers or fractions (H, W) as uint8: in the least usual range that holds them."""
    grey = np.nan_to_num(grey.astype(np.float32), posinf=0, neginf=0)
    low, high = float(grey.min()), float(grey.max())
    top = next((float(top) for top in RANGES if high <= top), 0.0)
    if low < 0 or not top:
        grey, top = grey - low, max(high - low, 1e-9)
    return np.rint(grey * (255 / top)).astype(np.uint8)


def _opaque(rgba: np.ndarray) -> np.ndarray:
    """Colours uint8 (H, W, 3) of (H, W, 4), on the ground that they belong to.

    Ink alone belongs on paper that it differs from: dark ink on white, bright ink on black. What
    fills most of its box and holds several colours is a picture cut out of its surroundings, and
    goes on as it is at its outline.
    """
    alpha, colour = rgba[..., 3:].astype(np.float32) / 255, rgba[..., :3].astype(np.float32)
    if alpha.min() == 1:
        return rgba[..., :3].copy()
    solid = alpha[..., 0] > 0.5
    if not solid.any():
        paper = np.float32(255)
    else:
        grey = colour[solid] @ np.array([0.299, 0.587, 0.114], np.float32)
        rows, columns = (np.flatnonzero(solid.any(axis)) for axis in (1, 0))
        box = solid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if box.mean() > CARD and np.ptp(np.quantile(grey, [0.02, 0.98])) > INK_RANGE:
            outline = solid & ~ndimage.binary_erosion(solid)
            paper = np.median(colour[outline], axis=0)
        else:
            paper = np.float32(255 if np.median(grey) < 128 else 0)
    return np.rint(paper + alpha * (colour - paper)).astype(np.uint8)


def to_images(pictures: object) -> Tensor:
    """Pictures in the networks' input format, as they are: uint8 (N, 3, 32, 32).

    Args:
        pictures: a path, PIL image, array or tensor, or a sequence of them. Arrays are (H, W),
            (H, W, C) or (C, H, W) with 1, 3 or 4 channels, or a batch (N, 3, H, W); integers in
            0 to 255 or fractions in [0, 1].

    A picture of 28 x 28 is zero-padded, as MNIST is; any other is padded to a square with its
    border pixels and resized to 32 x 32 (antialiased bicubic). Raises `DigitcnnError`.
    """
    import torch  # here, as reading and preparing pictures need none

    if isinstance(pictures, str | Path | Image.Image | Picture):
        pictures = [pictures]
    elif isinstance(pictures, np.ndarray | torch.Tensor):
        pictures = list(pictures) if pictures.ndim == 4 else [pictures]
    elif not isinstance(pictures, Sequence):
        raise DigitcnnError(
            f"A {type(pictures).__name__} is not a picture: give a file name, an array or a tensor."
        )
    if not len(pictures):
        raise DigitcnnError("No picture was given: name at least one.")
    return torch.from_numpy(np.stack([fitted(_pixels(picture)) for picture in pictures]))


def fitted(pixels: np.ndarray) -> np.ndarray:
    """A picture uint8 (H, W, 3) as it is, in the networks' size: uint8 (3, 32, 32)."""
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


def _pixels(picture: Any) -> np.ndarray:
    """One picture as uint8 (H, W, 3)."""
    if isinstance(picture, str | Path):
        picture = read(picture)
    if isinstance(picture, Picture):
        return picture.pixels
    if isinstance(picture, Image.Image):
        return _rgb(picture)
    if hasattr(picture, "detach"):  # a tensor
        picture = picture.detach().cpu().numpy()
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise DigitcnnError(
            f"An array of shape {np.shape(picture)} is not a picture: give (H, W), (H, W, C) or "
            "(C, H, W) with 1, 3 or 4 channels."
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DigitcnnError("A picture of fractions must lie in [0, 1]: divide it by 255.")
        array = np.rint(array * 255)
    elif array.dtype != bool and (array.min() < 0 or array.max() > 255):
        raise DigitcnnError("A picture of whole numbers must lie in 0 to 255.")
    array = (array * 255 if array.dtype == bool else array).astype(np.uint8)
    if array.shape[2] == 4:
        return _opaque(array)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
