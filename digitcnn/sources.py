"""Sources: the data sets' files, downloaded, verified and read.

``torchvision.datasets`` reads the files; it does not verify MNIST's unpacked files nor explain
what went wrong, so this module checks every file's MD5 first. In the quick profile the names
``mnist`` and ``svhn`` stand for small embedded data (`digitcnn.toy`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import files
from .files import DigitcnnError

# MD5 of the unpacked IDX files (torchvision pins those of the .gz files) and of the .mat files.
PINNED_MD5 = {
    "mnist": {
        "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "svhn": {
        "SVHN/train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "SVHN/test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
}
NAMES = tuple(PINNED_MD5)
# Copies that count as one data set: the pixels of the official SVHN files, known by their two MD5s,
# differ from those of our copy in about 3 of 10,000 images, by single grey levels. The digest is
# that of our copy (`Source.digest`), which the committed results were made from.
SAME_DATA = {tuple(PINNED_MD5["svhn"].values()): "252b0e875783529b"}
# Of our copy of SVHN and the official test file, where both were at hand: images compared, and
# those equal in every value (the others differed by one grey level in four values each).
RECROPPED = (10_000, 9_997)
OFFICIAL_IMAGES = {"mnist": (60_000, 10_000), "svhn": (73_257, 26_032)}  # train, test
TITLES = {"mnist": "MNIST", "svhn": "SVHN"}


@dataclass(frozen=True)
class Source:
    """All images of a data set, official train first, then official test.

    Attributes:
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,), the digit 0 to 9.
        official_test: bool (N,), True where the image belongs to the official test set.
        copy: which copy was read, as a sentence for the report.
        file_md5: MD5 by path relative to the data root; empty for embedded data.
    """

    images: np.ndarray
    labels: np.ndarray
    official_test: np.ndarray
    copy: str
    file_md5: dict[str, str]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of pixels and labels as read (first 16 hexadecimal digits)."""
        sha = hashlib.sha256(np.ascontiguousarray(self.images).data)
        sha.update(np.ascontiguousarray(self.labels).data)
        return sha.hexdigest()[:16]

    @property
    def identity(self) -> str:
        """The data set's digest, which is the same for all copies that `SAME_DATA` knows."""
        return SAME_DATA.get(tuple(self.file_md5.values())) or self.digest


def checked(name: str) -> str:
    """Return `name` if it names a data set; else raise `DigitcnnError`."""
    if name not in NAMES:
        raise DigitcnnError(f"There is no data set {name!r}: choose one of {', '.join(NAMES)}.")
    return name


def read(name: str, download: bool = False) -> Source:
    """Read a data set, verified; with `download`, fetch what is missing first.

    Raises `DigitcnnError` if files are missing, damaged or an unlisted copy.
    """
    checked(name)
    if files.profile() == "quick":
        from . import toy

        images, labels = toy.READERS[name]()
        official_test = np.arange(len(labels)) >= 0.8 * len(labels)
        return Source(images, labels, official_test, toy.COPY[name], {})
    if download and missing(name):
        _download(name)
    found = verify(name)
    try:
        if name == "svhn" and not _whole_labels(found):
            raise ValueError("labels that are not whole")
        pictures, labels, official_test = POOLS[name](files.data_root(), found)
        whole = pictures.dtype == np.uint8 and pictures.shape == (len(labels), 3, 32, 32)
        whole = whole and bool(np.isin(labels, range(10)).all())
        sizes = (int((~official_test).sum()), int(official_test.sum()))
    except Exception as error:  # scipy raises a dozen kinds on a listed copy that is no data
        raise _unfit(TITLES[name], f"cannot be read ({type(error).__name__})") from error
    if not whole:
        raise _unfit(TITLES[name], "holds no 32 x 32 images of digits 0 to 9")
    if sizes != OFFICIAL_IMAGES[name]:
        counts = [f"{each:,}" for each in (*sizes, *OFFICIAL_IMAGES[name])]
        raise _unfit(TITLES[name], "has {} and {} images, not {} and {}".format(*counts))
    source = Source(pictures, labels.astype(np.int64), official_test, "", found)
    return dataclasses.replace(source, copy=describe_copy(name, source))


def missing(name: str) -> list[str]:
    """Paths (relative to the data root) of the data set's files that are not there."""
    return [path for path in PINNED_MD5[name] if not (files.data_root() / path).is_file()]


