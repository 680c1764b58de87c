"""Role snapshot: what is recorded of files and packages, what a run changed, and how files come back."""

from __future__ import annotations

import itertools
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ansible.modules import module_of

record = module_of("snapshot", "layer_record")


def snapshot_of(folder: Path) -> dict[str, str]:
    found: dict[str, str] = record.fingers(record.matches([str(folder)]))
    return found


def test_packages_are_told_from_what_is_left_of_them() -> None:
    text = "bash\t5.2.15-2+b7\tii \nlibc6:amd64\t2.36-9\thi \nufw\t0.36.2-1\trc \nhalf\t1\tiF \ngone\t\tun \n"
    assert record.parse_packages(text) == (
        {"bash": "5.2.15-2+b7", "libc6:amd64": "2.36-9", "half": "1"},
        {"ufw": "0.36.2-1"},
    )


def test_only_units_that_somebody_can_switch_are_recorded() -> None:
    text = "ssh.service enabled enabled\ndbus.service static -\nnfs.service disabled enabled\nx.mount generated -\n"
    text += "gone.service masked enabled\n\n"
    assert record.parse_units(text) == {"ssh.service": "enabled", "nfs.service": "disabled", "gone.service": "masked"}


@given(st.text())
def test_garbled_output_is_no_crash(text: str) -> None:
    record.parse_packages(text)
    record.parse_units(text)
    record.settings_named(text)


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("net.ipv4.ip_forward = 1", ["net.ipv4.ip_forward"]),
        ("net/ipv4/conf/all/rp_filter=1", ["net.ipv4.conf.all.rp_filter"]),
        ("net.ipv4.conf.eth0/100.forwarding = 1", ["net.ipv4.conf.eth0/100.forwarding"]),
        ("net/ipv4/conf/eth0.100/forwarding=1", ["net.ipv4.conf.eth0/100.forwarding"]),
        ("-kernel.x=1", ["kernel.x"]),
        ("# kernel.x=1", []),
        ("; kernel.x=1", []),
        ("kernel.x", []),
        ("", []),
    ],
)
def test_settings_are_read_in_both_spellings(line: str, keys: list[str]) -> None:
    assert record.settings_named(line) == keys


def test_a_locked_password_is_told_from_one_that_never_was(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/bash\n")
    (tmp_path / "shadow").write_text("root:*:1::::::\nada:!$y$x:1::::::\n")
    (tmp_path / "group").write_text("docker:x:999:ada\n")
    found = {"user root": "open", "user ada": "locked", "group docker": "group"}
    assert record.accounts(tmp_path) == found
    assert record.accounts(tmp_path / "none") == {}


def test_changes_of_two_runs_add_up() -> None:
    def packages(**versions: str) -> dict[str, dict[str, str]]:
        return {"packages": versions}

    first = record.difference(packages(a="1", b="1"), packages(a="2", b="1", c="1"))
    assert first == {"packages": {"a": ["1", "2"], "c": [None, "1"]}}
    # Between the runs somebody installed d, which is not ours.
    second = record.difference(packages(a="2", c="1", d="1"), packages(a="3", d="1"))
    assert record.add_up(first, second) == {"packages": {"a": ["1", "3"]}}


names = st.sampled_from(["a", "b", "c"])
states = st.dictionaries(names, st.sampled_from(["1", "2", "3"])).map(lambda found: {"packages": found})


@given(st.lists(states, min_size=2, max_size=5))
def test_runs_one_after_the_other_are_one_run(path: list[dict[str, dict[str, str]]]) -> None:
    total: Any = {}
    for before, after in itertools.pairwise(path):
        total = record.add_up(total, record.difference(before, after))
    assert total == record.difference(path[0], path[-1])


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Return a folder with a file, a link, a folder and a file in it."""
    folder = tmp_path / "etc"
    (folder / "inner").mkdir(parents=True)
    (folder / "plain").write_text("before\n")
    (folder / "plain").chmod(0o640)
    (folder / "inner/deep").write_text("deep\n")
    (folder / "link").symlink_to("plain")
    os.mkfifo(folder / "pipe")
    return folder


def test_files_come_back_as_they_were(etc: Path, tmp_path: Path) -> None:
    before = snapshot_of(etc)
    assert str(etc / "pipe") not in before
    recorded = record.keep(tmp_path / "files.tar", record.matches([str(etc)]))
    assert recorded == before
    (etc / "plain").write_text("after\n")
    (etc / "plain").chmod(0o600)
    (etc / "link").unlink()
    (etc / "link").write_text("no link any more")
    (etc / "inner/deep").unlink()
    (etc / "inner").rmdir()
    (etc / "new").mkdir()
    (etc / "new/file").write_text("")
    changed = record.difference({"files": before}, {"files": snapshot_of(etc)})["files"]
    # Made after the run, in a folder that the layer made: it goes with the folder.
    (etc / "new/later").write_text("")
    # Made by somebody else beside the layer's: it stays.
    (etc / "theirs").write_text("")
    write, remove = record.plan_files(changed, recorded, [str(etc)])
    assert record.restore(tmp_path / "files.tar", write, remove) == []
    (etc / "theirs").unlink()
    assert snapshot_of(etc) == before
    # Its folder's time of change moves, so a second rollback has nothing to do but by content.
    assert record.plan_files(changed, recorded, [str(etc)]) == ([], [])


def test_what_is_spared_is_left_alone(etc: Path, tmp_path: Path) -> None:
    recorded = record.keep(tmp_path / "files.tar", record.matches([str(etc)]))
    (etc / "plain").write_text("after\n")
    (etc / "inner/deep").write_text("after\n")
    changed = record.difference({"files": recorded}, {"files": snapshot_of(etc)})["files"]
    write, remove = record.plan_files(changed, recorded, [str(etc)], [str(etc / "inner")])
    assert (write, remove) == ([str(etc / "plain")], [])


def test_the_archive_is_for_root_alone(etc: Path, tmp_path: Path) -> None:
    record.keep(tmp_path / "files.tar", [str(etc / "plain")])
    record.keep(tmp_path / "files.tar", [str(etc / "link")])
    assert (tmp_path / "files.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "files.tar") as archive:
        assert [Path(name).name for name in archive.getnames()] == ["plain", "link"]


def test_nothing_to_keep_is_an_archive_too(tmp_path: Path) -> None:
    assert record.keep(tmp_path / "files.tar", []) == {}
    assert record.restore(tmp_path / "files.tar", [], []) == []


def test_a_folder_with_something_of_others_in_it_is_told(tmp_path: Path) -> None:
    record.keep(tmp_path / "files.tar", [])
    (tmp_path / "made").mkdir()
    os.mkfifo(tmp_path / "made/pipe")
    assert record.restore(tmp_path / "files.tar", [], [str(tmp_path / "made")]) == [str(tmp_path / "made")]


def test_a_record_is_written_whole(tmp_path: Path) -> None:
    assert record.read_json(tmp_path / "record.json") is None
    record.write_json(tmp_path / "record.json", {"a": 1})
    assert record.read_json(tmp_path / "record.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
