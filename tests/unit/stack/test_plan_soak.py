"""The plan of a soak, and what compose is told about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.composefile import read
from tests.unit.support import RUN_ID, box, gpu
from tests.unit.support import plan as any_plan

from vaultcube import workloads
from vaultcube.stack.override import compose_args, copied_args, copied_service, make_override, up_args
from vaultcube.stack.plan import Plan

DIRECTORY = Path("/data/my runs") / RUN_ID
COPIED: dict[str, Any] = {
    "image": "vaultcube/pytorch:cu124",
    "command": ["python3"],
    "restart": "on-failure:20",
    "read_only": True,
    "cap_drop": ["ALL"],
    "network_mode": "none",
    "depends_on": {"recorder-results": {}},
    "volumes": [{"type": "bind", "source": "/elsewhere", "target": "/results"}],
    "deploy": {
        "resources": {
            "limits": {"memory": "17179869184", "pids": 512},
            "reservations": {"devices": [{"driver": "nvidia", "device_ids": ["0"]}]},
        }
    },
}


def plan(count: int = 4, **asked: Any) -> Plan:
    return any_plan(box(count), workload=workloads.load("stress"), **asked)


def override(one: Plan, copied: dict[str, Any] | None = None) -> Any:
    return read(make_override(one, DIRECTORY, copied))["services"]


def test_a_worker_a_gpu_named_as_nvidia_smi_counts() -> None:
    found = plan(gpus="device=1,3")
    assert [worker.service for worker in found.workers] == ["gpu-1", "gpu-3"]
    assert [worker.gpus for worker in found.workers] == [(gpu(1).uuid,), (gpu(3).uuid,)]
    assert (found.purpose, found.instance, found.recorder) == ("soak", "stress", "container")
    assert found.command == ()
    assert found.images == ("vaultcube/pytorch:cu128", "vaultcube/recorder:any")
    # The file has the recorder in it.
    assert found.compose_files == ("stress.yml",)


def test_it_is_the_same_whether_it_was_asked_for_by_up() -> None:
    assert plan(purpose="up").workers == plan().workers
    assert plan(purpose="up").purpose == "soak"


def test_every_worker_gets_its_gpu_and_the_folder_of_the_run() -> None:
    services = override(plan(gpus="device=1,3"))
    assert list(services) == ["gpu-1", "gpu-3", "judge", "recorder"]
    for index in (1, 3):
        worker = services[f"gpu-{index}"]
        tag, devices = worker["deploy"]["resources"]["reservations"]["devices"]
        assert (tag, devices[0]["device_ids"]) == ("!override", [gpu(index).uuid])
        assert worker["volumes"][1] == [{"type": "bind", "source": f"{DIRECTORY}/results", "target": "/results"}]
        assert worker["labels"]["io.vaultcube.instance"] == "stress"
        assert worker["command"][1][5:7] == ["--gpu", f"gpu-{index}"]


def test_recorder_and_judge_see_the_folder_of_the_workers() -> None:
    services = override(plan())
    for name in ("recorder", "judge"):
        mounts = {mount["target"]: mount["source"] for mount in services[name]["volumes"][1]}
        assert mounts["/results"] == f"{DIRECTORY}/results"
        assert services[name]["user"] == "0:1000"
    command = services["recorder"]["command"][1]
    assert command[command.index("--beat") + 1] == "/results/recorder.json"
    assert command[command.index("--until") + 1] == "/results/ended"
    assert services["judge"]["command"][1][-2:] == ["--profile", "/results/profile.toml"]


def test_beyond_the_file_s_workers_there_are_copies() -> None:
    one = plan(6)
    assert copied_service(one) == "gpu-0"
    assert copied_args(one, Path("/c"))[-1] == "gpu-0"
    services = override(one, COPIED)
    assert "restart" not in services["gpu-3"]
    copy = services["gpu-5"]
    assert (copy["restart"], copy["read_only"], copy["cap_drop"]) == ("on-failure:20", True, ["ALL"])
    assert copy["deploy"]["resources"]["limits"] == {"memory": "17179869184", "pids": 512}
    assert copy["deploy"]["resources"]["reservations"]["devices"][1][0]["device_ids"] == [gpu(5).uuid]
    assert copied_service(plan(4)) == ""


def test_without_a_gpu_there_are_workers_and_a_judge_and_no_recorder() -> None:
    one = plan(0, ranks=3)
    assert one.compose_files == ("stress.yml", "stress.cpu.yml")
    services = override(one)
    assert list(services) == ["gpu-0", "gpu-1", "gpu-2", "judge"]
    assert services["gpu-2"]["profiles"][0] == "!reset"
    assert services["gpu-2"]["deploy"]["resources"]["reservations"]["devices"][0] == "!reset"


def test_only_what_was_planned_is_started() -> None:
    one = plan(gpus="device=2")
    argv = up_args(one, Path("/c"), DIRECTORY)
    assert argv[-3:] == ["gpu-2", "judge", "recorder"]
    assert (
        compose_args(one, Path("/c"), DIRECTORY)
        == argv[: -len(["up", "--detach", "--no-build", "--pull", "never", *argv[-3:]])]
    )


def test_memory_of_a_worker_can_be_limited() -> None:
    services = override(plan(memory_bytes=2**30))
    assert services["gpu-0"]["deploy"]["resources"]["limits"] == {"memory": str(2**30)}
