from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.stack import system
from vaultcube.stack.system import parse_meminfo, read_system

MEMINFO = """\
MemTotal:       263856972 kB
MemFree:        233071900 kB
MemAvailable:   251658240 kB
HugePages_Total:       0
DirectMap1G:    217055232 kB
Active(anon):   12345 kB
"""


def test_memory_is_in_bytes_and_what_has_no_unit_is_left_out() -> None:
    found = parse_meminfo(MEMINFO)
    assert found["MemTotal"] == 263856972 * 1024
    assert found["MemAvailable"] == 240 * 2**30
    assert "HugePages_Total" not in found


@given(st.text())
def test_any_text_is_allowed(text: str) -> None:
    assert all(value >= 0 for value in parse_meminfo(text).values())


def test_this_machine(tmp_path: Path) -> None:
    found = read_system(tmp_path / "not" / "there" / "yet")
    assert found.load_1min is not None
    assert found.cpus
    assert found.memory_total_bytes
    assert 0 < (found.memory_available_bytes or 0) <= found.memory_total_bytes
    assert 0 <= (found.disk_free_bytes or 0) <= (found.disk_total_bytes or 0)
    # Of the disk that the folder would be on, under the folder's own name.
    assert found.disk_total_bytes == read_system(tmp_path).disk_total_bytes
    assert found.disk_path == str(tmp_path / "not" / "there" / "yet")


def test_what_a_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(system, "MEMINFO", Path("/nonsuch"))
    monkeypatch.setattr("os.getloadavg", refuse)
    monkeypatch.setattr("shutil.disk_usage", refuse)
    found = read_system(Path("/runs"))
    assert found[:3] == (None, None, None)
    assert found.memory_total_bytes is None
    assert (found.disk_total_bytes, found.disk_free_bytes) == (None, None)
