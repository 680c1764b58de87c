from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import ROOT

from vaultcube.errors import BadParameterError
from vaultcube.workloads.ddp import DATA_MOUNT, WORKLOAD, DdpParams


def params(preset: str = "acceptance", **given: Any) -> DdpParams:
    found = WORKLOAD.resolve(preset, given, "cuda")
    assert isinstance(found, DdpParams)
    return found


def test_the_command_of_the_acceptance_run() -> None:
    assert " ".join(WORKLOAD.command(params(), world_size=4, device="cuda")) == (
        "python3 -m ddp --results /results --device cuda --ranks 4 --model resnet50 --batch-size 256 --image-size 224 "
        "--precision bf16 --channels-last --windows 10 --steps-per-window 20 --warmup-steps 20 --max-warmup-steps 200 "
        "--allreduce-timeout-s 60 --hang-timeout-s 300 --seed 0"
    )


def test_the_command_of_the_smoke_run() -> None:
    assert " ".join(WORKLOAD.command(params("smoke"), world_size=2, device="cpu")) == (
        "python3 -m ddp --results /results --device cpu --ranks 2 --model resnet50 --batch-size 4 --image-size 64 "
        "--precision fp32 --no-channels-last --windows 5 --steps-per-window 2 --warmup-steps 2 --max-warmup-steps 8 "
        "--allreduce-timeout-s 30 --hang-timeout-s 120 --seed 0"
    )


def test_the_seeds_setting_is_kept() -> None:
    seed = params("seed")
    assert (seed.batch_size, seed.precision, seed.windows * seed.steps_per_window) == (32, "fp32", 100)


def test_data_is_mounted_and_the_program_sees_only_the_mount() -> None:
    given = params(data="/data sets/photos $HOME")
    assert WORKLOAD.data_folders(given) == {DATA_MOUNT: "/data sets/photos $HOME"}
    argv = WORKLOAD.command(given, world_size=1, device="cuda")
    assert argv[argv.index("--data") + 1] == DATA_MOUNT
    assert not any("photos" in word for word in argv)
    assert WORKLOAD.data_folders(params()) == {}
    assert "--data" not in WORKLOAD.command(params(), world_size=1, device="cuda")


def test_what_is_not_given_is_the_presets() -> None:
    found = params("acceptance", batch_size=None, windows=7, channels_last=False)
    assert (found.batch_size, found.windows, found.channels_last) == (256, 7, False)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"batch_size": 0}, "--batch-size"),
        ({"batch_size": 10**6}, "--batch-size"),
        ({"image_size": 16}, "--image-size"),
        ({"precision": "fp8"}, "--precision"),
        ({"windows": 4}, "--windows"),
        ({"windows": 1001}, "--windows"),
        ({"model": "resnet50; rm -rf /"}, "--model"),
        ({"model": "--help"}, "--model"),
        ({"allreduce_timeout_s": float("nan")}, "--allreduce-timeout-s"),
        ({"hang_timeout_s": 0}, "--hang-timeout-s"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
    ],
)
def test_a_parameter_out_of_its_range_is_named_as_its_option(given: dict[str, Any], option: str) -> None:
    with pytest.raises(BadParameterError) as seen:
        params(**given)
    assert seen.value.exit_code == 2
    assert option in seen.value.next_step
    assert "\n" not in seen.value.message


def test_parameters_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadParameterError, match="max_warmup_steps 8 is below warmup_steps 9"):
        params("smoke", warmup_steps=9)


def test_the_time_limit_grows_with_the_work_and_is_longer_on_the_cpu() -> None:
    short, long = params("smoke"), params("acceptance")
    assert WORKLOAD.timeout_s(short, world_size=1, device="cuda") < WORKLOAD.timeout_s(
        long, world_size=1, device="cuda"
    )
    assert WORKLOAD.timeout_s(short, world_size=1, device="cuda") < WORKLOAD.timeout_s(
        short, world_size=4, device="cuda"
    )
    assert WORKLOAD.timeout_s(short, world_size=1, device="cuda") < WORKLOAD.timeout_s(
        short, world_size=1, device="cpu"
    )


def test_checks_that_need_no_gpu_hold_on_the_cpu_too() -> None:
    specs = {spec.name: spec for spec in WORKLOAD.checks(WORKLOAD.targets_type())}
    assert {name for name, spec in specs.items() if not spec.needs_gpu} == {
        "no_rank_lost",
        "allreduce_correct",
        "loss_finite",
    }
    # What is timed is what a disturbance spoils; a GPU that was lost stays lost.
    assert {name for name, spec in specs.items() if spec.timed} == {
        "scaling_efficiency",
        "throughput",
        "gpu_utilisation",
    }


def test_targets_come_from_the_profile() -> None:
    targets = WORKLOAD.targets_type.model_validate({"scaling_efficiency": 0.9})
    assert WORKLOAD.checks(targets)[0].target.value == 0.9


# --- both sides of the contract --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Iterator[Any]:
    """Return the command-line parser of the program in the image: it needs nothing but the standard library."""
    sys.path.insert(0, str(ROOT / "images"))
    sys.path.insert(0, str(ROOT / "images" / "pytorch"))
    from ddp import cli

    yield cli
    del sys.path[:2]


@pytest.mark.parametrize("preset", WORKLOAD.presets)
def test_the_program_knows_the_same_presets(program: Any, preset: str) -> None:
    options = program.parse(["--results", "/r", "--preset", preset])
    ours = params(preset).model_dump()
    assert {name: options.values[name] for name in ours} == ours


valid = st.fixed_dictionaries(
    {"warmup_steps": st.integers(1, 10000), "max_warmup_steps": st.integers(10000, 100000)},
    optional={
        "model": st.from_regex(r"\A[a-z][a-z0-9_]{0,20}\Z"),
        "batch_size": st.integers(1, 16384),
        "image_size": st.integers(32, 1024),
        "precision": st.sampled_from(["fp32", "tf32", "bf16"]),
        "channels_last": st.booleans(),
        "windows": st.integers(5, 1000),
        "steps_per_window": st.integers(1, 10000),
        "allreduce_timeout_s": st.floats(0.5, 3600),
        "hang_timeout_s": st.floats(0.5, 36000),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@given(valid, st.integers(1, 8))
def test_the_program_reads_from_the_command_what_the_plan_says(program: Any, given: dict[str, Any], ranks: int) -> None:
    wanted = params("acceptance", **given)
    argv = WORKLOAD.command(wanted, world_size=ranks, device="cuda")
    assert argv[:3] == ["python3", "-m", "ddp"]
    options = program.parse(argv[3:])
    assert (str(options.results), options.device, options.ranks) == ("/results", "cuda", ranks)
    assert {name: options.values[name] for name in wanted.model_dump()} == wanted.model_dump()
