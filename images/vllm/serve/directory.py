"""A model's directory: is everything there, readable, and whole? Reads headers, never the weights themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from common.outcome import BAD_PARAMETERS, CANNOT_RUN_HERE, Problem
from vaultcube.gpu.fit import weight_files

INDEX = "model.safetensors.index.json"
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000
"""What the safetensors library allows a header to have, in bytes."""
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "tokenizer_config.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def unreadable(message: str, next_step: str = "download the model again") -> Problem:
    """Return the problem of files that are missing, damaged, or not this user's to read."""
    return Problem("model-unreadable", message, next_step, CANNOT_RUN_HERE)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the model's config.json.

    Raises:
        Problem: there is no such directory (exit code 64), or its config cannot be read (69).
    """
    if not folder.is_dir():
        message = f"{folder} is not a directory in this container"
        raise Problem("model-not-found", message, "mount the model's directory there", BAD_PARAMETERS)
    path = folder / "config.json"
    try:
        config = json.loads(_readable(path))
    except FileNotFoundError:
        message = f"{folder} holds no model: there is no config.json in it"
        next_step = "give the directory that has the model's config.json and its weights"
        raise Problem("model-not-found", message, next_step, BAD_PARAMETERS) from None
    except ValueError as error:
        raise unreadable(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise unreadable(f"{path} is not a JSON object")
    return config


def check_files(folder: Path, *, needs_tokenizer: bool = True) -> int:
    """Check weights and tokenizer of a model's directory; return the bytes of the weights.

    Raises:
        Problem: something is missing, cut short or not readable (exit code 69).
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    except OSError as error:
        raise _denied(error) from error
    indexed = _indexed(folder) if INDEX in names else []
    missing = [name for name in indexed if name not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise unreadable(f"{folder / missing[0]}{more} is missing: {INDEX} names {len(indexed)} files of weights")
    weights = weight_files(names, indexed)
    if not weights:
        raise unreadable(f"{folder} holds no weights: no .safetensors, .bin, .pt or .gguf file")
    total = sum(check_weights(folder / name) for name in weights)
    if needs_tokenizer and not any(name in names for name in _TOKENIZERS):
        raise unreadable(f"{folder} holds no tokenizer: none of {', '.join(_TOKENIZERS[:3])}, ...")
    for name in names:
        if name in _TOKENIZERS or name.endswith(".json"):
            _readable(folder / name, 1)
    return total


def check_weights(path: Path) -> int:
    """Return the bytes of a file of weights; of safetensors the header is held against the size.

    Raises:
        Problem: it is cut short, or no safetensors file, or not readable (exit code 69).
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".safetensors":
                if not size:
                    raise unreadable(f"{path} is empty")
                return size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or not 0 < length <= min(_LONGEST_HEADER, max(size, 1) * 2**20):
                raise unreadable(f"{path} is no safetensors file ({size} bytes)")
            header = file.read(length)
    except OSError as error:
        raise _denied(error) from error
    if len(header) < length:
        raise unreadable(f"{path} is cut short: {size} bytes are there, its header alone has {length}")
    should = _LENGTH_BYTES + length + _data_bytes(header, path)
    if size != should:
        how = "is cut short" if size < should else "is too long"
        raise unreadable(f"{path} {how}: {size} bytes are there, and {should} should be")
    return size


def _data_bytes(header: bytes, path: Path) -> int:
    try:
        tensors = json.loads(header)
        ends = [int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise unreadable(f"{path} is no safetensors file: its header is not readable") from error
    return max(ends, default=0)


def _indexed(folder: Path) -> list[str]:
    try:
        return sorted({str(name) for name in json.loads(_readable(folder / INDEX))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(f"{folder / INDEX} is not an index of weights") from error


def _readable(path: Path, most: int = -1) -> bytes:
    """Return the first `most` bytes of a file; raises FileNotFoundError, and a Problem where it may not be read."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _denied(error) from error


def _denied(error: OSError) -> Problem:
    next_step = f"let user {os.getuid()} read the model's directory and all files in it: chmod -R a+rX"
    return unreadable(f"cannot read {error.filename}: {error.strerror}", next_step)
