"""The stages, what a build keeps of them, and from where it can be gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultcube.errors import ResumeError
from vaultcube.stack.hostimage.stages import Stage, State

INPUTS = {"source_sha256": "a", "disk_size": "10G", "layers": "1", "variables_sha256": "", "keys": "k"}


def passed(folder: Path, *stages: Stage, inputs: dict[str, str] | None = None) -> State:
    state = State(folder)
    for stage in stages:
        state.passed(stage, 1.5, inputs or INPUTS)
    return State.read(folder)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    state = passed(tmp_path, Stage.PREFLIGHT, Stage.BUILD)
    assert state.seconds == {"preflight": 1.5, "build": 1.5}
    assert state.inputs == {"source_sha256": "a", "disk_size": "10G"}
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"inputs": 3}', "null"])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert State.read(tmp_path).seconds == {}


def test_a_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    state = passed(tmp_path, Stage.PREFLIGHT, Stage.BUILD)
    for start in (Stage.PREFLIGHT, Stage.BUILD, Stage.PROVISION):
        state.check_resume(start, INPUTS)
    with pytest.raises(ResumeError, match="stage provision has not passed"):
        state.check_resume(Stage.TEST, INPUTS)


def test_a_build_does_not_go_on_as_another_one(tmp_path: Path) -> None:
    state = passed(tmp_path, Stage.PREFLIGHT, Stage.BUILD, Stage.PROVISION, Stage.TEST)
    with pytest.raises(ResumeError) as caught:
        state.check_resume(Stage.PROVISION, INPUTS | {"disk_size": "20G"})
    assert "stage build was done with disk size '10G', and now it is '20G'" in caught.value.message
    assert caught.value.next_step == "Give the same again, or begin with that stage: --from build."
    with pytest.raises(ResumeError, match="with layers '1', and now it is '1,2'"):
        state.check_resume(Stage.TEST, INPUTS | {"layers": "1,2"})
    # What only provisioning depends on may change before it.
    state.check_resume(Stage.PROVISION, INPUTS | {"layers": "1,2"})
    state.check_resume(Stage.FINALISE, INPUTS)


def test_what_is_done_again_is_forgotten_with_all_after_it(tmp_path: Path) -> None:
    state = passed(tmp_path, *list(Stage)[:-1])
    state.forget(Stage.PROVISION)
    assert set(state.seconds) == {"preflight", "build"}
    with pytest.raises(ResumeError):
        state.check_resume(Stage.TEST, INPUTS)


def test_stages_have_numbers() -> None:
    assert [stage.number for stage in Stage] == [1, 2, 3, 4, 5]
