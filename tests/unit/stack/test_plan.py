from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import NOON, RUN_ID, box, plan

from vaultcube import workloads
from vaultcube.errors import (
    BadParameterError,
    FlavourError,
    GpuBusyError,
    GpuSelectionError,
    GpuUnavailableError,
    PinningError,
    ProfileError,
    UsageError,
    VaultCubeError,
)
from vaultcube.gpu.leases import Holder
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.readings import Link
from vaultcube.gpu.selection import parse_gpus
from vaultcube.results.profile import Profile
from vaultcube.stack.plan import Plan, Request, make_plan
from vaultcube.stack.quantities import MEMORY_FLOOR, parse_duration, parse_hours, parse_memory

FOO = Holder("container", "foo", "", None, "container foo")


def test_on_the_customers_box_every_gpu_is_used() -> None:
    found = plan()
    assert (found.device, found.world_size, found.flavour, found.image) == (
        "cuda",
        4,
        "cu128",
        "vaultcube/pytorch:cu128",
    )
    assert found.compose_files == ("ddp.yml",)
    assert found.nodes[0].gpus == tuple(gpu.uuid for gpu in box().gpus)
    assert found.params["batch_size"] == 256
    assert found.command[found.command.index("--ranks") + 1] == "4"
    assert (found.driver, found.simulated, found.run_id, found.created) == ("575.57.08", False, RUN_ID, NOON)


def test_without_a_gpu_the_same_verb_runs_small_on_the_cpu() -> None:
    found = plan(box(0))
    assert (found.device, found.world_size, found.flavour) == ("cpu", 2, "cpu")
    # There is no third image: cu124's runs on the CPU as it is.
    assert found.image == "vaultcube/pytorch:cu124"
    assert found.compose_files == ("ddp.yml", "ddp.cpu.yml")
    assert found.params["batch_size"] == 4
    assert found.gpus == ()


def test_gpus_none_leaves_the_gpus_alone() -> None:
    found = plan(gpus="none", ranks=3)
    assert (found.device, found.world_size, found.gpus) == ("cpu", 3, ())


def test_flavour_cpu_alone_means_the_cpu_and_contradicts_named_gpus() -> None:
    assert plan(flavour="cpu").device == "cpu"
    with pytest.raises(FlavourError):
        plan(gpus="2", flavour="cpu")


def test_a_count_and_names_choose_gpus() -> None:
    assert [gpu.index for gpu in plan(gpus="2").gpus] == [0, 1]
    found = plan(gpus="device=3,1")
    assert [gpu.index for gpu in found.gpus] == [3, 1]
    assert found.world_size == 2


def test_free_gpus_are_planned_and_how_they_are_pinned() -> None:
    held = {box().gpus[1].uuid: (FOO,)}
    found = plan(gpus="2", held=held, engine=PinningFacts(None, hook=True))
    assert [gpu.index for gpu in found.gpus] == [0, 2]
    assert found.pins == found.nodes[0].gpus == tuple(gpu.uuid for gpu in found.gpus)
    assert (found.pinning, found.shared) == ("nvidia", ())
    assert found.pinning_reason == "by UUID through the NVIDIA hook: the engine does no CDI"
    with pytest.raises(GpuBusyError):
        plan(held=held)
    with pytest.raises(PinningError):
        plan(engine=PinningFacts(None, hook=False))


def test_links_of_the_inventory_decide_which_ones() -> None:
    gpus = box().gpus
    near = box().model_copy(update={"links": (Link(gpus[1].uuid, gpus[3].uuid, "PIX", 0, "OK"),)})
    assert [gpu.index for gpu in plan(near, gpus="2").gpus] == [1, 3]


def test_who_shares_says_with_whom() -> None:
    held = {box().gpus[1].uuid: (FOO, FOO._replace(said="process 7 (python3)"))}
    found = plan(held=held, share=True)
    assert found.shared == (
        "GPU 1 was shared with container foo",
        "GPU 1 was shared with process 7 (python3)",
    )


