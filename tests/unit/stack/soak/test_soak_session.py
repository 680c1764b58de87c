"""Going on with a soak: only as what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.replay import Recording
from tests.unit.support import box, gpu
from tests.unit.support import plan as any_plan

from vaultcube import workloads
from vaultcube.cli.main import dispatch
from vaultcube.errors import NotFoundError, SoakChangedError, UsageError
from vaultcube.gpu.selection import parse_gpus
from vaultcube.results.store import PLAN, RunDirectory, RunStore
from vaultcube.stack.docker import Docker
from vaultcube.stack.plan import Plan
from vaultcube.stack.soak.run import images_before
from vaultcube.stack.soak.session import Asked, has_workers, refuse_changes, unfinished


def plan(count: int = 4, gpus: str | None = None) -> Plan:
    return any_plan(box(count), gpus=gpus, workload=workloads.load("stress"), given={"hours": 6})


@pytest.mark.parametrize(
    "asked",
    [
        Asked(),
        Asked(gpus=parse_gpus("4")),
        Asked(gpus=parse_gpus("all")),
        Asked(gpus=parse_gpus("device=3,2,1,0")),
        Asked(gpus=parse_gpus(f"device={gpu(0).uuid},1,2,3")),
        Asked(hours=6, flavour="cu128"),
    ],
)
def test_what_it_is_may_be_said_again(asked: Asked) -> None:
    refuse_changes(plan(), asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(gpus=parse_gpus("2")), "runs on 4 GPU(s), 0, 1, 2, 3, and 2 GPU(s) was asked for"),
        (Asked(gpus=parse_gpus("none")), "0 GPU(s) was asked for"),
        (Asked(gpus=parse_gpus("device=0,1,2,5")), "GPU 5 was asked for"),
        (Asked(gpus=parse_gpus("device=0")), "1 GPU(s) was asked for"),
        (Asked(hours=24), "is one of 6 h, and 24 h was asked for"),
        (Asked(flavour="cu124"), "vaultcube/pytorch:cu128, and cu124 was asked for"),
    ],
)
def test_anything_else_is_refused_with_why(asked: Asked, said: str) -> None:
    with pytest.raises(SoakChangedError) as caught:
        refuse_changes(plan(), asked)
    assert said in caught.value.message
    assert caught.value.exit_code == 3


def test_of_two_that_go_on_one_must_be_named(recording: Recording, tmp_path: Path) -> None:
    lines = [
        json.dumps(["a" * 64, "x", "running", "Up", f"{name}-1", "stress", str(tmp_path / name), name])
        for name in ("stress", "stress-2")
    ]
    recording.says("ps", "".join(line + "\n" for line in lines))
    recording.says("network ls")
    store = RunStore(tmp_path)
    for name in ("stress", "stress-2"):
        store.create(name).write(PLAN, plan().model_copy(update={"instance": name}).to_json())
    with pytest.raises(UsageError, match="2 soaks are there: stress, stress-2") as caught:
        unfinished(store, Docker(), None)
    assert "stress --resume --name stress," in caught.value.next_step
    assert unfinished(store, Docker(), "stress-2").path == tmp_path / "stress-2"
    with pytest.raises(NotFoundError, match="no soak 'other' has containers; there are: stress, stress-2"):
        dispatch(["stress", "status", "other"])


def test_one_on_the_cpu_does_not_move_to_gpus() -> None:
    with pytest.raises(SoakChangedError):
        refuse_changes(plan(0), Asked(gpus=parse_gpus("2")))
    refuse_changes(plan(0), Asked(gpus=parse_gpus("none")))


def test_a_run_is_a_soak_by_its_plan(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert not has_workers(directory)
    (tmp_path / "plan.json").write_text("{")
    assert not has_workers(directory)
    (tmp_path / "plan.json").write_text(any_plan().to_json())
    assert not has_workers(directory)
    (tmp_path / "plan.json").write_text(plan().to_json())
    assert has_workers(directory)


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_images_that_were_not_noted_are_unknown(tmp_path: Path, text: str) -> None:
    assert images_before(RunDirectory(tmp_path)) == {}
    (tmp_path / "images.json").write_text(text)
    assert images_before(RunDirectory(tmp_path)) == {}
