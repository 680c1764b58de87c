"""Which GPUs belong together, how they reach one another, and MIG."""

from __future__ import annotations

import pytest
from tests.rig.inside import Inside

INVALID, NOT_SUPPORTED, NOT_FOUND = 2, 3, 6
SINGLE, HOSTBRIDGE, NODE, SYSTEM = 10, 30, 40, 50
ANCESTOR = "p.nvmlDeviceGetTopologyCommonAncestor(h[{}], h[{}])"
P2P = "p.nvmlDeviceGetP2PStatus(h[0], h[1], {})"
# nvidia-ml-py 13 has the first as a tuple, by a slip of its own.
READ, NVLINK = 0, 2
h100 = pytest.mark.parametrize("inside", ["8xh100"], indirect=True)


def test_two_gpus_on_each_node(inside: Inside) -> None:
    assert [inside(f"p.nvmlDeviceGetNumaNodeId(h[{index}])") for index in range(4)] == [0, 0, 1, 1]
    assert inside(ANCESTOR.format(0, 1)) == inside(ANCESTOR.format(3, 2)) == NODE
    assert inside(ANCESTOR.format(1, 2)) == SYSTEM
    assert inside(ANCESTOR.format(1, 1)) == 0


def test_gpus_behind_one_switch_or_bridge(inside: Inside) -> None:
    inside.box.set_gpu(0, pcie_switch=7)
    inside.box.set_gpu(1, pcie_switch=7)
    inside.box.set_gpu(3, pcie_root=2)

    inside.wait(ANCESTOR.format(0, 1), lambda seen: seen == SINGLE)
    assert inside(ANCESTOR.format(2, 3)) == HOSTBRIDGE


def test_geforce_cannot_reach_each_other(inside: Inside) -> None:
    assert inside(P2P.format(READ)) == 2  # GNS
    assert inside(P2P.format(NVLINK)) == 5
    assert inside.error("p.nvmlDeviceGetP2PStatus(h[0], h[1], 9)") == INVALID


@h100
def test_nvlink(inside: Inside) -> None:
    assert inside(P2P.format(NVLINK)) == 0
    assert inside(P2P.format(READ)) == 0
    assert [inside(f"p.nvmlDeviceGetNvLinkState(h[0], {link})") for link in (0, 17)] == [1, 1]
    assert inside.error("p.nvmlDeviceGetNvLinkState(h[0], 18)") == INVALID
    assert inside("p.nvmlDeviceGetNvLinkRemotePciInfo(h[0], 0).busId") == "00000000:07:00.0"
    assert inside("p.nvmlDeviceGetNvLinkCapability(h[0], 0, p.NVML_NVLINK_CAP_P2P_SUPPORTED)") == 1
    inside.box.set_gpu(0, nvlinks=16)
    inside.wait("p.nvmlDeviceGetNvLinkState(h[0], 17)", lambda seen: seen == 0)


def test_processors_next_to_a_gpu(inside: Inside) -> None:
    def cpus(index: int) -> set[int]:
        words = inside(f"p.nvmlDeviceGetCpuAffinity(h[{index}], 2)")
        return {word * 64 + bit for word in range(2) for bit in range(64) if words[word] >> bit & 1}

    assert cpus(0) == set(range(12)) | set(range(24, 36))
    assert cpus(2) == set(range(12, 24)) | set(range(36, 48))
    assert inside("p.nvmlDeviceGetMemoryAffinity(h[3], 1, 0)[0]") == 0b10


def test_a_set_too_small_is_not_overrun(inside: Inside) -> None:
    inside.box.set_gpu(0, cpus="0,63,64,500,9000-100000")

    inside.wait("list(p.nvmlDeviceGetCpuAffinity(h[0], 1))", lambda seen: seen == [1 << 63 | 1])


def test_handles_by_every_name(inside: Inside) -> None:
    uuid = inside.box.uuids[2]
    for call in (
        f"HandleByUUID({uuid.encode()!r})",
        "HandleByPciBusId(b'00000000:81:00.0')",
        "HandleByPciBusId(b'0000:81:00.0')",
    ):
        assert inside(f"p.nvmlDeviceGetIndex(p.nvmlDeviceGet{call})") == 2
    assert inside.error("p.nvmlDeviceGetHandleByUUID(b'GPU-0')") == NOT_FOUND
    assert inside.error("p.nvmlDeviceGetHandleByPciBusId(b'0000:99:00.0')") == NOT_FOUND
    assert inside.error("p.nvmlDeviceGetHandleByIndex(4)") == INVALID


@h100
def test_handle_by_serial(inside: Inside) -> None:
    assert inside("p.nvmlDeviceGetIndex(p.nvmlDeviceGetHandleBySerial(b'1654123000005'))") == 5


