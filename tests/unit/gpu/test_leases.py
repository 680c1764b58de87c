from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import box

from vaultcube.gpu.leases import (
    RECORDER,
    DeviceRequest,
    GpuContainer,
    Holder,
    container_of,
    derive,
    leased,
)
from vaultcube.gpu.readings import GpuProcess

BOX = box(4).gpus
UUIDS = [gpu.uuid for gpu in BOX]
ID = "0478adbe1dce9a60b3a1de8b99929b4448472360548630d27f48c81345fe8c21"
OTHER = "c3218bea03c7276ab42e9b174778b93a991a8c0bc3b94c961bf72ba16b137659"


def asks(
    *ids: str, driver: str = "nvidia", number: int = 0, capabilities: tuple[tuple[str, ...], ...] = (("gpu",),)
) -> DeviceRequest:
    return DeviceRequest(driver, number, ids, capabilities)


def container(*requests: DeviceRequest, name: str = "foo", runtime: str = "runc", **more: Any) -> GpuContainer:
    return GpuContainer(ID, name, requests=requests, runtime=runtime)._replace(**more)


def indices(one: GpuContainer) -> list[int]:
    return [UUIDS.index(uuid) for uuid in leased(one, BOX).uuids]


# --- what a container asked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asks(number=-1), [0, 1, 2, 3]),
        (asks(number=-1, driver=""), [0, 1, 2, 3]),
        (asks(number=2), [0, 1]),
        (asks("0", "2"), [0, 2]),
        (asks("3,1"), [1, 3]),
        (asks(UUIDS[1]), [1]),
        (asks(UUIDS[1].upper()), [1]),
        (asks("GPU-00000002"), [2]),
        (asks("00000000:02:00.0"), [1]),
        (asks("0000:02:00.0"), [1]),
        (asks("all"), [0, 1, 2, 3]),
        (asks("none"), []),
        # A slice of a GPU is on that GPU.
        (asks("2:0"), [2]),
        (asks(f"MIG-{UUIDS[3]}/1/0"), [3]),
        # The driver must be able to compute.
        (asks("1", capabilities=(("gpu", "utility"),)), []),
        (asks("1", capabilities=(("utility",),)), []),
        (asks("1", capabilities=(("gpu", "graphics", "display"),)), []),
        (asks("1", capabilities=(("compute", "utility"),)), [1]),
        (asks("1", capabilities=(("gpu", "nvidia"),)), [1]),
        # The engine takes the first set that its driver knows whole.
        (asks("1", capabilities=(("gpu", "tensor"), ("gpu", "utility"), ("gpu", "compute"))), []),
        # Another vendor's.
        (asks("1", driver="", capabilities=(("tpu",),)), []),
        (asks("1", driver="amd"), []),
        (asks("1", driver="", capabilities=()), []),
        (asks("nvidia.com/gpu=0", f"nvidia.com/gpu={UUIDS[2]}", driver="cdi", capabilities=()), [0, 2]),
        (asks("nvidia.com/gpu=all", driver="cdi"), [0, 1, 2, 3]),
        (asks("nvidia.com/gpu=0:1", driver="cdi"), [0]),
        (asks("nvidia.com/gpu=gpu3", "nvidia.com/gpu=mig1:0", driver="cdi"), [1, 3]),
        (asks("vendor.example/fpga=0", driver="cdi"), []),
        # CDI knows no capabilities: what it puts in can compute.
        (asks("nvidia.com/gpu=1", driver="cdi", capabilities=(("utility",),)), [1]),
    ],
)
def test_what_a_request_means(request_: DeviceRequest, expected: list[int]) -> None:
    assert indices(container(request_)) == expected


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("all", [0, 1, 2, 3]),
        ("0,3", [0, 3]),
        (f" {UUIDS[1]} , 2", [1, 2]),
        ("nvidia.com/gpu=1", [1]),
        ("void", []),
        ("none", []),
        ("", []),
        (None, []),
    ],
)
def test_a_container_of_the_nvidia_runtime_says_it_in_its_environment(
    variable: str | None, expected: list[int]
) -> None:
    assert indices(container(runtime="nvidia", visible_devices=variable)) == expected
    # What every image of NVIDIA's has set means nothing to another runtime.
    assert indices(container(runtime="runc", visible_devices=variable)) == []


