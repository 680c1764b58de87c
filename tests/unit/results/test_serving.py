from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.servingruns import BANDWIDTH, GPUS, KV, LEVELS, OUTPUT, WEIGHTS, level, run, server
from tests.unit.support import DATA, event, gpu

from vaultcube.results.events import AnyEvent, EventLog, Garbled, Level
from vaultcube.results.judge import Measurement
from vaultcube.results.schema import Status
from vaultcube.results.serving import NAMES, Expected, measure_serving, memory_bandwidth_utilisation

EXPECTED = Expected(concurrency=tuple(LEVELS), input_len=512, output_len=OUTPUT, requests=5)
TWO = dataclasses.replace(EXPECTED, replicas=2)


def measure(events: Sequence[AnyEvent], expected: Expected = EXPECTED, **more: Any) -> Measurement:
    status, gpus = more.get("status", Status.COMPLETED), more.get("gpus", GPUS)
    return measure_serving(events, more.get("garbled", []), expected, status, gpus)


def values(found: Measurement) -> dict[str, float]:
    return {name: metric.value for name, metric in found.metrics.items()}


def test_a_good_run_yields_every_figure() -> None:
    found = measure(run())
    assert found.disturbances == []
    assert set(found.missing) == {"scaling_efficiency_replicas"}
    figures = values(found)
    assert {name: figures[name] for name in ("load_s", "first_token_s", "kv_cache_tokens", "requests_failed")} == {
        "load_s": 40,
        "first_token_s": 41,
        "kv_cache_tokens": 30_000,
        "requests_failed": 0,
    }
    assert (figures["weights_bytes"], figures["model_memory_bytes"]) == (WEIGHTS, 13_600_000_000)
    assert figures["output_tokens_per_s"] == pytest.approx(128 / (0.05 + 0.01 * 127))
    assert figures["output_tokens_per_s"] == figures["output_tokens_per_s_c1"]
    assert (
        figures["output_tokens_per_s_max"] == figures["output_tokens_per_s_c128"] > figures["output_tokens_per_s_c32"]
    )
    assert (figures["answers_wrong"], figures["answers_not_repeatable"]) == (0, 0)
    for concurrency, (tpot_s, _) in LEVELS.items():
        assert figures[f"tpot_p50_s_c{concurrency}"] == tpot_s
        assert figures[f"requests_per_s_c{concurrency}"] > 0
        for name in ("ttft", "tpot", "itl", "e2e"):
            spread = [figures[f"{name}_{part}_s_c{concurrency}"] for part in ("p50", "p90", "p99")]
            assert spread == sorted(spread)


def test_the_units_are_in_the_names() -> None:
    for name, metric in measure(run()).metrics.items():
        plain = name.rpartition("_c")[0] if name.rpartition("_c")[2].isdigit() else name
        if plain.endswith("_s"):
            assert metric.unit == ("tokens/s" if "tokens_per_s" in name else "requests/s" if "_per_s" in name else "s")
        if plain.endswith("_bytes"):
            assert metric.unit == "bytes"


# --- memory bandwidth --------------------------------------------------------------------------------------------


def test_the_ceiling_of_a_7b_model_on_a_5090_is_133_tokens_a_second() -> None:
    share = memory_bandwidth_utilisation(
        weight_bytes=13.48e9, kv_bytes_per_token=0, context=0, tpot_s=1 / 133, bandwidth=1792e9, gpus=1
    )
    assert share == pytest.approx(1, abs=0.001)


def test_the_bandwidth_of_one_stream_counts_weights_and_what_the_context_needs() -> None:
    found = measure(run())
    assert found.metrics["mbu"].value == pytest.approx((WEIGHTS + KV * (512 + 64)) / (0.01 * BANDWIDTH))
    assert 0.68 < found.metrics["mbu"].value < 0.85


def test_gpus_that_share_every_layer_read_at_the_same_time() -> None:
    both = [one.model_copy(update={"memory_bandwidth_bytes_per_s": BANDWIDTH}) for one in (gpu(0), gpu(1))]
    alone = measure(run()).metrics["mbu"].value
    assert measure(run(), dataclasses.replace(EXPECTED, tensor_parallel=2), gpus=both).metrics["mbu"].value == alone / 2


def test_of_several_kinds_of_cards_the_quickest_decides() -> None:
    slow = gpu(1).model_copy(update={"memory_bandwidth_bytes_per_s": BANDWIDTH / 2})
    assert measure(run(), gpus=[slow, *GPUS]).metrics["mbu"] == measure(run()).metrics["mbu"]


