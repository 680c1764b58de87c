"""The findings of `doctor` for a person: one row a check, the next step below each that needs one."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from vaultcube.results.doctor import DoctorReport, Finding, FindingStatus

COLORS = {FindingStatus.PASS: 32, FindingStatus.WARN: 33, FindingStatus.FAIL: 31, FindingStatus.UNAVAILABLE: 36}
# So narrow a column would be no help to anybody.
SEEN_LEAST = 30


def report(found: DoctorReport, *, width: int, color: bool) -> str:
    """Return all findings, within `width` columns. Checks that are UNAVAILABLE for one common reason share a row."""
    parts = ["SIMULATED: the GPUs are not real ones\n"] if found.simulated else []
    common = Counter(one.seen for one in found.checks if _plain(one))
    shared = {reason for reason, count in common.items() if count > 1}
    rows = [one for one in found.checks if not (_plain(one) and one.seen in shared)]
    code = max((len(one.code) for one in rows), default=0)
    column = code + 2 + len(FindingStatus.UNAVAILABLE) + 2
    for one in rows:
        parts += _row(one, code, max(width - column, SEEN_LEAST), color=color)
    for reason in sorted(shared):
        codes = ", ".join(one.code for one in found.checks if _plain(one) and one.seen == reason)
        parts.append(f"\n{_paint(FindingStatus.UNAVAILABLE, color=color)}: {reason}\n")
        parts += [f"  {line}\n" for line in textwrap.wrap(codes, max(width - 2, SEEN_LEAST), break_on_hyphens=False)]
    counts = Counter(one.status for one in found.checks)
    told = ", ".join(f"{counts[status]} {status}" for status in FindingStatus if counts[status])
    parts.append(f"\n{told}\n")
    return "".join(parts)


def _plain(one: Finding) -> bool:
    return one.status is FindingStatus.UNAVAILABLE and one.next_step is None


def _row(one: Finding, code: int, room: int, *, color: bool) -> Iterator[str]:
    status = len(FindingStatus.UNAVAILABLE)
    padding = " " * (status - len(one.status))
    indent = " " * (code + 2 + status + 2)
    lines = _wrapped(one.seen, room) or [""]
    yield f"{one.code.ljust(code)}  {_paint(one.status, color=color)}{padding}  {lines[0]}".rstrip() + "\n"
    for line in lines[1:]:
        yield f"{indent}{line}\n"
    if one.next_step is not None and one.status is not FindingStatus.PASS:
        for line in _wrapped(f"next: {one.next_step}", room):
            yield f"{indent}{line}\n"


def _wrapped(text: str, room: int) -> list[str]:
    # A path, an option or a command's word is copied: it is not broken.
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)


def _paint(status: FindingStatus, *, color: bool) -> str:
    return f"\x1b[1;{COLORS[status]}m{status}\x1b[0m" if color else str(status)