def test_the_environment_may_leave_computing_out() -> None:
    only: dict[str, str] = {"visible_devices": "all", "driver_capabilities": "utility,video"}
    assert indices(container(runtime="nvidia", **only)) == []
    assert indices(container(asks(number=-1), **only)) == []
    assert indices(container(asks(number=-1), driver_capabilities="all")) == [0, 1, 2, 3]
    # What the request says goes before.
    assert indices(container(asks("1", capabilities=(("gpu", "compute"),)), **only)) == [1]


def test_a_request_goes_before_the_environment() -> None:
    assert indices(container(asks("1"), runtime="nvidia", visible_devices="all")) == [1]
    assert indices(container(asks("nvidia.com/gpu=2", driver="cdi"), runtime="nvidia", visible_devices="all")) == [2]
    utility = asks(number=-1, capabilities=(("gpu", "utility"),))
    assert indices(container(utility, runtime="nvidia", visible_devices="all")) == []


def test_a_count_of_none_leaves_it_to_the_environment() -> None:
    assert indices(container(asks(number=0))) == []
    assert indices(container(asks(number=0), visible_devices="1")) == [1]


def test_several_requests_add_up() -> None:
    assert indices(container(asks("1"), asks("nvidia.com/gpu=3", driver="cdi"), asks("1"))) == [1, 3]


def test_the_recorder_is_no_lease_whatever_it_asked_for() -> None:
    recorder = container(asks(number=-1), role=RECORDER)
    assert indices(recorder) == []
    found = derive(BOX, [recorder._replace(pids=frozenset({7}))], {UUIDS[0]: [GpuProcess(7, "compute", None)]})
    assert not any(found.values())


@pytest.mark.parametrize("word", ["7", "GPU-ffffffff", "GPU-", "MIG-0000", "ffff:ff:1f.0", "nonsense", "GPU-0000000"])
def test_an_id_that_no_gpu_answers_to_is_left_out_and_told(word: str) -> None:
    found = derive(BOX, [container(asks("1", word))], {})
    assert [bool(found[uuid]) for uuid in UUIDS] == [False, True, False, False]
    assert found.notes == (f"container foo asked for GPU {word}, which is not here",)


def test_all_of_no_gpu_is_none() -> None:
    assert leased(container(asks(number=-1)), ()) == ((), ())
    assert derive((), [container(asks(number=-1))], {}) == {}


# --- who computes ------------------------------------------------------------------------------------------------


def test_holders_are_named_as_a_person_knows_them() -> None:
    run = "ddp-20260101-120000-ab12"
    containers = [
        container(asks("0"), name=f"{run}-ddp-1", run=run),
        container(asks("1")),
        container(asks("2"), name="soon", starting=True),
    ]
    processes = {UUIDS[3]: [GpuProcess(1234, "compute", None), GpuProcess(99, "compute", 2**30)]}
    found = derive(BOX, containers, processes, {1234: "python3"})
    assert [found[uuid] for uuid in UUIDS] == [
        (Holder("container", f"{run}-ddp-1", run, None, f"run {run} (container {run}-ddp-1)"),),
        (Holder("container", "foo", "", None, "container foo"),),
        (Holder("container", "soon", "", None, "container soon, which is about to start"),),
        (
            Holder("process", "python3", "", 1234, "process 1234 (python3)"),
            Holder("process", "", "", 99, "process 99"),
        ),
    ]
    assert found.notes == ()


def test_a_service_is_called_by_its_name() -> None:
    run = "vllm-20260101-120000-ab12"
    found = derive(BOX, [container(asks("0"), name=f"{run}-vllm-1", run=run, instance="chat")], {})
    expected = Holder("container", f"{run}-vllm-1", run, None, f"instance chat (container {run}-vllm-1)", "chat")
    assert found[UUIDS[0]] == (expected,)


def test_a_process_belongs_to_its_container() -> None:
    asked = container(asks("0"), pids=frozenset({10, 11}))
    # Privileged, with the device files bound in: the engine was asked for nothing.
    sneaky = container(name="sneaky", id=OTHER, pids=frozenset({20, 21}))
    processes = {
        UUIDS[0]: [GpuProcess(10, "compute", None), GpuProcess(11, "compute", None)],
        UUIDS[1]: [GpuProcess(20, "compute", None), GpuProcess(21, "compute", None)],
    }
    found = derive(BOX, [asked, sneaky], processes, {10: "python3"})
    assert [one.said for one in found[UUIDS[0]]] == ["container foo"]
    assert found[UUIDS[1]] == (Holder("container", "sneaky", "", 20, "container sneaky"),)


