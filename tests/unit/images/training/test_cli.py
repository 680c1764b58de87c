from pathlib import Path

import pytest
from ddp.program import PROGRAM
from hypothesis import given
from hypothesis import strategies as st

from common.arguments import results_of
from common.outcome import Problem
from training import cli

PRESETS = PROGRAM.presets
START = ["--results", "/r"]


def test_presets_are_what_the_docs_say() -> None:
    def row(name: str) -> list[object]:
        names = ["model", "batch_size", "image_size", "precision", "channels_last", "windows", "steps_per_window"]
        return [PRESETS[name][key] for key in [*names, "warmup_steps", "max_warmup_steps", "data"]]

    assert row("acceptance") == ["resnet50", 256, 224, "bf16", True, 10, 20, 20, 200, None]
    assert row("seed") == ["resnet50", 32, 224, "fp32", False, 5, 20, 10, 100, None]
    assert row("smoke") == ["resnet50", 4, 64, "fp32", False, 5, 2, 2, 8, None]
    assert len({frozenset(preset) for preset in PRESETS.values()}) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_is_complete(preset: str) -> None:
    options = cli.parse([*START, "--preset", preset], PROGRAM)
    assert options == cli.Options(Path("/r"), False, "auto", None, {"preset": preset} | dict(PRESETS[preset]))


def test_every_option_overrides_its_preset() -> None:
    options = cli.parse(
        [
            *START,
            *["--stamp", "--preset", "smoke", "--device", "cpu", "--ranks", "3", "--model", "resnet18"],
            *["--batch-size", "7", "--image-size", "96", "--precision", "tf32", "--channels-last", "--data", "/d d"],
            *["--windows", "6", "--steps-per-window", "9", "--warmup-steps", "4", "--max-warmup-steps", "40"],
            *["--allreduce-timeout-s", "1.5", "--hang-timeout-s", "2", "--seed", "11"],
        ],
        PROGRAM,
    )
    assert (options.stamp, options.device, options.ranks) == (True, "cpu", 3)
    assert options.values == {
        "preset": "smoke",
        "model": "resnet18",
        "batch_size": 7,
        "image_size": 96,
        "precision": "tf32",
        "channels_last": True,
        "data": "/d d",
        "windows": 6,
        "steps_per_window": 9,
        "warmup_steps": 4,
        "max_warmup_steps": 40,
        "allreduce_timeout_s": 1.5,
        "hang_timeout_s": 2.0,
        "seed": 11,
    }


def test_channels_last_can_be_turned_off() -> None:
    assert cli.parse([*START, "--no-channels-last"], PROGRAM).values["channels_last"] is False


def test_ranks_auto_is_left_to_the_machine() -> None:
    assert cli.parse([*START, "--ranks", "auto"], PROGRAM).ranks is None


@pytest.mark.parametrize(
    "wrong",
    [
        ["--batch-size", "0"],
        ["--batch-size", "-1"],
        ["--batch-size", "1000000000"],
        ["--batch-size", "2.5"],
        ["--batch-size", "many"],
        ["--batch-size"],
        ["--windows", "4"],
        ["--ranks", "0"],
        ["--ranks", "65"],
        ["--ranks", "all"],
        ["--image-size", "1"],
        ["--precision", "fp64"],
        ["--preset", "none"],
        ["--device", "tpu"],
        ["--hang-timeout-s", "0"],
        ["--hang-timeout-s", "nan"],
        ["--hang-timeout-s", "inf"],
        ["--allreduce-timeout-s", "-3"],
        ["--seed", "-1"],
        ["--warmup-steps", "201"],
        ["--max-warmup-steps", "19"],
        ["--nonsense"],
        ["--batch", "3"],
        ["stray"],
    ],
)
def test_nonsense_is_exit_64_with_a_next_step(wrong: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        cli.parse([*START, *wrong], PROGRAM)
    assert (caught.value.code, caught.value.exit_code) == ("bad-parameter", 64)
    assert caught.value.message
    assert caught.value.next_step


def test_results_are_required() -> None:
    with pytest.raises(Problem, match="--results"):
        cli.parse(["--preset", "smoke"], PROGRAM)


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(["--help"], PROGRAM)
    assert caught.value.code == 0
    assert "example:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["--windows", "x", "--results", "/a b"], Path("/a b")),
        (["--results=/c"], Path("/c")),
        (["--results"], None),
        (["--windows", "4"], None),
        ([], None),
    ],
)
def test_the_results_folder_is_found_among_nonsense(argv: list[str], found: Path | None) -> None:
    assert results_of(argv) == found


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_command_line_gets_past_as_anything_but_options_or_a_problem(argv: list[str]) -> None:
    results_of(argv)
    code: object = 0
    try:
        cli.parse(argv, PROGRAM)
    except Problem as problem:
        code = problem.exit_code
    except SystemExit as end:
        code = end.code
    assert code in {0, 64}
