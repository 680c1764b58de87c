"""One picture of `vaultcube monitor`: a pure function of what was seen and the room there is.

Every picture is rich text; its `.plain` is what a terminal without colour, or a file, gets.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from vaultcube.gpu.xid import classify, meaning
from vaultcube.report.gpublocks import BLOCK, block, process, row, row_head, slowed_by
from vaultcube.report.gpuwords import SIMULATED, gib, next_step
from vaultcube.report.graphs import BLOCKS, Glyphs
from vaultcube.report.table import wrap
from vaultcube.stack.watch import Frame

# So many processes of one GPU are shown where room is scarce.
PROCESSES = 3


def picture(
    frame: Frame, width: int, height: int | None = None, *, glyphs: Glyphs = BLOCKS, notes: Sequence[str] = ()
) -> Text:
    """Return everything in lines of at most `width` columns, and at most `height` of them.

    The roomiest layout that fits is taken: blocks with space between, blocks, one line a GPU and a process, one line a
    GPU. What fits in none is cut
    at the end, and said to be.

    Args:
        frame: what was seen.
        width: of the terminal, in columns.
        height: of the terminal, in lines; None for a file, which has no end.
        glyphs: what graphs are drawn with.
        notes: lines about the view itself.
    """
    head, foot = _head(frame, width, notes), _foot(frame, width)
    lines = [*head, *_blocks(frame, width, glyphs, spaced=True, most=None), *foot]
    if height is not None and len(lines) > height:
        lines = [*head, *_blocks(frame, width, glyphs, spaced=False, most=PROCESSES), *foot]
    if height is not None and len(lines) > height:
        lines = [*head, *_rows(frame, width, glyphs), *_processes(frame), *foot]
    if height is not None and len(lines) > height:
        lines = [*head, *_rows(frame, width, glyphs), *foot]
    if height is not None and len(lines) > height:
        shown = max(height - 1, 0)
        hidden = len(lines) - shown
        lines = [*lines[:shown], Text(f"... {hidden} more lines: make the terminal taller", "yellow")][:height]
    for line in lines:
        line.truncate(width, overflow="crop")
        line.rstrip()
    return Text("\n").join(lines)


def _head(frame: Frame, width: int, notes: Sequence[str]) -> list[Text]:
    seen, system = frame.seen, frame.system
    title = Text("vaultcube monitor", "bold").append(
        f"  driver {seen.driver or '-'}  CUDA {seen.cuda or '-'}", "not bold"
    )
    time = f"{frame.time:%Y-%m-%d %H:%M:%S}"
    beside = title.cell_len + 2 + len(time) <= width
    if beside:
        title.append(" " * (width - title.cell_len - len(time)) + time, "not bold")
    loads = " ".join("-" if load is None else f"{load:.2f}" for load in system[:3])
    used = None
    if system.memory_total_bytes is not None and system.memory_available_bytes is not None:
        used = system.memory_total_bytes - system.memory_available_bytes
    parts = (
        *(() if beside else (time,)),
        f"load {loads} on {system.cpus or '-'} CPUs",
        f"memory {gib(used, 0)}/{gib(system.memory_total_bytes, 0)} GiB",
        f"disk {gib(system.disk_free_bytes, 0)} GiB free",
    )
    lines = [title, *map(Text, _packed(parts, width))]
    if seen.simulated:
        lines.append(Text(SIMULATED, "bold yellow"))
    lines += [Text(line, "yellow") for note in notes for line in wrap(note, width)]
    if seen.holders_reason:
        lines += [Text(line, "yellow") for line in wrap(f"containers are not counted: {seen.holders_reason}", width)]
    if seen.problem is not None or not (seen.gpus or seen.missing):
        since = f" (since {frame.down_since:%H:%M:%S}; asked again all the time)" if frame.down_since else ""
        lines += [Text(line, "bold red") for line in wrap(f"no GPUs: {seen.reason}{since}", width)]
        lines += [Text(line) for line in wrap(f"next: {next_step(seen)}", width)]
    for index, problem in seen.missing:
        lines.append(Text(f"GPU {index}  {'LOST' if problem == 'lost' else problem}", "bold red"))
    return lines


def _foot(frame: Frame, width: int) -> list[Text]:
    lines = []
    for xid in frame.xids:
        where = "a GPU" if xid.gpu is None else f"GPU {xid.gpu}"
        style = "red" if classify(xid.code) == "hardware" else "yellow"
        told = f"{xid.time:%H:%M:%S}  Xid {xid.code} on {where}: {meaning(xid.code)}"
        lines += [Text(line, style) for line in wrap(told, width)]
    return [Text(), *lines] if lines else []


def _blocks(frame: Frame, width: int, glyphs: Glyphs, *, spaced: bool, most: int | None) -> list[Text]:
    """Return all GPUs as blocks, beside each other where there is room for two and more."""
    across = max(width // BLOCK, 1)
    room = (width - 2 * (across - 1)) // across
    blocks = [block(frame, state, room, glyphs, most) for state in frame.seen.gpus]
    lines: list[Text] = []
    for begin in range(0, len(blocks), across):
        beside = blocks[begin : begin + across]
        lines += [Text()] * spaced
        for number in range(max(map(len, beside))):
            cells = [one[number] if number < len(one) else Text() for one in beside]
            for cell in cells[:-1]:
                cell.truncate(room, overflow="crop", pad=True)
            lines.append(Text("  ").join(cells))
    return lines


def _rows(frame: Frame, width: int, glyphs: Glyphs) -> list[Text]:
    """Return one line a GPU, and one more for each that is slowed down."""
    gpus = frame.seen.gpus
    slowed = [(state.info.index, slowed_by(state)) for state in gpus]
    lines = [Text(row_head(width), "bold"), *(row(frame, state, width, glyphs) for state in gpus)]
    told = (f"GPU {index} slowed by {words}" for index, words in slowed if words)
    return lines + [Text(line, "bold red") for one in told for line in wrap(one, width)]


def _processes(frame: Frame) -> list[Text]:
    gpus = frame.seen.gpus
    lines = [Text(f"GPU {state.info.index}:{process(one)}", "dim") for state in gpus for one in state.processes]
    return [Text(), *lines] if lines else []


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """Return parts in as few lines as hold them, none broken."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += "   " + part
        else:
            lines.append(part)
    return lines
