"""The command line of `python3 -m measure`: parsing only, nothing here looks at the machine."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import Parser, seconds, whole
from common.outcome import bad_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_STREAMS = 4096


@dataclass(frozen=True)
class Options:
    """The command line as given. Times are in seconds, lengths in tokens."""

    results: Path
    stamp: bool
    device: str
    url: str
    replica_urls: tuple[str, ...]
    ready_timeout_s: float
    input_len: int
    output_len: int
    concurrency: tuple[int, ...]
    requests: int
    warmup: int
    min_seconds: float
    level_timeout_s: float
    probes: bool
    seed: int
    trust_remote_code: bool

    @property
    def replicas(self) -> int:
        """How many servers are measured."""
        return max(1, len(self.replica_urls))

    def as_dict(self) -> dict[str, Any]:
        """Return what the `started` event says of them."""
        said = asdict(self) | {"concurrency": ",".join(map(str, self.concurrency)), "replicas": self.replicas}
        return {name: value for name, value in said.items() if name not in {"results", "stamp", "device"}}


def _not_negative(text: str) -> float:
    return 0.0 if text in {"0", "0.0"} else seconds(text)


def _levels(text: str) -> tuple[int, ...]:
    found = tuple(whole(1, MOST_STREAMS)(word) for word in text.split(","))
    if any(before >= after for before, after in pairwise(found)):
        raise argparse.ArgumentTypeError(f"{text} does not ascend")
    return found


def _url(text: str) -> str:
    if not text.startswith("http://") or not text.removeprefix("http://").strip("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not like http://HOST:PORT")
    return text.rstrip("/")


def _parser() -> Parser:
    parser = Parser(
        prog="python3 -m measure",
        description="Measures a vLLM server with the `vllm bench serve` of this image: one stream, then several.",
        epilog="example: python3 -m measure --results /results --url http://vllm:8000 --concurrency 1,8,32",
        allow_abbrev=False,
    )
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="events.jsonl goes here")
    parser.add_argument("--stamp", action="store_true", help="write below DIR/vllm-bench-<UTC time>")
    # This container has no GPU: it cannot look for itself what the server computes on.
    flavour = "cpu" if os.environ.get("VAULTCUBE_FLAVOUR") == "cpu" else "cuda"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=flavour, help="what the server computes on")
    parser.add_argument("--url", type=_url, required=True, metavar="URL", help="where the server, or a proxy, answers")
    parser.add_argument(
        "--replica-url", type=_url, action="append", metavar="URL", dest="replica_urls", help="one a server behind it"
    )
    parser.add_argument("--ready-timeout-s", type=seconds, default=3600.0, metavar="S", help="how long to wait for it")
    parser.add_argument("--input-len", type=whole(1, 10**6), default=512, metavar="N", help="tokens of a prompt")
    parser.add_argument("--output-len", type=whole(2, 10**6), default=128, metavar="N", help="tokens of an answer")
    parser.add_argument(
        "--concurrency", type=_levels, default=(1, 8, 32, 128), metavar="N,N", help="streams, ascending"
    )
    parser.add_argument("--requests", type=whole(1, 10_000), default=5, metavar="N", help="least requests a stream")
    parser.add_argument("--warmup", type=whole(0, 1000), default=2, metavar="N", help="requests a stream, not counted")
    parser.add_argument("--min-seconds", type=_not_negative, default=35.0, metavar="S", help="least time of a level")
    parser.add_argument("--level-timeout-s", type=seconds, default=1800.0, metavar="S", help="most time of a level")
    parser.add_argument("--probes", action=argparse.BooleanOptionalAction, default=True, help="ask questions first")
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), default=0, metavar="N", help="of the random prompts")
    parser.add_argument("--trust-remote-code", action="store_true", help="let the tokenizer run code of its own")
    return parser


def parse(argv: Sequence[str]) -> Options:
    """Return the options in `argv`.

    Raises:
        Problem: they make no sense (exit code 64).
        SystemExit: `--help` was asked for.
    """
    given = vars(_parser().parse_args(argv))
    given["replica_urls"] = tuple(given["replica_urls"] or ())
    if len(given["replica_urls"]) == 1:
        raise bad_parameter("one --replica-url says nothing that --url does not", "name all of them, or none")
    if given["min_seconds"] and not given["warmup"]:
        raise bad_parameter(
            "--min-seconds is kept by what the warm-up took", "give --warmup 1 or more, or --min-seconds 0"
        )
    return Options(**given)
