"""Every fault of a simulated box drives the right check of `vaultcube doctor`, and one container proves access."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, Vaultcube
from tests.rig import cdi
from tests.rig.box import Box
from tests.rig.conftest import Engines
from tests.rig.engine import HOOK, Mode, RigEngine
from tests.rig.host import put_on_bus

pytestmark = [pytest.mark.docker]
Checks = dict[str, dict[str, Any]]
# What depends on the machine that the rig stands on.
OF_THE_MACHINE = {"memlock", "clock", "shm", "ports", "disk-images", "disk-results"}


@pytest.fixture
def ask(vaultcube: Vaultcube, rig_both: RigEngine) -> Callable[..., Checks]:
    """Return a function that runs doctor in the box, with both ways to GPUs, and returns the checks by code."""
    assert rig_both
    return lambda *words, fails=(): doctor(vaultcube, *words, fails=fails)


def document(vaultcube: Vaultcube, *words: str) -> tuple[int, dict[str, Any]]:
    seen = vaultcube("doctor", "--json", *words)
    assert "Traceback" not in seen.stderr
    found: dict[str, Any] = json.loads(seen.stdout)
    assert "error" not in found, found
    schema = json.loads((ROOT / "docs/schema/doctor.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    assert found["simulated"] is True
    return seen.returncode, found


def doctor(vaultcube: Vaultcube, *words: str, fails: tuple[str, ...] = ()) -> Checks:
    """Run it, and check that exactly these checks fail, and that the exit code says so."""
    code, found = document(vaultcube, *words)
    checks: Checks = {one["code"]: one for one in found["checks"]}
    failed = [one["code"] for one in found["checks"] if one["status"] == "FAIL"]
    assert tuple(failed) == fails, [checks[name] for name in failed]
    assert code == (3 if fails else 0)
    return checks


def statuses(checks: Checks) -> dict[str, str]:
    return {code: one["status"] for code, one in checks.items()}


# --- a box in order ------------------------------------------------------------------------------------------


def test_a_box_in_order(ask: Callable[..., Checks]) -> None:
    found = statuses(ask())
    bad = {code for code, status in found.items() if status != "PASS"} - OF_THE_MACHINE
    # As a 5090 host is delivered: no ECC, persistence mode off, the toolkit's own default settings.
    assert bad == {"ecc", "persistence", "env-leak"}
    assert found["ecc"] == "UNAVAILABLE"


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_a_server_with_ecc_and_mig(ask: Callable[..., Checks]) -> None:
    found = ask()
    assert (found["ecc"]["status"], found["mig"]["status"]) == ("PASS", "PASS")
    assert found["flavour"]["seen"].startswith("flavour cu124")
    # Nobody said that it is a Vault Cube.
    assert found["gpu-count"]["status"] == "WARN"
    assert "GPUs 0-7" in found["access"]["seen"]


@pytest.mark.parametrize("box", ["16x5090"], indirect=True)
def test_sixteen_gpus(ask: Callable[..., Checks]) -> None:
    found = ask()
    # More than the profile expects: another machine, and nobody said that it is a Vault Cube.
    assert found["gpu-count"]["status"] == "WARN"
    assert "16 x NVIDIA GeForce RTX 5090" in found["gpu-count"]["seen"]
    assert "GPUs 0-15 and no other" in found["access"]["seen"]
    assert found["pcie-link"]["seen"] == "GPUs 0-15: x16"


@pytest.mark.parametrize("box", ["2x4090"], indirect=True)
def test_another_machine_than_the_profiles(ask: Callable[..., Checks]) -> None:
    assert ask()["gpu-count"]["status"] == "WARN"
    found = ask("--profile", "vault-cube-5090", fails=("gpu-count",))
    assert "2 x NVIDIA GeForce RTX 4090" in found["gpu-count"]["seen"]
    # Its driver is that of its time, with the modules of that time.
    assert "proprietary modules; no card here needs" in found["driver-generation"]["seen"]


@pytest.mark.parametrize("box", ["1xold"], indirect=True)
def test_an_old_card_tells_little(ask: Callable[..., Checks]) -> None:
    found = ask()
    assert found["flavour"]["status"] == "PASS"
    assert "flavour cu128 has no kernels" in ask("--flavour", "cu128", fails=("flavour",))["flavour"]["seen"]


@pytest.mark.parametrize("box", ["none"], indirect=True)
def test_a_driver_without_a_gpu(ask: Callable[..., Checks]) -> None:
    found = ask()
    assert {one["seen"] for code, one in found.items() if one["status"] == "UNAVAILABLE"} == {
        "no NVIDIA GPU on this machine"
    }
    assert found["access"]["status"] == "UNAVAILABLE"


def test_chosen_gpus_only(ask: Callable[..., Checks], box: Box) -> None:
    box.pcie_width(2, 4)
    found = ask("--gpus", "device=0,3")
    assert found["pcie-link"]["seen"] == "GPUs 0, 3: x16"
    assert "GPUs 0, 3 and no other" in found["access"]["seen"]
    assert ask("--gpus", "5", "--check", "gpu-count", fails=("gpu-count",))["gpu-count"]["seen"].startswith("--gpus 5")


# --- the driver ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xid", [True, False])
def test_a_gpu_that_is_lost(ask: Callable[..., Checks], box: Box, xid: bool) -> None:  # noqa: FBT001 - a table
    uuids = box.uuids
    box.lose(2, xid=xid)
    found = ask(fails=("cdi-devices", "gpu-visibility", "gpu-count", "xid"))
    assert found["gpu-visibility"]["seen"].startswith("GPU 2 of 4: does not answer (")
    assert "fell off the bus" in found["xid"]["seen"] or "Xid 79" in found["xid"]["seen"]
    assert uuids[2] in found["cdi-devices"]["seen"]
    # Those that are left still work.
    assert found["access"]["status"] == "PASS"


def test_a_driver_updated_under_us(ask: Callable[..., Checks], box: Box) -> None:
    box.driver_mismatch()
    found = ask(fails=("driver",))
    assert "updated under the running kernel module" in found["driver"]["seen"]
    assert "Reboot" in found["driver"]["next_step"]
    assert found["pcie-link"]["seen"] == "NVML does not answer (see driver)"
    assert found["access"]["status"] == "UNAVAILABLE"


def test_a_driver_that_refuses_this_user(ask: Callable[..., Checks], box: Box) -> None:
    box.permission_denied()
    assert "may not be opened by this user" in ask(fails=("driver",))["driver"]["seen"]


def test_a_driver_that_is_not_loaded(ask: Callable[..., Checks], box: Box) -> None:
    box.set(init_error="not_loaded")
    found = ask("--check", "driver", "--check", "nouveau", fails=("driver",))
    assert found["driver"]["seen"].startswith("4 NVIDIA GPU(s) on the PCI bus, and the driver's kernel module")
    (box.path / "host/sys/module/nouveau").mkdir(parents=True)
    found = ask("--check", "driver", "--check", "nouveau", fails=("driver", "nouveau"))
    assert "nouveau holds them" in found["driver"]["seen"]


def test_a_driver_older_than_the_cards(ask: Callable[..., Checks], box: Box) -> None:
    box.set(driver_version="565.57.01")
    found = ask(fails=("cdi-devices", "driver-generation"))
    assert "565.57.01 is older than 570.86.16" in found["driver-generation"]["seen"]
    assert found["driver-flavour"]["status"] == "WARN"


@pytest.mark.parametrize("box", ["2x4090"], indirect=True)
@pytest.mark.parametrize(("version", "status"), [("550.54.14", "PASS"), ("535.183.01", "WARN"), ("470.256.02", "FAIL")])
def test_a_driver_older_than_the_images(vaultcube: Vaultcube, box: Box, version: str, status: str) -> None:
    box.set(driver_version=version)
    fails = ("driver-flavour",) if status == "FAIL" else ()
    found = doctor(vaultcube, "--check", "driver-flavour", fails=fails)
    assert found["driver-flavour"]["status"] == status


def test_proprietary_modules_on_blackwell(vaultcube: Vaultcube, box: Box) -> None:
    version = box.path / "host/proc/driver/nvidia/version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025\n")
    found = doctor(vaultcube, "--check", "driver-generation", fails=("driver-generation",))
    assert "proprietary modules" in found["driver-generation"]["seen"]


@pytest.mark.parametrize("box", ["none"], indirect=True)
def test_cards_that_the_driver_could_not_start(vaultcube: Vaultcube, box: Box) -> None:
    put_on_bus(box.path / "host", "0000:01:00.0", 0x2B85)
    box.kmsg("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:884)")
    codes = ("gpu-visibility", "driver-generation", "pcie-link")
    words = [word for code in codes for word in ("--check", code)]
    found = doctor(vaultcube, *words, fails=("gpu-visibility",))
    assert "1 of 1 on the PCI bus are not in NVML" in found["gpu-visibility"]["seen"]
    assert "Above 4G Decoding" in found["gpu-visibility"]["next_step"]
    assert found["pcie-link"]["status"] == "UNAVAILABLE"


# --- the cards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "status", "said"),
    [
        (lambda box: box.pcie_width(1, 4), "pcie-link", "FAIL", "GPU 1: x4 of x16"),
        (lambda box: box.pcie_width(1, 8), "pcie-link", "WARN", "GPU 1: x8 of x16"),
        (lambda box: box.hot(3), "temperature", "WARN", "GPU 3: 89 C, 1 below its limit"),
        (lambda box: box.thermal_slowdown(3), "temperature", "FAIL", "GPU 3"),
        (lambda box: box.power_brake(0), "slowdown", "WARN", "GPU 0: hardware slowdown, power brake"),
        (lambda box: box.set_gpu(2, persistence=1), "persistence", "WARN", "GPUs 0-1, 3: off"),
        (lambda box: box.xid(1, 31), "xid", "WARN", "Xid 31 (GPU memory page fault)"),
        (lambda box: box.xid(1, 119), "xid", "FAIL", "Xid 119 (GSP does not answer)"),
        (lambda box: box.aer_storm(1, 500), "xid", "WARN", "500 x corrected PCIe error at 0000:"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_fault_of_a_card(
    vaultcube: Vaultcube, box: Box, fault: Callable[[Box], None], code: str, status: str, said: str
) -> None:
    # Its degrees are counted.
    box.set(jitter=0)
    fault(box)
    found = doctor(vaultcube, "--check", code, fails=(code,) if status == "FAIL" else ())
    assert found[code]["status"] == status
    assert said in found[code]["seen"]
    assert found[code]["next_step"]


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_memory_errors_and_mig(vaultcube: Vaultcube, box: Box) -> None:
    box.set_gpu(5, ecc_uncorrected=2)
    box.mig(3, 2)
    found = doctor(vaultcube, "--check", "ecc", "--check", "mig", fails=("ecc", "mig"))
    assert found["ecc"]["seen"] == "GPU 5: 2 uncorrected errors"
    assert found["mig"]["seen"].startswith("GPU 3: MIG is on")
    assert "-i 3 -mig 0" in found["mig"]["next_step"]


def test_somebody_elses_process(vaultcube: Vaultcube, box: Box) -> None:
    box.add_process(1, os.getpid(), 2**30)
    found = doctor(vaultcube, "--check", "gpu-processes")
    assert found["gpu-processes"]["status"] == "WARN"
    assert f"GPU 1: process {os.getpid()}" in found["gpu-processes"]["seen"]


def test_a_container_that_holds_a_gpu(ask: Callable[..., Checks], rig_both: RigEngine, box: Box) -> None:
    pin = ["--gpus", f"device={box.uuids[3]}"]
    rig_both.ask("run", "--detach", "--name", "squatter", *pin, "vaultcube/pytorch:cu128", "sleep", "600")
    found = ask("--check", "gpu-processes", "--check", "access")
    assert found["gpu-processes"]["seen"] == "GPU 3: container squatter"
    assert found["access"]["status"] == "PASS"


# --- the way into a container --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "way"), [(Mode.HOOK, "by hook"), (Mode.CDI, "through CDI"), (Mode.BOTH, "through CDI")]
)
def test_access_is_proven_by_the_way_that_runs_take(
    engines: Engines, vaultcube: Vaultcube, box: Box, mode: Mode, way: str
) -> None:
    engine = engines(mode)
    engine.use(box)
    vaultcube.env["DOCKER_HOST"] = engine.host
    found = doctor(vaultcube, "--check", "pinning", "--check", "access", "--gpus", "device=1,2")
    assert found["pinning"]["status"] == "PASS"
    assert found["access"]["seen"].endswith(f" sees GPUs 1-2 and no other, {way}")
    assert engine.ask("ps", "--all", "--quiet") == ""


def test_an_engine_with_neither_hook_nor_cdi(vaultcube: Vaultcube, rig_neither: RigEngine) -> None:
    assert rig_neither
    found = doctor(vaultcube, fails=("toolkit", "pinning"))
    assert "not installed" in found["toolkit"]["seen"]
    assert found["access"]["seen"] == "GPUs cannot be pinned (see pinning)"


def test_a_hook_that_the_engine_did_not_find(vaultcube: Vaultcube, rig_neither: RigEngine, box: Box) -> None:
    """It is in our PATH, and was not in the engine's when that started: only a container shows it."""
    assert rig_neither
    (box.path / "bin" / HOOK).write_text("#!/bin/sh\n")
    (box.path / "bin" / HOOK).chmod(0o755)
    found = doctor(vaultcube, "--check", "pinning", "--check", "access", fails=("access",))
    assert found["access"]["seen"].startswith("the engine does not know the NVIDIA Container Toolkit")
    assert "restart docker" in found["access"]["next_step"]


