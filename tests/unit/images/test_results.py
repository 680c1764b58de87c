import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common import results
from common.outcome import Problem

NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _same_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def refused(folder: Path) -> str:
    with pytest.raises(Problem) as caught:
        results.prepare(folder, "ddp", stamp=False)
    assert caught.value.exit_code == 64
    return caught.value.message


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert results.prepare(tmp_path / "a b" / "c", "ddp", stamp=False) == tmp_path / "a b" / "c" / "events.jsonl"
    assert (tmp_path / "a b" / "c").is_dir()


def test_a_stamped_run_has_a_folder_of_its_own_even_within_a_second(tmp_path: Path) -> None:
    names = [results.prepare(tmp_path, "ddp", stamp=True, now=NOW).parent.name for _ in range(3)]
    assert names == ["ddp-20261122T010203Z", "ddp-20261122T010203Z-2", "ddp-20261122T010203Z-3"]


def test_the_owner_s_group_may_clear_a_stamped_run(tmp_path: Path) -> None:
    folder = results.prepare(tmp_path, "ddp", stamp=True, now=NOW).parent
    assert stat.S_IMODE(folder.stat().st_mode) & 0o775 == 0o775


def test_runs_never_mix(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("{}\n")
    assert "already holds a run" in refused(tmp_path)


def test_an_empty_events_file_may_wait_there(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    assert results.prepare(tmp_path, "ddp", stamp=False) == tmp_path / "events.jsonl"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    assert "cannot make" in refused(tmp_path / "results")


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere: the answer of the system is what is tested against.
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    assert "not writable" in refused(tmp_path)


def test_programs_of_one_run_may_share_the_file(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("{}\n")
    assert results.prepare(tmp_path, "vllm", stamp=False, shared=True) == tmp_path / "events.jsonl"
