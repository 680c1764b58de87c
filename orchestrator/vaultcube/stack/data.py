"""The folders that a run reads: whether they are there, can be read, and hold what can be run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vaultcube.errors import (
    BadParameterError,
    DataUnreadableError,
    ModelNotFoundError,
    ModelTooLargeError,
    ModelUnreadableError,
)
from vaultcube.gpu.fit import check, directory_weights, read_shape
from vaultcube.stack.plan import Plan


def check_data(plan: Plan) -> None:
    """Refuse data folders that are not there or that the container's user cannot read.

    Raises:
        DataUnreadableError, ModelNotFoundError, ModelUnreadableError: such a folder.
    """
    uid, gid = (int(part) for part in plan.user.split(":"))
    for source in plan.data_folders.values():
        path = Path(source)
        if not path.is_dir():
            missing = ModelNotFoundError if plan.servers else DataUnreadableError
            raise missing(f"there is no folder {source}")
        seen = path.stat()
        shift = 6 if seen.st_uid == uid else 3 if seen.st_gid == gid else 0
        if (seen.st_mode >> shift) & 0o5 != 0o5:  # noqa: PLR2004 - r-x, as chmod writes it
            unreadable = ModelUnreadableError if plan.servers else DataUnreadableError
            raise unreadable(f"user {uid}, as whom the container runs, cannot read {source}")


def check_model(plan: Plan) -> None:
    """Refuse a model's directory that holds none, or one that cannot fit the chosen GPUs, before anything is built.

    A model of the hub is looked at in the same way by the server, before it downloads it.

    Raises:
        ModelNotFoundError: there is no config.json.
        ModelUnreadableError: it is not JSON, or a file cannot be read.
        ModelTooLargeError: it does not fit.
        BadParameterError: the model cannot be divided as asked.
    """
    for source in plan.data_folders.values() if plan.servers else ():
        shape = read_shape(_config(Path(source)))
        if not plan.gpus:
            return
        params = plan.params
        memories = [gpu.memory_total_bytes for gpu in plan.gpus]
        try:
            weights = directory_weights(source)
        except OSError as error:
            raise ModelUnreadableError(f"{error.filename}: {error.strerror}") from error
        parallel = params["tensor_parallel"], params["pipeline_parallel"]
        fit = check(shape, weights, memories, *parallel, params["max_model_len"], params["flags"])
        if fit.error is not None:
            kind = ModelTooLargeError if fit.code == ModelTooLargeError.code else BadParameterError
            raise kind(f"{source}: {fit.error}", next_step=fit.next_step)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{folder} holds no model: there is no config.json in it") from error
    except OSError as error:
        raise ModelUnreadableError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise ModelUnreadableError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelUnreadableError(f"{folder / 'config.json'} is not a JSON object")
    return found
