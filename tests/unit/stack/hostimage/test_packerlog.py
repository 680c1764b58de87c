"""Reading what Packer prints: what is going on, and what a failure comes to. The lines are Packer 1.6.6's and Ansible's own."""

from __future__ import annotations

import pytest

from vaultcube.errors import BaseChecksumError, GuestSilentError, HostBuildError, ProvisionError, VaultCubeError
from vaultcube.stack.hostimage.packerlog import PackerLog

TASKS = """\
    qemu.image: Executing Ansible: ansible-playbook -e packer_build_name="image" ...
    qemu.image:
    qemu.image: PLAY [Layer 1, base system] ****************************************************
    qemu.image:
    qemu.image: TASK [docker : Install the engine, compose and buildx] *************************
"""
FATAL = """\
    qemu.image: fatal: [build]: FAILED! =>
    qemu.image:     changed: false
    qemu.image:     cache_update_time: 1764381200
    qemu.image:     msg: No package matching 'docker.io' is available
    qemu.image:
    qemu.image: PLAY RECAP *********************************************************************
    qemu.image: build                      : ok=11   changed=0    unreachable=0    failed=1
==> qemu.image: Provisioning step had errors: Running the cleanup provisioner, if present...
==> qemu.image: Deleting output directory...
Build 'qemu.image' errored: Error executing Ansible: Non-zero exit status: exit status 2
"""


def read(text: str) -> PackerLog:
    log = PackerLog()
    for line in text.splitlines():
        log.feed(line)
    return log


def error(text: str, console: str = "  console: login:") -> VaultCubeError:
    return read(text).error("provision", console)


def test_plays_and_steps_are_told_and_tasks_are_kept() -> None:
    log = PackerLog()
    lines = ["==> qemu.image: Waiting for SSH to become available...", *TASKS.splitlines()]
    told = [words for line in lines if (words := log.feed(line))]
    assert told == ["booting, until it answers over SSH", "Layer 1, base system"]
    assert log.task == "docker : Install the engine, compose and buildx"


def test_a_failed_task_is_named_with_its_message() -> None:
    found = error(TASKS + FATAL)
    assert isinstance(found, ProvisionError)
    assert found.message == (
        "the task [docker : Install the engine, compose and buildx] failed: No package matching 'docker.io' is available"
    )
    assert "--from provision" in found.next_step


def test_a_message_of_several_lines_is_told_by_its_first() -> None:
    found = error(
        TASKS
        + "    qemu.image: fatal: [build]: FAILED! =>\n    qemu.image:     assertion: x\n    qemu.image:     msg: |-\n"
        + "    qemu.image:         users_admin_authorized_keys is empty\n    qemu.image:         more\n"
    )
    assert found.message.endswith("failed: users_admin_authorized_keys is empty")


def test_a_failure_that_was_ignored_is_none() -> None:
    text = (
        TASKS
        + "    qemu.image: fatal: [build]: FAILED! => \n    qemu.image:     msg: no\n    qemu.image: ...ignoring\n"
    )
    assert read(text).failed_task == ""


def test_an_item_that_failed_is_a_failed_task() -> None:
    found = error(
        TASKS + "    qemu.image: failed: [build] (item=containerd.service) =>\n    qemu.image:     msg: no unit\n"
    )
    assert found.message.endswith("[docker : Install the engine, compose and buildx] failed: no unit")


@pytest.mark.parametrize(
    ("text", "cls", "words"),
    [
        (
            "==> qemu.base: Timeout waiting for SSH.\nBuild 'qemu.base' errored: Timeout waiting for SSH.\n",
            GuestSilentError,
            "never answered over SSH\n  console: login:",
        ),
        (
            "==> qemu.base: Checksums did not match for x.img.\n==> qemu.base: Expected: 00\n==> qemu.base: Got: 11\n",
            BaseChecksumError,
            "is not the one that is pinned",
        ),
        (
            "Build 'qemu.image' errored: Timeout while waiting for machine to shut down\n",
            HostBuildError,
            "finalise.sh did not switch the machine off",
        ),
        (
            "Error: 1 error(s) occurred:\n\n* Failed creating Qemu driver: exec: not found\n",
            HostBuildError,
            "stage provision: Failed creating Qemu driver",
        ),
        (
            (
                "    qemu.base: error: cloud-init failed: status: error\n"
                "Build 'qemu.base' errored after 4 minutes 33 seconds: Script exited with non-zero exit status: 1.\n"
            ),
            HostBuildError,
            "stage provision: cloud-init failed: status: error",
        ),
        ("", HostBuildError, "stage provision: Packer ended without a word"),
        ("something\n", HostBuildError, "stage provision: something"),
    ],
)
def test_other_failures_are_told_apart(text: str, cls: type[VaultCubeError], words: str) -> None:
    found = error(text)
    assert type(found) is cls
    assert words in found.message


def test_colours_and_prefixes_of_newer_ones_are_no_part_of_a_line() -> None:
    log = PackerLog()
    assert log.feed("\x1b[1;32m==> vaultcube.qemu.base: Starting VM, booting disk image\x1b[0m") == "booting"
