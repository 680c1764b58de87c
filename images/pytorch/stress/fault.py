"""Faults that tests inject through `STRESS_FAULT`. A soak with one says so in `started` and can never pass.

`KIND:PHASE:ITERATION`: in that iteration of that phase (counted from 0 in one session; `all` for every one)
- `flip` turns over one bit of the result on the device, before it is checked. With `all` the first result, which the
  others are held against, has it too: a card that is wrong every time, which only other cards can tell.
- `hang` never comes back from it.
- `fail` fails as a lost GPU does.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.outcome import bad_parameter
from stress.params import FAULT, PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("flip", "hang", "fail")
_SHAPE = re.compile(rf"({'|'.join(KINDS)}):({'|'.join(PHASES)}):(\d{{1,15}}|all)", re.ASCII)


@dataclass(frozen=True)
class Fault:
    """A fault to inject; `iteration` None means every one."""

    kind: str
    phase: str
    iteration: int | None

    def hits(self, kind: str, phase: str, iteration: int) -> bool:
        """Say whether this fault of `kind` is due in an iteration of `phase`."""
        return (self.kind, self.phase) == (kind, phase) and self.iteration in {None, iteration}


def parse(text: str) -> Fault | None:
    """Return the fault that `text` asks for, None for "".

    Raises:
        Problem: it asks for none that there is (exit code 64).
    """
    if not text:
        return None
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise bad_parameter(f"{FAULT}={text!r} is no fault", f"for tests only: {'|'.join(KINDS)}:PHASE:ITERATION")
    kind, phase, iteration = match.groups()
    return Fault(kind, phase, None if iteration == "all" else int(iteration))


def asked(environment: Mapping[str, str] = os.environ) -> str:
    """Return what the environment asks for, "" for nothing. Raises the Problem of `parse`."""
    text = environment.get(FAULT, "")
    parse(text)
    return text
