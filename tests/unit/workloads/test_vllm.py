"""`bench vllm`: its parameters, the client's command line, and what the judge says of measurements."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.servingruns import GPUS, LEVELS, level, run, server
from tests.unit.support import ROOT

from vaultcube import workloads
from vaultcube.errors import BadParameterError
from vaultcube.results.events import AnyEvent
from vaultcube.results.judge import Measurement, judge
from vaultcube.results.schema import Check, Metric, Status, Verdict
from vaultcube.workloads.vllm import MEASURED, WORKLOAD, VllmParams

P, F, U, I = Verdict.PASS, Verdict.FAIL, Verdict.UNAVAILABLE, Verdict.INVALID  # noqa: E741 - they stand in a table


def params(preset: str = "acceptance", **given: Any) -> VllmParams:
    found = WORKLOAD.resolve(preset, given, "cuda")
    assert isinstance(found, VllmParams)
    return found


def test_the_command_of_the_acceptance_measurement() -> None:
    assert " ".join(WORKLOAD.command(params(), world_size=1, device="cuda")) == (
        "python3 -m measure --results /results --device cuda --url http://vllm:8000 --ready-timeout-s 7200 "
        "--input-len 512 --output-len 128 --concurrency 1,8,32,128 --requests 5 --warmup 2 --min-seconds 35 "
        "--level-timeout-s 1800 --probes --seed 0"
    )


def test_the_command_of_the_smoke_measurement() -> None:
    assert " ".join(WORKLOAD.command(params("smoke"), world_size=1, device="cpu")) == (
        "python3 -m measure --results /results --device cpu --url http://vllm:8000 --ready-timeout-s 7200 "
        "--input-len 32 --output-len 16 --concurrency 1,2 --requests 2 --warmup 0 --min-seconds 0 "
        "--level-timeout-s 600 --probes --seed 0"
    )


def test_replicas_are_reached_through_the_proxy_and_each_by_itself() -> None:
    argv = WORKLOAD.command(params(replicas=3), world_size=3, device="cuda")
    assert argv[argv.index("--url") + 1] == "http://proxy:8000"
    replicas = [word for flag, word in pairwise(argv) if flag == "--replica-url"]
    assert replicas == ["http://vllm:8000", "http://vllm-1:8000", "http://vllm-2:8000"]


@pytest.mark.parametrize("flag", ["--trust-remote-code", "--trust_remote_code"])
def test_the_client_may_run_what_the_server_may(flag: str) -> None:
    assert WORKLOAD.command(params(flags=(flag,)), world_size=1, device="cuda")[-1] == "--trust-remote-code"
    assert "--trust-remote-code" not in WORKLOAD.command(params(), world_size=1, device="cuda")


def test_a_measurement_without_questions_says_so() -> None:
    assert "--no-probes" in WORKLOAD.command(params(probes=False), world_size=1, device="cuda")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"concurrency": "8,1"}, "does not ascend"),
        ({"concurrency": "1,1"}, "does not ascend"),
        ({"concurrency": "0"}, "is no list of whole numbers from 1 to 4096"),
        ({"concurrency": "4097"}, "is no list of whole numbers"),
        ({"concurrency": ""}, "is no list of whole numbers"),
        ({"concurrency": "1,,2"}, "is no list of whole numbers"),
        ({"concurrency": "1;rm -rf"}, "is no list of whole numbers"),
        ({"output_len": 1}, "output_len"),
        ({"min_seconds": -1}, "min_seconds"),
        ({"min_seconds": float("nan")}, "min_seconds"),
        ({"warmup": 0}, "min_seconds is kept by what the warm-up took"),
        ({"max_model_len": 600}, "input_len 512 and output_len 128 do not fit max_model_len 600"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadParameterError, match=words) as seen:
        params(**given)
    assert "\n" not in seen.value.message


def test_levels_are_kept_as_they_are_sent() -> None:
    found = params(concurrency=" 1, 16 ,256")
    assert found.concurrency == "1,16,256"
    assert found.levels == (1, 16, 256)
    assert params(max_model_len=640).max_model_len == 640


def test_the_limit_grows_with_the_levels() -> None:
    def limit(**given: Any) -> float:
        return WORKLOAD.timeout_s(params(**given), world_size=1, device="cuda")

    assert limit(concurrency="1") < limit() < limit(level_timeout_s=3600)
    assert limit(concurrency="1") > WORKLOAD.ready_s


# --- what the judge says -----------------------------------------------------------------------------------------

# What telemetry of a good run says.
SEEN = {"gpu_memory_used_max_ratio": 0.93, "pcie_link_ratio": 1.0, "gpus_lost": 0, "xids_hardware": 0}


def judged(
    events: Sequence[AnyEvent], *, device: Any = "cuda", disturbances: Sequence[str] = (), **given: Any
) -> tuple[dict[str, Check], Verdict]:
    seen = {name: Metric(value=value, unit="") for name, value in {**SEEN, **given.pop("seen", {})}.items()}
    gpus = GPUS if device == "cuda" else []
    found = WORKLOAD.measure(events, [], params(**given), world_size=1, status=Status.COMPLETED, gpus=gpus)
    found = Measurement({**found.metrics, **seen}, found.missing, [*disturbances, *found.disturbances])
    checks, verdict = judge(WORKLOAD.checks(WORKLOAD.targets_type()), found, device=device, simulated=False)
    return {check.name: check for check in checks}, verdict


def test_a_good_run_passes() -> None:
    checks, verdict = judged(run())
    assert {name for name, check in checks.items() if check.verdict is not P} == set()
    assert verdict is P


@pytest.mark.parametrize(
    ("events", "more", "name", "verdict"),
    [
        (run(levels=[level(1, start_s=200.0, failed=1)]), {"concurrency": "1"}, "no_request_failed", F),
        (run(levels=[level(1, start_s=200.0, tpot_s=0.2)]), {"concurrency": "1"}, "output_tokens_per_s", F),
        (run(levels=[level(1, start_s=200.0, tpot_s=0.014)]), {"concurrency": "1"}, "mbu", F),
        (run(probes=[(False, True)]), {}, "answers_correct", F),
        (run(probes=[(True, False)]), {}, "answers_repeatable", F),
        (run(), {"seen": {"gpu_memory_used_max_ratio": 0.99}}, "gpu_memory", F),
        (run(), {"seen": {"xids_hardware": 1}}, "no_xid", F),
        (run(), {"seen": {"gpus_lost": 1}}, "no_gpu_lost", F),
        (run(), {"seen": {"pcie_link_ratio": 0.5}}, "pcie_link", F),
        (run(server(active_weights_bytes=None)), {}, "mbu", U),
        (run(server(random_weights=True)), {}, "answers_correct", U),
        (run(), {"concurrency": "8,32,128"}, "output_tokens_per_s", U),
        (run(), {"disturbances": ["clocks were held back"]}, "output_tokens_per_s", I),
        (run(), {"disturbances": ["clocks were held back"]}, "mbu", I),
        (run(), {"disturbances": ["clocks were held back"]}, "answers_correct", P),
        (run(), {"flags": ("--speculative-config", "{}")}, "mbu", U),
        ([], {}, "no_request_failed", U),
    ],
)
def test_what_is_wrong_is_told_by_its_check(
    events: Sequence[AnyEvent], more: dict[str, Any], name: str, verdict: Verdict
) -> None:
    checks, overall = judged(events, **more)
    assert checks[name].verdict is verdict, checks[name].reason
    assert overall is not P or verdict is P


def test_on_the_cpu_only_failures_and_answers_are_judged() -> None:
    checks, verdict = judged(run(), device="cpu")
    assert {name for name, check in checks.items() if check.verdict is P} == {
        "no_request_failed",
        "answers_correct",
        "answers_repeatable",
    }
    assert verdict is U


def test_targets_come_from_the_profile() -> None:
    targets = WORKLOAD.targets_type.model_validate({"output_tokens_per_s": 50, "mbu": 0.7})
    found = {spec.name: spec.target.value for spec in WORKLOAD.checks(targets)}
    assert (found["output_tokens_per_s"], found["mbu"], found["gpu_memory"]) == (50, 0.7, 0.98)


def test_what_is_timed_is_what_a_disturbance_spoils() -> None:
    specs = WORKLOAD.checks(WORKLOAD.targets_type())
    assert {spec.name for spec in specs if spec.timed} == {"output_tokens_per_s", "mbu"}


def test_the_highest_load_is_what_telemetry_is_held_against() -> None:
    intervals = WORKLOAD.intervals(run())
    assert len(intervals) == len(LEVELS)
    assert intervals[-1].samples == 128 * LEVELS[128][1] * 128
    assert {one.unit for one in intervals} == {"token"}


# --- both sides of the contract ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Iterator[Any]:
    """Return the command-line parser of the program in the image: it needs nothing but the standard library."""
    added = [str(ROOT / "images"), str(ROOT / "images" / "vllm")]
    sys.path[:0] = added
    from measure import cli

    yield cli
    for path in added:
        sys.path.remove(path)


valid = st.fixed_dictionaries(
    {"warmup": st.integers(1, 1000)},
    optional={
        "input_len": st.integers(1, 10**6),
        "output_len": st.integers(2, 10**6),
        "concurrency": st.sets(st.integers(1, 4096), min_size=1, max_size=6).map(
            lambda found: ",".join(map(str, sorted(found)))
        ),
        "requests": st.integers(1, 10_000),
        "min_seconds": st.sampled_from([0.0, 0.5, 35.0, 3600.0]),
        "level_timeout_s": st.floats(0.5, 86400),
        "probes": st.booleans(),
        "seed": st.integers(0, 2**31 - 1),
        "replicas": st.integers(1, 8),
    },
)


@given(valid)
def test_the_program_reads_from_the_command_what_the_plan_says(program: Any, given: dict[str, Any]) -> None:
    wanted = params("acceptance", **given)
    argv = WORKLOAD.command(wanted, world_size=wanted.replicas, device="cuda")
    assert argv[:3] == ["python3", "-m", "measure"]
    options = program.parse(argv[3:])
    assert (str(options.results), options.device, options.ready_timeout_s) == ("/results", "cuda", WORKLOAD.ready_s)
    # What the program says of itself is held against the plan.
    said = options.as_dict()
    assert {name: said[name] for name in MEASURED} == {name: getattr(wanted, name) for name in MEASURED}
    assert said["replicas"] == wanted.replicas


def test_the_program_s_defaults_are_the_acceptance_measurement(program: Any) -> None:
    said = program.parse(["--results", "/r", "--url", "http://v"]).as_dict()
    assert {name: said[name] for name in MEASURED} == {name: getattr(params(), name) for name in MEASURED}


def test_every_parameter_of_the_measurement_reaches_the_client() -> None:
    own = set(VllmParams.model_fields) - set(WORKLOAD.serve_type.model_fields)
    assert own == set(MEASURED)
    assert workloads.load("vllm") is WORKLOAD
