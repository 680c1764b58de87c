"""Which GPUs a run gets on a simulated machine: held ones, and pins seen from inside containers."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.docker.conftest import Vaultcube, until
from tests.docker.engines import Call
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import RigEngine
from tests.rig.runs import BENCH, finished, seen_inside

IMAGE = "vaultcube/pytorch:cu128"


@pytest.fixture(autouse=True)
def quick(box: Box) -> None:
    """Let a run take no longer than its start and end."""
    images.pace(box.path, 0.01)


@pytest.fixture(params=["hook", "cdi"])
def engine(request: pytest.FixtureRequest) -> RigEngine:
    found: RigEngine = request.getfixturevalue(f"rig_{request.param}")
    return found


def hold(engine: RigEngine, name: str, box: Box, *gpus: int, options: list[str] | None = None) -> None:
    """Start a container of somebody else's that holds GPUs, whichever way the engine has."""
    uuids = [box.uuids[index] for index in gpus]
    pins = (
        [word for uuid in uuids for word in ("--device", f"nvidia.com/gpu={uuid}")]
        if engine.mode == "cdi"
        else ["--gpus", f'"device={",".join(uuids)}"']
    )
    hold_by(engine, name, *pins, *(options or []))


def hold_by(engine: RigEngine, name: str, *options: str) -> None:
    engine.ask("run", "--detach", "--init", "--network", "none", "--name", name, *options, IMAGE, "sleep", "600")


def all_gpus(engine: RigEngine) -> list[str]:
    return ["--device", "nvidia.com/gpu=all"] if engine.mode == "cdi" else ["--gpus", "all"]


# --- held GPUs ---------------------------------------------------------------------------------------------------


