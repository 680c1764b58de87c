"""Layer 1, what the network reaches: UFW's policy, the rules in the kernel, and those for Docker's ports."""

from __future__ import annotations

from vaultcube.host.machine import Machine
from vaultcube.host.parse import Rules, closes, iptables_rules, target, ufw_status
from vaultcube.host.words import Judged, again, fail, invalid, together

ANYWHERE = "Anywhere"
USER_CHAIN = "DOCKER-USER"


def firewall(machine: Machine) -> Judged:
    """Is UFW active, with the policy and the open ports that it should have?"""
    wanted = machine.expected.firewall
    machine.need_root()
    text = machine.output("ufw", "status", "verbose", role="firewall")
    found = ufw_status(text)
    if not found.active:
        return fail("UFW is not active", again("firewall"))
    faults = [
        f"{which} is {found.policies.get(which, '?')} instead of {policy}"
        for which, policy in (("incoming", wanted.incoming), ("outgoing", wanted.outgoing))
        if found.policies.get(which) != policy
    ]
    opened = {rule.to for rule in found.rules if rule.action in {"ALLOW IN", "LIMIT IN"} and rule.source == ANYWHERE}
    allowed = {rule.to for rule in found.rules if rule.action in {"ALLOW IN", "LIMIT IN"}}
    faults += [f"{port} is open to everybody" for port in sorted(opened - set(wanted.allowed))]
    faults += [f"{port} is not let in" for port in wanted.allowed if port not in allowed]
    seen = f"{wanted.incoming} incoming, {wanted.outgoing} outgoing; open: {', '.join(sorted(allowed)) or 'nothing'}"
    return together(faults, seen, again("firewall"))


def firewall_rules(machine: Machine) -> Judged:
    """Are UFW's rules really in the kernel, for IPv4 and IPv6? Its status only says what it wants."""
    machine.need_root()
    faults, seen = [], []
    for program, version in (("iptables", "IPv4"), ("ip6tables", "IPv6")):
        rules = iptables_rules(machine.output(program, "-S", role="firewall"))
        if "INPUT" not in rules.policies:
            return invalid(f"{program} -S names no policy of INPUT", f"See: {program} -S")
        policy = rules.policies["INPUT"]
        chain = "ufw-before-input" if version == "IPv4" else "ufw6-before-input"
        if policy not in {"DROP", "REJECT"}:
            faults.append(f"{version}: INPUT ends with {policy}")
        if not any(target(rule) == chain for rule in rules.chains["INPUT"]):
            faults.append(f"{version}: {chain} is not called")
        seen.append(f"{version} INPUT {policy}")
    return together(faults, ", ".join(seen), f"Load them: ufw reload. {again('firewall')}")


def docker_rules(machine: Machine) -> Judged:
    """Do packets to published ports pass DOCKER-USER first, and does it close anything? UFW never sees them."""
    machine.need_root()
    rules = iptables_rules(machine.output("iptables", "-S", role="firewall"))
    if USER_CHAIN not in rules.chains:
        return fail(f"there is no chain {USER_CHAIN}", again("firewall"))
    faults = []
    if not _first(rules):
        faults.append(f"FORWARD does not pass {USER_CHAIN} before Docker's own rules")
    if not closes(rules, USER_CHAIN):
        faults.append(f"{USER_CHAIN} drops nothing: a published port is open to everybody")
    count = len(rules.chains[USER_CHAIN])
    return together(faults, f"{USER_CHAIN} comes first, with {count} rules", again("firewall"))


def _first(rules: Rules) -> bool:
    """Say whether FORWARD leads to our chain before it leads to one of Docker's that may accept."""
    for rule in rules.chains.get("FORWARD", ()):
        leads = target(rule)
        # Docker before 28 puts its isolation of networks first after a network was removed. It drops or returns.
        if leads.startswith("DOCKER") and not leads.startswith("DOCKER-ISOLATION-"):
            return leads == USER_CHAIN
    return False
