"""`vaultcube up vllm` with the real server on the CPU: one instance with an API key, and all that is asked of it."""

from __future__ import annotations

import json
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, docker
from tests.docker.services import Running, ask, cube_at, prompt, running, shell, stages

pytestmark = [
    pytest.mark.docker,
    pytest.mark.image,
    pytest.mark.usefixtures("serving_images"),
    pytest.mark.timeout(900),
]

Wait = Callable[[Callable[[], Any], float], Any]
KEY, TOKEN = "sk-vaultcube-test-4f1c", "hf_vaultcubeTest77ab"
NAME = "test-up"
# What bench and up may know, and nobody else.
MEASURE = ["bench", "vllm", "--instance", NAME, "--preset", "smoke", "--input-len", "8", "--output-len", "8"]


class Snoop(threading.Thread):
    """Reads every command line of this machine again and again, as whoever may list processes can."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: set[str] = set()
        self.looks = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if KEY in text or TOKEN in text:
                    self.found.add(text)


@pytest.fixture(scope="module")
def snoop() -> Iterator[Snoop]:
    """Return what looks at command lines for as long as the instance starts, runs and is measured."""
    one = Snoop()
    one.start()
    yield one
    one.over.set()
    one.join()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, snoop: Snoop) -> Iterator[Running]:  # noqa: ARG001 - it looks on
    """Return an instance that was given both secrets by the environment, and has neither hub nor network."""
    cube = cube_at(tmp_path_factory.mktemp("up"), VLLM_API_KEY=KEY, HF_TOKEN=TOKEN)
    with running(cube, NAME) as one:
        yield one


# --- what is said ------------------------------------------------------------------------------------------------


def test_what_it_does_while_it_loads_is_shown_in_order(up: Running) -> None:
    words = [
        "looking at the model",
        "loading",
        "compiling",
        "making room for the KV cache",
        "warming up",
        "ready after",
    ]
    places = [up.err.find(f"\n  {word}") for word in words]
    assert places == sorted(places), up.err
    assert -1 not in places, up.err
    assert stages(up.directory) == ["check", "load", "compile", "kv_cache", "warmup", "ready"]


def test_where_it_answers_how_to_ask_it_and_how_to_stop_it_are_printed(up: Running) -> None:
    assert up.out.startswith(f"{NAME}: tiny, on the CPU\n  RANDOM WEIGHTS: ")
    assert f"answers at  {up.record['url']}/v1 " in up.out
    assert f"stop it     vaultcube down {NAME}\n" in up.out
    assert f"measure it  vaultcube bench vllm --instance {NAME}\n" in up.out
    schema = json.loads((ROOT / "docs/schema/service.schema.json").read_text())
    jsonschema.validate(up.record, schema)
    assert 0 < up.record["load_s"] <= up.record["first_token_s"] <= up.record["up_s"]


def test_the_printed_curl_line_works_as_it_stands(up: Running) -> None:
    (line,) = re.findall(r"ask it +(.+)", up.out)
    answer = json.loads(shell(f"{line} --silent", VLLM_API_KEY=KEY))
    assert (answer["model"], answer["object"]) == ("tiny", "text_completion")
    assert 0 < answer["usage"]["completion_tokens"] <= 16


# --- the interface -----------------------------------------------------------------------------------------------


def test_without_the_key_nobody_is_answered(up: Running) -> None:
    for key in ("", "sk-wrong"):
        assert up.ask("/v1/models", key=key).status == 401
        assert up.ask("/v1/completions", prompt("tiny"), key=key).status == 401
    models = up.ask("/v1/models", key=KEY)
    assert (models.status, [one["id"] for one in models.json["data"]]) == (200, ["tiny"])


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_tokens_are_streamed_as_they_come(up: Running, path: str) -> None:
    # vLLM hands over together what a busy machine was too slow to take one by one.
    body = prompt("tiny", 48, stream=True)
    if "chat" in path:
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    answer = up.ask(path, body, key=KEY)
    assert answer.status == 200
    tokens = [chunk for chunk in answer.chunks if chunk["choices"][0].get("text") or "delta" in chunk["choices"][0]]
    assert len(tokens) >= 6
    assert answer.chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_a_question_that_cannot_be_answered_ends_nothing(up: Running) -> None:
    assert up.ask("/v1/completions", prompt("another"), key=KEY).status == 404
    assert up.ask("/v1/completions", prompt("tiny", 10**6), key=KEY).status == 400
    assert up.ask("/v1/completions", prompt("tiny"), key=KEY).status == 200


# --- how it runs -------------------------------------------------------------------------------------------------


def test_the_container_has_the_least_it_needs(up: Running) -> None:
    (container,) = up.containers().values()
    (raw,) = json.loads(docker("inspect", container))
    host = raw["HostConfig"]
    assert raw["Config"]["User"].split(":")[0] != "0"
    assert (host["ReadonlyRootfs"], host["Privileged"], host["CapAdd"]) == (True, False, None)
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"])
    assert not host["DeviceRequests"]
    assert host["Memory"] > 0
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": up.record["url"].split(":")[-1]}]}
    assert not any("docker.sock" in mount["Source"] for mount in raw["Mounts"])
    status = docker("exec", container, "grep", "-E", "^(Cap(Prm|Eff|Bnd)|NoNewPrivs)", "/proc/1/status")
    assert set(status.split()[1::2]) == {"0000000000000000", "1"}
    # It has worked once: it comes back with the machine.
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


def test_ps_and_logs_know_it(up: Running, wait_for: Wait) -> None:
    wait_for(lambda: up.health() == "healthy", 60)
    (one,) = [one for one in json.loads(up.cube("ps", "--json").stdout) if one["run"] == up.record["run"]]
    assert (one["name"], one["workload"], one["state"], one["url"]) == (NAME, "vllm", "ready", up.record["url"])
    assert (one["keeper"], one["gpus"]) == (None, [])
    assert re.search(rf"^{NAME} +vllm +ready +.*{up.record['url']}", up.cube("ps").stdout, re.MULTILINE)
    assert "Application startup complete" in up.cube("logs", NAME).stdout
    assert up.cube("logs", up.record["run"]).returncode == 0


def test_its_name_and_its_port_are_taken(up: Running) -> None:
    port = up.record["url"].rpartition(":")[2]
    for words, code, exit_code in ((["--name", NAME], "instance-name", 2), (["--port", port], "port-taken", 3)):
        seen = up.cube("up", "vllm", "--model", "tiny", "--gpus", "none", *words)
        assert (seen.returncode, seen.stdout) == (exit_code, ""), seen.stderr
        assert f"[{code}]" in seen.stderr
        assert port in seen.stderr or NAME in seen.stderr
    assert up.cube.run_ids() == [up.record["run"]]


def test_secrets_are_files_of_the_containers_user_alone(up: Running) -> None:
    (folder,) = (Path(up.cube.env["XDG_DATA_HOME"]) / "vaultcube/secrets").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {file.name: (stat.S_IMODE(file.stat().st_mode), file.read_text()) for file in folder.iterdir()}
    assert files == {"api_key": (0o600, f"{KEY}\n"), "hf_token": (0o600, f"{TOKEN}\n")}


# --- measured as it runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(up: Running) -> tuple[str, str, dict[str, Any]]:
    """Return what a measurement of the instance printed for people, and its result."""
    before = set(up.cube.run_ids())
    seen = up.cube(*MEASURE, timeout=300)
    assert seen.returncode == 0, seen.stderr
    (run,) = set(up.cube.run_ids()) - before
    return seen.stdout, seen.stderr, json.loads((up.cube.runs / run / "result.json").read_text())


def test_a_measurement_judges_what_needs_no_gpu(measured: tuple[str, str, dict[str, Any]]) -> None:
    out, _, result = measured
    jsonschema.validate(result, json.loads((ROOT / "docs/schema/result.schema.json").read_text()))
    assert (result["run"]["status"], result["verdict"]) == ("completed", "UNAVAILABLE")
    verdicts = {check["name"]: check["verdict"] for check in result["checks"]}
    assert verdicts["output_tokens_per_s"] == verdicts["mbu"] == verdicts["gpu_memory"] == "UNAVAILABLE"
    assert verdicts["no_request_failed"] == "PASS"
    # Weights drawn by lot know no answers.
    assert verdicts["answers_correct"] == verdicts["answers_repeatable"] == "UNAVAILABLE"
    assert "output_tokens_per_s" in out


def test_a_measurement_has_latencies_and_the_servers_own_start(
    up: Running, measured: tuple[str, str, dict[str, Any]]
) -> None:
    metrics = {name: metric["value"] for name, metric in measured[2]["metrics"].items()}
    for kind in ("ttft", "tpot", "itl", "e2e"):
        for level in ("c1", "c2"):
            values = [metrics[f"{kind}_p{share}_s_{level}"] for share in (50, 90, 99)]
            assert values == sorted(values), kind
            assert values[0] > 0, kind
    assert metrics["output_tokens_per_s"] > 0
    assert metrics["requests_failed"] == 0
    assert metrics["load_s"] == pytest.approx(up.record["load_s"])


def test_a_measurement_leaves_the_instance_as_it_was(up: Running, measured: tuple[str, str, dict[str, Any]]) -> None:
    assert up.state() == "ready"
    assert list(up.containers("--all")) == ["vllm"]
    assert up.ask("/v1/completions", prompt("tiny"), key=KEY).status == 200
    listed = json.loads(up.cube("runs", "list", "--json").stdout)
    assert measured[2]["run"]["id"] in [one["id"] for one in listed]


# --- the end -----------------------------------------------------------------------------------------------------


def test_down_stops_it_and_its_secrets_were_never_anywhere(
    up: Running, measured: tuple[str, str, dict[str, Any]], snoop: Snoop
) -> None:
    (container,) = up.containers().values()
    said = [up.out, up.err, *measured[:2], docker("inspect", container), up.cube("ps").stdout]
    said += [up.cube("logs", NAME).stdout, docker("logs", container)]
    seen = up.cube("down", NAME)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.startswith(f"{NAME}: stopped; completed")
    said += [seen.stdout, seen.stderr]
    kept = [path for path in up.cube.runs.rglob("*") if path.is_file()]
    assert {"plan.json", "compose.override.yml", "compose.resolved.json", "container.log", "result.json"} <= {
        path.name for path in kept
    }
    for secret in (KEY, TOKEN):
        assert not [text for text in said if secret in text]
        assert not [path for path in kept if secret.encode() in path.read_bytes()]
    assert snoop.looks
    assert not snoop.found
    # The files that held them went with it.
    assert not list((Path(up.cube.env["XDG_DATA_HOME"]) / "vaultcube/secrets").iterdir())


def test_after_down_nothing_is_left_but_its_result(up: Running) -> None:
    result = up.result()
    assert (result["run"]["status"], result["verdict"]) == ("completed", "UNAVAILABLE")
    assert result["metrics"]["load_s"]["value"] == pytest.approx(up.record["load_s"])
    assert not result["run"]["error"]
    # It ended by itself: nobody had to kill it.
    assert "stopped by SIGTERM" in (up.directory / "container.log").read_text()
    assert up.state() == ""
    assert not up.cube.left_behind()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", int(up.record["url"].rpartition(":")[2])))
    with pytest.raises(OSError, match="refused"):
        ask(up.record["url"], "/health")
    assert up.cube("down", NAME).returncode == 2
