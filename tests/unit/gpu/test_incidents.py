from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.gpu.recording import BEGIN, begun, infos
from tests.unit.support import DATA

from vaultcube.gpu.incidents import SAME_MS, Incidents
from vaultcube.gpu.kernellog import Polled
from vaultcube.gpu.readings import Problem, XidEvent
from vaultcube.gpu.rundb import Writer
from vaultcube.gpu.telemetry import Event, Telemetry

XID = "NVRM: Xid (PCI:0000:02:00): {}, pid=7, name=python3, Ch 00000008"
BUS = "NVRM: GPU 0000:02:00.0: GPU has fallen off the bus."


class Written:
    """Incidents of a box, and the events that came of them. GPUs 0 and 1 are recorded, 2 is not."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.writer = Writer(str(path), begun(), infos(2))
        self.incidents = Incidents(self.writer, infos(2), infos(3)[2:], str(root))

    def events(self) -> list[Event]:
        self.writer.commit()
        with Telemetry.open(self.path) as telemetry:
            return telemetry.events()

    def kernel(self, *messages: str, at_ms: int = 0) -> bool:
        return self.incidents.kernel(BEGIN + at_ms, Polled(list(messages)))

    def nvml(self, uuid: str | None, code: int, at_ms: int = 0) -> None:
        self.incidents.xid(BEGIN + at_ms, XidEvent(uuid, code))


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    found = Written(tmp_path / "run.db", tmp_path / "root")
    yield found
    found.writer.close(BEGIN, "SIGTERM")


def told(events: list[Event]) -> list[tuple[object, ...]]:
    return [(event.kind, event.uuid, event.code, event.count, event.sources) for event in events]


BOTH = ("nvml", "kernel")
Tell = Callable[[Written], object]


@pytest.mark.parametrize(
    "tell",
    [
        lambda written: (written.nvml("GPU-1", 79), written.kernel(XID.format(79), at_ms=1500)),
        lambda written: (written.kernel(XID.format(79)), written.nvml("GPU-1", 79, at_ms=SAME_MS)),
        # A lost GPU cannot say its name.
        lambda written: (written.kernel(XID.format(79)), written.nvml(None, 79, at_ms=900)),
        lambda written: (written.nvml(None, 79), written.kernel(XID.format(79), at_ms=900)),
    ],
)
def test_an_xid_that_both_report_is_one(written: Written, tell: Tell) -> None:
    tell(written)
    (event,) = written.events()
    assert told([event]) == [("xid", "GPU-1", 79, 1, BOTH)]
    assert event.detail == {"text": "pid=7, name=python3, Ch 00000008"}
    assert event.at_s == BEGIN / 1000


def test_xids_of_another_code_gpu_or_time_are_others(written: Written) -> None:
    written.nvml("GPU-1", 31)
    written.nvml("GPU-1", 43)
    written.nvml("GPU-0", 31)
    written.kernel(XID.format(31), at_ms=SAME_MS + 1)
    assert told(written.events()) == [
        ("xid", "GPU-1", 31, 1, ("nvml",)),
        ("xid", "GPU-1", 43, 1, ("nvml",)),
        ("xid", "GPU-0", 31, 1, ("nvml",)),
        ("xid", "GPU-1", 31, 1, ("kernel",)),
    ]


def test_a_burst_is_counted_once_for_both(written: Written) -> None:
    written.kernel(*[XID.format(13)] * 3)
    for _ in range(3):
        written.nvml("GPU-1", 13, at_ms=500)
    written.kernel(XID.format(13), at_ms=1000)
    assert told(written.events()) == [("xid", "GPU-1", 13, 4, BOTH)]


def test_an_xid_of_a_gpu_that_nobody_knows_says_its_address(written: Written) -> None:
    written.kernel("NVRM: Xid (PCI:0000:99:00): 79, GPU has fallen off the bus.")
    (event,) = written.events()
    assert (event.uuid, event.code, event.detail["pci"]) == (None, 79, "0000:99:00")


def test_what_befalls_gpus_that_are_not_recorded_is_not_written(written: Written) -> None:
    written.nvml("GPU-2", 79)
    assert not written.kernel(
        "NVRM: Xid (PCI:0000:03:00): 79, GPU has fallen off the bus.",
        "NVRM: GPU 0000:03:00.0: GPU has fallen off the bus.",
        "pcieport 0000:00:03.0: AER: Corrected error received: 0000:03:00.0",
    )
    assert written.events() == []


@pytest.mark.parametrize("kernel_first", [True, False])
def test_a_loss_is_one_whoever_sees_it_first(written: Written, kernel_first: bool) -> None:  # noqa: FBT001 - a table
    for kernel in (kernel_first, not kernel_first):
        assert written.kernel(BUS) if kernel else written.incidents.problem(BEGIN, 1, "lost")
    assert not written.incidents.problem(BEGIN + 1000, 1, "lost")
    written.kernel(BUS, at_ms=2000)
    (event,) = written.events()
    assert told([event]) == [("lost", "GPU-1", None, 1, BOTH)]
    assert event.detail == {"text": "has fallen off the bus"}


def test_the_recorded_lines_of_a_5090(written: Written) -> None:
    lines = (DATA / "kernel" / "5090-lost.txt").read_text().replace("0000:06:00", "0000:02:00").splitlines()
    assert written.kernel(*lines)
    assert told(written.events()) == [
        ("xid", "GPU-1", 79, 1, ("kernel",)),
        ("lost", "GPU-1", None, 1, ("kernel",)),
    ]


def test_a_gpu_that_comes_back_can_be_lost_again(written: Written) -> None:
    problem = written.incidents.problem
    assert problem(BEGIN, 0, "lost")
    assert problem(BEGIN + 1000, 0, None)
    assert problem(BEGIN + 2000, 0, "lost")
    events = written.events()
    assert [event.kind for event in events] == ["lost", "returned", "lost"]
    assert events[1].detail == {"after": "lost"}


def test_every_change_of_a_problem_is_told(written: Written) -> None:
    problems: list[Problem | None] = [None, "hang", "hang", "mismatch", None, "permission"]
    told_of = [written.incidents.problem(BEGIN + ms, 0, problem) for ms, problem in enumerate(problems)]
    assert told_of == [False, True, False, True, True, True]
    found = [(event.kind, event.detail.get("problem") or event.detail["after"]) for event in written.events()]
    assert found == [("problem", "hang"), ("problem", "mismatch"), ("returned", "mismatch"), ("problem", "permission")]


def test_a_gpu_that_never_answered(written: Written) -> None:
    written.incidents.missing(BEGIN, 2, "lost")
    written.incidents.missing(BEGIN, 3, "unknown")
    lost, unknown = written.events()
    assert (lost.kind, lost.uuid, lost.detail) == ("lost", None, {"nvml_index": 2, "problem": "lost"})
    assert (unknown.kind, unknown.detail["nvml_index"]) == ("problem", 3)


def test_counters_that_began_anew(written: Written) -> None:
    written.incidents.reset(BEGIN, 1, ["energy_mj", "pcie_replays"])
    energy, other = written.events()
    assert (energy.kind, energy.uuid) == ("energy_reset", "GPU-1")
    assert (other.kind, other.detail) == ("counter_reset", {"counter": "pcie_replays"})


def test_an_adapter_that_cannot_be_initialised(written: Written) -> None:
    written.kernel("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:884)")
    (event,) = written.events()
    assert (event.kind, event.uuid) == ("problem", "GPU-0")
    assert event.detail == {"text": "RmInitAdapter failed! (0x22:0x56:884)", "problem": "init-failed"}


def test_a_loss_at_an_address_that_nobody_knows(written: Written) -> None:
    written.kernel("NVRM: GPU 0000:99:00.0: GPU has fallen off the bus.")
    (event,) = written.events()
    assert (event.kind, event.uuid, event.detail["pci"]) == ("lost", None, "0000:99:00")


def test_overwritten_messages_are_told_of(written: Written) -> None:
    assert written.incidents.kernel(BEGIN, Polled([], overwritten=True))
    (event,) = written.events()
    assert (event.kind, event.detail) == ("kernel_log", {"problem": "overwritten"})


def test_a_storm_is_one_event_a_poll_port_and_severity(written: Written) -> None:
    storm = ["pcieport 0000:00:01.1: AER: Corrected error received: 0000:01:00.0"] * 70
    other = "pcieport 0000:00:02.0: AER: Multiple Uncorrected (Non-Fatal) error received: 0000:00:02.0"
    assert written.kernel(*storm, other)
    assert not written.kernel("usb 1-1: new device")
    corrected, fatal = written.events()
    assert told([corrected, fatal]) == [
        ("aer", "GPU-0", None, 70, ("kernel",)),
        ("aer", None, None, 1, ("kernel",)),
    ]
    assert corrected.detail == {"port": "0000:00:01.1", "severity": "corrected"}
    assert fatal.detail["severity"] == "non-fatal"


def test_a_port_with_one_gpu_below_it_speaks_of_that_gpu(tmp_path: Path) -> None:
    """As /sys lies: GPU 0 alone below its root port, both of them below one switch."""
    below = {
        "0000:01:00.0": "pci0000:00/0000:00:01.1/0000:01:00.0",
        "0000:02:00.0": "pci0000:00/0000:00:01.1/0000:05:00.0/0000:06:00.0/0000:02:00.0",
    }
    links = tmp_path / "root/sys/bus/pci/devices"
    links.mkdir(parents=True)
    for name, path in below.items():
        (tmp_path / "root/sys/devices" / path).mkdir(parents=True)
        (links / name).symlink_to(f"../../../devices/{path}")
    written = Written(tmp_path / "run.db", tmp_path / "root")
    for port in ("0000:00:01.1", "0000:06:00.0"):
        written.kernel(f"pcieport {port}: AER: Corrected error received: {port}")
    assert [event.uuid for event in written.events()] == [None, "GPU-1"]
    written.writer.close(BEGIN, "SIGTERM")