@pytest.mark.parametrize(
    ("change", "expected", "gpus", "reason"),
    [
        ({}, EXPECTED, [], "no GPU was used"),
        ({}, EXPECTED, [gpu(0)], "a card does not tell its memory bandwidth"),
        ({}, EXPECTED, [*GPUS, gpu(1)], "a card does not tell its memory bandwidth"),
        ({"active_weights_bytes": None}, EXPECTED, GPUS, "a mixture of experts"),
        ({"kv_bytes_per_token": None}, EXPECTED, GPUS, "the size of the KV cache is not known"),
        ({"random_weights": True}, EXPECTED, GPUS, "the random model is too small"),
        ({}, dataclasses.replace(EXPECTED, speculative=True), GPUS, "speculative decoding"),
        ({"active_weights_bytes": 10**12}, EXPECTED, GPUS, "one of them is wrong"),
    ],
)
def test_what_is_not_known_gives_no_bandwidth(
    change: dict[str, Any], expected: Expected, gpus: list[Any], reason: str
) -> None:
    found = measure(run(server(**change)), expected, gpus=gpus)
    assert reason in found.missing["mbu"]
    assert "mbu" not in found.metrics


def test_without_a_single_stream_there_is_neither_its_rate_nor_its_bandwidth() -> None:
    later = dataclasses.replace(EXPECTED, concurrency=(8,))
    found = measure(run(levels=[level(8, start_s=200.0)]), later)
    assert found.missing["output_tokens_per_s"] == "a single stream was not asked for: there is no 1 in --concurrency"
    assert found.missing["mbu"] == "the time per token of a single stream was not measured"
    assert found.disturbances == []


def test_no_word_of_the_model_is_no_guess() -> None:
    client = [one for one in run() if one.rank < 0]
    found = measure(client)
    assert found.missing["mbu"] == "no server told what its model is"
    assert found.missing["load_s"] == "0 of 1 servers became ready"
    assert found.metrics["output_tokens_per_s"].value > 0


# --- failures and answers ----------------------------------------------------------------------------------------


def test_failed_requests_are_added_up_over_all_levels() -> None:
    levels = [level(1, start_s=200.0, failed=2), level(8, start_s=300.0, failed=3)]
    found = measure(run(levels=levels), dataclasses.replace(EXPECTED, concurrency=(1, 8)))
    assert found.metrics["requests_failed"].value == 5
    assert found.disturbances == []


def test_no_failure_is_known_only_of_levels_that_came_to_their_end() -> None:
    found = measure(run(levels=[level(1, start_s=200.0)], finished=False), status=Status.FAILED)
    assert found.missing["requests_failed"] == "1 of 4 levels of load were measured"
    assert found.metrics["output_tokens_per_s"].value > 0
    failing = measure(run(levels=[level(1, start_s=200.0, failed=1)], finished=False), status=Status.FAILED)
    assert failing.metrics["requests_failed"].value == 1


def test_a_level_of_which_nothing_came_has_no_figures() -> None:
    dead = level(1, start_s=200.0, failed=30) | dict.fromkeys(("ttft_s", "tpot_s", "itl_s", "e2e_s"))
    found = measure(run(levels=[dead]), dataclasses.replace(EXPECTED, concurrency=(1,)))
    assert found.missing["output_tokens_per_s"] == "no request of the single stream was answered"
    assert found.metrics["requests_failed"].value == 30
    assert not any(name.endswith(("_c1", "_max")) for name in found.metrics)


@pytest.mark.parametrize(
    ("probes", "wrong", "unlike"),
    [
        ([(True, True), (None, True)], 0, 0),
        ([(False, True), (False, False), (None, True)], 2, 1),
        ([(True, True), (None, False)], 0, 1),
    ],
)
def test_answers_are_counted(probes: list[tuple[bool | None, bool]], wrong: int, unlike: int) -> None:
    figures = values(measure(run(probes=probes)))
    assert (figures["answers_wrong"], figures["answers_not_repeatable"]) == (wrong, unlike)


def test_answers_of_random_weights_are_not_judged() -> None:
    found = measure(run(server(random_weights=True), probes=[(False, True)]))
    for name in ("answers_wrong", "answers_not_repeatable"):
        assert found.missing[name] == "random weights: what they answer means nothing"


def test_questions_that_broke_off_prove_nothing_and_wrong_answers_do() -> None:
    broken: dict[str, Any] = {"levels": [], "finished": False}
    found = measure(run(probes=[(True, True)], **broken), status=Status.FAILED)
    assert found.missing["answers_wrong"] == "the questions did not come to their end"
    found = measure(run(probes=[(True, True)], **broken), status=Status.INTERRUPTED)
    assert found.missing["answers_wrong"] == "the run was interrupted"
    found = measure(run(probes=[(False, False)], **broken), status=Status.FAILED)
    assert values(found)["answers_wrong"] == values(found)["answers_not_repeatable"] == 1