def test_a_draft_and_a_run_on_the_cpu_are_pinned_by_nothing() -> None:
    for found in (plan(), plan(box(0), engine=PinningFacts(None, hook=False)), plan(gpus="none")):
        assert (found.pinning, found.pinning_reason, found.pins) == (None, "", ())


def test_older_gpus_get_the_flavour_that_was_asked_for_first() -> None:
    assert plan(box(2, capability="8.9")).image == "vaultcube/pytorch:cu124"
    assert plan(box(2, capability="8.9"), flavour="cu128").image == "vaultcube/pytorch:cu128"


def test_what_an_image_has_kernels_for_is_the_workloads_to_say() -> None:
    tensorflow = workloads.load("tensorflow")
    assert plan(workload=tensorflow).image == "vaultcube/tensorflow:cu128"
    with pytest.raises(FlavourError) as seen:
        plan(workload=tensorflow, flavour="cu124")
    assert "Use --flavour cu128, which is built FROM NVIDIA's own image" in seen.value.next_step
    # PyTorch's runs on it, TensorFlow's no more.
    maxwell = box(1, capability="5.2")
    assert plan(maxwell).flavour == "cu124"
    with pytest.raises(FlavourError):
        plan(maxwell, workload=tensorflow)
    assert plan(box(0), workload=tensorflow).image == "vaultcube/tensorflow:cu124"


def test_an_image_that_is_the_same_for_all_and_a_file_that_asks_for_no_gpu() -> None:
    class Plain(type(workloads.load("ddp"))):  # type: ignore[misc]
        name, image, cpu_flavour, cpu_compose = "plain", "plain", "any", False

    for inventory, flavour in ((box(4), "auto"), (box(4), "cu128"), (box(0), "auto")):
        found = plan(inventory, workload=Plain(), flavour=flavour)
        assert (found.image, found.compose_files) == ("vaultcube/plain:any", ("plain.yml",))


def test_simulated_gpus_mark_the_run_and_unused_ones_do_not() -> None:
    assert plan(box(4, simulated=True)).simulated
    assert not plan(box(4, simulated=True), gpus="none").simulated


def test_what_the_user_gives_wins() -> None:
    found = plan(preset="seed", given={"windows": 9, "batch_size": None}, timeout_s=90.0, memory_bytes=2**33)
    assert (found.params["windows"], found.params["batch_size"]) == (9, 32)
    assert (found.timeout_s, found.memory_bytes) == (90.0, 2**33)


@pytest.mark.parametrize(
    ("gpus", "asked", "error"),
    [
        ("9", {}, GpuUnavailableError),
        ("device=9", {}, GpuSelectionError),
        (None, {"preset": "nonsuch"}, BadParameterError),
        (None, {"given": {"windows": 1}}, BadParameterError),
        (None, {"flavour": "cu124"}, FlavourError),
        (None, {"ranks": 2}, UsageError),
    ],
)
def test_what_cannot_be_is_refused(gpus: str | None, asked: dict[str, Any], error: type[VaultCubeError]) -> None:
    with pytest.raises(error):
        plan(gpus=gpus, **asked)


def test_a_profile_with_a_wrong_target_is_refused_before_anything_runs() -> None:
    with pytest.raises(ProfileError):
        make_plan(
            workloads.load("ddp"),
            Request(gpus=parse_gpus("none")),
            profile=Profile(name="mine", targets={"ddp": {"nonsuch": 1.0}}),
            inventory=box(),
            run_id=RUN_ID,
            created=NOON,
            user="1:1",
        )


given_params = st.fixed_dictionaries(
    {},
    optional={
        "batch_size": st.integers(-1, 20000),
        "windows": st.integers(0, 20),
        "precision": st.sampled_from(["fp32", "tf32", "bf16", "fp8"]),
        "channels_last": st.booleans(),
        "data": st.text(min_size=1, max_size=10),
        "hang_timeout_s": st.floats(allow_nan=True, width=32),
    },
)
requests = st.builds(
    lambda gpus, preset, given, flavour, ranks: {
        "gpus": gpus,
        "preset": preset,
        "given": given,
        "flavour": flavour,
        "ranks": ranks,
    },
    st.sampled_from([None, "all", "none", "1", "2", "4", "5", "device=0", "device=1,3", "device=3,1", "0,9"]),
    st.sampled_from([None, "acceptance", "seed", "smoke", "nonsuch"]),
    given_params,
    st.sampled_from(["auto", "cu124", "cu128", "cpu"]),
    st.integers(1, 16),
)


