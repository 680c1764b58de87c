"""Layers 4 and 5: the images and the orchestrator, as its own command tells of them."""

from __future__ import annotations

import os
from typing import Any

from vaultcube.host.engine import info
from vaultcube.host.machine import Machine
from vaultcube.host.parse import assignments, document, mapping
from vaultcube.host.probe import NO_PROBES
from vaultcube.host.shell import ask
from vaultcube.host.words import Judged, JudgedError, again, fail, good, invalid, together, unavailable

# Loading every library of a framework from a cold disk.
SELF_CHECK_S = 300.0
DOCTOR_S = 180.0
# Where an image of ours keeps its programs.
PROGRAM = "/opt/vaultcube/selfcheck.py"


def _command(machine: Machine, *words: str, limit_s: float = 60.0) -> str:
    """Return what a verb of the orchestrator prints with --json.

    Raises:
        JudgedError: it is not installed (UNAVAILABLE), or told no document.
    """
    answer = machine.ask(*machine.vaultcube, *words, "--json", limit_s=limit_s)
    if answer.missing:
        raise JudgedError(
            unavailable("the orchestrator is not installed here", "ansible-playbook playbooks/vaultcube.yml")
        )
    error = mapping(answer.stdout).get("error")
    if isinstance(error, dict):
        raise JudgedError(fail(str(error.get("message")), str(error.get("next_step"))))
    if document(answer.stdout) is None:
        raise JudgedError(invalid(answer.why, f"See: vaultcube {' '.join(words)}"))
    return answer.stdout


def _catalogue(machine: Machine) -> dict[str, tuple[str, bool]]:
    """Return the images that can be built: by name which one, and whether it is here."""
    rows = document(_command(machine, "images", "list"))
    found = [one for one in rows if isinstance(one, dict)] if isinstance(rows, list) else []
    return {str(one.get("name")): (str(one.get("image")), bool(one.get("local"))) for one in found}


def images(machine: Machine) -> Judged:
    """Is every image here that should be?"""
    info(machine)
    catalogue, wanted = _catalogue(machine), machine.expected.images
    here = [name for name, (_, local) in catalogue.items() if local]
    if wanted:
        lacking = [name for name in wanted if name not in here]
    else:
        have = {catalogue[name][0] for name in here}
        lacking = sorted({image for image, _ in catalogue.values()} - have)
    faults = [f"not here: {', '.join(lacking)}"] if lacking else []
    first = lacking[0].removeprefix("vaultcube/").replace(":", " --flavour ") if lacking else ""
    return together(faults, ", ".join(here), f"vaultcube images build {first}")


def self_checks(machine: Machine) -> Judged:
    """Does every image load its libraries, each of the pinned version? Its own self-check says."""
    info(machine)
    if not machine.probes:
        return unavailable(NO_PROBES)
    wanted = machine.expected.images
    catalogue = _catalogue(machine)
    here = [name for name, (_, local) in catalogue.items() if local and (not wanted or name in wanted)]
    if not here:
        return unavailable("no image is here (see images)")
    faults, passed, without = [], [], []
    for image in here:
        seen = _self_check(image)
        if seen is None:
            without.append(image)
        elif seen:
            faults.append(f"{image}: {seen}")
        else:
            passed.append(image)
    more = f"; without one: {', '.join(without)}" if without else ""
    return together(faults, f"{', '.join(passed) or 'none has one'}{more}", "Build it anew: vaultcube images build")


def _self_check(image: str) -> str | None:
    """Return what is wrong with an image, nothing when nothing is, and None when it has no self-check."""
    name = f"vaultcube-health-{os.urandom(4).hex()}"
    confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    # Some compile a library and load it from there.
    confined += ["--user", "65534:65534", "--tmpfs", "/tmp:exec", "--env", "HOME=/tmp", "--pids-limit", "256"]  # noqa: S108
    start = ["docker", "run", "--rm", "--pull", "never", "--name", name, *confined, "--entrypoint", "sh", image]
    program = f"test -e {PROGRAM} || exit 44; cd {os.path.dirname(PROGRAM)} && exec python3 -m selfcheck"  # noqa: PTH120
    try:
        answer = ask([*start, "-c", program], limit_s=SELF_CHECK_S)
    finally:
        ask(["docker", "rm", "--force", "--volumes", name], limit_s=60)
    if answer.returncode == 44:  # noqa: PLR2004 - said above
        return None
    return "" if answer.ok else answer.why


def orchestrator(machine: Machine) -> Judged:
    """Is the orchestrator there, and does it answer?"""
    answer = machine.ask(*machine.vaultcube, "--version")
    if answer.missing:
        return unavailable("the orchestrator is not installed here", "ansible-playbook playbooks/vaultcube.yml")
    if not answer.ok:
        return fail(answer.why, again("vaultcube"))
    return good(answer.stdout.strip())


def doctor(machine: Machine) -> Judged:
    """Can this machine run the workloads? Its doctor says."""
    words = ("doctor",) if machine.probes else ("doctor", "--no-proof")
    found = mapping(_command(machine, *words, limit_s=DOCTOR_S))
    checks = _checks(found)
    if not checks:
        return invalid("the doctor names no check", "See: vaultcube doctor")
    failed = [one for one in checks if one.get("status") == "FAIL"]
    faults = [f"{one.get('code')}: {one.get('seen')}" for one in failed]
    warned = [str(one.get("code")) for one in checks if one.get("status") == "WARN"]
    more = f"; WARN: {', '.join(warned)}" if warned else ""
    return together(faults, f"{len(checks)} checks, none failed{more}", "See: vaultcube doctor")


def results(machine: Machine) -> Judged:
    """Can runs be kept?"""
    checks = _checks(mapping(_command(machine, "doctor", "--check", "disk-results")))
    one = checks[0] if checks else {}
    if one.get("status") == "FAIL":
        return fail(str(one.get("seen")), str(one.get("next_step")))
    return good(str(one.get("seen"))) if one else invalid("the doctor says nothing of it", "See: vaultcube doctor")


def _checks(found: dict[str, Any]) -> list[dict[str, Any]]:
    checks = found.get("checks")
    return [one for one in checks if isinstance(one, dict)] if isinstance(checks, list) else []


def recorder(machine: Machine) -> Judged:
    """Is the unit alive that records the GPUs?"""
    unit = machine.expected.recorder_unit
    told = assignments(machine.output("systemctl", "show", unit, "-p", "LoadState,ActiveState", role="vaultcube"))
    if told.get("LoadState") != "loaded":
        return unavailable("this host is not set up as a demo box (playbooks/vaultcube.yml)")
    if told.get("ActiveState") == "active":
        return good(f"{unit} is active")
    return fail(f"{unit} is {told.get('ActiveState', '?')}", f"See why: journalctl -u {unit}")
