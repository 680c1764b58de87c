"""nvidia_driver_source nvidia on a bare machine: one branch out of a repository whose package names do not carry it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.host.machine import Machine, Play, base_variables
from tests.host.standin import KERNEL, PERSISTENCED, SMI, Archives, Package, archive, cuda, cudnn, module

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]
TAGS = ("--tags", "nvidia_driver,cuda_toolkit")
PIN = "Package: *nvidia*\nPin: version 595.*\nPin-Priority: 1000\n"


def vendor(version: str) -> list[Package]:
    """Return NVIDIA's packages for Ubuntu as they are called from 590 on."""
    upstream = version.partition("-")[0]
    path = f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko"
    return [
        Package("libnvidia-compute", version),
        # What DKMS would have compiled.
        Package("nvidia-dkms-open", version, files={path: module(upstream)}, postinst=f"depmod -a {KERNEL}"),
        Package("nvidia-utils", version, f"libnvidia-compute (= {version})", {"/usr/bin/nvidia-smi": SMI}),
        Package(
            "nvidia-compute-utils",
            version,
            files={
                "/usr/bin/nvidia-persistenced": "#!/bin/sh\n",
                "/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED,
            },
        ),
    ]


@dataclass(frozen=True)
class Vendor:
    """A machine with the driver 595 out of a repository that has 610 as well, and CUDA out of the same one."""

    machine: Machine
    first: Play
    second: Play


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory, machine_image: str) -> Iterator[Vendor]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("vendor")
    with Machine(folder) as machine:
        archives = Archives(machine, folder)
        archives.publish("archive", archive())
        pin = Package(
            "nvidia-driver-pinning-595", "595-1", files={"/etc/apt/preferences.d/nvidia-driver-pinning-595": PIN}
        )
        archives.publish("cuda", [*cuda(), *cudnn(), *vendor("595.71.05-1ubuntu1"), *vendor("610.57.04-1ubuntu1"), pin])
        machine.run(
            f"apt-get -qq -y install kmod; cd /srv/standin/archive; dpkg -i linux-image-{KERNEL}_*.deb; apt-get -qq update"
        )
        machine.variables = base_variables(machine) | archives.variables()
        machine.variables |= {
            "nvidia_driver_source": "nvidia",
            "nvidia_driver_branch": "595",
            # One repository for all three, as NVIDIA's for Ubuntu 24.04 is for the driver, newer CUDA and cuDNN.
            "cuda_toolkit_cudnn_repository_uri": machine_uri(archives),
        }
        first = machine.play("site.yml", *TAGS).checked()
        second = machine.play("site.yml", *TAGS).checked()
        yield Vendor(machine, first, second)


def machine_uri(archives: Archives) -> str:
    return str(archives.variables()["cuda_toolkit_repository_uri"])


def test_the_second_run_changes_nothing(driven: Vendor) -> None:
    assert driven.second.counts["changed"] == 0, driven.second.changed_tasks


def test_the_pin_comes_first_and_keeps_the_branch(driven: Vendor) -> None:
    names = driven.first.changed_tasks
    pinned, installed = "nvidia_driver : Keep NVIDIA's packages to the branch", "nvidia_driver : Install the packages"
    assert names.index(pinned) < names.index(installed)
    versions = driven.machine.run("dpkg-query -W -f '${Package} ${Version}\\n'").splitlines()
    assert "nvidia-dkms-open 595.71.05-1ubuntu1" in versions
    assert not [line for line in versions if "610." in line]


def test_one_repository_is_configured_once(driven: Vendor) -> None:
    assert driven.machine.run("ls /etc/apt/sources.list.d | grep nvidia").split() == ["nvidia-cuda.sources"]
    # apt complains of a repository that two files name, and refuses one that two keys sign.
    told = driven.machine.run("apt-get update 2>&1")
    assert "W:" not in told
    assert "E:" not in told


def test_the_container_toolkit_of_that_repository_is_out_of_reach(driven: Vendor) -> None:
    assert "Candidate: (none)" in driven.machine.run("LC_ALL=C apt-cache policy nvidia-container-toolkit")


def test_an_upgrade_to_the_next_branch_is_not_offered(driven: Vendor) -> None:
    assert "610" not in driven.machine.run("apt-get -s dist-upgrade | grep ^Inst || true")
