"""The findings of `vaultcube health` for a person: by layer, one row a check, the next step below each that needs one.

Standard library only, as all that the installed program uses.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from vaultcube.host.words import Finding, HealthReport, Verdict

COLORS = {Verdict.PASS: 32, Verdict.FAIL: 31, Verdict.INVALID: 35, Verdict.UNAVAILABLE: 36}
TITLES = {
    1: "base system",
    2: "NVIDIA driver and CUDA",
    3: "GPUs in containers",
    4: "images",
    5: "orchestrator",
}
# So narrow a column would be no help to anybody.
SEEN_LEAST = 30


def report(found: HealthReport, *, width: int, color: bool) -> str:
    """Return all findings, within `width` columns."""
    parts = ["SIMULATED: these are another machine's files\n"] if found.simulated else []
    code = max((len(one.code) for one in found.checks), default=0)
    room = max(width - code - len(Verdict.UNAVAILABLE) - 4, SEEN_LEAST)
    for layer in found.layers:
        parts.append(f"layer {layer}: {TITLES[layer]}\n")
        for one in found.checks:
            if one.layer == layer:
                parts += _row(one, code, room, color=color)
        parts.append("\n")
    counts = Counter(one.verdict for one in found.checks)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in reversed(Verdict) if counts[verdict])
    against = "the documents' values (no host.json)" if found.expected == "defaults" else found.expected
    root = "" if found.privileged else "; not as root, who sees more"
    parts.append(f"{told or 'nothing was checked'}; held against {against}{root}\n")
    parts.append(f"verdict {_paint(found.verdict, color=color)}\n")
    return "".join(parts)


def _row(one: Finding, code: int, room: int, *, color: bool) -> Iterator[str]:
    padding = " " * (len(Verdict.UNAVAILABLE) - len(one.verdict))
    indent = " " * (code + len(Verdict.UNAVAILABLE) + 4)
    lines = _wrapped(one.seen, room) or [""]
    yield f"{one.code.ljust(code)}  {_paint(one.verdict, color=color)}{padding}  {lines[0]}".rstrip() + "\n"
    for line in lines[1:]:
        yield f"{indent}{line}\n"
    if one.next_step is not None and one.verdict is not Verdict.PASS:
        for line in _wrapped(f"next: {one.next_step}", room):
            yield f"{indent}{line}\n"


def _wrapped(text: str, room: int) -> list[str]:
    # A path, an option or a command's word is copied: it is not broken.
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)


def _paint(verdict: Verdict, *, color: bool) -> str:
    return f"\x1b[1;{COLORS[verdict]}m{verdict}\x1b[0m" if color else str(verdict)
