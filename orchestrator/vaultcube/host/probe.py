"""The proof that a published port is closed to the outside: a container publishes one, and another network tries it.

UFW never sees packets to published ports, so its status proves nothing about them. The container's image is empty and
made on the spot; what runs in it is the host's own Python, mounted read-only. The other network is a namespace with a
cable to the host, whose address (198.18.0.0/15, for benchmarks) is no private one that a rule may let in.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from vaultcube.host.engine import info
from vaultcube.host.machine import Machine
from vaultcube.host.shell import Answer, ask
from vaultcube.host.words import Judged, JudgedError, again, fail, good, invalid, unavailable

BANNER: Final = "vaultcube-health"
PORT: Final = 8080
# Time for a container to start, and for a packet that is dropped to be given up: it crosses no wire, and is sent again once,
# after a second.
START_S: Final = 20.0
CONNECT_S: Final = 1.5
NO_PROBES: Final = "no container may be started (--no-probes)"

_LISTEN: Final = f"""
import socket
listener = socket.create_server(("0.0.0.0", {PORT}))
while True:
    line, _ = listener.accept()
    try:
        line.sendall(b"{BANNER}")
        line.close()
    except OSError:
        pass
"""
_CONNECT: Final = f"""
import socket, sys
try:
    line = socket.create_connection((sys.argv[1], int(sys.argv[2])), {CONNECT_S})
    line.settimeout({CONNECT_S})
    print("open" if line.recv(99) == b"{BANNER}" else "closed")
except OSError as error:
    print("closed", error)
"""


class Cable(NamedTuple):
    """A network namespace with a cable to the host: its name and the host's address at the other end."""

    namespace: str
    address: str


def published_port(machine: Machine) -> Judged:
    """Is a port closed to the outside that a container publishes on all addresses?"""
    machine.need_root()
    if not machine.probes:
        return unavailable(NO_PROBES)
    info(machine)
    if not machine.has("ip"):
        return fail("ip is not installed", again("common"))
    name = f"vaultcube-health-{os.urandom(4).hex()}"
    with _listener(name) as port, _cable() as cable:
        reached = _try(["ip", "netns", "exec", cable.namespace], cable.address, port)
        near = ask(["ip", "-n", cable.namespace, "neigh", "show", "to", cable.address]).stdout
    if not reached or "lladdr" not in near:
        return invalid("the probe's own network did not work", "See: ip netns, ip link; is the module veth there?")
    if reached == "open":
        return fail(
            "what a container publishes on 0.0.0.0 is reached from outside, past UFW",
            f"{again('firewall')}; until then publish on 127.0.0.1.",
        )
    return good("what a container publishes on 0.0.0.0 is not reached from outside")


def _try(prefix: list[str], address: str, port: int) -> str:
    """Return `open` where the listener answered, `closed` where nothing did, and nothing where that was not tried to its end."""
    answer = ask([*prefix, sys.executable, "-I", "-c", _CONNECT, address, str(port)], limit_s=START_S)
    return answer.stdout.partition(" ")[0].strip()


@contextmanager
def _listener(name: str) -> Iterator[int]:
    """Run a container that answers, and yield its published port.

    Raises:
        JudgedError: it could not be started, or does not answer the host.
    """
    image = f"{name}:probe"
    _checked(ask(["docker", "import", "-", image], data=_empty_root(), limit_s=60), "an image could not be made")
    try:
        confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534"]
        confined += ["--memory", "64m", "--pids-limit", "16", "--volume", "/usr:/usr:ro", "--network", "bridge"]
        start = ["docker", "run", "--detach", "--pull", "never", "--name", name, *confined]
        start += ["--publish", f"0.0.0.0::{PORT}", "--entrypoint", "/usr/bin/python3", image, "-I", "-c", _LISTEN]
        _checked(ask(start, limit_s=60), "a container could not be started")
        bound = _checked(ask(["docker", "port", name, f"{PORT}/tcp"]), "the port is not published").stdout.split()
        place = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        inside = _checked(ask(["docker", "inspect", "--format", place, name]), "no address").stdout.split()
        published = next((int(one.rpartition(":")[2]) for one in bound if one.startswith("0.0.0.0:")), None)
        if published is None or not inside:
            raise JudgedError(invalid(f"the port was published as {bound}", "See: docker port"))
        _await(inside[0])
        yield published
    finally:
        ask(["docker", "rm", "--force", "--volumes", name], limit_s=60)
        ask(["docker", "image", "rm", "--force", image], limit_s=60)


def _await(address: str) -> None:
    """Return when the listener answers the host itself: what does not answer would seem closed.

    Raises:
        JudgedError: it does not.
    """
    end = time.monotonic() + START_S
    while _try([], address, PORT) != "open":
        if time.monotonic() > end:
            raise JudgedError(
                invalid("the probe's container does not answer the host itself", "See: docker logs, dmesg")
            )
        time.sleep(0.2)


@contextmanager
def _cable() -> Iterator[Cable]:
    """Yield a network namespace with a cable to the host.

    Raises:
        JudgedError: it could not be made.
    """
    mark = os.urandom(3).hex()
    namespace, here, there = f"vch-{mark}", f"vch{mark}a", f"vch{mark}b"
    net = f"198.18.{os.urandom(1)[0]}"
    steps = (
        f"ip netns add {namespace}",
        f"ip link add {here} type veth peer name {there} netns {namespace}",
        f"ip address add {net}.1/30 dev {here}",
        f"ip link set {here} up",
        f"ip -n {namespace} address add {net}.2/30 dev {there}",
        f"ip -n {namespace} link set {there} up",
        f"ip -n {namespace} route add default via {net}.1",
    )
    try:
        for step in steps:
            answer = ask(step.split())
            if not answer.ok:
                raise JudgedError(unavailable(f"no network to try it from ({answer.why})"))
        yield Cable(namespace, f"{net}.1")
    finally:
        ask(["ip", "link", "delete", here])
        ask(["ip", "netns", "delete", namespace])


def _checked(answer: Answer, what: str) -> Answer:
    if not answer.ok:
        raise JudgedError(invalid(f"{what} ({answer.why})", "See: journalctl -u docker"))
    return answer


def _empty_root() -> bytes:
    """Return a root file system (tar) with nothing in it but the way into a mounted /usr.

    Raises:
        JudgedError: this host has no merged /usr.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("usr", "proc", "sys", "dev", "etc", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"/{name}"):  # noqa: PTH114 - a link, wherever it leads
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")  # noqa: PTH115 - its text
                tar.addfile(entry)
            elif name == "lib":
                raise JudgedError(unavailable("this host has no merged /usr"))
    return out.getvalue()
