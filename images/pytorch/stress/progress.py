"""Lines that a person can follow."""

from __future__ import annotations

TERA, GIGA = 1e12, 1e9


def duration(seconds: float) -> str:
    """Return "3 h 07 min", "12 min 30 s" or "42 s"."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def speed(work: int, unit: str, elapsed_s: float) -> str:
    """Return work in `unit` ("flop" or "bytes") over time as TFLOP/s or GB/s."""
    scale, name = (TERA, "TFLOP/s") if unit == "flop" else (GIGA, "GB/s")
    return f"{work / elapsed_s / scale:.1f} {name}" if elapsed_s > 0 else f"- {name}"


def line(gpu: str, phase: str, fast: str, covered_s: float, wanted_s: float, mismatches: int) -> str:
    """Return one line of progress; `mismatches` are elements, of this session."""
    share = min(100.0, covered_s / wanted_s * 100)
    found = "no mismatch" if not mismatches else f"{mismatches} MISMATCH{'ES' if mismatches > 1 else ''}"
    return f"{gpu}  {phase:<8}  {fast:>13}  {duration(covered_s)} of {duration(wanted_s)} ({share:.1f} %)  {found}"
