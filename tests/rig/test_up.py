"""`up vllm` on a simulated machine: which GPUs, names and ports services get, and what is said of them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.docker.conftest import until
from tests.docker.engines import Call, in_root, told
from tests.rig.serving import Serving, behave, make_model

WAYS = pytest.mark.parametrize("serving", ["hook", "cdi"], indirect=True)
START_S = 60


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "Llama 2 7B")


@WAYS
def test_a_service_gets_one_gpu_and_gives_it_back(serving: Serving, model: Path) -> None:
    record = serving.up("--model", str(model))
    gpu = serving.box.uuids[0]
    assert (record["name"], record["url"], record["servers"]) == ("vllm", "http://127.0.0.1:8000", 1)
    assert (record["simulated"], record["device"], record["key_needed"]) == (True, "cuda", False)
    assert [one["uuid"] for one in record["gpus"]] == [gpu]
    assert record["model"] == "Llama-2-7B"
    assert 0 < record["load_s"] <= record["first_token_s"] <= record["up_s"]
    # The only card that can be seen inside, and an image that has kernels for it.
    assert serving.gpus(record["run"]) == {"vllm": [gpu]}
    container = serving.containers(record["run"])["vllm"]
    assert serving.engine.ask("inspect", "--format", "{{.Config.Image}}", container) == "vaultcube/vllm:cu128"
    plan = json.loads((serving.cube.runs / record["run"] / "plan.json").read_text())
    assert plan["pinning"] == ("cdi" if serving.engine.mode == "cdi" else "nvidia")
    serving.complete(record)
    (shown,) = serving.ps()
    assert (shown["name"], shown["state"], shown["url"]) == ("vllm", "ready", record["url"])
    assert shown["gpus"] == [{"index": 0, "uuid": gpu}]
    assert re.search(rf"^vllm +vllm +ready +0 +{record['url']} ", serving.cube("ps").stdout, re.MULTILINE)
    assert f'"run": "{record["run"]}"' in serving.cube("gpus", "--json").stdout
    assert "completed" in serving.down("vllm")
    assert serving.nothing_left()
    assert serving.ps() == []
    assert serving.cube("gpus", "--json").stdout.count('"run": "') == 0


def test_parallel_services_take_free_gpus_and_nobody_takes_held_ones(serving: Serving, model: Path) -> None:
    uuids, words = serving.box.uuids, ["--model", str(model)]
    serving.up(*words, "--name", "one", "--gpus", "device=0")
    # Two of one processor, though the second GPU is free as well.
    two = serving.up(*words, "--tensor-parallel", "2")
    assert (two["name"], two["url"], two["servers"]) == ("vllm", "http://127.0.0.1:8001", 1)
    assert serving.gpus(two["run"]) == {"vllm": uuids[2:]}
    call = Call(serving.cube)
    message = call.refused("gpu-busy", 3, "up", "vllm", *words, "--pipeline-parallel", "2")
    assert message.startswith("--gpus 2: 1 of 4 GPUs is free; GPU 0 is held by instance one (")
    assert "GPUs 2, 3 are held by instance vllm (" in message
    call.refused("gpu-busy", 3, "up", "vllm", *words, "--gpus", "device=0")
    # Somebody who insists on it gets a name and a port of their own all the same.
    shared = serving.up(*words, "--gpus", "device=0", "--share", "--port", "8100")
    assert (shared["name"], shared["url"]) == ("vllm-2", "http://127.0.0.1:8100")
    assert serving.gpus(shared["run"]) == {"vllm": uuids[:1]}
    taken = call.refused("instance-name", 2, "up", "vllm", *words, "--name", "one")
    assert "one" in taken
    call.refused("port-taken", 3, "up", "vllm", *words, "--port", "8001")
    assert serving.states() == {"one": "ready", "vllm": "ready", "vllm-2": "ready"}
    serving.down("vllm")
    three = serving.up(*words, "--pipeline-parallel", "2", "--gpus", f"device=3,{uuids[1]}")
    assert serving.gpus(three["run"]) == {"vllm": [uuids[1], uuids[3]]}
    listing = ["exec", serving.containers(three["run"])["vllm"], "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]
    argv = serving.engine.ask(*listing)
    assert "--pipeline-parallel-size 2" in argv
    assert "--tensor-parallel-size" not in argv
    assert serving.down("--all").count("stopped") == 3
    assert serving.nothing_left()


def test_replicas_have_a_gpu_each_and_one_address(serving: Serving, model: Path) -> None:
    behave(model, token_s=0.02)
    record = serving.up("--model", str(model), "--replicas", "2", "--gpus", "device=1,2")
    assert (record["url"], record["servers"]) == ("http://127.0.0.1:8000", 2)
    assert serving.gpus(record["run"]) == {"vllm": serving.box.uuids[1:2], "vllm-1": serving.box.uuids[2:3]}
    containers = serving.containers(record["run"])
    assert sorted(containers) == ["proxy", "vllm", "vllm-1"]
    # Long enough to be there at the same time: the less busy one gets the next, so both get as many.
    answered = [one.split("-")[1] for one in serving.complete(record, times=8, tokens=25)]
    assert sorted(answered.count(containers[service][:12]) for service in ("vllm", "vllm-1")) == [4, 4]
    # One of them is gone: the other answers everybody, and it is not hidden.
    serving.engine.ask("kill", containers["vllm-1"])
    until(lambda: serving.states()["vllm"] != "ready", START_S, "it is seen")
    assert {one.split("-")[1] for one in serving.complete(record, times=6)} == {containers["vllm"][:12]}
    serving.down("vllm")
    assert serving.nothing_left()


def test_four_at_once_take_four_gpus_names_and_ports(serving: Serving, model: Path) -> None:
    children = [serving.cube.start("up", "vllm", "--model", str(model), "--json") for _ in range(4)]
    seen = [(*child.communicate(timeout=120), child.returncode) for child in children]
    assert [code for _, _, code in seen] == [0] * 4, [err for _, err, _ in seen]
    records = [json.loads(out) for out, _, _ in seen]
    assert sorted(one["name"] for one in records) == ["vllm", "vllm-2", "vllm-3", "vllm-4"]
    assert sorted(one["url"] for one in records) == [f"http://127.0.0.1:{8000 + at}" for at in range(4)]
    held = [uuid for one in records for uuid in serving.gpus(one["run"])["vllm"]]
    assert sorted(held) == sorted(serving.box.uuids)
    fifth = told(serving.cube("up", "vllm", "--model", str(model)), "gpu-busy", 3, as_json=False)
    assert fifth.startswith("--gpus 1: 0 of 4 GPUs are free; ")
    assert serving.down("--all").count("stopped") == 4
    assert serving.nothing_left()


def test_a_server_that_ends_is_seen_and_one_that_crashed_comes_back(serving: Serving, model: Path) -> None:
    serving.cube.env["VLLM_API_KEY"] = "sk-rig-1"
    record = serving.up("--model", str(model))
    container = serving.containers(record["run"])["vllm"]
    # As a crash, which the engine sees; and it is the same container, on the same GPU.
    before = serving.pid(container)
    subprocess.run(in_root(["kill", "-KILL", str(before)]), timeout=20, check=True)
    until(lambda: serving.pid(container) not in {0, before}, START_S, "the engine started it again")
    until(lambda: serving.answers(record), START_S, "it answers again")
    assert serving.gpus(record["run"]) == {"vllm": serving.box.uuids[:1]}
    # Its secrets outlive the start.
    serving.complete(record, key="sk-rig-1")
    serving.engine.ask("kill", container)
    until(lambda: serving.states() == {"vllm": "exited"}, START_S, "it is seen")
    # What is not running holds nothing.
    assert serving.ps()[0]["gpus"] == []
    serving.down("vllm")
    assert serving.nothing_left()
    result = json.loads((serving.cube.runs / record["run"] / "result.json").read_text())
    assert result["simulated"]
    assert result["run"]["status"] == "failed"


def test_down_gives_a_server_the_time_to_end(serving: Serving, model: Path) -> None:
    record = serving.up("--model", str(model), "--name", "brief")
    assert serving.down("brief")
    result = json.loads((serving.cube.runs / record["run"] / "result.json").read_text())
    assert (result["run"]["status"], result["simulated"]) == ("completed", True)
    assert result["verdict"] != "PASS"
    assert result["metrics"]
    # What it said is kept, its end included.
    log = (serving.cube.runs / record["run"] / "container.log").read_text()
    assert "Application startup complete" in log
