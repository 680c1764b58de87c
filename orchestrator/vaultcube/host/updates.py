"""Layer 1, what changes by itself: security updates come, the driver and the kernel stay."""

from __future__ import annotations

from fnmatch import fnmatch

from vaultcube.host.machine import Machine
from vaultcube.host.parse import apt_settings, apt_true
from vaultcube.host.words import Judged, again, fail, good, together

TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")


def updates(machine: Machine) -> Judged:
    """Do security updates come by themselves, without a reboot, and without the driver?"""
    wanted = machine.expected.updates
    if not machine.has("unattended-upgrade"):
        return fail("unattended-upgrades is not installed", again("auto_updates"))
    found = apt_settings(machine.output("apt-config", "dump", role="auto_updates"))
    faults = []
    if apt_true(found.get("APT::Periodic::Unattended-Upgrade", ())) != wanted.enabled:
        faults.append(f"APT::Periodic::Unattended-Upgrade is not {'on' if wanted.enabled else 'off'}")
    if wanted.enabled:
        if not apt_true(found.get("APT::Periodic::Update-Package-Lists", ())):
            faults.append("APT::Periodic::Update-Package-Lists is off")
        origins = found.get("Unattended-Upgrade::Allowed-Origins", ()) + found.get(
            "Unattended-Upgrade::Origins-Pattern", ()
        )
        if not any("security" in one.lower() for one in origins):
            faults.append("no origin of security updates is allowed")
        faults += [f"{timer} is not active" for timer in TIMERS if not machine.active(timer)]
    if apt_true(found.get("Unattended-Upgrade::Automatic-Reboot", ())) != wanted.automatic_reboot:
        faults.append(f"automatic reboot is {'off' if wanted.automatic_reboot else 'on'}")
    kept = found.get("Unattended-Upgrade::Package-Blacklist", ())
    faults += [
        f"{one} is not kept back from them" for one in wanted.blacklist if not any(one in entry for entry in kept)
    ]
    return together(faults, "security updates on, automatic reboot off, the driver kept back", again("auto_updates"))


def held(machine: Machine) -> Judged:
    """Are the packages held that must not move under running containers?"""
    wanted = machine.expected.updates.held
    text = machine.output("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", role="auto_updates")
    pairs = [line.split() for line in text.splitlines()]
    installed = [words[0] for words in pairs if words[1:] == ["installed"]]
    holds = machine.output("apt-mark", "showhold", role="auto_updates").split()
    matching = [name for name in installed if _matches(name, wanted)]
    if not matching:
        return good("none of those is installed that would be" if wanted else "none needs to be")
    free = [name for name in matching if name not in holds]
    more = f" and {len(free) - 5} more" if free[5:] else ""
    faults = [f"not held: {', '.join(free[:5])}{more}"] if free else []
    return together(faults, f"{len(matching)} packages", again("auto_updates"))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a package is meant: by one of the patterns, and by none that begins with `!`."""
    out = any(fnmatch(name, one[1:]) for one in patterns if one.startswith("!"))
    return not out and any(fnmatch(name, one) for one in patterns)