def test_a_specification_of_another_driver(vaultcube: Vaultcube, rig_cdi: RigEngine, box: Box) -> None:
    cdi.write(rig_cdi.folder / "cdi", box.path, box.uuids, "575.57.08")
    found = doctor(vaultcube, "--check", "cdi-devices", fails=("cdi-devices",))
    assert "the libraries of driver 575.57.08, and 580.95.05 is loaded" in found["cdi-devices"]["seen"]


def test_a_specification_that_lacks_a_card(vaultcube: Vaultcube, rig_cdi: RigEngine, box: Box) -> None:
    cdi.write(rig_cdi.folder / "cdi", box.path, [*box.uuids[:3], "GPU-gone"], "580.95.05")
    found = doctor(vaultcube, "--check", "cdi-devices", "--check", "pinning", fails=("cdi-devices", "pinning"))
    assert "does not know GPU 3" in found["cdi-devices"]["seen"]
    assert "names GPU-gone, which is not here" in found["cdi-devices"]["seen"]
    assert "nvidia-ctk cdi generate" in found["cdi-devices"]["next_step"]


def test_a_specification_that_gives_the_wrong_card(vaultcube: Vaultcube, rig_cdi: RigEngine, box: Box) -> None:
    """As where the minor numbers of the cards have changed: nothing but a container shows it."""
    path = rig_cdi.folder / "cdi" / cdi.FILE
    first, second = box.uuids[:2]
    text = path.read_text().replace(f"gpus/{first}", "gpus/X").replace(f"gpus/{second}", f"gpus/{first}")
    path.write_text(text.replace("gpus/X", f"gpus/{second}"))
    found = doctor(vaultcube, "--check", "access", "--gpus", "device=0", fails=("access",))
    assert f"it does not see GPU 0; it sees {second}, which it was not given" in found["access"]["seen"]


