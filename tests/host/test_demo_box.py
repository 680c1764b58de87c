"""playbooks/vaultcube.yml: the orchestrator, its images and its recorder, which records the rig's cards here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.docker.conftest import docker, until
from tests.host.machine import Machine, Play, base_variables
from tests.rig.box import Box

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]
RECORDINGS = "/var/log/vaultcube/gpu"
# Where the recorder finds the rig's driver; a container has no /proc/driver/nvidia of its own.
DROP_IN = """\
[Unit]
ConditionPathExists=

[Service]
Environment=LD_LIBRARY_PATH=/srv/box/lib VAULTCUBE_RIG=/srv/box
"""


@dataclass(frozen=True)
class Demo:
    """A machine with an engine, and what vaultcube.yml made of it.

    Attributes:
        check: the run in check mode.
        first: the run that converged.
        second: the run after it.
    """

    machine: Machine
    check: Play
    first: Play
    second: Play


def wheelhouse(folder: Path) -> Path:
    """Return a folder with all libraries of the lock: the way without a package registry."""
    argv = [
        str(ROOT / ".venv/bin/python"),
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    argv += [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        "-r",
        str(ROOT / "requirements/base.txt"),
    ]
    subprocess.run(argv, check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, machine_image: str) -> Iterator[Demo]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("demo")
    with Machine(folder) as machine:
        machine.variables = base_variables(machine) | {"vaultcube_wheelhouse": str(wheelhouse(folder / "wheels"))}
        machine.play("site.yml", "--tags", "docker").checked()
        # An image as it comes on a disk: its archive is on the machine, the engine does not know it.
        machine.run("""
            cd /srv; mkdir image; cp /bin/busybox image/; tar -C image -c . | docker import - demo/busybox:1
            docker save demo/busybox:1 | gzip >busybox.tar.gz; docker image rm demo/busybox:1
        """)
        machine.variables["vaultcube_images"] = [{"name": "demo/busybox:1", "archive": "/srv/busybox.tar.gz"}]
        check = machine.play("vaultcube.yml", "--check").checked()
        first = machine.play("vaultcube.yml").checked()
        second = machine.play("vaultcube.yml").checked()
        yield Demo(machine, check, first, second)


@pytest.fixture(scope="module")
def recording(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return that machine with the rig's four cards, and the recorder started."""
    box = Box(tmp_path_factory.mktemp("rig") / "box")
    docker("cp", "--quiet", str(box.path), f"{demo.machine.name}:/srv/box")
    machine = demo.machine
    machine.run("chmod -R a+rX /srv/box; mkdir -p /etc/systemd/system/vaultcube-recorder.service.d")
    machine.run(f"cat >/etc/systemd/system/vaultcube-recorder.service.d/rig.conf <<'E'\n{DROP_IN}E")
    machine.run("systemctl daemon-reload; systemctl start vaultcube-recorder")
    until(lambda: rows(machine) >= 12, 60, "three readings of four cards are there")
    return machine


def query(machine: Machine, sql: str) -> str:
    return machine.run(f'sqlite3 -readonly {RECORDINGS}/$(date -u +%F).db "{sql}"', check=False).strip()


def rows(machine: Machine) -> int:
    return int(query(machine, "SELECT count(*) FROM samples") or 0)


def test_check_mode_changes_nothing(demo: Demo) -> None:
    assert demo.check.counts["failed"] == 0
    assert "vaultcube : Make the recorder's user" in demo.first.changed_tasks


def test_the_second_run_changes_nothing(demo: Demo) -> None:
    assert demo.second.counts["changed"] == 0, demo.second.changed_tasks


def test_the_command_works_for_everybody(demo: Demo) -> None:
    assert "vaultcube" in demo.machine.run(
        "setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/tmp vaultcube --version"
    )
    # The sources of images and the compose files came along.
    listed = json.loads(demo.machine.run("HOME=/root vaultcube images list --json"))
    assert "pytorch" in json.dumps(listed)


def test_its_libraries_are_those_of_the_lock(demo: Demo) -> None:
    lock = (ROOT / "requirements/base.txt").read_text()
    there = demo.machine.run("/opt/vaultcube/venv/bin/python -m pip list --format=freeze").split()
    ours = [line for line in there if line.partition("==")[0] not in {"pip", "setuptools", "vaultcube", "wheel"}]
    assert ours
    assert all(line.lower().replace("_", "-") in lock.lower().replace("_", "-") for line in ours)


