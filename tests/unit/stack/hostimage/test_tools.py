"""Which programs a build needs, and whether virtual machines run here: with emulators that are a few lines of shell."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from vaultcube.errors import HostBuildError, HostToolsError, InterruptedRunError, NoAccelerationError
from vaultcube.stack.hostimage import tools
from vaultcube.stack.signals import Stop

# Writes what the firmware says into the file that it is told, as QEMU does.
RUNS = """for word; do case $word in file,id=bios,path=*) echo "No bootable device." >"${word#file,id=bios,path=}" ;; esac; done
exec sleep 60"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "sleep"):
        (folder / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str = "") -> None:
    path = folder / name
    path.write_text(f"#!{folder}/bash\n{script}\n")
    path.chmod(0o755)


def test_all_that_is_missing_is_named_at_once(programs: Path) -> None:
    for name in tools.NEEDED:
        if name not in {"packer", "scp", "bash"}:
            program(programs, name)
    with pytest.raises(HostToolsError, match=r"not installed: packer, scp, xorriso \(or genisoimage\)"):
        tools.check_tools()
    for name in ("packer", "scp", "genisoimage"):
        program(programs, name)
    tools.check_tools()
    assert tools.iso_maker() == "genisoimage"


def test_acceleration_that_runs_a_machine_is_taken(programs: Path) -> None:
    program(programs, tools.QEMU, RUNS)
    with Stop() as stop:
        assert tools.choose_accelerator("hvf", stop) == "hvf"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 1", "hvf is there and does not work: a virtual machine ends at once"),
        (
            "exec sleep 60",
            "hvf is there and does not work: a virtual machine does not get through its firmware in 0.5 s",
        ),
    ],
)
def test_acceleration_that_runs_none_is_not(
    programs: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    monkeypatch.setattr(tools, "PROBE_S", 0.5)
    program(programs, tools.QEMU, script)
    with Stop() as stop, pytest.raises(NoAccelerationError) as caught:
        tools.choose_accelerator("hvf", stop)
    assert caught.value.message == why
    assert "--accelerator tcg" in caught.value.next_step


def test_emulation_is_taken_when_it_is_asked_for_and_only_then(programs: Path) -> None:
    with Stop() as stop:
        assert tools.choose_accelerator("tcg", stop) == "tcg"
    assert list(programs.glob("qemu*")) == []
    assert (tools.cpu_model("tcg"), tools.cpu_model("kvm")) == ("max", "host")


def test_the_probe_ends_with_a_stop(programs: Path) -> None:
    program(programs, tools.QEMU, "exec sleep 60")
    with Stop() as stop:
        stop.ask()
        with pytest.raises(InterruptedRunError):
            tools.choose_accelerator("hvf", stop)


def test_a_command_that_fails_is_told_by_its_last_line() -> None:
    with Stop() as stop:
        with pytest.raises(HostBuildError, match=r"^making it: no such thing$"):
            tools.checked(
                ["bash", "-c", "echo first; echo no such thing >&2; exit 3"], "making it", timeout=10, stop=stop
            )
        with pytest.raises(HostBuildError, match=r"^making it: bash ended with 3$"):
            tools.checked(["bash", "-c", "exit 3"], "making it", timeout=10, stop=stop)
        with pytest.raises(HostBuildError, match=r"did not answer within 0\.5 s"):
            tools.checked(["sleep", "60"], "making it", timeout=0.5, stop=stop)


def test_a_port_that_is_free_can_be_taken() -> None:
    with socket.create_server(("127.0.0.1", tools.free_port())):
        pass
