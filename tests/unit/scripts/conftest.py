"""A machine made of fake commands: the set-up scripts run on it without touching the real one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REAL_TOOLS = {
    *(
        "awk",
        "basename",
        "bash",
        "cat",
        "chmod",
        "cut",
        "dirname",
        "env",
        "flock",
        "git",
        "grep",
        "head",
        "id",
        "mkdir",
    ),
    *("mktemp", "rm", "sed", "sh", "sha256sum", "sleep", "sort", "tail", "timeout", "tr", "uname"),
}
NO_ENGINE = 'echo "Cannot connect to the Docker daemon" >&2; exit 1'


class Machine:
    """PATH holds only `bin`: real text tools, and whatever a test puts there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin = home / "bin"
        self.bin.mkdir()
        for tool in REAL_TOOLS:
            found = shutil.which(tool)
            if found:
                (self.bin / tool).symlink_to(found)
        self.calls = home / "calls.log"
        self.calls.touch()
        self.apt = home / "apt"
        (self.apt / "sources.list.d").mkdir(parents=True)
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(home),
            "OS_RELEASE": str(home / "os-release"),
            "APT_ETC": str(self.apt),
            "ENGINE_MARKER": str(home / "engine.pid"),
        }
        self.system(
            'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"'
        )

    def system(self, os_release: str) -> None:
        (self.home / "os-release").write_text(os_release + "\n")

    def command(self, name: str, body: str) -> None:
        """Put a command in PATH that logs its call, then does `body`."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!{shutil.which("bash")}\necho "{name} $*" >>"{self.calls}"\n{body}\n')
        path.chmod(0o755)

    def user(self, uid: int) -> None:
        self.command("id", f'case $1 in -u) echo {uid} ;; -un) echo alice ;; *) echo "alice users" ;; esac')

    def called(self, name: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.split()[0] == name]

    def run(self, *argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in argv],
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.home,
        )

    def script(self, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(ROOT / "scripts" / name, *arguments, **env)

    def library(self, call: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Call one function of scripts/lib.sh."""
        return self.run("bash", "-euo", "pipefail", "-c", f'. "$0"; {call}', ROOT / "scripts" / "lib.sh", **env)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    home = tmp_path / "a machine"
    home.mkdir()
    return Machine(home)


@pytest.fixture
def checkout(machine: Machine) -> Path:
    """A checkout with the scripts and just enough to make an environment from, at a path with a space."""
    root = machine.home / "check out"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "requirements").mkdir()
    (root / "requirements/dev.txt").write_text("example==1\n")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "orchestrator/vaultcube").mkdir(parents=True)
    (root / "orchestrator/vaultcube/__init__.py").write_text('__version__ = "0"\n')
    (machine.bin / "true").symlink_to(shutil.which("true") or "/bin/true")
    return root
