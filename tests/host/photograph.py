"""What a machine is made of, to be held against what it was: packages, marks, units, accounts, files."""

from __future__ import annotations

from tests.host.machine import Machine

FOLDERS = "/boot /etc /opt /root /srv /usr/lib/systemd /usr/local /usr/share/keyrings"
# Written by the tools at every use, or by Ansible for itself.
PASSING = (
    "/etc/group",
    "/etc/gshadow",
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/subgid",
    "/etc/subuid",
    "/root/.ansible",
)

_SCRIPT = rf"""
dpkg-query -W -f 'package\t${{binary:Package}}\t${{Version}} ${{db:Status-Abbrev}}\n'
apt-mark showauto | sed 's/.*/auto\t&\tauto/'
apt-mark showhold | sed 's/.*/hold\t&\thold/'
systemctl list-unit-files --no-legend | awk '{{print "unit\t" $1 "\t" $2}}'
awk -F: '{{print "user\t" $1 "\t" $3 ":" $4 ":" $6 ":" $7}}' /etc/passwd
awk -F: '{{print "password\t" $1 "\t" $2}}' /etc/shadow
awk -F: '{{print "group\t" $1 "\t" $4}}' /etc/group
find {FOLDERS} -xdev -printf 'file\t%p\t%y %m %U:%G %l\n' 2>/dev/null || true
find {FOLDERS} -xdev -type f -print0 2>/dev/null | xargs -0 -r sha256sum | sed -E 's/^\\?([0-9a-f]+)  (.*)/content\t\2\t\1/'
printf 'rules\tiptables\t'; (iptables -S 2>/dev/null || true) | grep -c . || true
"""


def photograph(machine: Machine) -> dict[str, str]:
    """Return {"KIND NAME": value} of the whole machine."""
    found = {}
    for line in machine.run(_SCRIPT).splitlines():
        kind, name, value = line.split("\t")
        if not (kind in {"file", "content"} and name.rstrip("-").startswith(PASSING)):
            found[f"{kind} {name}"] = value.strip()
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return {"KIND NAME": (before, after)}, "" for what is not there."""
    names = sorted({*before, *after})
    return {name: (before.get(name, ""), after.get(name, "")) for name in names if before.get(name) != after.get(name)}
