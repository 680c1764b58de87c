from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.gpu import kernellog
from vaultcube.gpu.kernellog import VARIABLE, KernelLog


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kmsg"
    path.write_text("6,1,1000,-;NVRM: from before\n")
    return path


@pytest.fixture
def log(file: Path) -> Iterator[KernelLog]:
    found = KernelLog({VARIABLE: str(file)})
    yield found
    found.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_only_what_comes_after_opening(log: KernelLog, file: Path) -> None:
    assert (log.path, log.reason) == (str(file), None)
    assert log.poll().messages == []
    append(file, "3,2,2000,-;NVRM: Xid\n4,3,3000,c;more\n")
    assert log.poll().messages == ["NVRM: Xid", "more"]
    assert log.poll().messages == []


def test_a_line_counts_when_it_is_whole(log: KernelLog, file: Path) -> None:
    append(file, "3,2,2000,-;NVRM: X")
    assert log.poll().messages == []
    append(file, "id\n")
    assert log.poll().messages == ["NVRM: Xid"]


def test_properties_of_a_record_and_what_programs_wrote_are_no_messages(log: KernelLog, file: Path) -> None:
    append(file, "3,2,2000,-;pcieport 0000:00:03.0: AER\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:03.0\n")
    append(file, "30,3,2001,-;systemd[1]: NVRM: Xid, said a program\nno kmsg at all\n;\n,,;\n")
    assert log.poll().messages == ["pcieport 0000:00:03.0: AER"]


def test_several_lines_in_one_record(log: KernelLog, file: Path) -> None:
    append(file, r"3,2,2000,-;NVRM: The NVIDIA GPU 0000:b3:00.0\x0aNVRM: fallen off the bus" + "\n")
    assert log.poll().messages == ["NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: fallen off the bus"]


def test_a_semicolon_belongs_to_the_text(log: KernelLog, file: Path) -> None:
    append(file, "3,2,2000,-;a;b\n")
    assert log.poll().messages == ["a;b"]


def test_a_syslog_file_gives_its_kernel_lines(log: KernelLog, file: Path) -> None:
    line = "Nov 25 00:38:01 box kernel: [ 1843.308145] NVRM: Xid (PCI:0000:06:00): 79, gone"
    append(file, f"{line}\nNov 25 00:38:01 box sshd[7]: NVRM: Xid\n")
    assert log.poll().messages == [line]


def test_a_truncated_file_begins_anew(log: KernelLog, file: Path) -> None:
    append(file, "6,2,1,-;one, and long enough to be longer than what follows\n")
    assert len(log.poll().messages) == 1
    file.write_text("6,3,1,-;two\n")
    assert log.poll().messages == ["two"]


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(log: KernelLog, file: Path) -> None:
    append(file, "6,2,1,-;last of the old\n")
    file.rename(file.with_suffix(".1"))
    assert log.poll().messages == ["last of the old"]
    file.write_text("6,3,1,-;first of the new\n")
    assert log.poll().messages == ["first of the new"]


def test_a_storm_is_read_in_bites(log: KernelLog, file: Path) -> None:
    count = 20000
    append(file, "".join(f"6,{number},1,-;line {number}\n" for number in range(count)))
    first = log.poll().messages
    assert 0 < len(first) < count
    found = first
    while more := log.poll().messages:
        found += more
    assert found == [f"line {number}" for number in range(count)]


def test_a_line_that_never_ends_does_not_grow_for_ever(log: KernelLog, file: Path) -> None:
    append(file, "x" * 1_000_000)
    assert log.poll().messages == []
    assert len(log._rest) <= 1 << 16


def test_a_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    log = KernelLog({VARIABLE: str(tmp_path / "nonsuch")})
    assert log.path is None
    assert log.reason == f"{tmp_path}/nonsuch: No such file or directory"
    assert log.poll().messages == []
    log.close()


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    assert KernelLog({VARIABLE: str(tmp_path)}).reason == f"{tmp_path}: neither a file nor a device"


def test_without_permission_the_syslog_file_is_next_and_both_reasons_are_told(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr(kernellog, "DEVICE", os.devnull)
    monkeypatch.setattr(kernellog, "SYSLOG", str(file))
    asked = []

    def refuse(path: str, _flags: int) -> int:
        asked.append(path)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "open", refuse)
    log = KernelLog({})
    assert asked == [os.devnull, str(file)]
    assert log.reason == f"{os.devnull}: Operation not permitted; {file}: Operation not permitted"


def test_the_syslog_file_stands_in_for_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(kernellog, "DEVICE", "/dev/nonsuch")
    monkeypatch.setattr(kernellog, "SYSLOG", str(file))
    log = KernelLog({})
    assert (log.path, log.reason) == (str(file), None)
    log.close()


def test_the_machine_s_own_log_can_be_asked() -> None:
    log = KernelLog({})
    assert (log.path is None) == (log.reason is not None)
    assert isinstance(log.poll().messages, list)
    log.close()
    log.close()
    assert log.poll().messages == []


class Device:
    """Stands in for the reads of /dev/kmsg: records, or the errors that reading gives."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers = list(answers)

    def __call__(self, _fd: int, _size: int) -> bytes:
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> KernelLog:
    log = KernelLog({VARIABLE: os.devnull})
    assert log._device
    monkeypatch.setattr(os, "read", Device())
    return log


def test_records_of_the_device(device: KernelLog, monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[bytes | OSError] = [
        b"3,1,1,-;one\n SUBSYSTEM=pci\n",
        b"3,2,2,-;two\n",
        BlockingIOError(),
        b"3,3,3,-;three\n",
    ]
    monkeypatch.setattr(os, "read", Device(*records))
    assert device.poll() == (["one", "two"], False)
    assert device.poll() == (["three"], False)


def test_overwritten_records_are_told_of(device: KernelLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "read", Device(BrokenPipeError(), b"3,9,1,-;after\n"))
    assert device.poll() == (["after"], True)


def test_a_device_that_fails_ends_the_poll(device: KernelLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "read", Device(b"3,1,1,-;one\n", OSError(errno.EIO, "broken"), b""))
    assert device.poll() == (["one"], False)
    assert device.poll() == ([], False)


@given(st.lists(st.binary()))
def test_no_line_is_too_strange(lines: list[bytes]) -> None:
    assert all(isinstance(text, str) for text in kernellog._messages(lines))
