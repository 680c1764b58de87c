from __future__ import annotations

import re

import pytest
from tests.unit.report.test_terminal import ESCAPES
from tests.unit.results.test_compare import OTHER, RATE, other, rate
from tests.unit.support import RUN_ID, box, result

from vaultcube.report.compare import comparison
from vaultcube.results.compare import compare
from vaultcube.results.schema import Check, Metric, Result, Target, Verdict


def shown(first: Result, second: Result, *, color: bool = False) -> str:
    return comparison(compare(first, second), color=color)


def row(text: str, first: str) -> list[str]:
    """Return the cells of the row that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(first + " ")]
    return re.split(r" {2,}", line.strip())


def test_two_runs_for_people() -> None:
    text = shown(result(), other(metrics={RATE: rate(7000, 6990, 7010)}, params={"batch_size": 128, "xla": True}))
    lines = text.splitlines()
    assert lines[0] == f"A  {RUN_ID}: ddp on 4x NVIDIA GeForce RTX 5090, completed, UNAVAILABLE"
    assert lines[1] == f"B  {OTHER}: tensorflow on 4x NVIDIA GeForce RTX 5090, completed, UNAVAILABLE"
    assert row(text, RATE) == [RATE, "samples/s", "7600 (7590 .. 7611)", "7000 (6990 .. 7010)", "0.921", "apart"]
    # Counts of what went wrong stand with their checks only.
    assert "ranks_lost" not in text
    assert row(text, "throughput") == ["throughput", ">= 100 samples/s", "PASS (7600)", "PASS (7600)"]
    assert row(text, "gpu_utilisation")[2:] == ["UNAVAILABLE", "UNAVAILABLE"]
    assert row(text, "batch_size") == ["batch_size", "256", "128"]
    assert row(text, "xla") == ["xla", "-", "yes"]
    assert "note:" not in text
    assert "\x1b" not in text


def test_the_same_again_says_so() -> None:
    again = result().model_copy(update={"run": result().run.model_copy(update={"id": OTHER})})
    text = shown(result(), again)
    assert "same parameters, same machine, same software" in text
    assert "DIFFERENT" not in text
    assert row(text, RATE)[-2:] == ["1.000", "overlap"]


def test_what_one_has_not_is_a_dash() -> None:
    text = shown(result(checks=[]), other(metrics={"load_s": Metric(value=2.5, unit="s")}))
    assert row(text, RATE) == [RATE, "samples/s", "7600 (7590 .. 7611)", "-", "-", "-"]
    assert row(text, "load_s") == ["load_s", "s", "-", "2.5", "-", "-"]
    assert row(text, "throughput") == ["throughput", ">= 100 samples/s", "-", "PASS (7600)"]


def test_units_and_targets_that_differ_are_both_told() -> None:
    target = Target(op=">=", value=10, unit="tokens/s")
    check = Check(name="throughput", target=target, measured=12, verdict=Verdict.PASS, reason="good")
    text = shown(result(), other(metrics={RATE: rate(12, unit="tokens/s")}, checks=[check]))
    assert row(text, RATE)[1] == "samples/s / tokens/s"
    assert row(text, "throughput")[1] == ">= 100 samples/s, >= 10 tokens/s"


def test_what_is_long_and_means_nothing_to_people_is_cut() -> None:
    provenance = result().provenance.model_copy(update={"images": {"ddp": "sha256:" + "1a2b3c4d" * 8}})
    text = shown(result(provenance=provenance), other(gpus=list(box(1).gpus)))
    assert row(text, "images.ddp") == ["images.ddp", "sha256:1a2b3c4d", "-"]
    assert row(text, "gpu uuids")[2] == "GPU-00000000"


def test_a_cpu_a_simulation_and_their_notes() -> None:
    text = shown(result(simulated=True), other(device="cpu", gpus=[]))
    assert f"A  {RUN_ID}: ddp on 4x NVIDIA GeForce RTX 5090, completed, UNAVAILABLE, SIMULATED\n" in text
    assert f"B  {OTHER}: tensorflow on the CPU, completed" in text
    assert "\nnote: one ran on GPUs and the other on the CPU\n" in text


@pytest.mark.parametrize("verdict", list(Verdict))
def test_colour_changes_no_letter(verdict: Verdict) -> None:
    checks = [check.model_copy(update={"verdict": verdict}) for check in result().checks]
    plain, painted = (shown(result(checks=checks), other(), color=color) for color in (False, True))
    assert ESCAPES.sub("", painted) == plain
    assert painted.count("\x1b[1;") == 4
