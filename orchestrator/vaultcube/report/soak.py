"""Soaks in plain text: how they stand, how far they are."""

from __future__ import annotations

from collections import Counter

from vaultcube.report.table import table
from vaultcube.results.schema import Result
from vaultcube.results.soakstatus import SoakStatus

HOUR_S, MINUTE_S = 3600, 60


def begun(found: SoakStatus) -> str:
    """Return what to know of a soak that goes on by itself."""
    return (
        f"soak {found.name}: {len(found.workers)} worker(s) have begun, {duration(found.wanted_s)} to cover\n"
        f"  how far:  vaultcube stress status\n"
        f"  look on:  vaultcube stress --resume --name {found.name}\n"
        f"  its end:  vaultcube stress stop {found.name}\n"
        f"kept in {found.directory}\n"
    )


def standing(found: SoakStatus) -> str:
    """Return how a soak stands, GPU by GPU."""
    head = f"soak {found.name} ({found.run}): {progress_line(found)}\n"
    if found.simulated:
        head += "SIMULATED: the GPUs are not real ones\n"
    rows = [("WORKER", "STATE", "COVERED", "LOAD", "WRONG", "STARTS", "TEMP")]
    rows += [
        (
            one.name,
            one.standing,
            duration(one.covered_s),
            one.phase or "-",
            str(one.mismatches),
            str(one.starts),
            "-" if one.temperature_celsius is None else f"{one.temperature_celsius:.0f} C",
        )
        for one in found.workers
    ]
    said = "".join(f"{one.name}: {one.said}\n" for one in found.workers if one.said)
    rungs = ", ".join(f"{rung.hours:g} h {rung.verdict}" for rung in found.rungs)
    return head + table(rows) + said + (f"rungs: {rungs}\n" if rungs else "") + _end(found)


def _end(found: SoakStatus) -> str:
    if found.verdict is not None:
        return f"verdict {found.verdict}; clear it and keep the result: vaultcube stress stop {found.name}\n"
    if found.keeper is not None:
        return f"looked after by pid {found.keeper}\n"
    if not found.running:
        return f"its containers do not run; go on with it: vaultcube stress --resume --name {found.name}\n"
    return f"it goes on by itself; look on: vaultcube stress --resume --name {found.name}\n"


def progress_line(found: SoakStatus) -> str:
    """Return how far a soak is, in one line."""
    text = f"{duration(found.covered_s)} of {duration(found.wanted_s)} covered"
    if found.left_s:
        text += f", about {duration(found.left_s)} left"
    states = Counter(one.standing for one in found.workers)
    odd = [f"{count} {state}" for state, count in sorted(states.items()) if state != "loading"]
    return f"{text} ({', '.join(odd)})" if odd else text


def none_running(last: Result | None) -> str:
    """Return that no soak has containers, and how the last one ended."""
    if last is None:
        return "no soak is running\n"
    return f"no soak is running; the last one, {last.run.id}: {last.run.status}, {last.verdict}\n"


def duration(seconds: float) -> str:
    """Return a time as people say it: `12.4 h`, `3 min`, `40 s`."""
    if seconds >= HOUR_S:
        return f"{seconds / HOUR_S:.3g} h"
    return f"{seconds / MINUTE_S:.3g} min" if seconds >= MINUTE_S else f"{seconds:.0f} s"
