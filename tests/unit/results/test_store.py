from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import RUN_ID, result

from vaultcube.errors import DiskTooSmallError, NotFoundError, ResultsUnwritableError, RunActiveError
from vaultcube.results.lock import locked
from vaultcube.results.store import PLAN, RESERVE, RESULT, RunDirectory, RunStore, run_id
from vaultcube.results.store import RUN_ID as PATTERN


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs with spaces")


def made(store: RunStore, *names: str) -> list[RunDirectory]:
    found = [store.create(name) for name in names]
    for directory in found:
        directory.write(PLAN, "{}")
    return found


def test_a_run_id_is_fit_for_a_compose_project_and_a_folder() -> None:
    assert run_id("ddp", "20260101-120000", "ab12") == RUN_ID
    for bad in ("", " ", "../x", "a/b", "ü", "x" * 60, "a.b", "a\nb"):
        with pytest.raises(ValueError, match="no run id"):
            run_id("ddp", bad, "ab12" if bad != "" else "!")


@given(st.text(max_size=70), st.text(max_size=10), st.text(max_size=10))
def test_any_text_is_a_fit_run_id_or_none(workload: str, stamp: str, suffix: str) -> None:
    try:
        name = run_id(workload, stamp, suffix)
    except ValueError:
        return
    # What docker compose takes for a project's name, and no path.
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)
    assert len(name) <= 63
    assert name.isascii()


