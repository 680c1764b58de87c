"""Layer 1, Docker: the engine, its settings in effect, compose."""

from __future__ import annotations

from typing import Any

from vaultcube.gpu.versions import version_of
from vaultcube.host.machine import AS_ROOT, Machine
from vaultcube.host.parse import document, mapping
from vaultcube.host.words import Judged, JudgedError, again, fail, good, invalid, together, unavailable

BINDING = "com.docker.network.bridge.host_binding_ipv4"
RESTART = "systemctl restart docker"


def info(machine: Machine) -> dict[str, Any]:
    """Return what `docker info` says.

    Raises:
        JudgedError: no docker, no engine, or no permission to ask it.
    """
    answer = machine.ask("docker", "info", "--format", "{{json .}}")
    if answer.missing:
        raise JudgedError(fail("docker is not installed", again("docker")))
    if not machine.privileged and "permission denied" in answer.stderr.lower() + answer.stdout.lower():
        raise JudgedError(unavailable("this user may not ask the engine", AS_ROOT))
    found = mapping(answer.stdout)
    if not found.get("ServerVersion"):
        errors = found.get("ServerErrors")
        why = str(errors[0])[:200] if isinstance(errors, list) and errors else answer.why
        raise JudgedError(fail(f"no engine answers ({why})", "See: systemctl status docker"))
    return found


def docker(machine: Machine) -> Judged:
    """Does an engine answer, new enough, with compose?"""
    wanted = machine.expected.docker
    version = str(info(machine)["ServerVersion"])
    faults = [] if version_of(version) >= version_of(wanted.minimum) else [f"{version} is older than {wanted.minimum}"]
    answer = machine.ask("docker", "compose", "version", "--short")
    compose = answer.stdout.strip() if answer.ok else ""
    if not compose:
        faults.append("docker compose is not there")
    elif version_of(compose) < version_of(wanted.compose_minimum):
        faults.append(f"compose {compose} is older than {wanted.compose_minimum}")
    return together(faults, f"engine {version}, compose {compose}", again("docker"))


def docker_settings(machine: Machine) -> Judged:
    """Are the engine's settings in effect as they should be? A changed daemon.json counts only after a restart."""
    wanted, found = machine.expected.docker, info(machine)
    faults = []
    if wanted.live_restore and found.get("LiveRestoreEnabled") is not True:
        faults.append("live-restore is off: containers stop when the engine is restarted")
    if found.get("LoggingDriver") != wanted.log_driver:
        faults.append(f"logs go to {found.get('LoggingDriver')} instead of {wanted.log_driver}")
    if wanted.cdi and not found.get("CDISpecDirs"):
        faults.append("CDI is off")
    if wanted.loopback:
        bridge = document(machine.output("docker", "network", "inspect", "bridge", role="docker"))
        first = bridge[0] if isinstance(bridge, list) and bridge and isinstance(bridge[0], dict) else {}
        options = first.get("Options")
        if not isinstance(options, dict):
            return invalid("docker network inspect bridge says nothing", "See: docker network inspect bridge")
        if options.get(BINDING) != "127.0.0.1":
            faults.append(f"ports without an address are published on {options.get(BINDING, '0.0.0.0')}")  # noqa: S104
    return together(faults, "as in daemon.json: live-restore, log limits, loopback", f"{RESTART}. {again('docker')}")


def docker_boot(machine: Machine) -> Judged:
    """Will the engine start at boot?"""
    answer = machine.ask("systemctl", "is-enabled", "docker.service", "docker.socket")
    if "enabled" in answer.stdout.split():
        return good("enabled")
    return fail(answer.stdout.split()[0] if answer.stdout.split() else answer.why, again("docker"))
