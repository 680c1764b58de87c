"""Command lines of the programs: a parser that raises, and the ranges of values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common.outcome import bad_parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Parser(argparse.ArgumentParser):
    """Raises a Problem (exit code 64) where argparse would print and exit 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the problem of a command line that makes no sense."""
        raise bad_parameter(message, f"see: {self.prog} --help")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return parse


def seconds(text: str) -> float:
    """Read a time of more than 0 seconds and at most a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    # Written so that NaN falls through as well.
    if not 0 < value <= 86400:  # noqa: PLR2004 - a day
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 86400 seconds")
    return value


def results_of(argv: Sequence[str]) -> Path | None:
    """Return the value of `--results` in a command line that is wrong elsewhere, so that the error lands there too."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--results", type=Path)
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return None
    results = known.results
    return results if isinstance(results, Path) else None