def test_a_held_gpu_is_refused_with_who_holds_it(engine: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    hold(engine, "foo", box, 1)
    call = Call(vaultcube)
    for words in ([], ["--gpus", "all"], ["--gpus", "device=1"], ["--gpus", box.uuids[1]], ["--gpus", "0,1"]):
        assert call.refused("gpu-busy", 3, *BENCH, *words).startswith("GPU 1 is held by container foo\n")
    message = call.refused("gpu-busy", 3, *BENCH, "--gpus", "4", "--json")
    assert message.startswith("--gpus 4: 3 of 4 GPUs are free; GPU 1 is held by container foo\n")
    assert call.refused("gpu-busy", 3, *BENCH, "--dry-run").startswith("GPU 1 is held")
    assert engine.ask("ps", "--quiet", "--all").count("\n") == 0


def test_all_of_them_may_be_held_by_a_container_of_any_make(engine: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    hold_by(engine, "greedy", *all_gpus(engine))
    message = Call(vaultcube).refused("gpu-busy", 3, *BENCH, "--gpus", "1")
    assert message.startswith("--gpus 1: 0 of 4 GPUs are free; GPUs 0, 1, 2, 3 are held by container greedy\n")
    engine.ask("pause", "greedy")
    Call(vaultcube).refused("gpu-busy", 3, *BENCH, "--gpus", "1")
    engine.ask("rm", "--force", "greedy")
    assert seen_inside(finished(vaultcube, "--gpus", "1")[1]) == box.uuids[:1]


def test_a_count_is_taken_from_the_free_ones_and_only_those_are_seen_inside(
    engine: RigEngine, vaultcube: Vaultcube, box: Box
) -> None:
    hold(engine, "foo", box, 0)
    plan, run = finished(vaultcube, "--gpus", "2")
    expected = box.uuids[2:4]
    assert [gpu["uuid"] for gpu in plan["gpus"]] == expected
    assert seen_inside(run) == expected
    assert plan["pinning"] == ("cdi" if engine.mode == "cdi" else "nvidia")
    prefix = "nvidia.com/gpu=" if engine.mode == "cdi" else ""
    assert plan["pins"] == [prefix + uuid for uuid in expected]
    resolved = json.loads((run / "compose.resolved.json").read_text())["services"]["ddp"]
    (request,) = resolved["deploy"]["resources"]["reservations"]["devices"]
    assert (request["driver"], request["device_ids"]) == (plan["pinning"], plan["pins"])
    # Inside they count from 0: an index of the machine's would mean another card, or none.
    assert not [name for name in resolved["environment"] if "VISIBLE" in name]


def test_gpus_named_by_index_or_uuid_are_the_ones_seen_inside(
    engine: RigEngine, vaultcube: Vaultcube, box: Box
) -> None:
    hold(engine, "foo", box, 0)
    _, run = finished(vaultcube, "--gpus", f"device=3,{box.uuids[1]}")
    assert seen_inside(run) == [box.uuids[1], box.uuids[3]]


def test_sharing_is_asked_for_and_its_figures_are_not_judged(engine: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    hold(engine, "foo", box, 0, 2)
    plan, run = finished(vaultcube, "--gpus", "device=2", "--share")
    assert seen_inside(run) == [box.uuids[2]]
    assert plan["shared"] == ["GPU 2 was shared with container foo"]
    result = json.loads((run / "result.json").read_text())
    assert result["verdict"] in {"INVALID", "FAIL"}
    assert result["disturbances"][0] == plan["shared"][0]
    plan, run = finished(vaultcube, "--gpus", "2", "--share")
    assert (seen_inside(run), plan["shared"]) == ([box.uuids[1], box.uuids[3]], [])


def test_holders_that_come_and_go_meanwhile_are_no_error(rig_hook: RigEngine, vaultcube: Vaultcube) -> None:
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            rig_hook.docker("run", "--rm", "--network", "none", "--gpus", "device=3", IMAGE, "true")

    child = threading.Thread(target=churn)
    child.start()
    try:
        for _ in range(8):
            seen = vaultcube(*BENCH, "--gpus", "device=0", "--dry-run")
            assert seen.returncode == 0, seen.stderr
    finally:
        ended.set()
        child.join()


def test_a_container_that_failed_to_start_holds_nothing(rig_hook: RigEngine, vaultcube: Vaultcube) -> None:
    failed = rig_hook.docker("run", "--detach", "--name", "failed", "--gpus", '"device=0,9"', IMAGE, "true")
    assert failed.returncode == 125
    assert rig_hook.ask("inspect", "--format", "{{.State.Status}}", "failed") == "created"
    assert vaultcube(*BENCH, "--dry-run").returncode == 0


def test_one_that_is_about_to_start_holds_its_gpus(rig_hook: RigEngine, vaultcube: Vaultcube) -> None:
    rig_hook.ask("create", "--name", "soon", "--gpus", "device=0", IMAGE, "sleep", "600")
    message = Call(vaultcube).refused("gpu-busy", 3, *BENCH)
    assert message.startswith("GPU 0 is held by container soon, which is about to start\n")


def test_the_recorder_holds_nothing(engine: RigEngine, vaultcube: Vaultcube) -> None:
    hold_by(engine, "recorder", *all_gpus(engine), "--label", "io.vaultcube.role=recorder")
    assert vaultcube(*BENCH, "--dry-run").returncode == 0


def test_a_container_that_may_only_look_holds_nothing(rig_hook: RigEngine, vaultcube: Vaultcube) -> None:
    hold_by(rig_hook, "watch", "--gpus", 'all,"capabilities=utility"')
    assert vaultcube(*BENCH, "--dry-run").returncode == 0


# --- processes ---------------------------------------------------------------------------------------------------


def test_whoever_computes_holds_the_gpu(rig_hook: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    # As one with --privileged, which needs no device request.
    hold_by(rig_hook, "sneaky")
    box.add_process(0, int(rig_hook.ask("inspect", "--format", "{{.State.Pid}}", "sneaky")), 2**30)
    with subprocess.Popen(["sleep", "600"]) as process:
        box.add_process(2, process.pid, 2**30)
        box.add_process(3, process.pid, 2**30, kind="graphics")
        message = Call(vaultcube).refused("gpu-busy", 3, *BENCH)
        held = f"GPU 0 is held by container sneaky; GPU 2 is held by process {process.pid} (sleep)\n"
        assert message.startswith(held)
        assert seen_inside(finished(vaultcube, "--gpus", "2")[1]) == [box.uuids[1], box.uuids[3]]
        process.kill()
    box.clear_processes(2)
    box.clear_processes(0)
    assert len(seen_inside(finished(vaultcube)[1])) == 4


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_a_gpu_cut_into_slices_is_refused(rig_cdi: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    assert rig_cdi.mode == "cdi"
    box.mig(2, 3)
    assert "GPU 2 is cut into MIG devices" in Call(vaultcube).refused("gpu-mig", 3, *BENCH)
    assert [gpu["index"] for gpu in finished(vaultcube, "--gpus", "7")[0]["gpus"]] == [0, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_gpus_of_one_processor_go_together(rig_hook: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    hold(rig_hook, "foo", box, 1)
    plan, _ = finished(vaultcube, "--gpus", "4")
    assert len({gpu["numa_node"] for gpu in plan["gpus"]}) == 1, plan["gpus"]


# --- ways to GPUs ------------------------------------------------------------------------------------------------


def test_an_engine_with_both_pins_through_cdi(rig_both: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    plan, run = finished(vaultcube, "--gpus", "device=1")
    assert (plan["pinning"], plan["pinning_reason"]) == ("cdi", "by UUID through CDI")
    assert plan["pins"] == [f"nvidia.com/gpu={box.uuids[1]}"]
    assert seen_inside(run) == [box.uuids[1]]
    assert rig_both.ask("ps", "--quiet", "--all") == ""


@contextmanager
def without_images(engine: RigEngine) -> Iterator[None]:
    """Take the workload's images away, so that a run would have to build one."""
    names = [f"{images.NAME}:{flavour}" for flavour in images.FLAVOURS]
    for name in names:
        engine.ask("tag", name, name.replace("vaultcube/", "kept/"))
        engine.ask("image", "rm", name)
    try:
        yield
    finally:
        for name in names:
            engine.ask("tag", name.replace("vaultcube/", "kept/"), name)


def test_an_engine_with_neither_is_refused_before_anything_is_built(
    rig_neither: RigEngine, vaultcube: Vaultcube
) -> None:
    with without_images(rig_neither):
        seen = vaultcube(*BENCH)
    assert seen.returncode == 3, seen.stderr
    assert "building" not in seen.stderr
    assert "nvidia-ctk" in seen.stderr
    assert not vaultcube.runs.exists()


def test_a_busy_machine_is_refused_before_anything_is_built(
    rig_hook: RigEngine, vaultcube: Vaultcube, box: Box
) -> None:
    hold(rig_hook, "foo", box, 0)
    with without_images(rig_hook):
        seen = vaultcube(*BENCH)
    assert (seen.returncode, "[gpu-busy]" in seen.stderr) == (3, True), seen.stderr
    assert "building" not in seen.stderr


# --- ps ----------------------------------------------------------------------------------------------------------


def test_ps_shows_the_gpus_of_a_run(engine: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    images.pace(box.path, 0.2)
    child = vaultcube.start(*BENCH, "--gpus", "device=1,3")
    until(lambda: engine.ask("ps", "--quiet"), 30, "it runs")
    (found,) = json.loads(vaultcube("ps", "--json").stdout)
    assert found["gpus"] == [{"index": index, "uuid": box.uuids[index]} for index in (1, 3)]
    assert re.search(r"running  1, 3  - +pid", vaultcube("ps").stdout)
    images.pace(box.path, 0.001)
    child.communicate(timeout=60)
