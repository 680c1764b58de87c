"""Environments that refuse: private engines, sockets that misbehave, mounts that only one command sees; and the check of what a user is told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
from tests.docker.conftest import Vaultcube

# Every process of a call carries it, however deep.
MARK = "VAULT_TEST_CALL"


def without(what: str) -> NoReturn:
    """Skip a test on a developer's machine that lacks something; CI has to have it."""
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


def in_root(argv: Sequence[str]) -> list[str]:
    """Return argv as root runs it, environment kept; skips the test where this user cannot be root."""
    if not sys.platform.startswith("linux"):
        without("Linux namespaces")
    if os.getuid() == 0:
        return list(argv)
    asks = shutil.which("sudo") is None
    if asks or subprocess.run(["sudo", "-n", "true"], capture_output=True, timeout=10, check=False).returncode:
        without("root, or sudo without a password")
    return ["sudo", "-n", "--preserve-env", "env", f"PATH={os.environ['PATH']}", *argv]


def as_before() -> list[str]:
    """Return the words that make root this user again."""
    if os.getuid() == 0:
        return []
    return ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups"]


def after(script: str) -> list[str]:
    """Return words to put before a command: a root shell script changes the mounts that only this command sees."""
    shell = ["sh", "-ec", script + '\nexec "$@"', "sh"]
    return [*in_root(["unshare", "--mount", "--propagation", "private", *shell]), *as_before()]


