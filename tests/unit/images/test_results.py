import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ddp import results
from ddp.outcome import Problem

NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _same_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def refused(*args: object, **options: object) -> str:
    with pytest.raises(Problem) as caught:
        results.prepare(*args, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 64
    return caught.value.message


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert results.prepare(tmp_path / "a b" / "c", stamp=False) == tmp_path / "a b" / "c" / "events.jsonl"
    assert (tmp_path / "a b" / "c").is_dir()


def test_a_stamped_run_has_a_folder_of_its_own_even_within_a_second(tmp_path: Path) -> None:
    names = [results.prepare(tmp_path, stamp=True, now=NOW).parent.name for _ in range(3)]
    assert names == ["ddp-20261122T010203Z", "ddp-20261122T010203Z-2", "ddp-20261122T010203Z-3"]


def test_the_owner_s_group_may_clear_a_stamped_run(tmp_path: Path) -> None:
    folder = results.prepare(tmp_path, stamp=True, now=NOW).parent
    assert stat.S_IMODE(folder.stat().st_mode) & 0o775 == 0o775


def test_runs_never_mix(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("{}\n")
    assert "already holds a run" in refused(tmp_path, stamp=False)


def test_an_empty_events_file_may_wait_there(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    assert results.prepare(tmp_path, stamp=False) == tmp_path / "events.jsonl"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    assert "cannot make" in refused(tmp_path / "results", stamp=False)


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere: the answer of the system is what is tested against.
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    assert "not writable" in refused(tmp_path, stamp=False)


def images(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def test_class_folders_with_images_are_taken(tmp_path: Path) -> None:
    results.check_images(images(tmp_path, "cat/1.jpg", "dog/deep/2.PNG"))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "no class folders"),
        (["1.jpg"], "no class folders"),
        (["cat/1.jpg", "dog/readme.txt"], "no image in"),
        (["cat/a.txt", "dog/b.txt"], "and 1 more"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        results.check_images(images(tmp_path, *names))
    assert caught.value.exit_code == 64


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="is not a folder"):
        results.check_images(str(tmp_path / "none"))


def test_an_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", deny)
    with pytest.raises(Problem, match="Permission denied"):
        results.check_images(str(tmp_path))
