"""What a machine tells of itself, on folders made to look like one."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from tests.unit.support import DATA

from vaultcube.gpu.preflight.facts import Disk, Driver, HookConfig, Memlock, PciGpu, Unseen
from vaultcube.stack import host

RECORDED = DATA / "preflight"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root that the driver's and the toolkit's files are looked for under, empty."""
    monkeypatch.setenv("VAULTCUBE_HOST_ROOT", str(tmp_path / "host"))
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def device(root: Path, address: str, vendor: str, kind: str, number: str, driver: str = "nvidia") -> None:
    folder = f"sys/bus/pci/devices/{address}"
    for name, text in (("vendor", vendor), ("class", kind), ("device", number)):
        put(root, f"{folder}/{name}", f"{text}\n")
    drivers = root / "sys/bus/pci/drivers" / driver
    drivers.mkdir(parents=True, exist_ok=True)
    (root / folder / "driver").symlink_to(drivers)


def test_nothing_is_there(root: Path) -> None:
    assert root.is_dir()
    for seen in (host.read_driver(), host.read_pci(), host.read_hook_config()):
        assert isinstance(seen, Unseen)
        assert "No such file or directory" in seen.reason
    assert host.read_nouveau() is False


def test_the_loaded_module(root: Path) -> None:
    put(root, "proc/driver/nvidia/version", (RECORDED / "driver-proprietary.txt").read_text())
    assert host.read_driver() == Driver("550.127.05", open_modules=False)
    put(root, "proc/driver/nvidia/version", "something else\n")
    assert isinstance(host.read_driver(), Unseen)
    (root / "sys/module/nouveau").mkdir(parents=True)
    assert host.read_nouveau() is True


def test_gpus_on_the_bus_without_sound_and_without_those_given_away(root: Path) -> None:
    device(root, "0000:41:00.0", "0x10de", "0x030000", "0x2b85")
    device(root, "0000:41:00.1", "0x10de", "0x040300", "0x22e8", "snd_hda_intel")
    device(root, "0000:01:00.0", "0x10de", "0x030200", "0x2330")
    device(root, "0000:81:00.0", "0x10de", "0x030000", "0x2684", "vfio-pci")
    device(root, "0000:00:02.0", "0x8086", "0x030000", "0x4680", "i915")
    device(root, "0000:00:03.0", "what?", "0x030000", "0x4680")
    (root / "sys/bus/pci/devices/0000:00:04.0").mkdir()
    assert host.read_pci() == (PciGpu("0000:01:00.0", 0x2330), PciGpu("0000:41:00.0", 0x2B85))


def test_the_toolkits_settings(root: Path) -> None:
    put(
        root,
        "etc/nvidia-container-runtime/config.toml",
        "accept-nvidia-visible-devices-envvar-when-unprivileged = false",
    )
    assert host.read_hook_config() == HookConfig(host.HOOK_CONFIG, accepts_envvar=False)


def test_cdi_specifications_of_gpus_are_found_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("nvidia.yaml", "nvidia.yaml.bak", "other.txt"):
        shutil.copy(RECORDED / "cdi-1.18.yaml.txt", tmp_path / name)
    (tmp_path / "net.json").write_text(
        '{"cdiVersion": "0.6.0", "kind": "example.com/net", "devices": [{"name": "eth0"}]}'
    )
    (tmp_path / "folder.yaml").mkdir()
    found = host.read_cdi([str(tmp_path / "none"), str(tmp_path)])
    assert found.files == (str(tmp_path / "nvidia.yaml"),)
    assert found.drivers == {"580.95.05"}


def test_room_for_runs_is_measured_where_they_will_be(tmp_path: Path) -> None:
    seen = host.read_disk(tmp_path / "a" / "b", writable=True)
    assert isinstance(seen, Disk)
    assert seen.path == str(tmp_path / "a" / "b")
    assert seen.free_bytes > 0
    assert seen.unwritable == ""
    (tmp_path / "file").touch()
    below = host.read_disk(tmp_path / "file" / "runs", writable=True)
    assert isinstance(below, Disk)
    assert below.unwritable == f"{tmp_path}/file is no folder"


def test_room_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere: what the kernel would say to others.
    monkeypatch.setattr(os, "access", lambda *_: False)
    seen = host.read_disk(tmp_path, writable=True)
    assert isinstance(seen, Disk)
    assert "may not be written" in seen.unwritable
    read_only = host.read_disk(tmp_path, writable=False)
    assert isinstance(read_only, Disk)
    assert read_only.unwritable == ""


def test_a_disk_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "disk_usage", fails)
    assert host.read_disk(Path("/"), writable=False) == Unseen("/: Permission denied")
    assert host.read_disk(Path("/"), writable=True) == Disk("/", 0, "Permission denied")
    assert isinstance(host.read_memory(), Unseen)


def test_this_machines_memory_and_clock() -> None:
    memory = host.read_memory()
    assert not isinstance(memory, Unseen)
    assert memory.total_bytes > 2**28
    assert isinstance(host.read_synchronised(), bool)


def test_a_port_is_taken_while_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.getsockname()[1]
        assert [one.taken for one in host.read_ports([(number, "x")])] == [True]
    assert [one.taken for one in host.read_ports([(number, "x")])] == [False]
    # Ports that this user may not open are not in use for that.
    assert host.read_ports([]) == ()


def test_the_engines_process_is_the_other_end_of_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        # This very process.
        assert isinstance(host.read_memlock(), Memlock)
    path.unlink()
    seen = host.read_memlock()
    assert isinstance(seen, Unseen)
    assert "cannot be found" in seen.reason


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2375", "ssh://box"])
def test_an_engine_elsewhere_has_no_limits_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    assert host.read_memlock() == Unseen("the engine is on another machine")


def test_faults_are_read_out_of_the_kernel_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "kmsg"
    monkeypatch.setenv("VAULTCUBE_KERNEL_LOG", str(log))
    seen = host.read_faults()
    assert isinstance(seen, Unseen)
    assert "No such file" in seen.reason
    before = "6,1,100,-;NVRM: Xid (PCI:0000:41:00): 31, before the boot\n6,2,1,-;Linux version 6.8.0\n"
    log.write_text(before + "3,3,200,-;NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.\n")
    faults = host.read_faults()
    assert not isinstance(faults, Unseen)
    assert [(one.kind, one.pci, one.code) for one in faults] == [("xid", "0000:01:00", 79)]
