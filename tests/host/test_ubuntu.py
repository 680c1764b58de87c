"""What the roles of layer 1 would install on Ubuntu 24.04 on metal, which cannot be had here: facts in, names out.

The names are those of Ubuntu's index; that they install is not shown here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.host.test_package_names import UBUNTU, named

METAL = UBUNTU | {"distribution_release": "noble", "virtualization_role": "host", "virtualization_type": "kvm"}
CONTAINER = METAL | {"virtualization_role": "guest", "virtualization_type": "docker"}
DEBIAN = METAL | {"distribution": "Debian", "distribution_major_version": "12", "distribution_release": "bookworm"}
FIRMWARE = ["linux-firmware", "amd64-microcode", "intel-microcode"]


@pytest.mark.parametrize(("track", "kernel"), [("ga", "linux-generic"), ("hwe", "linux-generic-hwe-24.04")])
def test_kernel_and_firmware_of_metal(tmp_path: Path, track: str, kernel: str) -> None:
    names = ("kernel_firmware_wanted", "kernel_firmware_in_container")
    found = named(tmp_path, "kernel_firmware", METAL, {"kernel_firmware_track": track}, *names)
    assert found["kernel_firmware_wanted"] == [kernel, *FIRMWARE]
    assert found["kernel_firmware_in_container"] is False


def test_a_container_is_seen_as_one(tmp_path: Path) -> None:
    found = named(tmp_path, "kernel_firmware", CONTAINER, {}, "kernel_firmware_in_container")
    assert found["kernel_firmware_in_container"] is True


@pytest.mark.parametrize(
    ("facts", "source", "packages", "newer"),
    [
        (METAL, "distribution", ["docker.io", "docker-compose-v2", "docker-buildx"], False),
        (DEBIAN, "distribution", ["docker.io", "docker-cli", "docker-compose", "docker-buildx"], True),
        (
            METAL,
            "docker",
            ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"],
            False,
        ),
    ],
)
def test_engine(tmp_path: Path, facts: dict[str, str], source: str, packages: list[str], newer: Any) -> None:
    found = named(tmp_path, "docker", facts, {"docker_source": source}, "docker_wanted", "docker_newer_debian")
    assert found == {"docker_wanted": packages, "docker_newer_debian": newer}