def test_the_image_was_loaded_once(demo: Demo) -> None:
    assert "vaultcube : Load the image" in demo.first.changed_tasks
    assert demo.machine.run("docker image inspect --format '{{.Id}}' demo/busybox:1").startswith("sha256:")


def test_without_a_driver_the_recorder_is_not_a_failure(demo: Demo) -> None:
    told = demo.machine.run("systemctl show vaultcube-recorder -p UnitFileState -p Result")
    assert "UnitFileState=enabled" in told
    assert "Result=success" in told
    assert demo.machine.run("systemctl is-active vaultcube-recorder-next.timer").strip() == "active"


def test_all_cards_are_recorded_every_five_seconds(recording: Machine) -> None:
    assert query(recording, "SELECT DISTINCT period_ms FROM sessions") == "5000"
    # A busy machine may leave readings out, and never reads more often.
    assert float(query(recording, "SELECT min(since_s) FROM samples")) > 4
    assert query(recording, "SELECT count(DISTINCT uuid) FROM samples") == "4"
    assert query(recording, "SELECT count(*) FROM samples WHERE power_w IS NULL") == "0"


def test_the_recorder_has_no_power_but_to_read_the_kernels_log(recording: Machine) -> None:
    pid = recording.run("systemctl show vaultcube-recorder -p MainPID --value").strip()
    status = recording.run(f"cat /proc/{pid}/status")
    assert "CapEff:\t0000000400000000" in status  # CAP_SYSLOG, 34
    assert "CapBnd:\t0000000400000000" in status
    assert "NoNewPrivs:\t1" in status
    user = recording.run(f"ps -o user:32= -p {pid}").strip()
    assert user == "vaultcube-recorder"
    level = float(
        recording.run("systemd-analyze security vaultcube-recorder --no-pager | tail -n 1").split(":")[1].split()[0]
    )
    assert level < 3.0, level


def test_the_recorder_goes_on_in_its_file_and_begins_another_on_a_new_day(recording: Machine) -> None:
    recording.run("systemctl start vaultcube-recorder-next.service")
    until(lambda: query(recording, "SELECT count(*) FROM sessions") == "2", 60, "it goes on in the file of today")
    before = rows(recording)
    until(lambda: rows(recording) > before, 60, "it records there")
    # Midnight is the timer's; the next one is due then.
    assert "00:00:05 UTC" in recording.run("TZ=UTC systemctl list-timers vaultcube-recorder-next.timer --no-pager")


def test_old_recordings_are_removed_and_young_ones_stay(recording: Machine) -> None:
    recording.run(f"touch -d '31 days ago' {RECORDINGS}/old.db; touch -d '29 days ago' {RECORDINGS}/young.db")
    recording.run("systemd-tmpfiles --clean /etc/tmpfiles.d/vaultcube-recorder.conf")
    left = recording.run(f"ls {RECORDINGS}").split()
    assert "old.db" not in left
    assert "young.db" in left
    assert recording.run("systemctl is-active vaultcube-recorder").strip() == "active"


def test_it_can_be_switched_off_and_keeps_what_it_recorded(recording: Machine) -> None:
    play = recording.play("vaultcube.yml", "-e", "vaultcube_recorder=false").checked()
    assert "vaultcube : Stop the recorder" in play.changed_tasks
    assert recording.code("systemctl is-active vaultcube-recorder") != 0
    assert rows(recording) > 0


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ({"vaultcube_recorder_period_s": 90}, "must be 0.1 to 60 seconds"),
        ({"vaultcube_images": [{"name": "a/b:1"}]}, "one of archive, build or pull"),
        ({"vaultcube_images": [{"name": "a/b:1", "archive": "/srv/busybox.tar.gz"}]}, "made one of another name"),
    ],
)
def test_settings_that_cannot_work_are_refused(demo: Demo, variable: dict[str, object], words: str) -> None:
    play = demo.machine.play("vaultcube.yml", "-e", json.dumps(variable))
    assert play.code != 0
    assert words in " ".join(play.output.split())
