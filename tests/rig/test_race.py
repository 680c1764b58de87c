"""Runs that start at the same instant on a simulated machine: no GPU ever goes to two."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

from tests.docker.conftest import Vaultcube, until
from tests.docker.engines import told
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import RigEngine
from tests.rig.runs import BENCH, completed, finished, plans, seen_inside

RUN = r"ddp-\d{8}-\d{6}-[0-9a-f]{4}"


class Watch:
    """Everything that starts and dies in an engine, and what each container asked it for."""

    def __init__(self, engine: RigEngine) -> None:
        self.engine = engine
        self.events: list[dict[str, Any]] = []
        argv = ["docker", "--host", engine.host, "events", "--filter", "type=container"]
        argv += ["--filter", "event=start", "--filter", "event=die", "--format", "{{json .}}"]
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        self.events.extend(json.loads(line) for line in self._child.stdout)

    def close(self) -> None:
        with self._child as child:
            child.terminate()
            self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return when each run's container started and died, in ns."""
        found: dict[str, list[int]] = defaultdict(list)
        for event in self.events:
            found[event["Actor"]["Attributes"]["io.vaultcube.run"]].append(event["timeNano"])
        return {run: (start, end) for run, (start, end) in found.items()}

    def asked(self) -> list[str]:
        """Return the ids in the device requests of everything that runs now."""
        ids = self.engine.docker("ps", "--quiet").stdout.split()
        seen = self.engine.docker("inspect", *ids).stdout if ids else "[]"
        return [
            one
            for raw in json.loads(seen or "[]")
            if raw["State"]["Running"]
            for request in raw["HostConfig"]["DeviceRequests"] or ()
            for one in request["DeviceIDs"]
        ]


def overlapping(spans: dict[str, tuple[int, int]], gpus: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return the pairs of runs that had a GPU in common at the same time."""
    return [
        (one, other)
        for one in spans
        for other in spans
        if one < other
        and set(gpus[one]) & set(gpus[other])
        and spans[one][0] < spans[other][1]
        and spans[other][0] < spans[one][1]
    ]


def test_of_twenty_at_once_each_gpu_goes_to_one(rig_hook: RigEngine, vaultcube: Vaultcube, box: Box) -> None:
    # Until the last one was refused, nobody ends.
    images.pace(box.path, 0.5)
    with Watch(rig_hook) as watch:
        children = [vaultcube.start(*BENCH, "--gpus", "1", "--windows", "500") for _ in range(20)]
        asked: list[list[str]] = []

        def only_four_left() -> bool:
            asked.append(watch.asked())
            return sum(child.poll() is None for child in children) <= 4

        until(only_four_left, 200, "sixteen were refused")
        until(lambda: len(watch.asked()) == 4, 60, "four run")
        assert sorted(child.poll() is None for child in children) == [False] * 16 + [True] * 4
        images.pace(box.path, 0.0)
        seen = [(*child.communicate(timeout=120), child.returncode) for child in children]
    assert sum(code == 3 for _, _, code in seen) == 16, [err for _, err, _ in seen]
    for _, err, code in seen:
        if code == 3:
            assert re.search(rf"--gpus 1: 0 of 4 GPUs are free; GPU 0 is held by run {RUN} ", err), err
            assert "[gpu-busy]" in err
    # What the engine was asked for, and what was seen inside.
    runs = completed(vaultcube)
    assert len(runs) == 4
    assert all(len(set(ids)) == len(ids) for ids in asked), asked
    inside = {run: seen_inside(vaultcube.runs / run) for run in runs}
    assert sorted(uuid for (uuid,) in inside.values()) == sorted(box.uuids)
    assert {plan["run_id"]: [gpu["uuid"] for gpu in plan["gpus"]] for plan in plans(vaultcube)} == inside
    assert overlapping(watch.spans(), inside) == []
    assert len(watch.spans()) == 4
    assert rig_hook.ask("ps", "--all", "--quiet") == ""


def test_gpus_that_become_free_are_taken_by_others_and_never_by_two(
    rig_cdi: RigEngine, vaultcube: Vaultcube, box: Box
) -> None:
    images.pace(box.path, 0.02)
    with Watch(rig_cdi) as watch:
        children = [vaultcube.start(*BENCH, "--gpus", str(1 + number % 2)) for number in range(10)]
        seen = [(*child.communicate(timeout=200), child.returncode) for child in children]
    runs = completed(vaultcube)
    assert len(runs) == sum(code != 3 for _, _, code in seen) >= 3, [err for _, err, _ in seen]
    inside = {run: seen_inside(vaultcube.runs / run) for run in runs}
    assert overlapping(watch.spans(), inside) == []
    assert all(set(uuids) <= set(box.uuids) for uuids in inside.values())


# A docker that is slow to start a run, says when it began, and does not mind when nobody reads what it says.
SLOW = """\
#!/bin/sh
case " $* " in *" up --detach "*) touch '{mark}'; sleep 2; exec {docker} "$@" >'{mark}.log' 2>&1;; esac
exec {docker} "$@"
"""


def test_a_start_whose_vaultcube_is_killed_keeps_its_gpus(
    rig_hook: RigEngine, vaultcube: Vaultcube, box: Box, tmp_path: Path
) -> None:
    images.pace(box.path, 0.2)
    mark = tmp_path / "began"
    slow = tmp_path / "bin"
    slow.mkdir()
    docker = subprocess.run(["which", "docker"], capture_output=True, text=True, check=True).stdout.strip()
    (slow / "docker").write_text(SLOW.format(mark=mark, docker=docker))
    (slow / "docker").chmod(0o755)
    path = f"{slow}{os.pathsep}{vaultcube.env['PATH']}"
    first = vaultcube.start(*BENCH, PATH=path)
    until(mark.exists, 60, "it begins to start")
    first.kill()
    first.communicate()
    # It is docker that holds the lock now, and its container is not even made.
    assert rig_hook.ask("ps", "--all", "--quiet") == ""
    message = told(vaultcube(*BENCH, "--gpus", "1"), "gpu-busy", 3, as_json=False)
    (run,) = vaultcube.run_ids()
    assert f"held by run {run} (container {run}-ddp-1" in message
    assert vaultcube("down", run).returncode == 0
    images.pace(box.path, 0.01)
    assert len(seen_inside(finished(vaultcube)[1])) == 4
