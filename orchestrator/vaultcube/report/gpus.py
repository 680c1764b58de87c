"""`vaultcube gpus` for a person: what every GPU does, what it is, and how they reach each other. In 80 columns."""

from __future__ import annotations

from typing import IO

from vaultcube.gpu.limits import memory_bandwidth, tensor_peak
from vaultcube.gpu.readings import Link
from vaultcube.report.gpuwords import (
    SIMULATED,
    gib,
    held_by,
    next_step,
    of,
    pcie,
    ranges,
    short_pci,
    switch,
    watts,
    whole,
)
from vaultcube.report.table import colored, table, wrap
from vaultcube.stack.snapshot import GpuState, Snapshot

WIDTH = 80
# How many columns of the topology fit beside each other.
ACROSS = 8
LEVELS = {
    "NV": "NVLink, and how many of them",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "the CPU's PCIe host bridge",
    "NODE": "host bridges of one NUMA node",
    "SYS": "from one NUMA node to another",
}
P2P = {
    "CNS": "not supported by the chipset",
    "GNS": "not supported by the GPUs",
    "TNS": "not supported by the topology",
    "DR": "disabled in the driver",
    "NS": "not supported",
    "U": "the driver does not know",
}


def show(seen: Snapshot, stream: IO[str], *, as_json: bool) -> str:
    """Return what a stream gets: the table, or the JSON document."""
    if as_json:
        import json

        from vaultcube.report.gpujson import document

        return json.dumps(document(seen), indent=2) + "\n"
    return text(seen, color=colored(stream))


def text(seen: Snapshot, *, color: bool = False) -> str:
    """Return everything for a terminal of 80 columns."""
    paint = _Paint(color)
    if seen.problem is not None or not (seen.gpus or seen.missing):
        driver = f" (driver {seen.driver})" if seen.driver else ""
        shown = paint(33, SIMULATED) + "\n" if seen.simulated else ""
        first, *more = wrap(f"next: {next_step(seen)}", WIDTH - 4)
        lines = [*wrap(f"no GPUs: {seen.reason}{driver}", WIDTH), f"  {first}", *(f"    {line}" for line in more)]
        return "".join(line + "\n" for line in lines) + shown
    parts = [_head(seen)]
    if seen.simulated:
        parts.append(paint(33, SIMULATED) + "\n")
    parts.append("\n" + paint.lost(table(_now(seen), width=WIDTH)))
    if seen.holders_reason:
        parts += [line + "\n" for line in wrap(f"Containers are not counted: {seen.holders_reason}", WIDTH)]
    for note in seen.notes:
        parts += [line + "\n" for line in wrap(note, WIDTH)]
    if (step := next_step(seen)) is not None:
        parts += [line + "\n" for line in wrap(f"next: {step}", WIDTH)]
    if seen.gpus:
        parts += ["\n", table([("GPU", "UUID", "PCI", "CC", "NUMA"), *map(_who, seen.gpus)]), "\n", *_what(seen.gpus)]
    if seen.links:
        parts += ["\n", *_topology(seen.gpus, seen.links)]
    return "".join(parts)


class _Paint:
    """Colours text, if it may."""

    def __init__(self, wanted: bool) -> None:  # noqa: FBT001 - its one argument
        self._wanted = wanted

    def __call__(self, code: int, text: str) -> str:
        return f"\x1b[1;{code}m{text}\x1b[0m" if self._wanted else text

    def lost(self, text: str) -> str:
        return text.replace(LOST, self(31, LOST))


LOST = "LOST"


def _head(seen: Snapshot) -> str:
    counts: dict[str, int] = {}
    for state in seen.gpus:
        counts[state.info.name] = counts.get(state.info.name, 0) + 1
    names = [f"{count} x {name}" for name, count in counts.items()]
    if seen.missing:
        names.append(f"{len(seen.missing)} that do not answer" if len(seen.missing) > 1 else "1 that does not answer")
    told = f"{', '.join(names)}; driver {seen.driver or '-'}, CUDA up to {seen.cuda or '-'}"
    return "".join(line + "\n" for line in wrap(told, WIDTH))


def _now(seen: Snapshot) -> list[tuple[str, ...]]:
    known = seen.holders_reason is None
    rows = {index: (str(index), *["-"] * 5, LOST if problem == "lost" else problem) for index, problem in seen.missing}
    rows |= {state.info.index: _reading(state, known=known) for state in seen.gpus}
    head = ("GPU", "MEMORY GiB", "UTIL %", "TEMP C", "POWER W", "PCIE NOW/MAX", "HELD BY")
    return [head, *(rows[index] for index in sorted(rows))]


