"""One GPU in the picture of `vaultcube monitor`: as a block of lines, or as one line. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from vaultcube.gpu.clockevents import THROTTLE_MASK, names
from vaultcube.report.gpuwords import gib, held_by, of, pcie, short_pci, watts, whole
from vaultcube.report.graphs import Glyphs, bar, sparkline
from vaultcube.report.table import wrap
from vaultcube.stack.snapshot import GpuState, Process
from vaultcube.stack.watch import Frame, History

# The width that a block is made for, and the least that its two halves fit beside each other in.
BLOCK = 80
NARROW = 72
# What stands left of the sparklines, and right of them.
LEFT, RIGHT = 21, 36
# A processor at rest is no colder than the room.
ROOM_C = 20
NEAR_C = 5
BAR = 12
# One line a GPU: its columns and their widths; the sparkline has no name. What is left out first where it is narrow.
SPARK, HOLDER = 8, 7
COLUMNS = {"": SPARK, "UTIL %": 6, "MEMORY GiB": 11, "TEMP C": 6, "POWER W": 7, "MHz": 4, "PCIE": 4}
DROPPED = ("", "PCIE", "MHz", "POWER W", "TEMP C")


def block(frame: Frame, state: GpuState, width: int, glyphs: Glyphs, most: int | None) -> list[Text]:
    """Return a GPU as some lines.

    Args:
        frame: what it was seen in.
        state: the GPU.
        width: in columns.
        glyphs: what graphs are drawn with.
        most: how many lines its processes may take; None for all.
    """
    info = state.info
    title = Text(f"GPU {info.index}  {info.name}", "bold")
    if state.reading.problem is not None:
        where = f"  {_trouble(frame, state)}, at {short_pci(info.pci_bus_id)}"
        return [title, *(Text(f"  {line}", "bold red") for line in wrap(where, width - 2))]
    holder, style = _holder(frame, state), "cyan" if state.holders else "dim"
    gap = width - title.cell_len - len(holder)
    lines = [title]
    if gap > 1:
        title.append(" " * gap).append(holder, f"not bold {style}")
    else:
        lines += [Text(f"  {line}", style) for line in wrap(holder, width - 2)]
    lines += _gauges(frame.histories.get(info.uuid), state, width, glyphs)
    if words := slowed_by(state):
        first, *more = wrap(f"SLOWED BY {words}", width - 2)
        lines += [Text(f"  {first}", "bold red"), *(Text(f"    {line}", "bold red") for line in more)]
    return lines + _processes(state.processes, most)


def row_head(width: int) -> str:
    """Return the head of the lines that `row` makes."""
    return "  ".join(["GPU", *(name.rjust(size) for name, size in columns(width).items()), "HELD BY"])


def columns(width: int) -> dict[str, int]:
    """Return the columns that fit and their widths, with room to say who holds a GPU."""
    shown = {**COLUMNS, "": SPARK + max(width - BLOCK, 0) // 2}
    for name in DROPPED:
        if 3 + sum(2 + size for size in shown.values()) + 2 + HOLDER <= width:
            break
        del shown[name]
    return shown


def row(frame: Frame, state: GpuState, width: int, glyphs: Glyphs) -> Text:
    """Return a GPU as one line."""
    info, now = state.info, state.reading
    if now.problem is not None:
        return Text(f"{info.index:>3}  {_trouble(frame, state)}", "bold red")
    past, shown = frame.histories.get(info.uuid), columns(width)
    values = {
        "": sparkline(past.utilisation if past else (), shown.get("", 0), low=0, high=100, glyphs=glyphs),
        "UTIL %": whole(now.utilisation_percent),
        "MEMORY GiB": f"{gib(now.memory_used_bytes)}/{gib(info.memory_total_bytes)}",
        "TEMP C": of(now.temperature_c, info.temperature_limit_c),
        "POWER W": of(watts(now.power_mw), watts(info.power_limit_mw)),
        "MHz": whole(now.sm_clock_mhz),
        "PCIE": pcie(now.pcie_gen, now.pcie_width),
    }
    line = Text(f"{info.index:>3}")
    for name, size in shown.items():
        style = _heat(state) if name == "TEMP C" else "green" if not name else ""
        line.append("  ").append(values[name].rjust(size), style)
    line.append("  ").append(_holder(frame, state), "cyan" if state.holders else "dim")
    line.truncate(width, overflow="crop")
    return line


def slowed_by(state: GpuState) -> str:
    """Return in words what slows a GPU down so that a measurement is spoilt; empty when nothing does."""
    return ", ".join(names((state.reading.clock_events or 0) & THROTTLE_MASK))


def _holder(frame: Frame, state: GpuState) -> str:
    return held_by(state, known=frame.seen.holders_reason is None)


def _trouble(frame: Frame, state: GpuState) -> str:
    problem, since = state.reading.problem, frame.lost.get(state.info.uuid)
    word = "LOST" if problem == "lost" else f"does not answer ({problem})"
    holders = f", held by {_holder(frame, state)}" if state.holders else ""
    return word + (f" since {since:%H:%M:%S}" if since else "") + holders


def _gauges(history: History | None, state: GpuState, width: int, glyphs: Glyphs) -> list[Text]:
    """Return three values with what they were, and three more beside them, or below where it is narrow."""
    info, now = state.info, state.reading
    past = history or History((now.utilisation_percent,), (now.power_mw,), (now.temperature_c,))
    right = (_memory(state, glyphs), _clock(state), _link(state))
    beside = width >= NARROW
    room = width - LEFT - (RIGHT if beside else 0)
    power, temperature = info.power_limit_mw, info.temperature_limit_c
    left = (
        ("util", f"{whole(now.utilisation_percent)} %", past.utilisation, 0, 100, ""),
        ("power", f"{of(watts(now.power_mw), watts(power))} W", past.power_mw, 0, power, ""),
        ("temp", f"{of(now.temperature_c, temperature)} C", past.temperature_c, ROOM_C, temperature, _heat(state)),
    )
    lines = []
    for name, value, values, low, limit, style in left:
        high = limit or max((one for one in values if one is not None), default=1)
        graph = sparkline(values, room, low=low, high=high, glyphs=glyphs)
        lines.append(Text.assemble(f"  {name:<6} ", (f"{value:<11} ", style), (graph, "green")))
    if beside:
        return [Text.assemble(line, "  ", text) for line, text in zip(lines, right, strict=True)]
    return lines + [Text("  ").append_text(text) for text in right]


def _heat(state: GpuState) -> str:
    """Return the style of a temperature: at its limit it stands out."""
    margin = state.reading.temperature_margin_c
    if margin is None or margin > NEAR_C:
        return ""
    return "bold red" if margin <= 0 else "yellow"


def _memory(state: GpuState, glyphs: Glyphs) -> Text:
    used, total = state.reading.memory_used_bytes, state.info.memory_total_bytes
    graph = bar(None if used is None or not total else used / total, BAR, glyphs=glyphs)
    return Text.assemble("memory ", (graph, "blue"), f" {gib(used)}/{gib(total)} GiB")


def _clock(state: GpuState) -> Text:
    """Return the clock, and what harmless thing holds it where it is."""
    now = state.reading
    text = Text(f"clock  {whole(now.sm_clock_mhz)}/{whole(state.info.sm_clock_max_mhz)} MHz")
    return text.append(f"  {', '.join(names((now.clock_events or 0) & ~THROTTLE_MASK))}", "dim")


def _link(state: GpuState) -> Text:
    info, now = state.info, state.reading
    narrow = now.pcie_width is not None and info.pcie_width_max is not None and now.pcie_width < info.pcie_width_max
    link = f"{pcie(now.pcie_gen, now.pcie_width)} of {pcie(info.pcie_gen_max, info.pcie_width_max)}"
    text = Text("PCIe   ").append(link, "yellow" if narrow else "")
    return text.append(f"  {whole(now.pcie_replays)} replays", "yellow" if now.pcie_replays else "")


def _processes(processes: Sequence[Process], most: int | None) -> list[Text]:
    shown = processes if most is None or len(processes) <= most else processes[: most - 1]
    lines = [Text(process(one), "dim") for one in shown]
    if len(shown) < len(processes):
        lines.append(Text(f"  and {len(processes) - len(shown)} more processes", "dim"))
    return lines


def process(one: Process) -> str:
    """Return a process as one line."""
    who = f" ({one.user})" if one.user else ""
    memory = "" if one.memory_bytes is None else f"  {gib(one.memory_bytes)} GiB"
    return f"  {one.pid} {one.name or '-'}{who}{memory}  {one.kind}"
