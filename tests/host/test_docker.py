"""The engine that the roles installed really runs, and what it publishes is really unreachable from outside.

Outside is this machine: the provisioned one hangs on a bridge of its engine, and the tests connect to its address.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.docker.conftest import docker, until
from tests.host.conftest import Provisioned
from tests.host.machine import ADMIN, Machine

IMAGE = "busybox:test"
SERVE = "/bin/busybox httpd -f -p 80 -h /"


pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def box(provisioned: Provisioned) -> Iterator[Machine]:
    """Return the provisioned machine with one small image in its engine, and take away what the tests ran."""
    machine = provisioned.machine
    machine.run(f"tar -C / -c bin/busybox | docker import - {IMAGE}")
    yield machine
    machine.run(f"docker ps --all --quiet | xargs --no-run-if-empty docker rm --force; docker image rm {IMAGE}")
    machine.run("docker network rm made || true", check=False)


@pytest.fixture
def published(box: Machine) -> Iterator[int]:
    """Return a port that a container publishes on every address of the machine."""
    box.run(f"docker run --detach --name published --publish 0.0.0.0:8080:80 {IMAGE} {SERVE}")
    try:
        until(lambda: inside(box, "127.0.0.1", 8080), 20, "the container answers on the machine itself")
        yield 8080
    finally:
        box.run("docker rm --force published")


def inside(machine: Machine, address: str, port: int) -> bool:
    """Tell whether a port answers, asked on the machine itself."""
    return machine.code(f"busybox wget -q -O /dev/null http://{address}:{port}/bin/busybox") == 0


def outside(machine: Machine, port: int) -> bool:
    """Tell whether a port answers, asked from this machine."""
    try:
        with socket.create_connection((machine.address, port), timeout=3):
            return True
    except OSError:
        return False


def test_engine(box: Machine) -> None:
    info = json.loads(box.run("docker info --format '{{json .}}'"))
    assert int(info["ServerVersion"].split(".")[0]) >= 25
    assert info["CgroupDriver"] == "systemd"
    assert info["Driver"] == "overlay2"
    assert info["LiveRestoreEnabled"]
    assert info["DefaultRuntime"] == "runc"
    assert "Docker Compose version" in box.run("docker compose version")
    assert box.run("docker buildx version")


def test_the_administrator_runs_containers_without_sudo(box: Machine) -> None:
    seen = box.ssh(f"docker run --rm {IMAGE} /bin/busybox echo it runs", user=ADMIN)
    assert seen.stdout.strip() == "it runs", seen.stderr


def test_ports_are_published_on_loopback_unless_told_otherwise(box: Machine) -> None:
    box.run("docker network create made")
    for name, network in (("one", "bridge"), ("two", "made")):
        box.run(f"docker run --detach --name {name} --network {network} --publish 80 {IMAGE} {SERVE}")
        assert box.run(f"docker port {name} 80/tcp").split()[0].startswith("127.0.0.1:")
    box.run("docker rm --force one two; docker network rm made")


def test_a_published_port_is_unreachable_from_outside(box: Machine, published: int) -> None:
    assert not outside(box, published)
    # The same question, answered otherwise once the rules let it through: the test can see an open port.
    box.run(f"iptables -I DOCKER-USER -p tcp -m conntrack --ctorigdstport {published} --ctdir ORIGINAL -j RETURN")
    assert outside(box, published)
    # UFW puts its rules back.
    box.run("ufw reload")
    assert not outside(box, published)


def test_it_stays_unreachable_after_a_restart_of_docker(box: Machine, published: int) -> None:
    started = box.run("docker inspect --format '{{.State.StartedAt}}' published")
    box.run("systemctl restart docker")
    assert box.run("docker inspect --format '{{.State.StartedAt}}' published") == started, (
        "live-restore keeps it running"
    )
    until(lambda: inside(box, "127.0.0.1", published), 20, "it answers on the machine itself")
    assert not outside(box, published)


def test_it_stays_unreachable_when_ufw_starts_after_docker(box: Machine, published: int) -> None:
    box.run("ufw disable; iptables -F DOCKER-USER; ufw --force enable")
    assert inside(box, "127.0.0.1", published)
    assert not outside(box, published)


def test_what_is_allowed_is_reachable_and_nothing_else(box: Machine, published: int) -> None:
    # Of the second port only for others, and one address of each family: a rule of the wrong one would stop UFW.
    others = [{"port": 8081, "from": "198.51.100.0/24"}, {"port": 8081, "from": "2001:db8::/32"}]
    rules = json.dumps({"firewall_docker_allowed": [{"port": published}, *others]})
    box.run(f"docker run --detach --name other --publish 0.0.0.0:8081:80 {IMAGE} {SERVE}")
    try:
        box.play("site.yml", "--tags", "firewall", "--extra-vars", rules).checked()
        assert outside(box, published)
        assert not outside(box, 8081)
        assert "198.51.100.0/24" in box.run("iptables -S DOCKER-USER")
        assert "2001:db8::/32" in box.run("ip6tables -S DOCKER-USER")
    finally:
        box.play("site.yml", "--tags", "firewall").checked()
        box.run("docker rm --force other")
    assert not outside(box, published)


def test_the_firewall_is_what_it_says(box: Machine) -> None:
    status = box.run("ufw status verbose")
    assert "Status: active" in status
    assert "Default: deny (incoming), allow (outgoing), deny (routed)" in status
    assert [line.split()[:3] for line in status.splitlines() if "ALLOW" in line] == [
        ["22/tcp", "ALLOW", "IN"],
        ["22/tcp", "(v6)", "ALLOW"],
    ]
    # The machine's own ports as well: something listens, and only here does it answer.
    box.run("busybox httpd -p 8090 -h /")
    assert inside(box, "127.0.0.1", 8090)
    assert not outside(box, 8090)
    box.run("pkill -f 'httpd -p 8090'")


def test_containers_reach_the_network(box: Machine) -> None:
    gateway = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", box.name)
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - the machine comes from a bridge
        port = server.getsockname()[1]

        def greet() -> None:
            with server.accept()[0] as there:
                there.sendall(b"hello\n")

        greeter = threading.Thread(target=greet, daemon=True)
        greeter.start()
        seen = box.run(f"docker run --rm {IMAGE} /bin/busybox nc -w 5 {gateway} {port} </dev/null")
    assert seen == "hello"
