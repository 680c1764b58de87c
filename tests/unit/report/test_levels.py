from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.servingruns import GPUS, LEVELS, run
from tests.unit.support import result

from vaultcube.report import terminal
from vaultcube.report.levels import split
from vaultcube.results.schema import Metric, Status
from vaultcube.workloads.vllm import WORKLOAD

EVENTS = run()
METRICS = WORKLOAD.measure(
    EVENTS, [], WORKLOAD.resolve(None, {}, "cuda"), world_size=1, status=Status.COMPLETED, gpus=GPUS
).metrics


def test_a_level_is_a_row() -> None:
    rest, text = split(METRICS)
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["STREAMS", "TOKENS/S", "REQUESTS/S"]
    assert [line.split()[0] for line in lines[1:-1]] == [str(one) for one in LEVELS]
    assert "50.0 / 52.5 / 60.0" in lines[1]
    assert "10.0 / 10.5 / 12.0" in lines[1]
    assert lines[1].split()[1] == "97.0"
    assert lines[-1].startswith("times: p50 / p90 / p99")
    assert {"output_tokens_per_s", "output_tokens_per_s_max", "mbu", "load_s"} <= set(rest)
    assert not any(name[-1].isdigit() for name in rest)


def test_other_workloads_have_no_such_table() -> None:
    assert split({"throughput_samples_per_s": Metric(value=1, unit="samples/s")})[1] == ""
    assert split({}) == ({}, "")


def test_what_was_not_timed_is_a_dash() -> None:
    _, text = split({"output_tokens_per_s_c4": Metric(value=2000.4, unit="tokens/s")})
    assert text.splitlines()[1].split() == ["4", "2000", "-", "-", "-", "-", "-"]


def test_a_result_for_people_has_levels_in_their_own_table() -> None:
    text = terminal.result(result(metrics=dict(METRICS)), Path("/data"), color=False)
    assert text.index("METRIC") < text.index("STREAMS") < text.index("CHECK")
    assert "_c128" not in text
    # It stands with its check.
    assert "requests_failed" not in text


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(list(METRICS)), st.floats(0, 1e9)))
def test_no_figure_is_lost(values: dict[str, float]) -> None:
    rest, text = split({name: Metric(value=value, unit="s") for name, value in values.items()})
    assert set(rest) <= set(values)
    assert bool(text) == (len(rest) < len(values))
