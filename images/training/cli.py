"""The command line of a training program: parsing only, nothing here looks at the machine."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import Parser, seconds, whole
from common.outcome import bad_parameter
from training.params import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.program import Program

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """The command line as given: where results go, and the options that still need the machine (`auto`)."""

    results: Path
    stamp: bool
    device: str
    ranks: int | None
    values: dict[str, Any]


def _ranks(text: str) -> int | None:
    return None if text == AUTO else whole(1, 64)(text)


def _parser(program: Program) -> Parser:
    parser = Parser(
        prog=f"python3 -m {program.name}",
        description=f"{program.about}: every device alone, then all together (weak scaling).",
        epilog=f"example: python3 -m {program.name} --results /results --preset smoke --device cpu",
        allow_abbrev=False,
    )
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="events.jsonl goes here")
    stamp = f"write below DIR/{program.workload}-<UTC time>, so that runs never mix"
    parser.add_argument("--stamp", action="store_true", help=stamp)
    parser.add_argument("--preset", choices=tuple(program.presets), default="acceptance")
    parser.add_argument("--device", choices=(AUTO, "cuda", "cpu"), default=AUTO)
    parser.add_argument("--ranks", type=_ranks, default=None, metavar="N|auto", help="auto: every GPU, or 2 on a CPU")
    parser.add_argument("--model", metavar="NAME", help=program.models)
    parser.add_argument("--batch-size", type=whole(1, 65536), metavar="N", help="images a step, per rank")
    parser.add_argument("--image-size", type=whole(16, 4096), metavar="N", help="pixels a side")
    parser.add_argument("--precision", choices=PRECISIONS)
    for switch, about in program.switches.items():
        flag = "--" + switch.replace("_", "-")
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=about)
    parser.add_argument("--data", metavar="DIR", help="folder with one folder of images a class; default: synthetic")
    parser.add_argument("--windows", type=whole(5, 10_000), metavar="N")
    parser.add_argument("--steps-per-window", type=whole(1, 100_000), metavar="N")
    parser.add_argument("--warmup-steps", type=whole(1, 100_000), metavar="N", help="least steps before timing")
    parser.add_argument("--max-warmup-steps", type=whole(1, 100_000), metavar="N", help="most steps before timing")
    parser.add_argument("--allreduce-timeout-s", type=seconds, metavar="S")
    parser.add_argument("--hang-timeout-s", type=seconds, metavar="S", help="longest time a step may take")
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), metavar="N")
    return parser


def parse(argv: Sequence[str], program: Program) -> Options:
    """Return the options in `argv`, the presets of `program` applied.

    Raises:
        Problem: they make no sense (exit code 64).
        SystemExit: `--help` was asked for.
    """
    given = vars(_parser(program).parse_args(argv))
    results, stamp = given.pop("results"), given.pop("stamp")
    device, ranks, preset = given.pop("device"), given.pop("ranks"), given.pop("preset")
    overrides = {name: value for name, value in given.items() if value is not None}
    values = {"preset": preset} | dict(program.presets[preset]) | overrides
    if values["warmup_steps"] > values["max_warmup_steps"]:
        raise bad_parameter(
            f"--warmup-steps {values['warmup_steps']} is more than --max-warmup-steps {values['max_warmup_steps']}",
            "raise --max-warmup-steps, or lower --warmup-steps",
        )
    return Options(results, stamp, device, ranks, values)
