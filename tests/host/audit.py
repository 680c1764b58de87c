"""What two outside judges say of a machine: Lynis of the whole, ssh-audit of the SSH server.

    python -m tests.host.audit --write docs/security.md docs/host.md

measures a bare machine, provisions it, measures it again, and writes the figures between the marks in those files.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.host.machine import ADMIN, Machine, Play, base_variables, build_image

SSH_AUDIT = Path(sys.executable).parent / "ssh-audit"
REPORT = "/var/log/lynis-report.dat"
_APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300"


@dataclass(frozen=True)
class Lynis:
    """What Lynis found.

    Attributes:
        version: its own.
        index: its hardening index, 0 to 100.
        tests: how many tests it ran.
        warnings: what it warns of, `TEST text`.
        suggestions: what it would do, `TEST text`.
    """

    version: str
    index: int
    tests: int
    warnings: list[str]
    suggestions: list[str]


@dataclass(frozen=True)
class SshAudit:
    """What ssh-audit found: for each verdict what it was given to, `kind algorithm: why`."""

    version: str
    software: str
    fail: list[str]
    warn: list[str]


def lynis(machine: Machine) -> Lynis:
    """Install Lynis, run it, and remove exactly what that installed."""
    listed = "dpkg-query -W -f '${binary:Package}\\n'"
    before = set(machine.run(listed).split())
    machine.run(f"{_APT} update && {_APT} install --no-install-recommends lynis >/dev/null", timeout=600)
    try:
        machine.run("lynis audit system --quick --no-colors --quiet", check=False, timeout=900)
        return parse_lynis(machine.run(f"cat {REPORT}"))
    finally:
        added = sorted(set(machine.run(listed).split()) - before)
        machine.run(f"{_APT} purge {' '.join(added)} >/dev/null; rm -f /var/log/lynis*", timeout=600)


def parse_lynis(text: str) -> Lynis:
    """Return what Lynis' report file says."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        fields.setdefault(key.removesuffix("[]"), []).append(value)

    def told(key: str) -> list[str]:
        rows = (value.split("|") for value in fields.get(key, []))
        return sorted({" ".join(row[:2]).strip() for row in rows})

    return Lynis(
        version=fields["lynis_version"][0],
        index=int(fields["hardening_index"][0]),
        tests=int(fields["lynis_tests_done"][0]),
        warnings=told("warning"),
        suggestions=told("suggestion"),
    )


def ssh_audit(machine: Machine) -> SshAudit:
    """Ask the machine's SSH server what it offers."""
    argv = [str(SSH_AUDIT), "--json", "--skip-rate-test", "--port", str(machine.port), "127.0.0.1"]
    seen = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return parse_ssh_audit(seen.stdout, importlib.metadata.version("ssh-audit"))


def parse_ssh_audit(text: str, version: str = "") -> SshAudit:
    """Return what its document says."""
    content = json.loads(text)
    verdicts: dict[str, list[str]] = {"fail": [], "warn": []}
    for kind in ("kex", "key", "enc", "mac"):
        for one in content[kind]:
            for verdict, found in verdicts.items():
                found += [f"{kind} {one['algorithm']}: {why}" for why in one["notes"].get(verdict, [])]
    return SshAudit(version, content["banner"]["software"], verdicts["fail"], verdicts["warn"])


def replace(path: Path, name: str, lines: list[str]) -> None:
    """Write lines between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        ValueError: the file has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise ValueError(f"{path} has no {start} and {end}")
    head, tail = text.split(start)[0], text.split(end)[1]
    path.write_text(head + "\n".join([start, *lines, end]) + tail, encoding="utf-8")


def security(before: tuple[Lynis, SshAudit], after: tuple[Lynis, SshAudit]) -> list[str]:
    """Return the table of docs/security.md."""
    (bare, bare_ssh), (made, made_ssh) = before, after
    rows = [
        f"| Lynis {made.version}: hardening index | {bare.index} | {made.index} |",
        f"| Lynis: warnings | {len(bare.warnings)} | {len(made.warnings)} |",
        f"| Lynis: suggestions | {len(bare.suggestions)} | {len(made.suggestions)} |",
        f"| Lynis: tests it ran | {bare.tests} | {made.tests} |",
        f"| ssh-audit {made_ssh.version}: fail | {len(bare_ssh.fail)} | {len(made_ssh.fail)} |",
        f"| ssh-audit: warn | {len(bare_ssh.warn)} | {len(made_ssh.warn)} |",
    ]
    left = [f"- `{line.partition(' ')[0]}` {line.partition(' ')[2]}" for line in [*made.warnings, *made.suggestions]]
    warned = [f"- {line}" for line in made_ssh.warn]
    return [
        f"Debian 12 in a container, {made_ssh.software}.",
        "",
        "| judge | bare | provisioned |",
        "|---|---|---|",
        *rows,
        "",
        "What Lynis still says:",
        "",
        *left,
        "",
        "What ssh-audit still warns of:" if warned else "ssh-audit warns of nothing.",
        *(["", *warned] if warned else []),
    ]


def timing(first: Play, second: Play, load: float) -> list[str]:
    """Return the table of docs/host.md; `load` is what else the machine did when it began."""
    cpus = len(os.sched_getaffinity(0))
    busy = f", while other work kept them busy (load {load:.0f})" if load > cpus / 2 else ""
    return [
        f"Measured in a container of Debian 12 on {cpus} cores{busy}, packages from a mirror near by:",
        "",
        "| run | seconds | tasks changed |",
        "|---|---|---|",
        f"| layer 1, bare machine | {first.seconds:.0f} | {first.counts['changed']} |",
        f"| layer 1, again | {second.seconds:.0f} | {second.counts['changed']} |",
    ]


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", nargs=2, type=Path, metavar=("SECURITY", "HOST"), required=True)
    args = parser.parse_args()
    build_image()
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory() as folder, Machine(Path(folder)) as machine:
        machine.variables = base_variables(machine)
        before = lynis(machine), ssh_audit(machine)
        first = machine.play("site.yml", "--tags", "layer1", timeout=3600).checked()
        machine.user = ADMIN
        second = machine.play("site.yml", "--tags", "layer1", timeout=3600).checked()
        after = lynis(machine), ssh_audit(machine)
    replace(args.write[0], "figures", security(before, after))
    replace(args.write[1], "timing", timing(first, second, load))


if __name__ == "__main__":
    main()