def test_a_new_run_has_room_for_the_container_and_for_its_result(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    assert directory.path == store.root / RUN_ID
    assert (directory.path / "results").is_dir()
    assert (directory.path / RESERVE).stat().st_size >= 256 * 1024
    assert directory.read_result() is None


def test_two_runs_never_share_a_directory(store: RunStore) -> None:
    store.create(RUN_ID)
    with pytest.raises(ResultsUnwritableError, match="File exists"):
        store.create(RUN_ID)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_containers_user_owns_its_results(store: RunStore) -> None:
    directory = store.create(RUN_ID, owner=(10001, 10002))
    seen = (directory.path / "results").stat()
    assert (seen.st_uid, seen.st_gid) == (10001, 10002)
    assert directory.path.stat().st_uid == 0


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file" / "runs", Path("/proc/nonsuch"), Path("/dev/null")):
        with pytest.raises(ResultsUnwritableError) as seen:
            RunStore(root).create(RUN_ID)
        assert seen.value.exit_code == 3
        assert str(root) in seen.value.message


def test_a_run_that_cannot_be_made_whole_leaves_nothing(tmp_path: Path) -> None:
    """The reserve does not fit: a real limit on file sizes, in a process of its own."""
    code = (
        "import resource, sys, pathlib\n"
        "from vaultcube.results.store import RunStore\n"
        "from vaultcube.errors import VaultCubeError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    RunStore(pathlib.Path(sys.argv[1])).create('a-run')\n"
        "except VaultCubeError as error:\n    print(error.code, error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("results-unwritable cannot write")
    assert list(tmp_path.iterdir()) == []


def test_proving_a_store_leaves_nothing_and_finds_what_cannot_be_written(store: RunStore) -> None:
    store.prove(RUN_ID)
    assert list(store.root.iterdir()) == []
    assert store.runs() == []
    with pytest.raises(ResultsUnwritableError):
        RunStore(Path("/proc/nonsuch")).prove(RUN_ID)


def test_a_file_is_written_whole_or_not_at_all(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    directory.write("plan.json", "first ü")
    directory.write("plan.json", "second")
    assert (directory.path / "plan.json").read_text() == "second"
    # A disk that is full: what was there stays.
    (directory.path / ".plan.json.part").symlink_to("/dev/full")
    with pytest.raises(DiskTooSmallError, match="is full") as seen:
        directory.write("plan.json", "third" * 100_000)
    assert "--results-dir" in seen.value.next_step
    assert (directory.path / "plan.json").read_text() == "second"
    assert sorted(path.name for path in directory.path.iterdir()) == [".reserve", "plan.json", "results"]


@pytest.mark.parametrize("name", ["plan.json", "result.json"])
def test_what_was_begun_stays_and_what_was_not_goes(store: RunStore, name: str) -> None:
    begun, not_begun = store.create(RUN_ID), store.create(f"{RUN_ID}-2")
    begun.write(name, "{}")
    for one in (begun, not_begun):
        one.remove_unplanned()
    assert list(store.root.iterdir()) == [begun.path]


def test_a_folder_in_the_way_is_told_and_not_a_bug(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    (directory.path / "plan.json").mkdir()
    with pytest.raises(ResultsUnwritableError):
        directory.write("plan.json", "x")


def test_a_result_comes_back_as_it_was_and_gives_up_the_reserve(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    directory.write_result(result())
    assert directory.read_result() == result()
    assert not (directory.path / RESERVE).exists()
    directory.write_result(result(simulated=True))
    again = directory.read_result()
    assert again is not None
    assert again.simulated


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "vaultcube.result/2"}', "\0", "null"])
def test_a_result_that_is_none_is_told_with_its_path(store: RunStore, text: str) -> None:
    directory = store.create(RUN_ID)
    (directory.path / RESULT).write_text(text)
    with pytest.raises(NotFoundError, match=re.escape(str(directory.path / RESULT))) as seen:
        directory.read_result()
    assert "\n" not in seen.value.message


def test_only_a_run_that_has_ended_has_a_result_to_look_at(store: RunStore) -> None:
    run = store.create(RUN_ID)
    with pytest.raises(NotFoundError, match="was killed") as seen:
        run.finished_result()
    assert "vaultcube down RUN" in seen.value.next_step
    with locked(run.path), pytest.raises(RunActiveError, match="still going on"):
        run.finished_result()
    run.write_result(result())
    assert run.finished_result() == result()


def test_unknown_keys_of_a_newer_version_are_read_over(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    (directory.path / RESULT).write_text(json.dumps({**json.loads(result().to_json()), "colour": "blue"}))
    assert directory.read_result() == result()


def test_artifacts_are_all_files_with_their_digests(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    directory.write(PLAN, "{}")
    directory.write_result(result())
    (directory.path / "results" / "events.jsonl").write_bytes(b"line\n")
    (directory.path / "results" / "deep").mkdir()
    (directory.path / "results" / "deep" / "trace ü").write_bytes(b"")
    (directory.path / "results" / "link").symlink_to("/etc/hostname")
    (directory.path / "run.lock").write_text("1")
    (directory.path / ".result.json.part").write_text("half")
    found = {one.path: one.sha256 for one in directory.artifacts()}
    assert list(found) == ["plan.json", "results/deep/trace ü", "results/events.jsonl"]
    assert found["results/events.jsonl"] == hashlib.sha256(b"line\n").hexdigest()


def test_events_are_read_from_where_one_stopped(store: RunStore) -> None:
    directory = store.create(RUN_ID)
    assert directory.read_events() == b""
    directory.events.write_bytes(b"one\ntwo\n")
    assert directory.read_events() == b"one\ntwo\n"
    assert directory.read_events(4) == b"two\n"
    assert directory.read_events(99) == b""


def test_a_container_cannot_make_us_read_the_hosts_files_or_wait(store: RunStore, tmp_path: Path) -> None:
    directory = store.create(RUN_ID)
    (tmp_path / "secret").write_text("secret")
    directory.events.symlink_to(tmp_path / "secret")
    assert directory.read_events() == b""
    directory.events.unlink()
    os.mkfifo(directory.events)
    assert directory.read_events() == b""
    directory.events.unlink()
    directory.events.mkdir()
    assert directory.read_events() == b""


# --- finding ---------------------------------------------------------------------------------------------------


def test_no_folder_is_no_runs(tmp_path: Path) -> None:
    assert RunStore(tmp_path / "nonsuch").runs() == []
    with pytest.raises(NotFoundError, match="there is no run 'last'"):
        RunStore(tmp_path / "nonsuch").find("last")


def test_runs_come_newest_first_whatever_their_workload(store: RunStore) -> None:
    made(store, "vllm-20260101-120000-aaaa", "ddp-20260103-120000-bbbb", "stress-20260102-120000-cccc")
    assert [one.id[:4] for one in store.runs()] == ["ddp-", "stre", "vllm"]
    assert store.find("last").id == "ddp-20260103-120000-bbbb"


def test_what_is_no_run_is_not_listed(store: RunStore) -> None:
    made(store, RUN_ID)
    store.create("ddp-20260102-120000-ffff")  # refused before its plan was written
    (store.root / "notes").mkdir()
    (store.root / "file").write_text("")
    (store.root / "With Space").mkdir()
    (store.root / "With Space" / PLAN).write_text("{}")
    assert [one.id for one in store.runs()] == [RUN_ID]


def test_a_run_is_found_by_its_name_or_the_beginning_of_it(store: RunStore) -> None:
    made(store, "ddp-20260101-120000-aa", "ddp-20260101-120000-aabb", "ddp-20260102-120000-cc")
    assert store.find("ddp-20260102").id == "ddp-20260102-120000-cc"
    # A whole name wins over a longer one that begins so.
    assert store.find("ddp-20260101-120000-aa").id == "ddp-20260101-120000-aa"


@pytest.mark.parametrize("name", ["ddp-2026", "ddp", "nonsuch", "", ".", "..", "/", "last-one", "../runs with spaces"])
def test_an_unknown_or_ambiguous_name_is_told(store: RunStore, name: str) -> None:
    made(store, "ddp-20260101-120000-aaaa", "ddp-20260102-120000-bbbb")
    with pytest.raises(NotFoundError) as seen:
        store.find(name)
    assert seen.value.exit_code == 2


names = st.builds(
    lambda workload, stamp, suffix: f"{workload}-{stamp:08d}-{suffix}",
    st.sampled_from(["ddp", "vllm", "tensorflow", "stress"]),
    st.integers(0, 10**8 - 1),
    st.text("0123456789abcdef", min_size=4, max_size=4),
)


@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data())
def test_every_run_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], data: st.DataObject
) -> None:
    store = RunStore(tmp_path_factory.mktemp("runs"))
    for one in ids:
        assert PATTERN.fullmatch(one)
        (store.root / one).mkdir()
        (store.root / one / PLAN).touch()
    name = data.draw(st.sampled_from(ids))
    assert store.find(name).id == name
    beginning = name[: data.draw(st.integers(1, len(name)))]
    fitting = [one for one in ids if one.startswith(beginning)]
    if len(fitting) == 1 and beginning != "last":
        assert store.find(beginning).id == name
    else:
        with pytest.raises(NotFoundError):
            store.find(beginning)
