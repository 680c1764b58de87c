"""NVML's events: the Xids after registration, waiting, and what a lost GPU does to it."""

from __future__ import annotations

import pytest
from tests.rig.inside import Inside

XID, CLOCK = 0x8, 0x10
TIMEOUT, LOST, INVALID, NOT_SUPPORTED = 10, 15, 2, 3
WAIT = "p.nvmlEventSetWait_v2(events, 15000)"
LOOK = "p.nvmlEventSetWait_v2(events, 0)"


@pytest.fixture
def waiting(inside: Inside) -> Inside:
    """Return a process that has registered for the Xids of GPU 0 and 2; one was before."""
    inside.box.xid(0, 31)
    inside.wait("len([p.nvmlDeviceGetName(h[index]) for index in range(4)])", lambda seen: seen == 4)
    with_old = "events = p.nvmlEventSetCreate()"
    inside(with_old)
    inside("p.nvmlDeviceRegisterEvents(h[0], p.nvmlEventTypeXidCriticalError, events)")
    inside("p.nvmlDeviceRegisterEvents(h[2], p.nvmlEventTypeXidCriticalError, events)")
    return inside


def event(found: dict[str, object]) -> tuple[object, object]:
    return found["eventType"], found["eventData"]


def test_an_xid_before_registration_is_lost(waiting: Inside) -> None:
    assert waiting.error(LOOK) == TIMEOUT


def test_xids_come_in_order_and_once(waiting: Inside) -> None:
    for gpu, xid in ((0, 13), (1, 45), (2, 74)):
        waiting.box.xid(gpu, xid)

    assert event(waiting(WAIT)) == (XID, 13)
    assert event(waiting(WAIT)) == (XID, 74)
    assert waiting.error(LOOK) == TIMEOUT


def test_an_event_names_its_gpu(waiting: Inside) -> None:
    waiting.box.xid(2, 63)

    waiting(f"found = {WAIT}")
    assert waiting("p.nvmlDeviceGetIndex(found.device)") == 2
    assert waiting("found.gpuInstanceId") == 0xFFFFFFFF


def test_a_wait_ends_with_its_timeout_and_not_before(waiting: Inside) -> None:
    waiting.box.set(reread_ms=1000)
    waiting("import time; began = time.monotonic()")

    assert waiting.error("p.nvmlEventSetWait_v2(events, 120)") == TIMEOUT
    assert waiting("time.monotonic() - began") >= 0.12


def test_a_lost_gpu_reports_its_xid_first_and_then_that_it_is_gone(waiting: Inside) -> None:
    waiting.box.lose(0)

    assert event(waiting(WAIT)) == (XID, 79)
    assert waiting.error(WAIT) == LOST
    assert waiting.error("p.nvmlDeviceRegisterEvents(h[0], 8, events)") == LOST


def test_a_gpu_lost_without_an_xid_ends_the_wait(waiting: Inside) -> None:
    waiting.box.lose(2, xid=False)

    assert waiting.error(WAIT) == LOST


def test_a_gpu_that_is_not_registered_is_not_missed(waiting: Inside) -> None:
    waiting.box.lose(3)
    waiting.wait_error("p.nvmlDeviceGetName(h[3])", LOST)

    assert waiting.error(LOOK) == TIMEOUT


def test_events_that_a_geforce_cannot_send_are_not_supported(waiting: Inside) -> None:
    assert waiting("p.nvmlDeviceGetSupportedEventTypes(h[0])") & (XID | CLOCK) == XID | CLOCK
    assert waiting.error("p.nvmlDeviceRegisterEvents(h[0], p.nvmlEventTypeDoubleBitEccError, events)") == NOT_SUPPORTED


def test_a_new_set_begins_with_what_comes_now(waiting: Inside) -> None:
    waiting.box.xid(0, 13)
    waiting(WAIT)
    waiting("p.nvmlEventSetFree(events)")
    waiting("events = p.nvmlEventSetCreate(); p.nvmlDeviceRegisterEvents(h[0], 8, events)")

    assert waiting.error(LOOK) == TIMEOUT


def test_only_as_many_events_are_kept_as_the_mock_reads(waiting: Inside) -> None:
    for xid in range(1, 100):
        waiting.box.xid(1, xid, log=False)
    waiting.box.xid(0, 109, log=False)

    assert event(waiting(WAIT)) == (XID, 109)
    assert len(waiting.box.read().events) == 64
