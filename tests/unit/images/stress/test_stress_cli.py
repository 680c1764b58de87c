from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stress import cli
from stress.params import PHASES, Job, Params

from common.outcome import Problem

START = ["--results", "/r", "--gpu", "gpu-0"]
GUARDED = ["--recorder-lost-s", "60", "--max-celsius", "85", "--on-fault", "all"]


def test_results_and_a_name_are_enough() -> None:
    options = cli.parse(START)
    assert (options.results, options.folder) == (Path("/r"), Path("/r/gpu-0"))
    assert (options.device, options.phases) == ("auto", None)
    assert options.values == {
        "gpu": "gpu-0",
        "seconds": 86400,
        "phase_seconds": 60.0,
        "memory_fraction": 0.85,
        "seed": 0,
        "hang_timeout_s": 120.0,
        "recorder_lost_s": 0.0,
        "max_celsius": None,
        "on_fault": "gpu",
    }


def test_every_option_is_taken() -> None:
    argv = ["--device", "cpu", "--seconds", "2600000", "--phases", "memory,bf16", "--phase-seconds", "0.5"]
    options = cli.parse([*START, *argv, "--memory-fraction", "0.5", "--seed", "7", "--hang-timeout-s", "3", *GUARDED])
    assert (options.device, options.phases) == ("cpu", ("memory", "bf16"))
    values = {"gpu": "gpu-0", "seconds": 2_600_000, "phase_seconds": 0.5, "memory_fraction": 0.5, "seed": 7}
    guarded = {"recorder_lost_s": 60.0, "max_celsius": 85, "on_fault": "all"}
    assert options.values == {**values, "hang_timeout_s": 3.0, **guarded}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--recorder-lost-s", "0"], {"recorder_lost_s": 0.0}),
        (["--recorder-lost-s", "2.5"], {"recorder_lost_s": 2.5}),
        # As compose writes it for a setting that is empty.
        (["--max-celsius="], {"max_celsius": None}),
        (["--max-celsius", ""], {"max_celsius": None}),
        (["--on-fault=gpu"], {"on_fault": "gpu"}),
    ],
)
def test_what_guards_the_load(argv: list[str], expected: dict[str, object]) -> None:
    assert expected.items() <= cli.parse([*START, *argv]).values.items()


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--seconds", text] for text in ("0", "-5", "2600001", "1e9", "nan", "24h", "")),
        *(["--phases", text] for text in ("", "fp64", "fp32,fp32", "fp32,", "fp32 memory")),
        *(["--phase-seconds", text] for text in ("0", "nan", "inf", "86401")),
        *(["--memory-fraction", text] for text in ("0", "1", "nan", "-0.5", "much")),
        *(["--gpu", text] for text in ("", ".", "..", "../x", "a/b", "-0", "é", "x" * 65, "a b")),
        *(["--seed", text] for text in ("-1", str(2**31))),
        ["--device", "tpu"],
        ["--hang-timeout-s", "0"],
        *(["--recorder-lost-s", text] for text in ("-1", "1", "nan", "86401", "", "soon")),
        *(["--max-celsius", text] for text in ("29", "151", "85.5", "hot")),
        ["--on-fault", "none"],
        ["--results", "a\0b"],
        ["--sec", "3"],
        ["stray"],
    ],
)
def test_nonsense_is_exit_64_with_a_next_step(wrong: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        cli.parse([*START, *wrong])
    assert (caught.value.code, caught.value.exit_code) == ("bad-parameter", 64)
    assert caught.value.next_step


@pytest.mark.parametrize("missing", [["--results", "/r"], ["--gpu", "gpu-0"]])
def test_results_and_a_name_are_required(missing: list[str]) -> None:
    with pytest.raises(Problem, match="required"):
        cli.parse(missing)


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ([*START, "--seconds", "x"], Path("/r/gpu-0")),
        (["--results=/c d", "--gpu=a", "stray"], Path("/c d/a")),
        (["--results", "/r"], None),
        (["--results", "/r", "--gpu", "../x"], None),
        ([], None),
    ],
)
def test_the_folder_is_found_among_nonsense(argv: list[str], found: Path | None) -> None:
    assert cli.folder_of(argv) == found


def test_a_short_soak_gives_every_phase_its_turn() -> None:
    params = Params("gpu-0", "cpu", 10, PHASES, 60.0, 0.85, 0, 120.0)
    assert params.turn_s == 2.0
    assert Params("gpu-0", "cpu", 86400, PHASES, 60.0, 0.85, 0, 120.0).turn_s == 60.0


def test_a_job_arrives_as_it_was_sent() -> None:
    params = Params("gpu-0", "cuda", 10, PHASES, 60.0, 0.85, 3, 1.5, 60.0, 85, "all")
    job = Job(params, 4.25, "/é e", "/b", "flip:fp32:3", "/g")
    assert Job.from_json(job.to_json()) == job
    assert job.params.as_dict()["phases"] == list(PHASES)
    assert job.params.startup_limit_s == 120.0


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_command_line_gets_past_as_anything_but_options_or_a_problem(argv: list[str]) -> None:
    cli.folder_of(argv)
    code: object = 0
    try:
        cli.parse(argv)
    except Problem as problem:
        code = problem.exit_code
    except SystemExit as end:
        code = end.code
    assert code in {0, 64}