def test_drawing_is_no_lease() -> None:
    drawn = {UUIDS[0]: [GpuProcess(900, "graphics", 2**20)]}
    assert derive(BOX, [], drawn, {900: "Xorg"})[UUIDS[0]] == ()


def test_processes_of_a_gpu_that_is_not_listed_are_nobody() -> None:
    assert derive(BOX, [], {"GPU-gone": [GpuProcess(1, "compute", None)]}) == dict.fromkeys(UUIDS, ())


# --- the container of a process ----------------------------------------------------------------------------------

CGROUPS = {
    "cgroup 1, cgroupfs": f"9:name=systemd:/docker/{ID}\n8:pids:/docker/{ID}\n1:cpu:/docker/{ID}\n0::/docker/{ID}\n",
    "cgroup 1, systemd": f"12:pids:/system.slice/docker-{ID}.scope\n0::/system.slice/containerd.service\n",
    "cgroup 2, cgroupfs": f"0::/docker/{ID}\n",
    "cgroup 2, systemd": f"0::/system.slice/docker-{ID}.scope\n",
    "rootless": f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope\n",
    "systemd inside": f"0::/system.slice/docker-{ID}.scope/system.slice/ssh.service\n",
    "an engine inside": f"0::/docker/{ID}/docker/{'b' * 64}\n",
    "seen from a namespace": f"0::/../docker-{ID}.scope\n",
}


@pytest.mark.parametrize("name", CGROUPS)
def test_the_container_of_a_process_is_in_its_cgroup(name: str) -> None:
    assert container_of(CGROUPS[name], {ID, OTHER}) == ID
    assert container_of(CGROUPS[name], {OTHER}) is None


@pytest.mark.parametrize(
    "text",
    ["", "0::/\n", "0::/user.slice/user-1000.slice/session-3.scope\n", f"0::/machine.slice/libpod-{'c' * 64}.scope\n"],
)
def test_a_process_of_the_machine_or_of_another_engine_is_in_none(text: str) -> None:
    assert container_of(text, {ID, OTHER}) is None


# --- for all requests --------------------------------------------------------------------------------------------

words = st.sampled_from(["all", "none", "void", "", "0", "3", "9", "0:1", "GPU-", UUIDS[2], "nvidia.com/gpu=1"])
texts = words | st.text(max_size=8)
requests = st.builds(
    DeviceRequest,
    driver=st.sampled_from(["", "nvidia", "cdi", "amd"]),
    number=st.integers(-2, 6),
    ids=st.lists(texts, max_size=3).map(tuple),
    capabilities=st.lists(
        st.lists(st.sampled_from(["gpu", "compute", "utility", "tpu"]), max_size=3).map(tuple), max_size=3
    ).map(tuple),
)
containers = st.builds(
    GpuContainer,
    id=st.sampled_from([ID, OTHER]),
    name=st.just("x"),
    run=st.sampled_from(["", "ddp-x"]),
    role=st.sampled_from(["", RECORDER]),
    requests=st.lists(requests, max_size=3).map(tuple),
    runtime=st.sampled_from(["runc", "nvidia", ""]),
    visible_devices=st.none() | texts,
    driver_capabilities=st.none() | st.sampled_from(["compute", "utility", "all", ""]),
    pids=st.frozensets(st.integers(1, 5), max_size=2),
)
processes = st.dictionaries(
    st.sampled_from([*UUIDS, "GPU-gone"]),
    st.lists(st.builds(GpuProcess, st.integers(1, 8), st.sampled_from(["compute", "graphics"]), st.none()), max_size=3),
)


@given(st.lists(containers, max_size=4), processes)
def test_any_machine_has_holders_of_its_own_gpus_only(
    found: list[GpuContainer], running: dict[str, list[GpuProcess]]
) -> None:
    leases = derive(BOX, found, running)
    assert list(leases) == UUIDS
    for uuid, holders in leases.items():
        computing = {one.pid for one in running.get(uuid, ()) if one.kind == "compute"}
        assert {one.pid for one in holders if one.pid is not None} <= computing
        assert all(one.said for one in holders)
        # Whoever may compute on it is among its holders, unless it is the recorder.
        recorded = {pid for one in found if one.role == RECORDER for pid in one.pids}
        assert bool(holders) >= bool(computing - recorded)


@given(containers)
def test_a_lease_is_in_the_machines_order_and_names_no_gpu_twice(one: GpuContainer) -> None:
    lease = leased(one, BOX)
    assert [uuid for uuid in UUIDS if uuid in lease.uuids] == list(lease.uuids)