def test_a_handle_from_nowhere_is_an_argument_error(inside: Inside) -> None:
    forged = "ctypes.cast({}, p.c_nvmlDevice_t)"
    for address in ("0", "0xdead0", "ctypes.addressof(h[0].contents) + 3", "ctypes.addressof(h[0].contents) + 10**6"):
        assert inside.error(f"p.nvmlDeviceGetName({forged.format(address)})") == INVALID


def test_nothing_works_before_init_and_after_shutdown(inside: Inside) -> None:
    inside("h[0]")
    inside("p.nvmlInit()")
    inside("p.nvmlShutdown()")
    assert inside.error("p.nvmlDeviceGetName(h[0])") == 0
    inside("p.nvmlShutdown()")
    assert inside.error("p.nvmlDeviceGetName(h[0])") == 1
    assert inside.error("p.nvmlShutdown()") == 1


@h100
def test_mig_devices(inside: Inside) -> None:
    assert inside.error("p.nvmlDeviceGetMigDeviceHandleByIndex(h[1], 0)") == NOT_FOUND
    inside.box.mig(1, 2)
    inside.wait("p.nvmlDeviceGetMigMode(h[1])", lambda seen: seen == [1, 1])
    inside("mig = [p.nvmlDeviceGetMigDeviceHandleByIndex(h[1], index) for index in range(2)]")

    assert inside("[p.nvmlDeviceIsMigDeviceHandle(one) for one in (h[1], *mig)]") == [0, 1, 1]
    assert inside("p.nvmlDeviceGetName(mig[0])") == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    uuids = inside("[p.nvmlDeviceGetUUID(one) for one in mig]")
    assert len(set(uuids)) == 2
    assert all(uuid.startswith("MIG-") for uuid in uuids)
    assert inside("p.nvmlDeviceGetMemoryInfo(mig[1]).total") == 9984 << 20
    assert inside("p.nvmlDeviceGetAttributes(mig[1]).multiprocessorCount") == 16
    assert inside("[p.nvmlDeviceGetGpuInstanceId(mig[1]), p.nvmlDeviceGetComputeInstanceId(mig[1])]") == [2, 0]
    assert inside("p.nvmlDeviceGetIndex(p.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig[1]))") == 1
    assert inside.error("p.nvmlDeviceGetMigDeviceHandleByIndex(h[1], 2)") == NOT_FOUND
    assert inside.error("p.nvmlDeviceGetUtilizationRates(h[1])") == NOT_SUPPORTED
    assert inside.error("p.nvmlDeviceGetPowerUsage(mig[0])") == NOT_SUPPORTED
    assert inside("p.nvmlDeviceGetMigMode(h[0])") == [0, 0]
    inside.box.mig(1, 0)
    inside.wait_error("p.nvmlDeviceGetName(mig[0])", NOT_FOUND)


def test_processes_of_each_kind(inside: Inside) -> None:
    inside.box.add_process(0, 4242, 1 << 30, sm_percent=97, memory_percent=40)
    inside.box.add_process(0, 4243, 2 << 30)
    inside.box.add_process(0, 900, 64 << 20, "graphics")
    inside.box.add_process(0, 901, 32 << 20, "mps")
    compute = inside.wait("p.nvmlDeviceGetComputeRunningProcesses(h[0])", lambda seen: len(seen) == 2)

    assert [(one["pid"], one["usedGpuMemory"]) for one in compute] == [(4242, 1 << 30), (4243, 2 << 30)]
    assert compute[0]["gpuInstanceId"] == 0xFFFFFFFF
    assert inside("[one.pid for one in p.nvmlDeviceGetGraphicsRunningProcesses_v3(h[0])]") == [900]
    assert inside("[one.pid for one in p.nvmlDeviceGetMPSComputeRunningProcesses(h[0])]") == [901]
    assert inside("p.nvmlDeviceGetComputeRunningProcesses(h[1])") == []
    assert inside("p.nvmlDeviceGetMemoryInfo(h[0], p.nvmlMemory_v2).used") == (2 + 3072 + 96) << 20
    samples = inside("[(one.pid, one.smUtil, one.memUtil) for one in p.nvmlDeviceGetProcessUtilization(h[0], 0)]")
    assert samples[0] == [4242, 97, 40]
    assert inside.error("p.nvmlDeviceGetProcessUtilization(h[1], 0)") == NOT_FOUND
    inside.box.clear_processes(0)
    inside.wait("len(p.nvmlDeviceGetComputeRunningProcesses(h[0]))", lambda seen: seen == 0)


def test_a_process_has_its_name(inside: Inside) -> None:
    assert "python" in inside("p.nvmlSystemGetProcessName(__import__('os').getpid())")
    assert inside.error("p.nvmlSystemGetProcessName(2**22 + 1)") == NOT_FOUND