def plugin_folder(name: str) -> Path:
    """Return the folder that the docker command takes a plugin from."""
    known = subprocess.run(
        ["docker", "info", "--format", "{{json .ClientInfo.Plugins}}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return next(Path(one["Path"]).parent for one in json.loads(known.stdout) if one["Name"] == name)


@dataclass
class Call:
    """One call of vaultcube: the words before it, and the variables on top of ours.

    Attributes:
        mark: found in the environment of every process that the call started.
    """

    cube: Vaultcube
    before: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def environment(self) -> dict[str, str]:
        return self.cube.environment({**self.env, MARK: self.mark})

    def argv(self, *args: str) -> list[str]:
        if not self.before:
            return self.cube.argv(*args)
        # sudo takes these away, whatever it is told.
        lost = [f"{k}={v}" for k, v in self.environment().items() if k == "PATH" or k.startswith(("PYTHON", "LD_"))]
        return [*self.before, "env", *lost, *self.cube.argv(*args)]

    def run(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*args),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(),
            check=False,
        )

    def start(self, *args: str, stderr: Path) -> subprocess.Popen[bytes]:
        """Start it, with its stderr in a file that can be read while it goes on."""
        with stderr.open("wb") as file:
            return subprocess.Popen(
                self.argv(*args),
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=self.environment(),
            )

    def processes(self) -> list[str]:
        """Return the command lines of what the call started and is still there."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def refused(self, code: str, exit_code: int, *args: str, timeout: float = 60) -> str:
        """Run it, and check that it is refused as told and left nothing behind; return the message."""
        before = snapshot(self.cube.runs)
        message = told(self.run(*args, timeout=timeout), code, exit_code, as_json="--json" in args)
        assert self.processes() == []
        assert snapshot(self.cube.runs) == before
        return message


def snapshot(folder: Path) -> list[str]:
    """Return all paths below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.is_dir() else []


def told(seen: subprocess.CompletedProcess[str], code: str, exit_code: int, *, as_json: bool) -> str:
    """Check what a user is told: one line, a next step with the code, the exit code, and one document with --json."""
    assert "Traceback" not in seen.stderr, seen.stderr
    error = re.search(r"^vaultcube: (.+)\n((?:    .*\n)*)  next: (.+)  \[([a-z-]+)\]\n\Z", seen.stderr, re.MULTILINE)
    assert error, f"exit {seen.returncode}, stderr:\n{seen.stderr}\nstdout:\n{seen.stdout}"
    assert (error[4], seen.returncode) == (code, exit_code), seen.stderr
    assert seen.stderr.count("vaultcube: ") == 1, seen.stderr
    assert len(error[1]) < 400, error[1]
    if as_json:
        document: dict[str, Any] = json.loads(seen.stdout)["error"]
        assert document["code"] == code
        assert document["next_step"] == error[3]
        assert document["message"].splitlines()[0] == error[1]
    else:
        assert seen.stdout == ""
    return error[1] + "\n" + error[2]


@contextlib.contextmanager
def listening(path: Path) -> Iterator[str]:
    """Listen on a unix socket, accept in the kernel's queue, and never answer; give its DOCKER_HOST."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen(64)
        yield f"unix://{path}"


def unused_port() -> int:
    """Return a TCP port on loopback where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Its disk is a tmpfs of a size that can be changed, or a folder; the mounts, the network, a system containerd's socket
# and an NVIDIA hook are the engine's own affair. Each line on its stdin starts one that has ended again. It ends, and
# clears up, when its stdin closes: also when the test run is killed.
ENGINE = r"""
mkdir "$1/data"
if [ -n "$2" ]; then mount -t tmpfs -o "size=$2" vaultcube-test "$1/data"; fi
if [ -d /run/containerd ]; then mount -t tmpfs vaultcube-test /run/containerd; fi
if hook=$(command -v nvidia-container-runtime-hook); then mount --bind /dev/null "$hook"; fi
ip link set lo up
begin() {
    rm -f "$1/pid"
    PATH="$1/bin:$PATH" dockerd --host "unix://$1/docker.sock" --group "$2" --pidfile "$1/pid" \
        --config-file "$1/daemon.json" --data-root "$1/data" --exec-root "$1/exec" \
        --exec-opt native.cgroupdriver=cgroupfs >>"$1/log" 2>&1 </dev/null &
}
begin "$1" "$3"
echo "$$"
while read -r _; do begin "$1" "$3"; done
kill "$!" 2>/dev/null || true
wait "$!" || true
if [ -n "$2" ]; then umount "$1/data"; fi
rm -rf --one-file-system "$1"
"""
ENGINE_START_S = 40
ENGINE_STOP_S = 30


class Engine:
    """A second engine with an own disk and no way out, as a context manager. It does not touch the first.

    Args:
        size: of its disk in memory, as mount says it; None: its disk is a folder of this machine's.

    Attributes:
        host: its DOCKER_HOST, once it is entered.
        folder: what it keeps: its disk under `data`, its log in `log`, and `bin`, the first of its PATH.
    """

    parent = "/tmp"

    def __init__(self, size: str | None) -> None:
        self._size = size

    def prepare(self) -> None:
        """Put what the engine starts with into its folder."""
        (self.folder / "daemon.json").write_text("{}")

    def __enter__(self) -> Self:
        if shutil.which("dockerd") is None:
            without("dockerd on this machine")
        in_root([])
        self.folder = Path(tempfile.mkdtemp(prefix="vc-", dir=self.parent))
        self.host = f"unix://{self.folder}/docker.sock"
        self.prepare()
        words = ["sh", "-ec", ENGINE, "sh", str(self.folder), self._size or "", str(os.getgid())]
        argv = in_root(["unshare", "--mount", "--net", "--propagation", "private", *words])
        # A session of its own: Ctrl-C is for the test run, which then ends the engine in its turn.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self._pid = self._process.stdout.readline().strip()
        try:
            self._wait()
        except AssertionError:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + ENGINE_START_S
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"the second engine does not start: {self.log()[-2000:]}")
            time.sleep(0.1)

    def end(self, number: signal.Signals) -> None:
        """Send the engine a signal and wait until it is gone; its containers may live on."""
        pid = (self.folder / "pid").read_text().strip()
        subprocess.run(in_root(["kill", f"-{number.value}", pid]), timeout=30, check=True)
        deadline = time.monotonic() + ENGINE_STOP_S
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            if time.monotonic() > deadline:
                raise AssertionError(f"the second engine does not end: {self.log()[-2000:]}")
            time.sleep(0.1)

    def begin(self) -> None:
        """Start an engine that has ended again, over what it kept."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._wait()

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=ENGINE_STOP_S)
        subprocess.run(in_root(["rm", "-rf", str(self.folder)]), timeout=30, check=True)

    def log(self) -> str:
        """Return what it has logged so far."""
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def _answers(self) -> bool:
        argv = ["docker", "--host", self.host, "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0

    @property
    def inside(self) -> list[str]:
        """Words before a command that lets it see the engine's disk, as a command on its machine does."""
        return [*in_root(["nsenter", "--mount", f"--target={self._pid}"]), *as_before()]

    def resize(self, size: str) -> None:
        """Give its disk another size."""
        argv = ["nsenter", "--mount", f"--target={self._pid}", "mount", "-o", f"remount,size={size}"]
        subprocess.run(in_root([*argv, str(self.folder / "data")]), timeout=30, check=True)
