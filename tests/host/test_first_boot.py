"""The first boot: what an image built without a card does when it finds one, with stand-ins of NVIDIA's programs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.host.machine import Machine
from tests.host.test_gpu_layers import LAYERS, prepared

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]
UNIT = "vaultcube-firstboot.service"
# Where the program looks instead of the kernel's own folders, which a container shares with this machine.
DROP_IN = """\
[Service]
Environment=VAULTCUBE_SYSFS=/srv/fake/sys VAULTCUBE_PROC=/srv/fake/proc
"""
VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.173.02  Release Build  (dvs-builder)\n"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, machine_image: str) -> Iterator[Machine]:  # noqa: ARG001
    """Return a machine as Packer leaves it: provisioned without a card, with image_build_phase."""
    folder = tmp_path_factory.mktemp("image")
    with Machine(folder) as machine:
        prepared(folder, machine)
        machine.play("site.yml", *LAYERS, "-e", "image_build_phase=true").checked()
        machine.run(
            "mkdir -p /etc/systemd/system/vaultcube-firstboot.service.d /srv/fake/sys/bus/pci/devices /srv/fake/proc"
        )
        machine.run(f"cat >/etc/systemd/system/vaultcube-firstboot.service.d/test.conf <<'E'\n{DROP_IN}E")
        machine.run("systemctl daemon-reload")
        yield machine


@pytest.fixture
def booting(image: Machine) -> Iterator[Machine]:
    """Return that machine with a card in it, whose driver loads; each test takes something away."""
    image.run("""
        cd /srv/fake/sys/bus/pci/devices
        for slot in 01 02 03 04; do
            mkdir -p 0000:$slot:00.0; echo 0x10de >0000:$slot:00.0/vendor; echo 0x030000 >0000:$slot:00.0/class; echo 0x2b85 >0000:$slot:00.0/device
        done
        mkdir -p /srv/fake/proc/driver/nvidia
    """)
    image.run(f"cat >/srv/fake/proc/driver/nvidia/version <<'E'\n{VERSION}E")
    # The container must not load modules into this machine's kernel.
    image.run(
        "printf '#!/bin/sh\\necho \"$@\" >>/srv/fake/modprobe\\n' >/usr/local/sbin/modprobe; chmod +x /usr/local/sbin/modprobe"
    )
    # The persistence daemon waits for a driver in the real /proc.
    image.run("mkdir -p /etc/systemd/system/nvidia-persistenced.service.d")
    image.run(
        "printf '#!/bin/sh\\necho \"$@\" >/srv/fake/health\\n' >/usr/local/bin/vaultcube-health; chmod +x /usr/local/bin/vaultcube-health"
    )
    image.run(
        "rm -f /srv/fake/modprobe /srv/fake/health /srv/fake/smi-version /var/run/cdi/nvidia.yaml /var/lib/vaultcube/firstboot.*"
    )
    yield image
    image.run(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT} || true")


def start(machine: Machine) -> int:
    """Run the unit as a boot does, and return whether it succeeded."""
    return machine.code(f"systemctl restart {UNIT}")


def state(machine: Machine) -> dict[str, object]:
    told: dict[str, object] = json.loads(machine.run("cat /var/lib/vaultcube/firstboot.json"))
    return told


def test_an_image_has_everything_that_needs_no_card(image: Machine) -> None:
    installed = image.run("dpkg-query -W -f '${Package}\\n'").split()
    assert {"nvidia-utils-580-server", "cuda-compiler-12-4", "nvidia-container-toolkit"} <= set(installed)
    assert image.run(f"systemctl is-enabled {UNIT}").strip() == "enabled"
    assert image.code("test -e /var/run/cdi/nvidia.yaml -o -e /etc/cdi") != 0
    assert image.code("test -e /var/lib/vaultcube/firstboot.done") != 0


def test_without_a_card_it_waits_for_the_next_boot(image: Machine) -> None:
    image.run("rm -rf /srv/fake/sys/bus/pci/devices/*")
    assert start(image) == 0
    assert state(image)["status"] == "waiting"
    assert image.code("test -e /var/lib/vaultcube/firstboot.done") != 0
    assert image.run(f"systemctl is-failed {UNIT}", check=False).strip() == "active"
    image.run(f"systemctl stop {UNIT}")


def test_it_does_everything_once(booting: Machine) -> None:
    assert start(booting) == 0, booting.run(f"journalctl -u {UNIT} -n 30")
    told = state(booting)
    assert told["status"] == "ok"
    assert told["done"] == ["modules", "versions", "persistence", "cdi", "health"]
    assert booting.run("cat /srv/fake/modprobe").split() == ["nvidia", "nvidia-uvm"]
    assert booting.run("cat /srv/fake/health").split() == ["2", "3"]
    assert booting.code("test -e /var/run/cdi/nvidia.yaml") == 0
    assert "finished" in booting.run("cat /var/log/vaultcube-firstboot.log")
    # The next boot leaves it alone.
    booting.run("rm /srv/fake/health")
    assert start(booting) == 0
    assert booting.code("test -e /srv/fake/health") != 0


@pytest.mark.parametrize(
    ("breaks", "step", "reason"),
    [
        ("printf '#!/bin/sh\\nexit 1\\n' >/usr/local/sbin/modprobe", "modules", "the module nvidia does not load"),
        ("rm /srv/fake/proc/driver/nvidia/version", "modules", "is not there"),
        ("echo 580.999.99 >/srv/fake/smi-version", "versions", "the module is 580.173.02 and the userspace 580.999.99"),
        ("printf '#!/bin/sh\\nexit 1\\n' >/usr/local/bin/vaultcube-health", "health", ""),
        ("rm /usr/local/bin/vaultcube-health", "health", "command not found"),
    ],
)
def test_a_failure_is_seen(booting: Machine, breaks: str, step: str, reason: str) -> None:
    booting.run(breaks)
    assert start(booting) != 0
    told = state(booting)
    assert (told["status"], told["step"]) == ("failed", step)
    assert reason in str(told["reason"])
    assert booting.run(f"systemctl is-failed {UNIT}", check=False).strip() == "failed"
    notice = booting.run("cat /run/motd.d/vaultcube-firstboot")
    assert f"the first boot failed at {step}" in notice
    assert "failed" in booting.run("cat /var/log/vaultcube-firstboot.log")
    assert booting.code("test -e /var/lib/vaultcube/firstboot.done") != 0


def test_what_was_mended_is_done_at_the_next_start(booting: Machine) -> None:
    booting.run("echo 580.999.99 >/srv/fake/smi-version")
    assert start(booting) != 0
    booting.run("rm /srv/fake/smi-version")
    assert start(booting) == 0
    assert booting.code("test -e /run/motd.d/vaultcube-firstboot") != 0


def test_a_second_run_of_the_roles_does_not_start_it_anew(booting: Machine) -> None:
    assert start(booting) == 0
    play = booting.play("site.yml", "--tags", "first_boot", "-e", "image_build_phase=true").checked()
    assert play.counts["changed"] == 0, play.changed_tasks
    assert booting.code("test -e /var/lib/vaultcube/firstboot.done") == 0
