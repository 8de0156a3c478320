"""Tensors: safetensors files of ours, with checksums of what they hold and of what they say of it.

They hold numbers only: loading one cannot execute anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from . import files

FORMAT = "digitcnn-2"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of ours. Raises `DigitcnnError` if damaged."""
    try:
        payload = path.read_bytes()
    except FileNotFoundError:
        raise files.unusable(path, "is missing", "run `make train`") from None
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise files.unusable(path, what, "mend its permissions") from error
    try:
        tensors = parse_tensors(payload)
        length = int.from_bytes(payload[:8], "little")
        about = json.loads(payload[8 : 8 + length])["__metadata__"]
        found = checksum(tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise files.unusable(path, "is damaged or no safetensors file") from error
    if about.get("format") != FORMAT:
        raise files.unusable(
            path, f"has the format {about.get('format')!r}, this version reads {FORMAT}"
        )
    seal = about.pop("metadata_checksum", None)
    if about.get("checksum") != found or seal != files.fingerprint(about):
        raise files.unusable(path, "is damaged")
    return tensors, about


def stored_value(path: Path, about: dict[str, str], name: str) -> Any:
    """A JSON value of a file's metadata. Raises `DigitcnnError` if it is missing or damaged."""
    try:
        return json.loads(about[name])
    except (KeyError, ValueError):
        raise files.unusable(path, "is damaged") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors with metadata (text, and all else as JSON), whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    words |= {"format": FORMAT, "checksum": checksum(tensors)}
    words["metadata_checksum"] = files.fingerprint(words)
    files.write_whole(path, tensor_bytes(tensors, words))


def checksum(tensors: dict[str, Tensor]) -> str:
    return files.arrays_digest({name: value.numpy() for name, value in tensors.items()})
