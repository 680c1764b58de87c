"""Layer 1, the base system: what runs, for how long the disk lasts, who keeps the clock, which tools are there."""

from __future__ import annotations

import os
import shutil

from vaultcube.gpu.versions import version_of
from vaultcube.host.machine import Machine
from vaultcube.host.parse import assignments
from vaultcube.host.words import Judged, Unseen, again, fail, good, invalid, together, unavailable

REBOOT = "/run/reboot-required"


def operating_system(machine: Machine) -> Judged:
    """Is it a system that the roles are written for?"""
    text = machine.text("/etc/os-release")
    if isinstance(text, Unseen):
        return unavailable(text)
    told = assignments(text)
    name = f"{told.get('ID', '?')} {told.get('VERSION_ID', '?')}"
    seen = told.get("PRETTY_NAME", name)
    wanted = machine.expected.systems
    if name in wanted:
        return good(seen)
    return fail(f"{seen}; the host image is made for {' or '.join(wanted)}", "Install Ubuntu 24.04 LTS.")


def kernel(machine: Machine) -> Judged:
    """Is the kernel new enough?"""
    release, floor = os.uname().release, machine.expected.kernel_minimum
    pending = "; a reboot is pending" if machine.path(REBOOT).exists() else ""
    if version_of(release) >= version_of(floor):
        return good(f"{release}{pending}")
    return fail(f"{release} is older than {floor}{pending}", again("kernel_firmware"))


def failed_units(machine: Machine) -> Judged:
    """Did systemd have to give up on anything?"""
    text = machine.output("systemctl", "list-units", "--failed", "--no-legend", "--plain", role="common")
    units = [line.split()[0].lstrip("●") for line in text.splitlines() if line.split()]
    if not units:
        return good("none")
    return fail(f"{len(units)} failed: {', '.join(units)}", f"See why: journalctl -b -u {units[0]}")


def disk(machine: Machine) -> Judged:
    """Is there room on the root file system?"""
    free, floor = shutil.disk_usage("/").free, machine.expected.disk_free_bytes
    seen = f"{free / 1e9:.1f} GB free on /"
    if free >= floor:
        return good(seen)
    return fail(f"{seen}, and {floor / 1e9:g} GB must be", "Clear it: docker system df, journalctl --disk-usage.")


def timezone(machine: Machine) -> Judged:
    """Is the time zone the one that logs are written in?"""
    zone = assignments(machine.output("timedatectl", "show", role="common")).get("Timezone", "")
    wanted = machine.expected.timezone
    if zone in wanted:
        return good(zone)
    return fail(f"{zone or 'none'} instead of {wanted[0]}", again("common"))


def clock(machine: Machine) -> Judged:
    """Does anybody keep the clock right?"""
    told = assignments(machine.output("timedatectl", "show", role="common"))
    if told.get("NTPSynchronized") == "yes":
        return good("synchronised")
    if machine.ask("systemd-detect-virt", "--container").ok:
        return unavailable("a container has the clock of its host")
    if told.get("NTP") == "yes":
        return fail("not synchronised", "Wait a minute after boot; then see: timedatectl timesync-status")
    return fail("nothing synchronises it", again("common"))


def python(machine: Machine) -> Judged:
    """Is the system's Python new enough, and can it make virtual environments?"""
    program, floor = "/usr/bin/python3", machine.expected.python_minimum
    text = machine.output(
        program, "-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')", role="python"
    ).strip()
    if not version_of(text):
        return invalid(f"{program} names no version: {text[:60]!r}", again("python"))
    faults = [] if version_of(text) >= version_of(floor) else [f"Python {text} is older than {floor}"]
    if not machine.ask(program, "-I", "-c", "import venv, ensurepip").ok:
        faults.append("it cannot make virtual environments")
    return together(faults, f"Python {text}", again("python"))


def commands(machine: Machine) -> Judged:
    """Are the tools there with which one looks at the machine?"""
    wanted = machine.expected.commands
    lacking = [name for name in wanted if not machine.has(name)]
    faults = [f"missing: {', '.join(lacking)}"] if lacking else []
    return together(faults, ", ".join(wanted) or "none is asked for", again("monitoring"))
