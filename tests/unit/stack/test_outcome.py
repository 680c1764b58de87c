from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import event

from vaultcube.errors import (
    BadParameterError,
    ContainerKilledError,
    ContainerMemoryError,
    ContainerStoppedError,
    EngineLostError,
    FewerDevicesError,
    FlavourError,
    GpuMemoryError,
    InterruptedRunError,
    LibraryMissingError,
    ModelTooLargeError,
    ResultsUnwritableError,
    RunTimeoutError,
    StartError,
    VaultCubeError,
    WorkloadError,
)
from vaultcube.results.events import AnyEvent
from vaultcube.results.schema import Status
from vaultcube.stack.docker import Exit
from vaultcube.stack.outcome import classify


def ended(code: int, *, service: str = "ddp", oom_killed: bool = False) -> Exit:
    return Exit(
        id=service, service=service, running=False, exit_code=code, oom_killed=oom_killed, error="", image_id="sha256:1"
    )


def said(exit_code: int, message: str, *, rank: int = 0, **more: Any) -> AnyEvent:
    more = {"next_step": "", "code": "some", **more}
    return event("error", rank=rank, message=message, exit_code=exit_code, **more)


@pytest.mark.parametrize(
    ("exit_", "status", "error", "words"),
    [
        (ended(0), Status.COMPLETED, None, ""),
        (ended(64), Status.FAILED, BadParameterError, "ddp ended with exit status 64"),
        (ended(69), Status.FAILED, FlavourError, "ddp ended with exit status 69"),
        (ended(74), Status.FAILED, ResultsUnwritableError, "ddp could not write what it found"),
        (ended(70), Status.FAILED, WorkloadError, "ddp ended with exit status 70"),
        (ended(1), Status.FAILED, WorkloadError, "ddp ended with exit status 1"),
        (ended(127), Status.FAILED, WorkloadError, "ddp ended with exit status 127"),
        (ended(75), Status.INTERRUPTED, ContainerStoppedError, "ddp was stopped by somebody else"),
        (ended(137), Status.FAILED, ContainerKilledError, "ddp was killed by signal 9"),
        (ended(139), Status.FAILED, ContainerKilledError, "ddp was killed by signal 11"),
        (ended(255), Status.FAILED, WorkloadError, "ddp ended with exit status 255"),
        (ended(137, oom_killed=True), Status.FAILED, ContainerMemoryError, "ddp was killed at its memory limit"),
        # A rank was killed for memory and the launcher said so.
        (ended(70, oom_killed=True), Status.FAILED, ContainerMemoryError, "memory limit"),
        # Some helper was, and the program came to its end all the same.
        (ended(0, oom_killed=True), Status.COMPLETED, None, ""),
    ],
)
def test_an_exit_code_has_one_meaning(
    exit_: Exit, status: Status, error: type[VaultCubeError] | None, words: str
) -> None:
    found, told = classify([exit_], [], None)
    assert found is status
    assert type(told) is (error or type(None))
    assert words in str(told or "")


def test_the_event_with_the_exit_code_explains_it() -> None:
    events = [said(70, "rank 1 lost", rank=1), said(64, "no such model", next_step="Use resnet50."), said(64, "later")]
    _, told = classify([ended(64)], events, None)
    assert told is not None
    assert (told.message, told.next_step) == ("no such model", "Use resnet50.")


def test_without_a_fitting_event_the_first_one_has_to_do() -> None:
    _, told = classify([ended(70)], [said(1, "first"), said(2, "second")], None)
    assert told is not None
    assert told.message == "first"
    assert told.next_step == WorkloadError.next_step


def test_a_server_that_died_explains_itself_and_not_its_client() -> None:
    client = said(70, "it no longer answers", rank=-1, code="server-died")
    status, error = classify([ended(70)], [client, said(70, "a CUDA error", code="server-died")], None)
    assert (status, str(error)) == (Status.FAILED, "a CUDA error")
    assert str(classify([ended(70)], [client], None)[1]) == "it no longer answers"


