"""Which flags each version of `vllm bench serve` gets. They were read in the sources of the versions we carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure import tool

LOAD = tool.Load("http://vllm:8000", "org/model", "/model", 512, 128, 8, 40, seed=7)


@pytest.mark.parametrize(
    ("version", "backend", "ratio", "extra"),
    [
        ("0.8.5.post1", ("--endpoint-type", "openai-comp"), "1.0", ()),
        (
            "0.10.2",
            ("--endpoint-type", "openai"),
            "0.0",
            ("--temperature", "0", "--save-detailed", "--ready-check-timeout-sec", "1"),
        ),
        (
            "0.32.0+cpu",
            ("--backend", "openai"),
            "0.0",
            ("--temperature", "0", "--save-detailed", "--ready-check-timeout-sec", "0"),
        ),
    ],
)
def test_each_version_of_our_images_gets_what_it_knows(
    version: str, backend: tuple[str, str], ratio: str, extra: tuple[str, ...]
) -> None:
    assert tool.dialect(version) == tool.Dialect(backend, ratio, extra)
    argv = tool.arguments(LOAD, version, "/tmp/x")
    assert argv[:4] == ["bench", "serve", *backend]
    assert argv[argv.index("--random-range-ratio") + 1] == ratio
    assert tuple(argv[len(argv) - len(extra) :]) == extra


@pytest.mark.parametrize("version", ["", "unknown", "1.0.0", "0.99"])
def test_an_unheard_of_version_counts_as_new(version: str) -> None:
    assert tool.dialect(version) is tool.DIALECTS[max(tool.DIALECTS)]


@given(st.integers(0, 3), st.integers(0, 200))
def test_every_version_has_a_dialect_and_newer_ones_never_an_older(major: int, minor: int) -> None:
    order = list(tool.DIALECTS.values())
    this = order.index(tool.dialect(f"{major}.{minor}.0"))
    assert this <= order.index(tool.dialect(f"{major}.{minor + 1}.0"))


def test_the_whole_command_line() -> None:
    assert " ".join(tool.arguments(LOAD, "0.10.2", "/tmp/x")) == (
        "bench serve --endpoint-type openai --base-url http://vllm:8000 --endpoint /v1/completions --model org/model "
        "--tokenizer /model --dataset-name random --random-input-len 512 --random-output-len 128 "
        "--random-range-ratio 0.0 --num-prompts 40 --max-concurrency 8 --request-rate inf --seed 7 --ignore-eos "
        "--percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,99 --save-result --result-dir /tmp/x "
        "--result-filename result.json --temperature 0 --save-detailed --ready-check-timeout-sec 1"
    )


def test_code_of_the_tokenizer_runs_only_when_it_was_allowed_to() -> None:
    trusting = tool.Load("http://v", "m", "m", 1, 2, 1, 1, seed=0, trust_remote_code=True)
    assert tool.arguments(trusting, "0.10.2", "/t")[-1] == "--trust-remote-code"
    assert "--trust-remote-code" not in tool.arguments(LOAD, "0.10.2", "/t")