def verify(name: str) -> dict[str, str]:
    """MD5 of each file of the data set by its path relative to the data root.

    A file whose MD5 is not the pinned one is accepted only for SVHN, and only when
    ``checksums.json`` in the data root lists that MD5.
    """
    root = files.data_root()
    if absent := missing(name):
        raise DigitcnnError(
            f"{TITLES[name]} is not complete in {files.shown(root)} ({absent[0]} is missing): run "
            "`make data` to download it, or set DIGITCNN_DATA to the folder that holds it."
        )
    listing = root / "checksums.json"
    listed = {}
    if name == "svhn" and listing.is_file():
        listed = files.read_json(listing, 'list each file anew, as {"SVHN/test_32x32.mat": "MD5"}')
    found = {}
    for path, pinned in PINNED_MD5[name].items():
        try:
            found[path] = files.file_md5(root / path)
        except OSError as error:
            raise _unfit(path, f"cannot be read ({error.strerror}; see its permissions)") from error
        if found[path] not in (pinned, listed.get(path)):
            why = f"is damaged or another copy (MD5 {found[path]}, expected {pinned})"
            raise _unfit(path, why)
    if len(set(found.values())) < len(found):
        raise _unfit(TITLES[name], "holds one file under two names")
    return found


def _unfit(what: str, why: str) -> DigitcnnError:
    """The sentence on a data set or one of its files that cannot be used."""
    place = files.shown(files.data_root())
    return DigitcnnError(f"{what} in {place} {why}: delete it and run `make data`.")


def _whole_labels(md5: dict[str, str]) -> bool:
    """Whether the labels in SVHN's files are whole numbers, which torchvision would make them."""
    from scipy.io import loadmat

    for path in md5:
        labels = loadmat(files.data_root() / path, variable_names=["y"])["y"]
        if not (labels == np.rint(labels)).all():
            return False
    return True


def describe_copy(name: str, source: Source) -> str:
    """Say which copy of the data set was read."""
    if source.file_md5 == PINNED_MD5[name]:
        return f"the official {TITLES[name]} files (every MD5 as published)"
    if source.digest in SAME_DATA.values():
        return (
            f"a copy of {TITLES[name]} listed in checksums.json: the same images cropped again "
            "from the original photographs, so its MD5s are not the published ones"
        )
    return (
        f"another data set in the place of {TITLES[name]}, listed in checksums.json (digest of its "
        f"pixels and labels {source.digest})"
    )


def _download(name: str) -> None:
    from torchvision import datasets

    root = files.data_root()
    try:
        if name == "mnist":
            datasets.MNIST(str(root), download=True)
        else:
            for split in ("train", "test"):
                datasets.SVHN(str(root / "SVHN"), split=split, download=True)
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[-1][:120]
        raise DigitcnnError(
            f"{TITLES[name]} could not be downloaded ({reason}): check the network and run `make "
            "data` again, or put the files into the folder that DIGITCNN_DATA names."
        ) from error


def _read_mnist(root: Path, md5: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from torchvision import datasets

    parts = [datasets.MNIST(str(root), train=train) for train in (True, False)]
    grey = np.concatenate([part.data.numpy() for part in parts])
    labels = np.concatenate([part.targets.numpy() for part in parts])
    return to_input_format(grey), labels, _official_test(parts)


def _read_svhn(root: Path, md5: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from torchvision import datasets

    class VerifiedSVHN(datasets.SVHN):
        """`verify` accepted these MD5s; torchvision checks them once more."""

        split_list = {
            split: ["", f"{split}_32x32.mat", md5[f"SVHN/{split}_32x32.mat"]]
            for split in ("train", "test")
        }

    parts = [VerifiedSVHN(str(root / "SVHN"), split=split) for split in ("train", "test")]
    images = np.concatenate([part.data for part in parts])
    return images, np.concatenate([part.labels for part in parts]), _official_test(parts)


def _official_test(parts: list) -> np.ndarray:
    return np.repeat([False, True], [len(part) for part in parts])


def to_input_format(grey: np.ndarray) -> np.ndarray:
    """Zero-pad (N, 28, 28) uint8 images to 32 x 32 and repeat them over three channels."""
    padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(padded[:, None], 3, axis=1)


# From a data set's files, verified, to all its images, labels and whether each is in the official
# test set; part of every run's key.
POOLS = {"mnist": _read_mnist, "svhn": _read_svhn}