def _reading(state: GpuState, *, known: bool) -> tuple[str, ...]:
    info, now = state.info, state.reading
    holders = held_by(state, known=known)
    if now.problem is not None:
        held = f", held by {holders}" if state.holders else ""
        return str(info.index), *["-"] * 5, f"{LOST if now.problem == 'lost' else now.problem}{held}"
    return (
        str(info.index),
        f"{gib(now.memory_used_bytes)}/{gib(info.memory_total_bytes)}",
        whole(now.utilisation_percent),
        of(now.temperature_c, info.temperature_limit_c),
        of(watts(now.power_mw), watts(info.power_limit_mw)),
        f"{pcie(now.pcie_gen, now.pcie_width)}/{pcie(info.pcie_gen_max, info.pcie_width_max)}",
        holders,
    )


def _who(state: GpuState) -> tuple[str, ...]:
    info = state.info
    return (
        str(info.index),
        info.uuid,
        short_pci(info.pci_bus_id),
        info.compute_capability,
        whole(info.numa_node),
    )


def _what(gpus: tuple[GpuState, ...]) -> list[str]:
    """Describe the cards, those that are alike once."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for state in gpus:
        alike.setdefault(_card(state), []).append(state.info.index)
    lines = []
    for card, indices in alike.items():
        label = f"GPU {ranges(indices)}  "
        first, *more = (part for line in card for part in wrap(line, max(WIDTH - len(label), WIDTH // 2)))
        lines += [f"{label}{first}\n", *(f"{' ' * len(label)}{line}\n" for line in more)]
    return lines


def _card(state: GpuState) -> tuple[str, ...]:
    info = state.info
    bandwidth, peak = memory_bandwidth(info), tensor_peak(info)
    computed = [
        "memory -" if bandwidth is None else f"memory {bandwidth / 1e9:.0f} GB/s",
        "tensor bf16 -" if peak is None else f"tensor bf16 {peak / 1e12:.1f} TFLOPS at {info.sm_clock_max_mhz} MHz",
    ]
    errors = state.reading.ecc_uncorrected
    ecc = f"ECC {switch(info.ecc)}" + ("" if errors is None else f" ({errors} uncorrected)")
    mig = f"MIG {switch(info.mig)}" + (" (not supported here: whole GPUs only)" if info.mig else "")
    return (
        f"{info.name}, {gib(info.memory_total_bytes)} GiB",
        f"computed limits: {', '.join(computed)}",
        f"{ecc}, {mig}, persistence mode {switch(info.persistence)}",
    )


def _topology(gpus: tuple[GpuState, ...], links: tuple[Link, ...]) -> list[str]:
    cells = {frozenset((link.a, link.b)): _level(link) for link in links}
    lines = []
    for begin in range(0, len(gpus), ACROSS):
        columns = gpus[begin : begin + ACROSS]
        rows = [("", *(f"GPU{one.info.index}" for one in columns), "NUMA")]
        for row in gpus:
            levels = (
                "X" if row is column else cells.get(frozenset((row.info.uuid, column.info.uuid)), "-")
                for column in columns
            )
            rows.append((f"GPU{row.info.index}", *levels, whole(row.info.numa_node)))
        lines += [table(rows), "\n"] if begin + ACROSS < len(gpus) else [table(rows)]
    there = {link.level for link in links}
    lines += [f"{level}: {words}\n" for level, words in LEVELS.items() if level in there]
    return [*lines, *_p2p(gpus, links)]


def _level(link: Link) -> str:
    if link.level == "NV":
        return f"NV{link.nvlinks}"
    return link.level or "-"


def _p2p(gpus: tuple[GpuState, ...], links: tuple[Link, ...]) -> list[str]:
    """Say which pairs can read each other's memory over the bus or NVLink."""
    index = {state.info.uuid: state.info.index for state in gpus}
    words: dict[str, list[str]] = {}
    for link in links:
        words.setdefault(link.p2p or "-", []).append(f"{index[link.a]}-{index[link.b]}")
    lines = []
    for word, pairs in words.items():
        which = "all pairs" if len(words) == 1 else f"pairs {', '.join(pairs)}"
        why = f" ({P2P[word]})" if word in P2P else ""
        told = f"P2P reads: {word}{why} for {which}"
        lines += [line + "\n" for line in wrap(told, WIDTH)]
    return lines
