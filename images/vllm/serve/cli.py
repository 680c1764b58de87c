"""The command line of `python3 -m serve`: parsing only, nothing here looks at the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import Parser, whole
from common.outcome import bad_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

TINY = "tiny"
SECRET_FLAGS = ("--api-key", "--hf-token")
"""Flags of vLLM that would show a secret to everybody who lists processes."""
OUR_FLAGS = {
    "--host": "it always listens on all addresses of its container",
    "--port": "give --port before the --",
    "--model": "give --model before the --",
    "--served-model-name": "give --served-model-name before the --",
    "--max-model-len": "give --max-model-len before the --",
    "--tensor-parallel-size": "give --tensor-parallel before the --",
    "-tp": "give --tensor-parallel before the --",
    "--pipeline-parallel-size": "give --pipeline-parallel before the --",
    "-pp": "give --pipeline-parallel before the --",
}
"""Flags of vLLM whose value this program needs to know."""


@dataclass(frozen=True)
class Options:
    """The command line as given."""

    results: Path
    stamp: bool
    replica: int
    device: str
    model: str
    served_model_name: str
    tensor_parallel: int
    pipeline_parallel: int
    max_model_len: int | None
    port: int
    flags: tuple[str, ...]

    @property
    def gpus(self) -> int:
        """How many GPUs share the model."""
        return self.tensor_parallel * self.pipeline_parallel

    def as_dict(self) -> dict[str, Any]:
        """Return what the `started` event says of them."""
        return {name: value for name, value in vars(self).items() if name not in {"results", "stamp"}}


def _parser() -> Parser:
    parser = Parser(
        prog="python3 -m serve",
        description="Serves a language model with vLLM, and says what it is doing while it loads.",
        epilog="example: python3 -m serve --results /results --device cpu --model tiny -- --max-num-seqs 8",
        allow_abbrev=False,
    )
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="events.jsonl goes here")
    parser.add_argument("--stamp", action="store_true", help="write below DIR/vllm-<UTC time>, so that runs never mix")
    parser.add_argument("--replica", type=whole(0, 4095), default=0, metavar="N", help="which of several servers")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", required=True, metavar="M", help="a hub id, a directory, or tiny")
    parser.add_argument("--served-model-name", metavar="NAME", help="what clients call it; default: as --model")
    parser.add_argument("--tensor-parallel", type=whole(1, 64), default=1, metavar="T")
    parser.add_argument("--pipeline-parallel", type=whole(1, 64), default=1, metavar="P")
    # Nothing, as an unset variable of a compose file leaves it, means the model's own.
    parser.add_argument("--max-model-len", type=_length, default=None, metavar="L", help="longest context in tokens")
    parser.add_argument("--port", type=whole(1, 65535), default=8000, metavar="PORT")
    return parser


def _length(text: str) -> int | None:
    return whole(16, 10**8)(text) if text else None


def spelled_out(flag: str) -> str:
    """Return a flag's name as argparse reads it: in either spelling, and shortened as far as that begins only one."""
    name = flag.partition("=")[0].replace("_", "-")
    if not name.startswith("--") or len(name) < len("--xx"):
        return name
    return next((known for known in (*SECRET_FLAGS, *OUR_FLAGS) if known.startswith(name)), name)


def parse(argv: Sequence[str]) -> Options:
    """Return the options in `argv`; what follows `--` is for `vllm serve` itself.

    Raises:
        Problem: they make no sense (exit code 64).
        SystemExit: `--help` was asked for.
    """
    ours, flags = list(argv), []
    if "--" in ours:
        at = ours.index("--")
        ours, flags = ours[:at], ours[at + 1 :]
    given = vars(_parser().parse_args(ours))
    for flag in flags:
        name = spelled_out(flag)
        if name in SECRET_FLAGS:
            raise bad_parameter(
                f"{name} would show a secret to everybody who lists processes",
                "put it into a file and give that as the container's secret",
            )
        if name in OUR_FLAGS:
            raise bad_parameter(f"{name} is not for vLLM's part of the command line", OUR_FLAGS[name])
    if not given["model"]:
        raise bad_parameter("--model is empty", "give a hub id, a directory, or tiny")
    given["served_model_name"] = given["served_model_name"] or given["model"]
    return Options(flags=tuple(flags), **given)
