"""Which checks there are, and running those of some layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from vaultcube import __version__
from vaultcube.errors import HostHealthError, UsageError
from vaultcube.host import access, driver, engine, firewall, images, probe, system, toolkit, updates
from vaultcube.host.expected import PATH
from vaultcube.host.machine import Machine
from vaultcube.host.words import Finding, HealthReport, Judged, JudgedError, Verdict

LAYERS: Final = (1, 2, 3, 4, 5)
# These need the orchestrator, which only a demo box has.
ORCHESTRATED: Final = (4, 5)
DEFAULTS: Final = "defaults"


class Check(NamedTuple):
    """One check: its layer, its name, and what it does."""

    layer: int
    code: str
    judge: Callable[[Machine], Judged]

    def run(self, machine: Machine) -> Finding:
        """Return what the check finds."""
        try:
            judged = self.judge(machine)
        except JudgedError as error:
            judged = error.judged
        return Finding(self.layer, self.code, *judged)


CHECKS: Final = (
    Check(1, "system", system.operating_system),
    Check(1, "kernel", system.kernel),
    Check(1, "failed-units", system.failed_units),
    Check(1, "disk", system.disk),
    Check(1, "timezone", system.timezone),
    Check(1, "clock", system.clock),
    Check(1, "python", system.python),
    Check(1, "tools", system.commands),
    Check(1, "user", access.user),
    Check(1, "ssh-keys", access.ssh_keys),
    Check(1, "sudo", access.sudo),
    Check(1, "sshd", access.sshd),
    # First of the two: where ssh.socket waits, the first connection starts sshd and makes the folder that `sshd -T` needs.
    Check(1, "ssh-offers", access.ssh_offers),
    Check(1, "ssh-config", access.ssh_config),
    Check(1, "fail2ban", access.fail2ban),
    Check(1, "firewall", firewall.firewall),
    Check(1, "firewall-rules", firewall.firewall_rules),
    Check(1, "docker-rules", firewall.docker_rules),
    Check(1, "published-port", probe.published_port),
    Check(1, "updates", updates.updates),
    Check(1, "held", updates.held),
    Check(1, "docker", engine.docker),
    Check(1, "docker-boot", engine.docker_boot),
    Check(1, "docker-settings", engine.docker_settings),
    Check(2, "gpu-count", driver.gpu_count),
    Check(2, "module", driver.module),
    Check(2, "module-flavour", driver.module_flavour),
    Check(2, "versions", driver.versions),
    Check(2, "persistence", driver.persistence),
    Check(2, "nouveau", driver.nouveau),
    Check(2, "cuda", driver.cuda),
    Check(2, "cudnn", driver.cudnn),
    Check(2, "xid", driver.xid),
    Check(2, "first-boot", driver.first_boot),
    Check(3, "toolkit-version", toolkit.toolkit_version),
    Check(3, "cdi-devices", toolkit.cdi_devices),
    Check(3, "default-runtime", toolkit.default_runtime),
    Check(3, "env-leak", toolkit.env_leak),
    Check(3, "gpu-container", toolkit.gpu_container),
    Check(4, "images", images.images),
    Check(4, "self-checks", images.self_checks),
    Check(5, "orchestrator", images.orchestrator),
    Check(5, "doctor", images.doctor),
    Check(5, "results", images.results),
    Check(5, "recorder", images.recorder),
)
CODES: Final = tuple(check.code for check in CHECKS)


def run_health(
    machine: Machine,
    layers: Sequence[int] = (),
    codes: Collection[str] = (),
    waived: Collection[str] = (),
    watch: Callable[[str], None] | None = None,
) -> HealthReport:
    """Check a host.

    Args:
        machine: the host.
        layers: which to check; none means those that were provisioned, and 4 and 5 where the orchestrator is.
        codes: only these checks.
        waived: what these find bad is UNAVAILABLE, with what was seen: it is known, and not this host's fault.
        watch: told the code of each check before it is run.

    Raises:
        UsageError: there is no such layer or check.
    """
    if wrong := [one for one in layers if one not in LAYERS]:
        raise UsageError(f"there is no layer {wrong[0]}", next_step="Layers: 1, 2, 3, 4, 5.")
    if unknown := [one for one in (*codes, *waived) if one not in CODES]:
        raise UsageError(f"there is no check {unknown[0]!r}", next_step=f"Checks: {', '.join(CODES)}.")
    chosen = tuple(sorted(set(layers))) or (LAYERS if codes else _usual(machine))
    findings = []
    for check in CHECKS:
        if check.layer in chosen and (not codes or check.code in codes):
            if watch is not None:
                watch(check.code)
            found = check.run(machine)
            findings.append(_waive(found) if check.code in waived else found)
    return HealthReport(
        vaultcube=__version__,
        simulated=machine.simulated,
        privileged=machine.privileged,
        expected=PATH if machine.told else DEFAULTS,
        layers=tuple(sorted({one.layer for one in findings})) if codes else chosen,
        checks=tuple(findings),
    )


def _waive(finding: Finding) -> Finding:
    """Return what was found as something that cannot be judged here, unless it is good. It never becomes a PASS."""
    if finding.verdict not in {Verdict.FAIL, Verdict.INVALID}:
        return finding
    return replace(finding, verdict=Verdict.UNAVAILABLE, seen=f"waived: {finding.seen}")


def _usual(machine: Machine) -> tuple[int, ...]:
    layers = set(machine.expected.layers) or set(LAYERS)
    if machine.has(machine.vaultcube[0]):
        layers |= set(ORCHESTRATED)
    return tuple(sorted(layers))


def conclude(report: HealthReport, *, strict: bool) -> None:
    """Return when the host is as it should be.

    Args:
        report: what was found.
        strict: whether what could not be seen is a failure too.

    Raises:
        HostHealthError: it is not; the report has said what.
    """
    bad = {Verdict.FAIL, Verdict.INVALID} | ({Verdict.UNAVAILABLE} if strict else set())
    if report.verdict not in bad:
        return
    codes = [one.code for one in report.checks if one.verdict in bad]
    error = HostHealthError(f"this host is not as it was provisioned: {', '.join(codes) or 'nothing was checked'}")
    error.in_result = True
    raise error
