"""What `ddp` and `tensorflow` have in common: parameters, command line, limits, checks, and the contract with images/."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import ROOT

from vaultcube import workloads
from vaultcube.errors import BadParameterError
from vaultcube.workloads._training import DATA_MOUNT, Training, TrainingParams

NAMES = ("ddp", "tensorflow")


def load(name: str) -> Training:
    found = workloads.load(name)
    assert isinstance(found, Training)
    return found


@pytest.fixture(params=NAMES)
def workload(request: pytest.FixtureRequest) -> Training:
    return load(request.param)


def params(workload: Training, preset: str = "acceptance", **given: Any) -> TrainingParams:
    found = workload.resolve(preset, given, "cuda")
    assert isinstance(found, TrainingParams)
    return found


def test_what_is_shared_is_no_workload() -> None:
    assert not any(name.startswith("_") for name in workloads.names())


def test_every_program_trains_with_the_same_settings() -> None:
    """Or figures of two frameworks could not be held against each other."""
    ours = [load(name) for name in NAMES]
    shared = TrainingParams.model_fields.keys()
    for preset in ours[0].presets:
        # A smoke test's figures mean nothing, and on two cores TensorFlow takes minutes to trace ResNet-50.
        same = set(shared) - ({"model"} if preset == "smoke" else set())
        found = [params(one, preset).model_dump(include=same) for one in ours]
        assert found[0] == found[1]


def test_the_seeds_setting_is_kept(workload: Training) -> None:
    seed = params(workload, "seed")
    assert (seed.batch_size, seed.precision, seed.windows * seed.steps_per_window) == (32, "fp32", 100)


def test_data_is_mounted_and_the_program_sees_only_the_mount(workload: Training) -> None:
    given = params(workload, data="/data sets/photos $HOME")
    assert workload.data_folders(given) == {DATA_MOUNT: "/data sets/photos $HOME"}
    argv = workload.command(given, world_size=1, device="cuda")
    assert argv[argv.index("--data") + 1] == DATA_MOUNT
    assert not any("photos" in word for word in argv)
    assert workload.data_folders(params(workload)) == {}
    assert "--data" not in workload.command(params(workload), world_size=1, device="cuda")


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
def test_a_parameter_out_of_its_range_is_named_as_its_option(
    workload: Training, given: dict[str, Any], option: str
) -> None:
    with pytest.raises(BadParameterError) as seen:
        params(workload, **given)
    assert seen.value.exit_code == 2
    assert option in seen.value.next_step
    assert "\n" not in seen.value.message


def test_parameters_that_contradict_each_other_are_refused(workload: Training) -> None:
    with pytest.raises(BadParameterError, match="max_warmup_steps 8 is below warmup_steps 9"):
        params(workload, "smoke", warmup_steps=9)


def test_the_time_limit_grows_with_the_work_and_is_longer_on_the_cpu(workload: Training) -> None:
    short, long = params(workload, "smoke"), params(workload, "acceptance")
    least = workload.timeout_s(short, world_size=1, device="cuda")
    assert least < workload.timeout_s(long, world_size=1, device="cuda")
    assert least < workload.timeout_s(short, world_size=4, device="cuda")
    assert least < workload.timeout_s(short, world_size=1, device="cpu")


def test_what_a_disturbance_spoils_is_what_is_timed(workload: Training) -> None:
    """A GPU that was lost stays lost."""
    specs = workload.checks(workload.targets_type())
    assert {spec.name for spec in specs if spec.timed} == {"scaling_efficiency", "throughput", "gpu_utilisation"}


def test_targets_come_from_the_profile(workload: Training) -> None:
    targets = workload.targets_type.model_validate({"scaling_efficiency": 0.9})
    assert workload.checks(targets)[0].target.value == 0.9


# --- both sides of the contract --------------------------------------------------------------------------------


class Program:
    """A program of an image: its command line needs nothing but the standard library."""

    def __init__(self, workload: Training) -> None:
        self._parse = importlib.import_module("training.cli").parse
        self._own = importlib.import_module(f"{workload.program}.program").PROGRAM
        self.name = self._own.name
        self.workload = self._own.workload

    def parse(self, argv: list[str]) -> Any:
        return self._parse(argv, self._own)


@pytest.fixture(scope="module", autouse=True)
def images() -> Iterator[None]:
    folders = [str(ROOT / "images"), *(str(ROOT / "images" / load(name).image) for name in NAMES)]
    sys.path[:0] = folders
    yield
    del sys.path[: len(folders)]


def test_the_program_is_called_as_the_workload_says(workload: Training) -> None:
    program = Program(workload)
    assert (program.name, program.workload) == (workload.program, workload.name)


@pytest.mark.parametrize("preset", ["acceptance", "seed", "smoke"])
def test_the_program_knows_the_same_presets(workload: Training, preset: str) -> None:
    options = Program(workload).parse(["--results", "/r", "--preset", preset])
    ours = params(workload, preset).model_dump()
    assert {name: options.values[name] for name in ours} == ours
    assert options.values.keys() == {*ours, "preset"}


valid = st.fixed_dictionaries(
    {"warmup_steps": st.integers(1, 10000), "max_warmup_steps": st.integers(10000, 100000)},
    optional={
        "model": st.from_regex(r"\A[a-z][a-z0-9_]{0,20}\Z"),
        "batch_size": st.integers(1, 16384),
        "image_size": st.integers(32, 1024),
        "precision": st.sampled_from(["fp32", "tf32", "bf16"]),
        "windows": st.integers(5, 1000),
        "steps_per_window": st.integers(1, 10000),
        "allreduce_timeout_s": st.floats(0.5, 3600),
        "hang_timeout_s": st.floats(0.5, 36000),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@given(st.sampled_from([("ddp", "channels_last"), ("tensorflow", "xla")]), st.booleans(), valid, st.integers(1, 8))
def test_the_program_reads_from_the_command_what_the_plan_says(
    which: tuple[str, str],
    on: bool,  # noqa: FBT001 - hypothesis gives it
    given: dict[str, Any],
    ranks: int,
) -> None:
    name, switch = which
    workload = load(name)
    wanted = params(workload, "acceptance", **given, **{switch: on})
    argv = workload.command(wanted, world_size=ranks, device="cuda")
    assert argv[:3] == ["python3", "-m", workload.program]
    options = Program(workload).parse(argv[3:])
    assert (str(options.results), options.device, options.ranks) == ("/results", "cuda", ranks)
    assert {key: options.values[key] for key in wanted.model_dump()} == wanted.model_dump()
