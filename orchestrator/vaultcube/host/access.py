"""Layer 1, who gets in: the administrator, sshd as it is in effect, fail2ban."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from vaultcube.host.machine import Machine
from vaultcube.host.parse import jail_counts, ssh_methods, sshd_settings
from vaultcube.host.words import Judged, JudgedError, again, fail, good, invalid, together, unavailable

# An address from outside (TEST-NET-3): a `Match Address` block may open for others what the main part closes.
OUTSIDE = "203.0.113.9"
# The daemon's words for one and the same.
_SAME = {"without-password": "prohibit-password"}
_WAYS = {"password": "passwordauthentication", "keyboard-interactive": "kbdinteractiveauthentication"}
# What its client says where nothing watches.
_NO_JAIL = {"is fail2ban running": "fail2ban does not run", "does not exist": "there is no jail {}"}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def user(machine: Machine) -> Judged:
    """Is the administrator there, as the documents want him?"""
    wanted = machine.expected.user
    _, _, uid, _, _, home, shell = _account(machine)
    faults = []
    if uid != str(wanted.uid):
        faults.append(f"its uid is {uid} instead of {wanted.uid}")
    if wanted.shell and shell != wanted.shell:
        faults.append(f"its shell is {shell} instead of {wanted.shell}")
    groups = machine.output("id", "-Gn", wanted.name, role="users").split()
    if lacking := [name for name in wanted.groups if name not in groups]:
        faults.append(f"it is not in {', '.join(lacking)}")
    seen = f"{wanted.name}, uid {uid}, in {', '.join(groups)}, home {home}"
    return together([f"{wanted.name}: {one}" for one in faults], seen, again("users"))


def _account(machine: Machine) -> list[str]:
    name = machine.expected.user.name
    answer = machine.ask("getent", "passwd", name)
    fields = answer.stdout.strip().split(":")
    if len(fields) != 7:  # noqa: PLR2004 - as passwd(5) has them
        raise JudgedError(fail(f"there is no user {name}", again("users")))
    return fields


def ssh_keys(machine: Machine) -> Judged:
    """Has the administrator a key to log in with, which nobody else can change?"""
    machine.need_root()
    home = Path(_account(machine)[5])
    path = home / ".ssh" / "authorized_keys"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        modes = [(one, one.stat()) for one in (home, path.parent, path)]
    except OSError as error:
        return fail(f"{path}: {error.strerror}", again("users"))
    keys = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    faults = [] if keys else [f"{path} holds no key"]
    # sshd itself refuses such a file (StrictModes).
    faults += [f"{one} may be written by others" for one, mode in modes if mode.st_mode & _OTHERS_WRITE]
    return together(faults, f"{len(keys)} in {path}", again("users"))


def sudo(machine: Machine) -> Judged:
    """May the administrator use sudo, and is a password asked for, and one set?"""
    machine.need_root()
    wanted = machine.expected.user
    _account(machine)
    text = machine.output("sudo", "-n", "-l", "-U", wanted.name, role="users")
    rules = [line.strip() for line in text.splitlines() if line.strip().startswith("(")]
    if not rules:
        return fail(f"{wanted.name} may not use sudo", again("users"))
    free = [rule for rule in rules if "NOPASSWD" in rule]
    if free:
        return fail(f"{wanted.name} needs no password: {free[0]}", f"{again('users')}; see /etc/sudoers.d")
    state = machine.output("passwd", "-S", wanted.name, role="users").split()[1:2]
    if state == ["P"]:
        return good(f"{wanted.name}: {'; '.join(rules)}, with a password")
    step = f"Set one as root (passwd {wanted.name}), or with users_admin_password_hash; SSH does not take it."
    seen = f"sudo asks {wanted.name} for a password, and none is set"
    return fail(seen, step) if wanted.password else unavailable(seen, step)


def sshd(machine: Machine) -> Judged:
    """Does sshd run, or wait for its socket?"""
    unit = machine.active("ssh.service", "ssh.socket", "sshd.service")
    return good(f"{unit} is active") if unit else fail("neither ssh.service nor ssh.socket is active", again("ssh"))


def ssh_config(machine: Machine) -> Judged:
    """Are sshd's settings in effect as they should be, for the administrator and for root, from outside?

    Which of several files wins is for sshd to say: this asks it, and reads no file.
    """
    machine.need_root()
    wanted = machine.expected.ssh
    faults: list[str] = []
    for name in (machine.expected.user.name, "root"):
        text = machine.output("sshd", "-T", "-C", f"user={name},host={OUTSIDE},addr={OUTSIDE}", role="ssh")
        found = sshd_settings(text)
        if not found:
            return invalid("sshd -T says nothing", "See: sshd -t")
        said = _differences(found, wanted.settings)
        if found.get("port") != (str(wanted.port),):
            said.append(f"port {', '.join(found.get('port', ('?',)))} instead of {wanted.port}")
        faults += [one for one in said if one not in faults]
    step = f"Find the file that wins: grep -ri WORD /etc/ssh/sshd_config.d. {again('ssh')}"
    return together(faults, f"port {wanted.port}, {len(wanted.settings)} settings in effect as they should be", step)


def _differences(found: Mapping[str, tuple[str, ...]], wanted: Mapping[str, str]) -> list[str]:
    said = []
    for name, value in sorted(wanted.items()):
        have = " ".join(found.get(name, ("not set",)))
        if _SAME.get(have, have) != _SAME.get(value, value):
            said.append(f"{name} is {have} instead of {value}")
    return said


def ssh_offers(machine: Machine) -> Judged:
    """Which ways to log in does the running sshd offer? It may have been started with other settings."""
    wanted, name = machine.expected.ssh, machine.expected.user.name
    options = {
        "BatchMode": "yes",
        "PreferredAuthentications": "none",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "ConnectTimeout": "5",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    argv = ["ssh", "-F", "/dev/null", *words, "-p", str(wanted.port), f"{name}@127.0.0.1", "true"]
    answer = machine.ask(*argv)
    if answer.missing:
        return unavailable(answer.why)
    if answer.ok:
        return fail(f"it lets {name} in without a key", again("ssh"))
    offered = ssh_methods(answer.stderr)
    if offered is None:
        return fail(answer.why.rpartition(": ")[2] or answer.why, "See: systemctl status ssh")
    closed = {way for way, setting in _WAYS.items() if wanted.settings.get(setting) == "no"}
    faults = [f"it offers {way}" for way in offered if way in closed]
    return together(faults, f"only {', '.join(offered)}", "Make it read its settings: systemctl restart ssh")


def fail2ban(machine: Machine) -> Judged:
    """Does fail2ban watch sshd, as strictly as it should?"""
    wanted = machine.expected.fail2ban
    said = machine.ask("fail2ban-client", "status", wanted.jail).stderr.lower()
    for sign, meaning in _NO_JAIL.items():
        if sign in said:
            return fail(meaning.format(wanted.jail), f"See: systemctl status fail2ban. {again('fail2ban')}")
    counts = jail_counts(machine.output("fail2ban-client", "status", wanted.jail, role="fail2ban"))
    if "Currently banned" not in counts:
        return invalid(f"the jail {wanted.jail} tells no counts", f"See: fail2ban-client status {wanted.jail}")
    faults = []
    for name, value in (("maxretry", wanted.maxretry), ("bantime", wanted.bantime)):
        have = machine.output("fail2ban-client", "get", wanted.jail, name, role="fail2ban").strip()
        if have != str(value):
            faults.append(f"{name} is {have} instead of {value}")
    seen = f"jail {wanted.jail}: {counts['Currently banned']} banned now, {counts.get('Total failed', 0)} failed so far"
    return together(faults, seen, again("fail2ban"))