@given(requests, st.integers(0, 4), st.booleans(), st.sampled_from(["6.1", "8.9", "12.0"]))
def test_a_plan_is_whole_or_refused(request: dict[str, object], count: int, simulated: bool, capability: str) -> None:  # noqa: FBT001
    machine = box(count, simulated=simulated, capability=capability)
    try:
        found = plan(machine, **request)  # type: ignore[arg-type]
    except VaultCubeError:
        return
    assert set(found.gpus) <= set(machine.gpus)
    assert found.world_size == (len(found.gpus) or request["ranks"])
    assert (found.device == "cuda") == bool(found.gpus)
    assert found.simulated == (simulated and bool(found.gpus))
    assert found.image in {"vaultcube/pytorch:cu124", "vaultcube/pytorch:cu128"}
    assert found.timeout_s > 0
    assert Plan.model_validate_json(found.to_json()) == found


@given(requests, st.integers(0, 4))
def test_planning_twice_gives_the_same_bytes(request: dict[str, object], count: int) -> None:
    try:
        first = plan(box(count), **request).to_json()  # type: ignore[arg-type]
    except VaultCubeError:
        return
    assert plan(box(count), **request).to_json() == first  # type: ignore[arg-type]


def test_a_plan_of_a_newer_version_is_read_over() -> None:
    raw = json.loads(plan().to_json())
    assert raw["schema"] == "vaultcube.plan/1"
    assert Plan.model_validate({**raw, "colour": "blue"}) == plan()


# --- sizes and durations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6m", 6 * 2**20),
        ("512m", 2**29),
        ("512MB", 2**29),
        ("8g", 2**33),
        ("8G", 2**33),
        (" 8gb ", 2**33),
        ("1t", 2**40),
        ("8589934592", 2**33),
        ("8589934592b", 2**33),
        ("8388608k", 2**33),
    ],
)
def test_sizes_are_dockers(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "8", "g", "-8g", "8.5g", "8 g", "5m", "0", "8gib", "8p", "1e9", "²g", "\u0668g", "9" * 16 + "g", "999999999t"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        parse_memory(text)


@given(st.integers(1, 10**6), st.sampled_from("kmgt"))
def test_sizes_count_in_powers_of_two(count: int, unit: str) -> None:
    size = count * 1024 ** ("kmgt".index(unit) + 1)
    if MEMORY_FLOOR <= size <= 2**50:
        assert parse_memory(f"{count}{unit}") == parse_memory(str(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("0.5", 0.5),
        ("30m", 1800),
        ("24h", 86400),
        ("1.5d", 129600),
        (" 5M ", 300),
        ("366d", 366 * 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "0s", "0.0", "-5", "5x", "5 m", "m", "1h30m", "nan", "inf", "1e3", "367d", "999999999d", "\u0665m", "."],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration") as seen:
        parse_duration(text)
    assert "30m" in seen.value.next_step


@given(st.text(max_size=12) | st.text("0123456789.smhdgkt-", max_size=8))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_memory):
        try:
            assert parse(text) > 0
        except UsageError as error:
            told = error.next_step
            assert told


@pytest.mark.parametrize(("text", "hours"), [("1,6,24", (1, 6, 24)), ("0.5", (0.5,)), (" 1 , 2.25 ", (1, 2.25))])
def test_hours(text: str, hours: tuple[float, ...]) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize("text", ["", ",", "1,", "x", "1;2", "-1", "1e3", "nan", "1,,2", "\u0661"])
def test_what_is_no_list_of_hours_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no list of hours"):
        parse_hours(text)