def test_without_questions_nothing_is_known_of_the_answers() -> None:
    found = measure(run(probes=[]), dataclasses.replace(EXPECTED, probes=False))
    assert found.missing["answers_wrong"] == "no question was asked: --no-probes"
    assert measure(run(probes=[])).missing["answers_wrong"] == "the questions did not come to their end"


# --- replicas ----------------------------------------------------------------------------------------------------


def replicated(share: int = 64, together_tpot_s: float = 0.0130) -> list[AnyEvent]:
    alone = level(share, start_s=100.0, tpot_s=0.0125, rounds=20, replica=0)
    levels = [level(one, start_s=200.0 + at * 100) for at, one in enumerate((1, 8, 32))]
    last = level(128, start_s=600.0, tpot_s=together_tpot_s, rounds=20)
    return run(server(0), server(1), levels=[alone, *levels, last])


def test_two_replicas_are_compared_with_one_under_its_share() -> None:
    found = measure(replicated(), TWO)
    assert found.disturbances == []
    expected = (0.05 + 0.0125 * 127) / (0.05 + 0.0130 * 127)
    assert found.metrics["scaling_efficiency_replicas"].value == pytest.approx(expected)
    figures = values(found)
    assert figures["output_tokens_per_s_per_replica"] == figures["output_tokens_per_s_max"] / 2
    assert (figures["load_s"], figures["first_token_s"], figures["kv_cache_tokens"]) == (41, 42, 29_999)
    # What one replica did alone is no level of the whole.
    assert "output_tokens_per_s_c64" not in figures


def test_another_load_is_no_scaling() -> None:
    found = measure(replicated(share=48), TWO)
    assert "48 x 2 replicas is no load of 128" in found.missing["scaling_efficiency_replicas"]


def test_one_replica_alone_is_needed_for_scaling() -> None:
    found = measure(run(server(0), server(1)), TWO)
    assert found.missing["scaling_efficiency_replicas"].startswith("one replica alone")
    assert measure(run()).missing["scaling_efficiency_replicas"] == "there is one replica, and nothing to scale over"


def test_a_replica_that_never_became_ready_hides_the_start_of_all() -> None:
    found = measure(run(server(1)), TWO)
    assert found.missing["load_s"] == found.missing["first_token_s"] == "1 of 2 servers became ready"


# --- what spoils a run -------------------------------------------------------------------------------------------


def test_a_client_that_never_started_leaves_only_what_servers_said() -> None:
    found = measure(server(), garbled=[Garbled(line=3, reason="not JSON")], status=Status.FAILED)
    assert {"load_s", "first_token_s", "weights_bytes"} <= set(found.metrics)
    assert {found.missing[name] for name in NAMES} == {"the client never started"}
    assert found.disturbances == ["1 event line(s) cannot be read (line 3): not JSON"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"completed": 29}, "concurrency 1: 29 answered and 0 failed, and there were 30 requests"),
        ({"output_tokens": 3000}, "concurrency 1: 3000 tokens in 30 answers, and 128 tokens were asked for each time"),
        ({"output_tokens_per_s": 500.0}, "3840 tokens in 39.600 s are not 500 tokens/s"),
        ({"requests_per_s": 5.0}, "30 answers in 39.600 s are not 5 requests/s"),
        ({"tpot_s": {"mean": 1.0, "p50": 2.0, "p90": 1.0, "p99": 3.0}}, "the percentiles of TPOT are not in order"),
        ({"ttft_s": {"mean": 9.0, "p50": 9.0, "p90": 9.0, "p99": 9.0}}, "first tokens came later than whole answers"),
        ({"until_s": 1e9}, "it is said to have ended after it was reported"),
        ({"until_s": 1e300}, "it is said to have ended after it was reported"),
        ({"concurrency": 7}, "concurrency 7 was measured, and was not asked for"),
        ({"replica": 5}, "replica 5 was measured, and there are 1"),
    ],
)
def test_levels_that_contradict_themselves_disturb(change: dict[str, Any], said: str) -> None:
    events = [
        one.model_copy(update=Level.model_validate({**one.model_dump(by_alias=True), **change}).__dict__)
        if isinstance(one, Level) and one.concurrency == 1
        else one
        for one in run()
    ]
    found = measure(events).disturbances
    assert any(said in text for text in found), found