def test_images_that_are_not_there(vaultcube: Vaultcube, rig_cdi: RigEngine) -> None:
    ours = ["--filter", "reference=vaultcube/*"]
    names = rig_cdi.ask("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *ours).split()
    kept = [name.replace("vaultcube/", "kept/") for name in names]
    for name, other in zip(names, kept, strict=True):
        rig_cdi.ask("tag", name, other)
    rig_cdi.ask("rmi", *names)
    try:
        found = doctor(vaultcube, "--check", "access", "--check", "buildx")
    finally:
        for name, other in zip(names, kept, strict=True):
            rig_cdi.ask("tag", other, name)
        rig_cdi.ask("rmi", *kept)
    assert found["access"]["status"] == "UNAVAILABLE"
    assert found["access"]["next_step"].startswith("vaultcube images build ")


def test_the_hook_that_hears_nobody(vaultcube: Vaultcube, rig_hook: RigEngine, box: Box) -> None:
    assert rig_hook
    config = box.path / "host/etc/nvidia-container-runtime/config.toml"
    entry = "accept-nvidia-visible-devices-envvar-when-unprivileged"
    config.write_text(config.read_text().replace(f"#{entry} = true", f"{entry} = false"))
    assert (
        "will not hear the engine either"
        in doctor(vaultcube, "--check", "env-leak", fails=("env-leak",))["env-leak"]["seen"]
    )


def test_a_toolkit_with_known_holes(vaultcube: Vaultcube, rig_cdi: RigEngine, box: Box) -> None:
    assert rig_cdi
    (box.path / "bin/nvidia-ctk").write_text("#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.17.4\n")
    found = doctor(vaultcube, "--check", "toolkit", "--check", "toolkit-version", fails=("toolkit-version",))
    assert "CVE-2025-23266" in found["toolkit-version"]["seen"]


@pytest.fixture
def leaking(box: Box, vaultcube: Vaultcube) -> Iterator[RigEngine]:
    """Return an engine whose default runtime is called nvidia, with the hook."""

    class Leaking(RigEngine):
        def prepare(self) -> None:
            super().prepare()
            file = self.folder / "daemon.json"
            runtimes = {"nvidia": {"path": shutil.which("runc") or "runc"}}
            config = json.loads(file.read_text()) | {"default-runtime": "nvidia", "runtimes": runtimes}
            file.write_text(json.dumps(config))

    with Leaking(Mode.HOOK) as engine:
        engine.use(box)
        vaultcube.env["DOCKER_HOST"] = engine.host
        yield engine


def test_a_default_runtime_that_gives_gpus_to_everybody(vaultcube: Vaultcube, leaking: RigEngine) -> None:
    assert leaking
    found = doctor(vaultcube, "--check", "default-runtime", "--check", "toolkit")
    assert found["default-runtime"]["status"] == "WARN"
    assert "get all GPUs unasked" in found["default-runtime"]["seen"]
    assert "the engine's runtime nvidia" in found["toolkit"]["seen"]
