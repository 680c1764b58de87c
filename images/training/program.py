"""What a training program says of itself, so that the launcher can be one for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.outcome import Problem
    from training.params import Params

JOB = "VAULTCUBE_TRAINING_JOB"
"""The environment variable with the job, for the processes that the launcher starts."""


def no_autopsy(_params: Params, _log: Path) -> Problem | None:
    """Say nothing of the cause: what the log of a dead child tells is for people."""
    return None


@dataclass(frozen=True)
class Program:
    """One training program.

    Attributes:
        name: its module, as in `python3 -m NAME`.
        workload: what people call it, as in `vaultcube bench WORKLOAD`; the first word of a stamped results folder.
        about: what it does, in one sentence.
        models: what `--model` takes, for the help.
        switches: its own on/off options by their names in Python, with their help.
        params: its class of parameters; the switches are its own fields.
        presets: sets of parameters by name; every one is complete.
        environment: what the child has in its environment, from the parameters.
        image_suffixes: how the names of images end that it can read, in lower case.
        child: the module that the launcher starts.
        child_name: what people call that process.
        memory_setting: the setting of the compose file that limits the container's memory.
        keeps_log: the child's stderr is kept in a file as well, for `autopsy`.
        autopsy: what that file says of a child that died without a word; None when it says nothing.
    """

    name: str
    workload: str
    about: str
    models: str
    switches: Mapping[str, str]
    params: type[Params]
    presets: Mapping[str, Mapping[str, Any]]
    environment: Callable[[Params], dict[str, str]]
    image_suffixes: tuple[str, ...]
    child: str
    child_name: str
    memory_setting: str
    keeps_log: bool = False
    autopsy: Callable[[Params, Path], Problem | None] = no_autopsy