def test_fewer_requests_than_planned_disturb() -> None:
    found = measure(run(), dataclasses.replace(EXPECTED, requests=25)).disturbances
    assert "concurrency 32: 640 requests were sent, and 800 were planned" in found


def test_a_level_told_twice_counts_once_and_disturbs() -> None:
    twice = [level(1, start_s=200.0), level(1, start_s=300.0, tpot_s=0.005)]
    found = measure(run(levels=twice), dataclasses.replace(EXPECTED, concurrency=(1,)))
    assert found.disturbances == ["concurrency 1 was measured 2 times"]
    assert found.metrics["tpot_p50_s_c1"].value == 0.01


def test_loads_that_overlap_disturb() -> None:
    found = measure(
        run(levels=[level(1, start_s=200.0), level(8, start_s=210.0)]),
        dataclasses.replace(EXPECTED, concurrency=(1, 8)),
    )
    assert found.disturbances == ["the loads of concurrency 1 and 8 overlap: one of their times is wrong"]


def test_strangers_restarts_and_lost_lines_disturb() -> None:
    events = [*run(), event("progress", rank=3, done=1, total=2)]
    assert "server 3 reported, and there are 1" in measure(events).disturbances
    again = [*run(), *[one for one in run() if one.kind == "started"]]
    assert "the client started more than once in one run" in measure(again).disturbances
    lost = [one for one in run() if one.seq != 3]
    assert any("rank -1 wrote event 4 where 3 was due" in text for text in measure(lost).disturbances)


def test_a_level_that_a_server_tells_of_is_not_the_client_s() -> None:
    events = [one.model_copy(update={"rank": 0}) if isinstance(one, Level) else one for one in run()]
    found = measure(events)
    assert "output_tokens_per_s" in found.missing
    assert found.missing["requests_failed"] == "0 of 4 levels of load were measured"


# --- a recorded run ----------------------------------------------------------------------------------------------


def test_a_run_on_the_cpu_as_it_was_recorded() -> None:
    log = EventLog()
    log.feed((DATA / "vllm" / "runs" / "cpu" / "events.jsonl").read_bytes())
    assert log.garbled == []
    expected = Expected(concurrency=(1, 2), input_len=32, output_len=16, requests=2)
    found = measure(log.events, expected, gpus=[])
    assert found.disturbances == []
    figures = values(found)
    assert figures["requests_failed"] == 0
    assert figures["output_tokens_per_s"] == pytest.approx(66.4, abs=0.1)
    assert figures["first_token_s"] > figures["load_s"] > 42
    assert found.missing["mbu"] == "no GPU was used"
    assert found.missing["answers_wrong"].startswith("random weights")


# --- for all runs ------------------------------------------------------------------------------------------------

GOOD = replicated()


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["drop", "twice", "swap", "rank"]), max_size=10), st.data())
def test_no_order_loss_or_doubling_of_events_raises(damage: list[str], data: st.DataObject) -> None:
    events = list(GOOD)
    for what in damage:
        at = data.draw(st.integers(0, len(events) - 2))
        if what == "drop":
            del events[at]
        elif what == "twice":
            events.insert(at, events[at])
        elif what == "swap":
            events[at], events[at + 1] = events[at + 1], events[at]
        else:
            events[at] = events[at].model_copy(update={"rank": data.draw(st.integers(-1, 9))})
    found = measure(events, TWO)
    assert set(NAMES) <= {*found.metrics, *found.missing}
    assert not set(found.metrics) & set(found.missing)
    levels = [one for one in events if isinstance(one, Level) and one.rank == -1 and one.replica is None]
    if len({one.concurrency for one in levels}) < 4:
        assert "requests_failed" in found.missing


numbers = st.one_of(st.integers(0, 3), st.integers(0, 10**15), st.sampled_from([1e-9, 0.5, 1.0, 1e9, -1e308, 1e308]))
FIELDS = ["requests", "completed", "failed", "output_tokens", "elapsed_s", "until_s", "output_tokens_per_s", "mono"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), numbers), max_size=6), st.data())
def test_no_figures_raise(changes: list[tuple[str, float]], data: st.DataObject) -> None:
    events = list(GOOD)
    places = [at for at, one in enumerate(events) if isinstance(one, Level)]
    for name, value in changes:
        at = data.draw(st.sampled_from(places))
        try:
            events[at] = Level.model_validate({**events[at].model_dump(by_alias=True), name: value})
        except ValueError:
            continue
    found = measure(events, TWO)
    assert set(NAMES) <= {*found.metrics, *found.missing}
