"""`python -m tests.rig VERB`: put faults into the simulated box that $VAULTCUBE_RIG names, and take them out again."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.rig.box import Box
from tests.rig.profiles import LAYOUTS
from tests.rig.scenario import SimGpu

EXAMPLES = """\
examples:
  python -m tests.rig list
  python -m tests.rig lose 2             GPU 2 falls off the bus, with an Xid 79 in the kernel log
  python -m tests.rig load all           every GPU works
  python -m tests.rig heal               everything is well again
  eval "$(python -m tests.rig box /tmp/box --profile 8xh100)"     a box of one's own, without an engine
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 2 for a box or a GPU that is not there."""
    given = _parser().parse_args(argv)
    try:
        if given.verb == "box":
            box = Box(Path(given.path).resolve(), given.profile)
            _say("\n".join(f"export {key}={shlex.quote(value)}" for key, value in box.env().items()))
            return 0
        given.act(_open(), given)
    except (ValueError, LookupError, FileNotFoundError, RuntimeError) as error:
        sys.stderr.write(f"tests.rig: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rig",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    box = verbs.add_parser("box", help="make a box, and print the variables that lead into it")
    box.add_argument("path")
    box.add_argument("--profile", choices=tuple(LAYOUTS), default="4x5090")

    def verb(name: str, text: str, act: Callable[[Box, argparse.Namespace], object]) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=text)
        found.set_defaults(act=act)
        return found

    def fault(name: str, text: str, act: Callable[[Box, argparse.Namespace], object]) -> argparse.ArgumentParser:
        found = verb(name, text, act)
        found.add_argument("gpu", type=_index, metavar="N")
        return found

    verb("list", "the GPUs, and what each shows", lambda box, _: _say(_table(box)))
    verb("heal", "take every fault back", lambda box, _: box.heal())
    verb("mismatch", "the driver was updated under us", lambda box, _: box.driver_mismatch())
    verb("permission", "the driver refuses this user", lambda box, _: box.permission_denied())
    load = verb("load", "let a GPU work", lambda box, given: box.load(*_indices(box, given.gpu)))
    load.add_argument("gpu", metavar="N|all")
    idle = verb("idle", "let a GPU rest", lambda box, given: box.idle(*_indices(box, given.gpu)))
    idle.add_argument("gpu", metavar="N|all")
    lose = fault("lose", "it falls off the bus", lambda box, given: box.lose(given.gpu, xid=not given.no_xid))
    lose.add_argument("--no-xid", action="store_true", help="without an Xid, as also happens")
    fault("hot", "a degree below its limit", lambda box, given: box.hot(given.gpu))
    fault("thermal", "too hot: its clocks go down", lambda box, given: box.thermal_slowdown(given.gpu))
    fault("brake", "the power supply brakes it", lambda box, given: box.power_brake(given.gpu))
    fault("reset-energy", "its energy counter begins again", lambda box, given: box.energy_reset(given.gpu))
    fault("pcie", "fewer lanes", lambda box, given: box.pcie_width(given.gpu, given.width)).add_argument(
        "width", type=int, metavar="WIDTH"
    )
    fault("replay", "PCIe replays", lambda box, given: box.replay_growth(given.gpu, given.rate)).add_argument(
        "rate", type=float, metavar="PER_SECOND"
    )
    fault("aer", "a storm of PCIe errors", lambda box, given: box.aer_storm(given.gpu, given.lines)).add_argument(
        "lines", type=int, metavar="LINES"
    )
    fault("xid", "an Xid", lambda box, given: box.xid(given.gpu, given.code)).add_argument(
        "code", type=int, metavar="CODE"
    )
    return parser


def _open() -> Box:
    path = os.environ.get("VAULTCUBE_RIG")
    if not path:
        raise FileNotFoundError("this is not a simulated box (VAULTCUBE_RIG is not set): start one with `make rig`")
    return Box.open(Path(path))


def _index(text: str) -> int:
    index = int(text)
    if index < 0:
        raise argparse.ArgumentTypeError("GPUs are counted from 0")
    return index


def _indices(box: Box, text: str) -> Sequence[int]:
    return range(len(box.uuids)) if text == "all" else [_index(text)]


def _table(box: Box) -> str:
    rows = [f"{index:>3}  {_row(gpu)}" for index, gpu in enumerate(box.read().gpus)]
    return "\n".join([f"{box.profile} at {box.path}, driver {box.layout.driver}", *rows])


def _row(gpu: SimGpu) -> str:
    if gpu.number("lost"):
        state = "lost"
    else:
        state = (
            f"{gpu.number('temperature_c')} C  {gpu.number('power_mw') / 1000:.0f} W  {gpu.number('clock_sm_mhz')} MHz  "
            f"PCIe {gpu.number('pcie_gen')} x{gpu.number('pcie_width')}  reasons {gpu.number('reasons'):#x}  "
            f"{len(gpu.processes)} processes"
        )
    return f"{gpu.text('name')}  {gpu.text('uuid')}  {state}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
