"""Layers 2 to 5: NVIDIA's tools and the orchestrator, as they are recorded to speak."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.host.conftest import Host, recorded
from tests.unit.support import DATA

from vaultcube.host.health import CHECKS, run_health

LAYER_2 = [check.code for check in CHECKS if check.layer == 2]
OF_CARDS = [*LAYER_2[:5], "xid", "cdi-devices", "gpu-container"]
PROPRIETARY = (DATA / "preflight" / "driver-proprietary.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", OF_CARDS)
def test_without_a_card_there_is_nothing_to_judge(host: Host, code: str) -> None:
    host.expects(layers=[1, 2, 3])
    host.says("nvidia-ctk --version", "NVIDIA Container Toolkit CLI version 1.18.0\n")
    found = host.check(code)
    assert (found.verdict, found.seen) == ("UNAVAILABLE", "no NVIDIA GPU on this machine")


@pytest.mark.parametrize(
    "code", [*(code for code in LAYER_2 if code not in {"xid", "first-boot"}), "toolkit-version", "env-leak"]
)
def test_a_good_box(box: Host, code: str) -> None:
    found = box.check(code)
    assert found.verdict == "PASS", found


def test_a_card_is_missing(box: Host) -> None:
    box.expects(layers=[1, 2, 3], gpus=5)
    assert box.check("gpu-count").seen == "4 on the PCI bus instead of 5"
    box.says("nvidia-smi --query-gpu=uuid", "GPU-0\nGPU-1\nGPU-2\n")
    assert "the driver lists 3 of 4" in box.check("gpu-count").seen


def test_the_driver_is_of_another_branch_or_flavour(box: Host) -> None:
    box.expects(driver={"branch": "999"})
    assert box.check("module").seen.endswith("is not of branch 999")
    box.file("/proc/driver/nvidia/version", PROPRIETARY)
    box.says("modinfo nvidia", "version: 1.2.3\nlicense: NVIDIA\n")
    assert (
        box.check("module-flavour").seen
        == "the proprietary module is loaded; the proprietary module is installed (NVIDIA)"
    )
    box.says("modinfo nvidia", stderr="modinfo: ERROR: Module nvidia not found.\n", status=1)
    assert "will not load after a reboot" in box.check("module-flavour").seen


def test_the_driver_is_not_loaded(box: Host) -> None:
    (box.root / "proc/driver/nvidia/version").unlink()
    for code in ("module", "module-flavour", "versions"):
        assert (box.check(code).verdict, box.check(code).seen) == ("FAIL", "the driver's kernel module is not loaded")
    box.file("/proc/driver/nvidia/version", "?")
    assert box.check("module").verdict == "INVALID"


def test_the_libraries_were_updated_under_the_module(box: Host) -> None:
    box.says("nvidia-smi", recorded("smi-mismatch.txt"), status=18)
    found = box.check("versions")
    assert (found.verdict, found.next_step) == ("FAIL", "Reboot, so that module and libraries are the same again.")
    assert "NVML library version: 580.178" in found.seen


def test_another_module_waits_on_the_disk(box: Host) -> None:
    box.says("modinfo nvidia", recorded("modinfo-open.txt").replace("580.95.05", "581.1.2"))
    assert "and 581.1.2 is on the disk" in box.check("versions").seen
    box.says("nvidia-smi --query-gpu=driver_version", "1.2\n")
    assert "libraries 1.2" in box.check("versions").seen


def test_persistence_and_nouveau(box: Host) -> None:
    box.says("nvidia-smi --query-gpu=index,persistence_mode", "0, Enabled\n1, Disabled\n2, Enabled\n3, Disabled\n")
    assert box.check("persistence").seen == "off for GPU 1, 3"
    box.says("modprobe --showconfig", "blacklist pcspkr\n")
    assert box.check("nouveau").seen == "not loaded, and nothing keeps it from being"
    (box.root / "sys/module/nouveau").mkdir(parents=True)
    assert box.check("nouveau").seen == "nouveau is loaded"


def test_cuda_and_cudnn(box: Host) -> None:
    box.says("nvcc --version", recorded("nvcc-12.4.txt").replace("release 12.4", "release 13.0"))
    assert box.check("cuda").seen == "CUDA 13.0 instead of 12.4"
    box.lacks("nvcc")
    assert box.check("cuda").seen == "nvcc is not installed"
    box.says("ldconfig -p", "\tlibcudnn.so.8 (libc6,x86-64) => /x\n")
    assert box.check("cudnn").verdict == "FAIL"


def test_cuda_is_not_missed_where_it_never_was_to_be(host: Host) -> None:
    for code in ("cuda", "cudnn", "nouveau", "toolkit-version", "env-leak"):
        assert host.check(code).verdict == "UNAVAILABLE"
    host.expects(layers=[1, 2, 3])
    for code in ("cuda", "toolkit-version", "env-leak"):
        assert host.check(code).verdict == "FAIL"


def test_the_first_boot(host: Host) -> None:
    show = "systemctl show vaultcube-firstboot.service"
    state = "/var/lib/vaultcube/firstboot.json"
    host.says(show, "LoadState=not-found\nActiveState=inactive\n")
    assert host.check("first-boot").verdict == "PASS"
    host.expects(image_build_phase=True)
    assert host.check("first-boot").verdict == "FAIL"
    host.says(show, "LoadState=loaded\nActiveState=inactive\n")
    assert host.check("first-boot").verdict == "UNAVAILABLE"
    host.file(state, '{"status": "waiting", "reason": "no card here"}')
    assert host.check("first-boot").seen == "no card here"
    host.file(state, '{"status": "failed", "step": "modules", "reason": "nvidia does not load"}')
    host.says(show, "LoadState=loaded\nActiveState=failed\n")
    assert host.check("first-boot").seen == "vaultcube-firstboot.service failed at modules: nvidia does not load"


@pytest.mark.parametrize(
    ("version", "verdict", "seen"),
    [
        ("1.17.7", "FAIL", "1.17.7 lets an image break out of its container (CVE-2025-23266)"),
        ("1.16.1", "FAIL", "1.16.1 lets an image break out of its container (CVE-2024-0132, CVE-2024-0134,"),
        ("1.17.8", "PASS", "1.17.8"),
    ],
)
def test_holes_of_the_toolkit(box: Host, version: str, verdict: str, seen: str) -> None:
    box.says("nvidia-ctk --version", f"NVIDIA Container Toolkit CLI version {version}\n")
    assert box.check("toolkit-version").verdict == verdict
    assert box.check("toolkit-version").seen.startswith(seen)


def test_the_toolkit_s_settings(box: Host) -> None:
    path = "/etc/nvidia-container-runtime/config.toml"
    for text, seen in (("", "is true: any container may take GPUs"), ("[", "not valid TOML")):
        box.file(path, text)
        assert box.check("env-leak").verdict == "FAIL"
        assert seen in box.check("env-leak").seen
    (box.root / path[1:]).unlink()
    assert box.check("env-leak").seen == f"{path}: No such file or directory"


def test_the_default_runtime(box: Host) -> None:
    assert box.check("default-runtime").seen == "the default runtime is runc"
    box.says(
        "docker info", recorded("docker-info.json").replace('"DefaultRuntime": "runc"', '"DefaultRuntime": "nvidia"')
    )
    assert box.check("default-runtime").verdict == "FAIL"


def test_cdi_devices(box: Host) -> None:
    assert box.check("cdi-devices").verdict == "PASS"
    box.says("nvidia-ctk cdi list", "nvidia.com/gpu=0\nnvidia.com/gpu=1\n")
    assert (
        box.check("cdi-devices").seen
        == "nvidia-ctk cdi list has 2 of 4 GPUs; nvidia-ctk cdi list has no nvidia.com/gpu=all"
    )
    info = json.loads(recorded("docker-info.json"))
    devices = [{"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in ("0", "all")]
    box.says("docker info", json.dumps({**info, "DiscoveredDevices": devices}))
    assert "docker info has 1 of 4 GPUs" in box.check("cdi-devices").seen
    box.says("docker info", json.dumps({**info, "CDISpecDirs": []}))
    assert "the engine does no CDI" in box.check("cdi-devices").seen


def test_a_container_gets_the_cards(box: Host) -> None:
    box.says("docker image ls", "<none>:<none>\nalpine:3\nvaultcube/pytorch:cu124\nvaultcube/recorder:any\n")
    box.says("docker rm")
    listed = box.machine().ask("nvidia-smi", "-L").stdout
    box.says("docker run", listed)
    found = box.check("gpu-container")
    assert (found.verdict, found.seen) == ("PASS", "a container of vaultcube/recorder:any sees the host's 4 GPUs")
    box.says("docker run", listed.splitlines()[0])
    assert box.check("gpu-container").seen == "a container sees 1 GPUs, and the host 4"
    box.says(
        "docker run",
        stderr="docker: Error response from daemon: unresolvable CDI devices nvidia.com/gpu=all\n",
        status=125,
    )
    assert "unresolvable CDI devices" in box.check("gpu-container").seen
    box.says("docker image ls", "")
    assert box.check("gpu-container").verdict == "UNAVAILABLE"
    assert box.check("gpu-container", probes=False).verdict == "UNAVAILABLE"


def images(**local: bool) -> str:
    rows: list[dict[str, Any]] = [
        {
            "name": f"vaultcube/{name.replace('_', ':')}",
            "image": name.split("_")[0],
            "local": {"id": "1"} if here else None,
        }
        for name, here in local.items()
    ]
    return json.dumps(rows)


def test_images(box: Host) -> None:
    box.says("vaultcube images list --json", images(pytorch_cu124=False, pytorch_cu128=True, vllm_cu128=False))
    assert (box.check("images").verdict, box.check("images").seen) == ("FAIL", "not here: vllm")
    box.expects(images=["vaultcube/pytorch:cu128"])
    assert (box.check("images").verdict, box.check("images").seen) == ("PASS", "vaultcube/pytorch:cu128")
    box.expects(images=["vaultcube/pytorch:cu124"])
    assert box.check("images").next_step == "vaultcube images build pytorch --flavour cu124"


def test_self_checks(box: Host) -> None:
    box.says("vaultcube images list --json", images(pytorch_cu128=True, proxy_any=True))
    box.says("docker rm")
    box.says("docker run", status=44)
    assert box.check("self-checks").seen == "none has one; without one: vaultcube/pytorch:cu128, vaultcube/proxy:any"
    box.says("docker run", "libcudnn.so.9: 9.1 instead of 9.2\n", status=1)
    found = box.check("self-checks")
    assert found.verdict == "FAIL"
    assert "vaultcube/pytorch:cu128: docker run --rm: libcudnn.so.9: 9.1 instead of 9.2" in found.seen
    box.says("docker run")
    assert box.check("self-checks").verdict == "PASS"


def doctor(*checks: tuple[str, str]) -> str:
    return json.dumps(
        {
            "checks": [
                {"code": code, "status": status, "seen": f"saw {code}", "next_step": "step"} for code, status in checks
            ]
        }
    )


def test_the_orchestrator(box: Host) -> None:
    for code in ("orchestrator", "doctor", "results", "images"):
        assert (box.check(code).verdict, box.check(code).seen) == (
            "UNAVAILABLE",
            "the orchestrator is not installed here",
        )
    box.says("vaultcube --version", "vaultcube 0.1.0\n")
    assert box.check("orchestrator").seen == "vaultcube 0.1.0"
    box.says("vaultcube doctor --json", doctor(("driver", "PASS"), ("ecc", "WARN"), ("xid", "FAIL")), status=3)
    assert (box.check("doctor").verdict, box.check("doctor").seen) == ("FAIL", "xid: saw xid")
    box.says("vaultcube doctor --json", doctor(("driver", "PASS"), ("ecc", "WARN")))
    assert box.check("doctor").seen == "2 checks, none failed; WARN: ecc"
    box.says("vaultcube doctor --check disk-results --json", doctor(("disk-results", "FAIL")), status=3)
    assert (box.check("results").verdict, box.check("results").next_step) == ("FAIL", "step")
    box.says("vaultcube doctor --json", '{"error": {"message": "it broke", "next_step": "mend it"}}', status=4)
    assert (box.check("doctor").seen, box.check("doctor").next_step) == ("it broke", "mend it")
    box.says("vaultcube doctor --json", "Traceback", status=1)
    assert box.check("doctor").verdict == "INVALID"


def test_the_recorder(box: Host) -> None:
    show = "systemctl show vaultcube-recorder.service"
    box.says(show, "LoadState=not-found\nActiveState=inactive\n")
    assert box.check("recorder").verdict == "UNAVAILABLE"
    box.says(show, "LoadState=loaded\nActiveState=failed\n")
    assert (box.check("recorder").verdict, box.check("recorder").seen) == (
        "FAIL",
        "vaultcube-recorder.service is failed",
    )
    box.says(show, "LoadState=loaded\nActiveState=active\n")
    assert box.check("recorder").verdict == "PASS"


def test_which_layers_are_looked_at(box: Host) -> None:
    def layers(*asked: int, codes: tuple[str, ...] = ()) -> tuple[int, ...]:
        return run_health(box.machine(probes=False), asked, codes).layers

    assert layers() == (1, 2, 3)
    assert layers(3, 1) == (1, 3)
    assert layers(codes=("cuda", "held")) == (1, 2)
    box.says("vaultcube --version", "vaultcube 0.1.0\n")
    assert layers() == (1, 2, 3, 4, 5)
    box.expects()
    assert layers() == (1, 2, 3, 4, 5)
