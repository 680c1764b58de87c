"""`vaultcube doctor`: look, judge, and prove with one container; and the same checks before a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from vaultcube import __version__
from vaultcube.errors import (
    FlavourError,
    GpuUnavailableError,
    MigError,
    PreflightError,
    UsageError,
    VaultCubeError,
)
from vaultcube.gpu.flavours import choose_flavour
from vaultcube.gpu.inventory import to_gpu
from vaultcube.gpu.preflight import CHECKS, CODES, examine, needs
from vaultcube.gpu.preflight.containers import pinned
from vaultcube.gpu.preflight.facts import Asked, Engine, Facts, Nvml, Unseen
from vaultcube.gpu.preflight.judged import Judged, looked_at, unavailable
from vaultcube.gpu.selection import GpuRequest, choose
from vaultcube.results.doctor import DoctorReport, Finding, FindingStatus
from vaultcube.results.profile import load_profile
from vaultcube.stack.access import prove, proving_image
from vaultcube.stack.assets import PROFILES
from vaultcube.stack.docker import Docker
from vaultcube.stack.facts import USUAL_PORTS, look
from vaultcube.stack.images import BUILD_SPACE_BYTES
from vaultcube.stack.plan import Plan

ACCESS: Final = "access"
ALL_CODES: Final = (*CODES, ACCESS)
_ACCESS_NEEDS: Final = frozenset({"nvml", "pci", "engine", "offers", "images"})


class DoctorRequest(NamedTuple):
    """What `doctor` was asked.

    Attributes:
        codes: the checks to run; none means all.
        request: the GPUs to look at.
        flavour: `auto` or a flavour.
        profile: a profile's name or path.
        claimed: whether the user named it.
        proof: whether a container may be started.
        ports: number and workload of the ports to look at.
    """

    codes: Sequence[str] = ()
    request: GpuRequest = GpuRequest("auto")
    flavour: str = "auto"
    profile: str = "vault-cube-5090"
    claimed: bool = False
    proof: bool = True
    ports: Iterable[tuple[int, str]] = USUAL_PORTS


def run_doctor(wanted: DoctorRequest, *, results_root: Path, docker: Docker) -> DoctorReport:
    """Look at the machine and judge it.

    Raises:
        UsageError: a check or the profile that is not there, or GPUs by names that are none.
        InterruptedRunError: a stop was asked for.
    """
    codes = _codes(wanted)
    profile = load_profile(wanted.profile, PROFILES)
    asked = Asked(
        wanted.request,
        flavour=wanted.flavour,
        hardware=profile.hardware,
        profile=profile.name,
        claimed=wanted.claimed,
        build_bytes=BUILD_SPACE_BYTES,
    )
    fields = needs(codes) | (_ACCESS_NEEDS if ACCESS in codes else frozenset())
    facts = select(look(fields, asked, docker=docker, results_root=results_root, ports=wanted.ports))
    findings = examine(facts, codes)
    if ACCESS in codes:
        status, seen, next_step = access(facts, docker)
        findings.append(Finding(code=ACCESS, status=status, seen=seen, next_step=next_step))
    found = looked_at(facts)
    return DoctorReport(
        vaultcube=__version__,
        simulated=facts.simulated,
        engine=facts.engine.version if isinstance(facts.engine, Engine) else None,
        driver=facts.nvml.driver if isinstance(facts.nvml, Nvml) else None,
        flavour=_flavour(facts),
        profile=profile.name,
        gpus=[] if isinstance(found, Judged) else [one.info.uuid for one in found],
        checks=findings,
    )


def _codes(wanted: DoctorRequest) -> Sequence[str]:
    unknown = [code for code in wanted.codes if code not in ALL_CODES]
    if unknown:
        raise UsageError(f"there is no check {unknown[0]!r}", next_step=f"Checks: {', '.join(ALL_CODES)}.")
    codes = wanted.codes or ALL_CODES
    return codes if wanted.proof else [code for code in codes if code != ACCESS]


def select(facts: Facts) -> Facts:
    """Return facts with the GPUs chosen that were asked for.

    Raises:
        GpuSelectionError: a name that no GPU here has, or one twice.
    """
    request, nvml = facts.asked.request, facts.nvml
    if request.kind not in {"count", "named", "all"} or nvml == Facts().nvml:
        return facts
    # Whether one is cut up is for a check to say.
    gpus = [to_gpu(info._replace(mig=None)) for info in nvml.gpus] if isinstance(nvml, Nvml) else []
    reason = nvml.reason if isinstance(nvml, Unseen) else None
    try:
        uuids = tuple(gpu.uuid for gpu in choose(request, gpus, reason))
    except (GpuUnavailableError, MigError) as error:
        return replace(facts, asked=facts.asked._replace(short=error.message))
    return replace(facts, asked=facts.asked._replace(uuids=uuids))


def _flavour(facts: Facts) -> str | None:
    """Return the flavour that would be used, or None where none can be."""
    found = looked_at(facts)
    try:
        gpus = [] if isinstance(found, Judged) else [to_gpu(one.info) for one in found]
        return choose_flavour(facts.asked.flavour, gpus)[0]
    except FlavourError:
        return None


def access(facts: Facts, docker: Docker) -> Judged:
    """Prove that a container sees the GPUs that it is given, and no other.

    Raises:
        InterruptedRunError: a stop was asked for.
    """
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    if isinstance(facts.engine, Unseen):
        return unavailable("no engine answers (see docker)")
    way = pinned(facts, found)
    if way is None:
        return unavailable("GPUs cannot be pinned (see pinning)")
    image = proving_image(frozenset() if isinstance(facts.images, Unseen) else facts.images, _flavour(facts))
    if image is None:
        # The recorder's is small, and no framework is needed for this.
        return unavailable("there is no image on this machine to prove it with", "vaultcube images build recorder")
    try:
        return prove(docker, image, way, [one.info for one in found])
    except VaultCubeError as error:
        if error.exit_code != PreflightError.exit_code:
            raise
        return unavailable(error.message, error.next_step)


def preflight(plan: Plan, docker: Docker, *, ports: Iterable[tuple[int, str]] = ()) -> list[str]:
    """Refuse a start on GPUs that cannot work; return what is worth a note. A start on the CPU is not looked at.

    Args:
        plan: what is about to start.
        docker: the engine.
        ports: number and workload of the ports that it publishes.

    Raises:
        PreflightError: a check failed; its code is in the message.
        InterruptedRunError: a stop was asked for.
    """
    if not plan.gpus:
        return []
    starts = {check.code: check.start for check in CHECKS if check.start != "ignore"}
    asked = Asked(GpuRequest("named"), tuple(gpu.uuid for gpu in plan.gpus), flavour=str(plan.flavour), starting=True)
    facts = look(needs(starts), asked, docker=docker, ports=ports)
    findings = examine(facts, starts)
    refuse_or_go(findings, [code for code, start in starts.items() if start == "refuse"])
    told = {FindingStatus.FAIL, FindingStatus.WARN}
    return [f"{one.code}: {one.seen}" for one in findings if one.status in told]


def refuse_or_go(findings: Sequence[Finding], grave: Collection[str]) -> None:
    """Return when no finding stands in the way.

    Raises:
        PreflightError: one does.
    """
    failed = [one for one in findings if one.status is FindingStatus.FAIL and one.code in grave]
    if failed:
        more = f" (and {len(failed) - 1} more, see vaultcube doctor)" if failed[1:] else ""
        raise PreflightError(f"{failed[0].code}: {failed[0].seen}{more}", next_step=failed[0].next_step)


def conclude(report: DoctorReport) -> None:
    """Return when nothing must be mended.

    Raises:
        PreflightError: something must; the report has said what.
    """
    if not report.failed:
        return
    codes = ", ".join(one.code for one in report.failed)
    error = PreflightError(f"this machine is not fit: {codes}", next_step="Do what the report says, then run it again.")
    error.in_result = True
    raise error
