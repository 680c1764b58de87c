"""`bench vllm` on a simulated machine: what client, servers and telemetry say together."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.docker.conftest import until
from tests.docker.engines import Call
from tests.rig.serving import Serving, behave, make_model

from vaultcube.results.schema import Result, Verdict

BENCH = ["bench", "vllm", "--preset", "smoke", "--telemetry-hz", "10", "--json"]
# Long enough for samples, though the recorder has to wait for its turn now and then.
TOKENS = 192
LONGER = ["--output-len", str(TOKENS), "--concurrency", "1,4"]
START_S = 60
KEY = "sk-rig-key-9876543210"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "llama")


def ended(serving: Serving, child: subprocess.Popen[str]) -> tuple[int, Result]:
    """Wait for the end of a measurement; return its exit code, and its result, which proves nothing."""
    out, err = child.communicate(timeout=120)
    assert out, err
    found = Result.model_validate_json(out)
    assert found.simulated
    assert found.verdict is not Verdict.PASS
    assert serving.containers(found.run.id) == {}
    return child.returncode, found


def measured(serving: Serving, *args: str) -> tuple[int, Result]:
    """Measure to the end."""
    return ended(serving, serving.cube.start(*BENCH, *args))


def events(serving: Serving, kind: str) -> int:
    """Return how many events of a kind there are in all runs."""
    files = serving.cube.runs.glob("*/results/events.jsonl")
    return sum(file.read_text().count(f'"kind":"{kind}"') for file in files)


def verdicts(result: Result) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in result.checks}


def values(result: Result) -> dict[str, float]:
    return {name: metric.value for name, metric in result.metrics.items()}


def test_telemetry_and_the_cards_limits_join_what_the_client_measured(serving: Serving, model: Path) -> None:
    serving.box.load(0)
    child = serving.cube.start(*BENCH, "--model", str(model), *LONGER)
    until(lambda: events(serving, "server"), START_S, "the server is ready")
    (run,) = serving.cube.run_ids()
    server, client = (serving.containers(run)[name] for name in ("vllm", "client"))
    # What the model takes of the card is the run's own doing.
    serving.box.add_process(0, serving.pid(server), 24 * 10**9)
    # A client needs no GPU, and gets none.
    assert serving.engine.ask("inspect", "--format", "{{json .HostConfig.DeviceRequests}}", client) == "null"
    code, found = ended(serving, child)
    # First what failed: the verdict alone does not tell.
    assert {name: verdict for name, verdict in verdicts(found).items() if verdict is not Verdict.PASS} == {}
    assert (code, found.run.status, found.verdict) == (0, "completed", Verdict.UNAVAILABLE)
    assert found.disturbances == []
    figures = values(found)
    assert figures["gpu_utilisation"] > 0.9
    assert figures["telemetry_coverage_ratio"] > 0.8
    assert 0.7 < figures["gpu_memory_used_max_ratio"] < 0.75
    assert figures["power_mean_watts"] > 500
    # A level of seconds is too short for it.
    assert not [name for name in figures if name.startswith("energy")]
    # 512 bit at 14001 MHz, twice a clock; all weights but the input embedding, and half of a context of KV cache.
    assert found.gpus[0].memory_bandwidth_bytes_per_s == 2 * 14001e6 * 512 / 8
    weights = figures["weights_bytes"] - 32000 * 4096 * 2
    read = weights + 2 * 32 * 4096 * 2 * (32 + TOKENS / 2)
    expected = read / (figures["tpot_p50_s_c1"] * 2 * 14001e6 * 512 / 8)
    assert figures["mbu"] == pytest.approx(expected, rel=1e-6)
    assert 0.6 < figures["mbu"] < 0.76
    assert (figures["requests_failed"], figures["answers_wrong"], figures["answers_not_repeatable"]) == (0, 0, 0)
    assert sorted(found.provenance.images) == ["client", "vllm"]
    assert found.provenance.frameworks["vllm"] == "0.10.2+standin"
    assert serving.nothing_left()


def test_a_running_instance_is_measured_as_it_is(serving: Serving, model: Path) -> None:
    serving.cube.env["VLLM_API_KEY"] = KEY
    record = serving.up("--model", str(model), "--replicas", "2", "--gpus", "device=1,2", "--name", "twins")
    serving.cube.env["VLLM_API_KEY"] = ""
    before = serving.containers(record["run"])
    for index, service in ((1, "vllm"), (2, "vllm-1")):
        serving.box.load(index)
        # Its own processes are no guests.
        serving.box.add_process(index, serving.pid(before[service]), 24 * 10**9)
    code, found = measured(serving, "--instance", "twins", *LONGER)
    assert (code, found.verdict, found.disturbances) == (0, Verdict.UNAVAILABLE, [])
    figures = values(found)
    assert [gpu.uuid for gpu in found.gpus] == serving.box.uuids[1:3]
    assert figures["gpu_utilisation"] > 0.9
    assert 0.8 < figures["scaling_efficiency_replicas"] < 1.2
    assert figures["output_tokens_per_s_per_replica"] == pytest.approx(figures["output_tokens_per_s_max"] / 2)
    # What its servers said of themselves is there: the run is complete in itself.
    assert (figures["load_s"], figures["first_token_s"]) == (record["load_s"], record["first_token_s"])
    # It goes on, the very same; and the key has been shown to nobody.
    assert serving.containers(record["run"]) == before
    assert serving.states() == {"twins": "ready"}
    serving.complete(record, key=KEY)
    kept = [path for path in serving.cube.runs.rglob("*") if path.is_file()]
    assert [path for path in kept if KEY.encode() in path.read_bytes()] == []
    # Somebody else's process is one.
    with subprocess.Popen(["sleep", "300"]) as guest:
        serving.box.add_process(2, guest.pid, 2**30)
        code, found = measured(serving, "--instance", "twins", "--no-probes", "--concurrency", "1,4")
        guest.kill()
    assert (code, found.verdict) == (1, Verdict.INVALID)
    assert any(f"process {guest.pid} (sleep) computed on GPU 2" in said for said in found.disturbances)
    Call(serving.cube).refused("not-found", 2, *BENCH[:-1], "--instance", "nobody")


def test_requests_that_fail_fail_the_measurement(serving: Serving, model: Path) -> None:
    behave(model, fails_every=4)
    code, found = measured(serving, "--model", str(model), "--no-probes", "--requests", "4")
    assert (code, found.run.status, found.verdict) == (1, "completed", Verdict.FAIL)
    assert verdicts(found)["no_request_failed"] is Verdict.FAIL
    # Four and eight were sent, and one before each.
    assert values(found)["requests_failed"] == 3
    assert verdicts(found)["answers_correct"] is Verdict.UNAVAILABLE


def test_a_server_that_cannot_start_is_not_measured(serving: Serving, model: Path) -> None:
    behave(model, dies="memory")
    code, found = measured(serving, "--model", str(model))
    assert (code, found.run.status) == (1, "failed")
    assert found.run.error is not None
    assert found.run.error.code == "gpu-memory"
    assert "CUDA out of memory" in found.run.error.message
    assert serving.nothing_left()


def test_a_server_that_dies_under_load_is_named(serving: Serving, model: Path) -> None:
    behave(model, token_s=0.2)
    child = serving.cube.start(*BENCH, "--model", str(model), "--no-probes")
    until(lambda: events(serving, "server") and events(serving, "progress"), START_S, "it is measured")
    (run,) = serving.cube.run_ids()
    inside = ["sh", "-c", "kill -SEGV $(grep -al 'vllm.serve' /proc/[0-9]*/cmdline | cut -d/ -f3 | tail -1)"]
    serving.engine.ask("exec", serving.containers(run)["vllm"], *inside)
    code, found = ended(serving, child)
    assert (code, found.run.status) == (1, "failed")
    assert found.run.error is not None
    assert (found.run.error.code, "SIGSEGV" in found.run.error.message) == ("server-died", True)
    assert serving.nothing_left()


def test_ctrl_c_keeps_the_levels_that_were_measured(serving: Serving, model: Path) -> None:
    child = serving.cube.start(
        *BENCH, "--model", str(model), "--no-probes", "--concurrency", "1,2,3", "--requests", "9"
    )
    until(lambda: events(serving, "level"), START_S, "a level was measured")
    behave(model, token_s=2)
    child.send_signal(signal.SIGINT)
    code, found = ended(serving, child)
    assert (code, found.run.status) == (130, "interrupted")
    assert values(found)["output_tokens_per_s_c1"] > 0
    assert "output_tokens_per_s_c3" not in found.metrics
    assert serving.nothing_left()
    kept = (serving.cube.runs / found.run.id / "plan.json").read_text()
    assert json.loads(kept)["purpose"] == "bench"
    assert re.search(r"measuring llama", (serving.cube.runs / found.run.id / "container.log").read_text())
