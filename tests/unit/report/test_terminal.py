from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import RUN_ID, box, plan, result

from vaultcube.report import terminal
from vaultcube.results.schema import Check, Target, Verdict
from vaultcube.stack.plan import Plan
from vaultcube.stack.summary import Summary

WHERE = Path("/data/runs") / RUN_ID
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (-3, "-3"),
        (100.0, "100"),
        (0.8, "0.8"),
        (0.956789, "0.9568"),
        (1901.264, "1901"),
        (12345.6, "12346"),
        (34190917632, "34190917632"),
        (123456789.5, "123456790"),
        (0.0001234567, "0.0001235"),
        (-12345.6, "-12346"),
    ],
)
def test_figures_have_four_digits_and_no_exponent(value: float, text: str) -> None:
    assert terminal.number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18))
def test_a_figure_is_what_it_says(value: float) -> None:
    text = terminal.number(value)
    assert float(text) == pytest.approx(value, rel=6e-4)
    if abs(value) >= 1e-4:
        assert "e" not in text


def test_a_result_for_people() -> None:
    text = terminal.result(result(), WHERE, color=False)
    assert text.startswith(
        "ddp on 4 GPU(s): NVIDIA GeForce RTX 5090, NVIDIA GeForce RTX 5090, NVIDIA GeForce RTX 5090, "
        "NVIDIA GeForce RTX 5090: completed after 95 s\n"
    )
    assert re.search(r"^throughput_samples_per_s +7600 samples/s +7590 \.\. 7611$", text, re.MULTILINE)
    # Counts of what went wrong stand with their checks only.
    assert "ranks_lost" not in text
    assert re.search(
        r"^throughput +>= 100 samples/s +7600 +PASS +the lower bound 7590 meets the target$", text, re.MULTILINE
    )
    assert re.search(r"^gpu_utilisation +>= 0\.9 ratio +- +UNAVAILABLE +no telemetry was recorded$", text, re.MULTILINE)
    assert text.endswith(f"\nverdict UNAVAILABLE   kept in {WHERE}\n")
    assert "\x1b" not in text
    assert "SIMULATED" not in text


def test_a_simulated_result_says_so_before_any_figure() -> None:
    text = terminal.result(result(simulated=True), WHERE, color=False)
    assert text.index("SIMULATED") < text.index("METRIC")


def test_a_result_on_the_cpu_without_figures() -> None:
    found = result(gpus=[], device="cpu", metrics={}, disturbances=["run x used the CPU", "two"])
    text = terminal.result(found, WHERE, color=False)
    assert text.startswith("ddp on the CPU: completed")
    assert "METRIC" not in text
    assert "disturbed: run x used the CPU\ndisturbed: two\n" in text


@pytest.mark.parametrize("verdict", list(Verdict))
def test_colour_changes_no_letter(verdict: Verdict) -> None:
    checks = [
        Check(
            name="a_check",
            target=Target(op=">=", value=1, unit="x"),
            measured=1.0,
            verdict=verdict,
            reason=f"{verdict} because of {verdict}",
        )
    ]
    found = result(checks=checks, verdict=verdict)
    plain, painted = (terminal.result(found, WHERE, color=color) for color in (False, True))
    assert ESCAPES.sub("", painted) == plain
    (row,) = [line for line in painted.splitlines() if "a_check" in line]
    cell = ESCAPES.split(row)
    assert cell[0].split() == ["a_check", ">=", "1", "x", "1"]
    assert cell[1] == verdict
    assert cell[2].strip().startswith(str(verdict))


def test_a_dry_run_is_the_plan_the_override_and_a_command_to_paste() -> None:
    found = plan(box(0))
    text = terminal.dry_run(found, Path("/with space") / RUN_ID, as_json=False)
    before, _, rest = text.partition("\n# /with space/")
    assert Plan.model_validate_json(before.removeprefix("# plan\n")) == found
    override, _, command = rest.partition("\n# command\n")
    assert "# Written by vaultcube" in override
    argv = shlex.split(command)
    assert argv[:2] == ["docker", "compose"]
    assert f"/with space/{RUN_ID}/compose.override.yml" in argv
    assert argv[-1] == "ddp"


def test_a_dry_run_as_json_is_one_document() -> None:
    document = json.loads(terminal.dry_run(plan(), WHERE, as_json=True))
    assert set(document) == {"plan", "override", "command"}
    assert Plan.model_validate(document["plan"]) == plan()
    assert document["command"][:2] == ["docker", "compose"]
    assert "GPU-00000000" in document["override"]


def test_a_run_is_one_row() -> None:
    found = Summary(id="a", workload="ddp", started="now", status="completed", verdict="PASS", directory="/x")
    assert terminal.run_row(found) == ("a", "ddp", "now", "completed", "PASS")