def test_a_server_that_was_refused_explains_itself_though_its_client_ends_with_more() -> None:
    events = [
        said(70, "it no longer answers", rank=-1, code="server-died"),
        said(69, "too large", code="model-too-large"),
    ]
    both = [ended(69, service="vllm"), ended(70, service="client")]
    _, told = classify(both, events, None)
    assert (type(told), str(told)) == (ModelTooLargeError, "too large")
    # One that was stopped is the reason too.
    _, told = classify([ended(75, service="vllm"), ended(70, service="client")], [events[0], said(75, "stopped")], None)
    assert str(told) == "vllm was stopped by somebody else"


@pytest.mark.parametrize(
    ("code", "exit_code", "error", "ours"),
    [
        ("library-missing", 69, LibraryMissingError, 3),
        ("fewer-devices", 69, FewerDevicesError, 3),
        ("gpu-memory", 70, GpuMemoryError, 1),
        # The engine's own word may come too late, or not at all.
        ("container-out-of-memory", 70, ContainerMemoryError, 1),
        ("no-kernels", 69, FlavourError, 3),
        ("device-wrong-result", 70, WorkloadError, 1),
    ],
)
def test_what_a_program_names_becomes_the_error_of_that_name(
    code: str, exit_code: int, error: type[VaultCubeError], ours: int
) -> None:
    _, told = classify([ended(exit_code)], [said(exit_code, "why", code=code, next_step="do")], None)
    assert (type(told), str(told), told and told.next_step) == (error, "why", "do")
    assert error.exit_code == ours


def test_what_a_container_says_is_one_line_that_steers_no_terminal() -> None:
    _, told = classify([ended(70)], [said(70, "Traceback\n  x\x1b[2J\n", next_step="a\nb")], None)
    assert told is not None
    assert (told.message, told.next_step) == ("Traceback   x [2J", "a b")


def test_errors_that_were_said_and_survived_do_not_fail_a_run() -> None:
    assert classify([ended(0)], [said(70, "recovered")], None) == (Status.COMPLETED, None)


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (InterruptedRunError("stopped by SIGINT"), Status.INTERRUPTED),
        (RunTimeoutError("too long"), Status.TIMEOUT),
        (EngineLostError("gone"), Status.FAILED),
        (StartError("no"), Status.FAILED),
    ],
)
@pytest.mark.parametrize("exits", [[], [ended(0)], [ended(137)]])
def test_what_made_us_stop_a_run_is_the_reason_whatever_the_container_says(
    cause: VaultCubeError, status: Status, exits: list[Exit]
) -> None:
    assert classify(exits, [], cause) == (status, cause)


def test_a_container_that_is_gone_was_removed_by_somebody() -> None:
    status, told = classify([], [], None)
    assert status is Status.FAILED
    assert isinstance(told, ContainerKilledError)


def test_the_worst_of_several_containers_counts() -> None:
    assert classify([ended(0), ended(70, service="client")], [], None)[0] is Status.FAILED
    _, told = classify([ended(70), ended(137, service="server", oom_killed=True)], [], None)
    assert str(told) == "server was killed at its memory limit"
    # One survived a memory kill, the other one failed.
    assert classify([ended(0, oom_killed=True), ended(70, service="client")], [], None)[0] is Status.FAILED


exits_ = st.lists(
    st.builds(lambda code, oom: ended(code, oom_killed=oom), st.integers(0, 255), st.booleans()), max_size=4
)


@given(exits_, st.lists(st.builds(said, st.integers(-1, 300), st.text(max_size=5)), max_size=3))
def test_a_run_completed_only_when_every_container_ended_with_zero(exits: list[Exit], events: list[AnyEvent]) -> None:
    status, told = classify(exits, events, None)
    assert (status is Status.COMPLETED) == (bool(exits) and all(one.exit_code == 0 for one in exits))
    assert (told is None) == (status is Status.COMPLETED)
