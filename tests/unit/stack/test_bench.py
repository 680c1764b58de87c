from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.support import RUN_ID, plan, result

from vaultcube import workloads
from vaultcube.errors import (
    ContainerMemoryError,
    DataUnreadableError,
    FlavourError,
    InterruptedRunError,
    ProfileError,
    VaultCubeError,
    VerdictError,
    WorkloadError,
)
from vaultcube.gpu.selection import parse_gpus
from vaultcube.results.schema import Failure, Verdict
from vaultcube.stack.bench import Session, conclude
from vaultcube.stack.data import check_data
from vaultcube.stack.environment import cpu_ranks
from vaultcube.stack.plan import Request


@pytest.mark.parametrize(
    ("verdict", "strict", "fine"),
    [
        (Verdict.PASS, False, True),
        (Verdict.PASS, True, True),
        (Verdict.UNAVAILABLE, False, True),
        (Verdict.UNAVAILABLE, True, False),
        (Verdict.FAIL, False, False),
        (Verdict.INVALID, False, False),
    ],
)
def test_a_verdict_decides_the_exit(verdict: Verdict, strict: bool, fine: bool) -> None:  # noqa: FBT001 - a table
    if fine:
        conclude(result(verdict=verdict), strict=strict)
        return
    with pytest.raises(VerdictError, match=f"the verdict is {verdict}") as seen:
        conclude(result(verdict=verdict), strict=strict)
    assert seen.value.exit_code == 1
    assert RUN_ID in seen.value.next_step


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ContainerMemoryError("killed"), 1),
        (FlavourError("no kernels", next_step="Use --flavour cu128."), 3),
        (InterruptedRunError("stopped by SIGINT"), 130),
        (WorkloadError("rank 2 lost"), 1),
    ],
)
def test_a_run_that_failed_ends_as_it_failed_whatever_its_verdict(error: VaultCubeError, exit_code: int) -> None:
    told = Failure(code=error.code, message=error.message, next_step=error.next_step)
    failed = result(verdict=Verdict.PASS)
    failed = failed.model_copy(update={"run": failed.run.model_copy(update={"error": told})})
    with pytest.raises(type(error)) as seen:
        conclude(failed, strict=False)
    assert (seen.value.message, seen.value.next_step) == (error.message, error.next_step)
    assert seen.value.exit_code == exit_code


def test_an_error_of_another_version_is_still_a_failure() -> None:
    told = Failure(code="from-the-future", message="x", next_step="y")
    failed = result().model_copy(update={"run": result().run.model_copy(update={"error": told})})
    with pytest.raises(WorkloadError, match="x"):
        conclude(failed, strict=False)


# --- data ------------------------------------------------------------------------------------------------------


def with_data(folder: Path, user: str) -> None:
    check_data(plan(given={"data": str(folder)}).model_copy(update={"user": user}))


def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for missing in (tmp_path / "nonsuch", tmp_path / "file"):
        with pytest.raises(DataUnreadableError, match="there is no folder"):
            with_data(missing, "1000:1000")
    check_data(plan())


@pytest.mark.parametrize(
    ("mode", "mine", "groups", "others"),
    [
        (0o755, True, True, True),
        (0o750, True, True, False),
        (0o700, True, False, False),
        (0o055, False, True, True),
        (0o711, True, False, False),
        (0o744, True, False, False),
    ],
)
def test_data_must_be_readable_for_the_containers_user(
    tmp_path: Path,
    mode: int,
    mine: bool,  # noqa: FBT001 - a table
    groups: bool,  # noqa: FBT001 - a table
    others: bool,  # noqa: FBT001 - a table
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    folder.chmod(mode)
    uid, gid = os.getuid(), os.getgid()
    for user, readable in ((f"{uid}:{gid}", mine), (f"54321:{gid}", groups), ("54321:54321", others)):
        if readable:
            with_data(folder, user)
        else:
            with pytest.raises(DataUnreadableError, match=f"user {user.split(':')[0]}, as whom"):
                with_data(folder, user)
    folder.chmod(0o755)


# --- a session, as far as it goes without an engine ------------------------------------------------------------


def session(tmp_path: Path, *, profile: str = "vault-cube-5090", **given: object) -> Session:
    request = Request(gpus=parse_gpus("none"), given=given)
    return Session(workloads.load("ddp"), request, profile=profile, results_root=tmp_path)


def test_planning_writes_nothing(tmp_path: Path) -> None:
    one = session(tmp_path)
    found = one.plan()
    assert found.run_id == one.run_id
    assert one.directory_path() == tmp_path / one.run_id
    assert found.device == "cpu"
    assert list(tmp_path.iterdir()) == []


def test_planning_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadableError):
        session(tmp_path, data="/nonsuch").plan()
    with pytest.raises(ProfileError):
        session(tmp_path, profile="nonsuch").plan()


def test_ranks_are_what_the_cores_allow() -> None:
    assert cpu_ranks() in {1, 2}
