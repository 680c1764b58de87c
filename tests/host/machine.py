"""A bare machine for the Ansible roles: a container with systemd as PID 1, reached over SSH as a real box is.

It is privileged, since it stands in for a machine and not for a container: it sets up a firewall and runs an engine of
its own. The kernel is this machine's, so what a kernel does (modules, sysctl, a reboot) is not shown here.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from tests.docker.conftest import docker, until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "vaultcube/test-machine:latest"
LABEL = "vaultcube.test-machine"
ADMIN = "vaultadmin"
# Of a machine that lives for minutes, on loopback: not a secret. Hashed by `openssl passwd -6 -salt vaultcube`.
PASSWORD = "a passphrase for sudo"  # noqa: S105


@dataclass(frozen=True)
class Play:
    """How a playbook ended.

    Attributes:
        code: ansible-playbook's exit code.
        output: everything it printed.
        seconds: how long it took.
    """

    code: int
    output: str
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """The recap of the machine: ok, changed, unreachable, failed, skipped, rescued, ignored."""
        found = re.search(r"^machine\s+: (.*)$", self.output, re.MULTILINE)
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found[1])} if found else {}

    @property
    def changed_tasks(self) -> list[str]:
        """The names of the tasks that changed something."""
        names, last = [], ""
        for line in self.output.splitlines():
            if task := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\]", line):
                last = task[1]
            elif line.startswith("changed: ["):
                names.append(last)
        return names

    def checked(self) -> Self:
        """Return itself; the output is the assertion's message when the playbook failed."""
        assert self.code == 0, self.output[-6000:]
        return self


@dataclass
class Machine:
    """A machine; it starts with `with`, and is removed with its disks at the end.

    Attributes:
        folder: where its key and inventory lie.
        user: who logs in; root until the roles have made the administrator.
        variables: of the inventory, for every playbook.
    """

    folder: Path
    user: str = "root"
    variables: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def __enter__(self) -> Self:
        key = self.folder / "key"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(key)], check=True)
        # The engine of the machine keeps its layers on a volume: overlayfs does not lie on overlayfs.
        options = ["--privileged", "--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", "--hostname=bare"]
        options += ["--tmpfs=/run", "--tmpfs=/run/lock", "--volume=/var/lib/docker", "--publish=127.0.0.1::22"]
        self.name = docker("run", "--detach", f"--label={LABEL}", *options, IMAGE)[:12]
        try:
            docker("cp", "--quiet", str(key) + ".pub", f"{self.name}:/root/.ssh/authorized_keys")
            self.run("chown root:root /root/.ssh/authorized_keys")
            # Docker mounts these two over the machine's own; a file that is mounted cannot be replaced.
            self.run(
                "umount /etc/hostname /etc/hosts; hostname=$(uname -n)"
                "; echo $hostname >/etc/hostname; printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts"
            )
            until(lambda: self.state() in {"running", "degraded"}, 60, "systemd has started")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the container and its volumes."""
        docker("rm", "--force", "--volumes", self.name, check=False)

    def state(self) -> str:
        """Return systemd's own word for how it is: running, degraded (a unit failed), starting."""
        return self.run("systemctl is-system-running", check=False).strip()

    def run(self, script: str, *, check: bool = True, timeout: float = 120) -> str:
        """Run a shell script as root, past SSH; return its stdout."""
        return docker("exec", self.name, "bash", "-euc", script, check=check, timeout=timeout)

    def code(self, script: str) -> int:
        """Run a shell script as root and return its exit code."""
        return subprocess.run(
            ["docker", "exec", self.name, "bash", "-euc", script], capture_output=True, check=False, timeout=120
        ).returncode

    @property
    def address(self) -> str:
        """The machine's address on this machine's bridge: what is reached there is reached from outside."""
        return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name)

    @property
    def port(self) -> int:
        """The port of this machine that leads to the machine's port 22."""
        return int(docker("port", self.name, "22/tcp").rpartition(":")[2])

    @property
    def public_key(self) -> str:
        """The one key that may log in."""
        return (self.folder / "key.pub").read_text().strip()

    def ssh_options(self) -> list[str]:
        """Return what ssh needs to log in with the test's key and no other."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR"]
        return ["-i", str(self.folder / "key"), *(word for option in options for word in ("-o", option))]

    def ssh(self, command: str, user: str = "", options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command as a user who logs in."""
        argv = ["ssh", *self.ssh_options(), "-o", "BatchMode=yes", *options, "-p", str(self.port)]
        argv += [f"{user or self.user}@127.0.0.1", command]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def inventory(self) -> Path:
        """Write the inventory of now, and return its path."""
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes",
            "ansible_become_password": PASSWORD,
            **self.variables,
        }
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump({"cube": {"hosts": {"machine": host}}}))
        return path

    def play(self, playbook: str, *args: str, timeout: float = 1800, env: Mapping[str, str] | None = None) -> Play:
        """Run a playbook of ansible/playbooks against the machine."""
        argv = [str(ROOT / "scripts/ansible.sh"), "ansible-playbook", str(ROOT / "ansible/playbooks" / playbook)]
        argv += ["-i", str(self.inventory()), *args]
        # A cache and a connection of its own: another machine had this address a minute ago.
        own = {
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.folder / "facts"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        }
        start = time.monotonic()
        seen = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            env={**os.environ, **own, **(env or {})},
            check=False,
        )
        return Play(seen.returncode, seen.stdout, time.monotonic() - start)


def base_variables(machine: Machine) -> dict[str, Any]:
    """Return the variables that every machine must be given: who may log in, and the password for sudo."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", "vaultcube", PASSWORD], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {"users_admin_authorized_keys": [machine.public_key], "users_admin_password_hash": hashed}


def build_image() -> str:
    """Build the machine's image where it is not built yet, and return its name."""
    base = subprocess.run(
        [str(ROOT / "scripts/base-image.sh")], capture_output=True, text=True, check=True, timeout=600
    ).stdout.split()[-1]
    argv = ["build", "--quiet", "--tag", IMAGE, "--build-arg", f"BASE_IMAGE={base}"]
    if bundle := os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE"):
        argv += ["--secret", f"id=ca,src={bundle}"]
    docker(*argv, str(ROOT / "tests/host"), timeout=600)
    return IMAGE
