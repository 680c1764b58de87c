"""The command line of the soak's worker."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import Parser, seconds, whole
from common.outcome import bad_parameter
from stress.guard import ALL
from stress.params import PHASES

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_S = 2_600_000
"""Thirty days, and a little."""
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LEAST, _MOST = 0.01, 0.95
_SHORTEST_SILENCE_S = 2
"""The recorder says something once a second."""
_CELSIUS = whole(30, 150)
_ABOUT = "Loads one GPU for hours and checks every result bit by bit. Started again, it goes on where it stopped."
_EXAMPLE = "example: python3 -m stress --results /results --gpu gpu-0 --seconds 86400"


@dataclass(frozen=True)
class Options:
    """The command line: `phases` None leaves them to the device, `values` are the parameters as they are."""

    results: Path
    device: str
    phases: tuple[str, ...] | None
    values: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where this GPU's events go."""
        return self.results / str(self.values["gpu"])


def key(text: str) -> str:
    """Read the name of a GPU, which is the name of its folder too."""
    if not _KEY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a folder, as gpu-0 is")
    return text


def phases(text: str) -> tuple[str, ...]:
    """Read a list of phases."""
    named = tuple(text.split(","))
    if unknown := [name for name in named if name not in PHASES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PHASES)}")
    if len(set(named)) < len(named):
        raise argparse.ArgumentTypeError(f"{text} names a phase twice")
    return named


def fraction(text: str) -> float:
    """Read a part of the memory."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    # Written so that NaN falls through as well.
    if not _LEAST <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"{text} is not between {_LEAST} and {_MOST}")
    return value


def silence(text: str) -> float:
    """Read for how long the recorder may say nothing, 0 where there is none."""
    value = 0.0 if text.strip() in {"0", "0.0"} else seconds(text)
    if 0 < value < _SHORTEST_SILENCE_S:
        raise argparse.ArgumentTypeError(f"{text} is less than {_SHORTEST_SILENCE_S} seconds, and not 0")
    return value


def celsius(text: str) -> int | None:
    """Read a temperature; nothing at all stands for the card's own limit."""
    return _CELSIUS(text) if text else None


def _parser() -> Parser:
    parser = Parser(prog="python3 -m stress", description=_ABOUT, epilog=_EXAMPLE, allow_abbrev=False)
    add = parser.add_argument
    add("--results", type=Path, required=True, help="folder of the soak; each GPU has a folder in it")
    add("--gpu", type=key, required=True, metavar="KEY", help="name of this GPU's folder, for example gpu-0")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="auto: the GPU if there is one")
    add("--seconds", type=whole(1, LONGEST_S), default=86400, help="covered time wanted in all (default: %(default)s)")
    add("--phases", type=phases, help=f"default: {','.join(PHASES)}, on a CPU fp32,memory")
    add("--phase-seconds", type=seconds, default=60.0, help="until the next phase's turn (default: %(default)s)")
    add("--memory-fraction", type=fraction, default=0.85, help="of the GPU's free memory (default: %(default)s)")
    add("--seed", type=whole(0, 2**31 - 1), default=0, help="of the numbers (default: %(default)s)")
    add("--hang-timeout-s", type=seconds, default=120.0, help="without progress it is a hang (default: %(default)s)")
    add(
        "--recorder-lost-s",
        type=silence,
        default=0.0,
        help="the load waits when the recorder says nothing for so long; 0: there is none (default: %(default)s)",
    )
    add("--max-celsius", type=celsius, help="the load ends at so many degrees C (default: the card's own limit)")
    add("--on-fault", choices=("gpu", ALL), default="gpu", help="all: when one GPU is stopped, stop (default: gpu)")
    return parser


def parse(argv: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises:
        Problem: it makes no sense (exit code 64).
    """
    values = vars(_parser().parse_args(argv))
    if "\0" in str(values["results"]):
        raise bad_parameter("--results holds a null character", "name a folder")
    return Options(values.pop("results"), values.pop("device"), values.pop("phases"), values)


def folder_of(argv: Sequence[str]) -> Path | None:
    """Return the GPU's folder in a command line that is wrong elsewhere, so that the error lands there too."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--gpu", type=key)
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return None
    return known.results / known.gpu if known.results and known.gpu else None
