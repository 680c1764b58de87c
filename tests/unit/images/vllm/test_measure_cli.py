from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from measure import cli

from common.outcome import Problem

NEEDED = ["--results", "/r", "--url", "http://vllm:8000"]


def options(*argv: str) -> cli.Options:
    return cli.parse([*NEEDED, *argv])


def test_what_is_left_out_is_the_acceptance_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULTCUBE_FLAVOUR", raising=False)
    found = options()
    assert found == cli.Options(
        results=Path("/r"),
        stamp=False,
        device="cuda",
        url="http://vllm:8000",
        replica_urls=(),
        ready_timeout_s=3600,
        input_len=512,
        output_len=128,
        concurrency=(1, 8, 32, 128),
        requests=5,
        warmup=2,
        min_seconds=35,
        level_timeout_s=1800,
        probes=True,
        seed=0,
        trust_remote_code=False,
    )
    assert found.replicas == 1
    assert found.as_dict()["concurrency"] == "1,8,32,128"


@pytest.mark.parametrize(("flavour", "device"), [("cpu", "cpu"), ("cu124", "cuda"), ("cu128", "cuda")])
def test_the_flavour_says_what_the_server_computes_on(
    monkeypatch: pytest.MonkeyPatch, flavour: str, device: str
) -> None:
    monkeypatch.setenv("VAULTCUBE_FLAVOUR", flavour)
    assert options().device == device
    assert options("--device", "cuda").device == "cuda"


def test_replicas_are_named_by_their_addresses() -> None:
    found = options("--replica-url", "http://vllm:8000/", "--replica-url", "http://vllm-1:8000")
    assert found.replica_urls == ("http://vllm:8000", "http://vllm-1:8000")
    assert found.replicas == 2


def test_nothing_is_lost_on_the_way_to_the_events() -> None:
    said = options("--no-probes", "--min-seconds", "0", "--warmup", "0").as_dict()
    expected: dict[str, Any] = {"probes": False, "min_seconds": 0.0, "warmup": 0, "replica_urls": (), "replicas": 1}
    assert {name: said[name] for name in expected} == expected
    assert not {"results", "stamp", "device"} & set(said)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--concurrency", "8,1"], "does not ascend"),
        (["--concurrency", "1,1"], "does not ascend"),
        (["--concurrency", "0,1"], "not between 1 and 4096"),
        (["--concurrency", "1,5000"], "not between 1 and 4096"),
        (["--concurrency", "1,"], "not a whole number"),
        (["--output-len", "1"], "not between 2"),
        (["--min-seconds", "-1"], "not more than 0"),
        (["--min-seconds", "nan"], "not more than 0"),
        (["--warmup", "0"], "--min-seconds is kept by what the warm-up took"),
        (["--replica-url", "http://vllm:8000"], "one --replica-url"),
        (["--url", "https://vllm"], "not like http"),
        (["--url", "http://"], "not like http"),
        (["--conc", "1"], "unrecognized arguments"),
        (["--device", "tpu"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused(argv: list[str], words: str) -> None:
    with pytest.raises(Problem, match=words) as seen:
        options(*argv)
    assert (seen.value.code, seen.value.exit_code) == ("bad-parameter", 64)


def test_results_and_url_are_needed() -> None:
    for argv in (NEEDED[:2], NEEDED[2:]):
        with pytest.raises(Problem, match="required"):
            cli.parse(argv)
