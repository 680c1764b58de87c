"""The launcher as a process, with a stand-in for vLLM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.client import Server

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "data" / "vllm"
ORCHESTRATOR = HERE.parents[3] / "orchestrator"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Served:
    """A launcher and the stand-in below it."""

    def __init__(self, folder: Path, env: dict[str, str], *argv: str) -> None:
        self.results = folder / "results with space"
        self.port = free_port()
        self.out = folder / "out.txt"
        self.err = folder / "err.txt"
        self.env = env
        command = [sys.executable, "-m", "serve", "--results", str(self.results), "--device", "cpu"]
        command += ["--port", str(self.port), *(argv or ("--model", "tiny"))]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=err)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        try:
            found = [json.loads(line) for line in (self.results / "events.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []
        return [event for event in found if kind in {None, event["kind"]}]

    def wait_for(self, text: str) -> None:
        assert eventually(lambda: text in self.out.read_text()), self.out.read_text() + self.err.read_text()

    def wait_ready(self) -> None:
        assert eventually(lambda: self.events("server")), self.out.read_text() + self.err.read_text()

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.out.read_text().partition("pids ")[2].split("\n")[0].split()]

    def all_gone(self) -> bool:
        return all(gone(pid) for pid in self.pids())

    def end(self) -> int:
        return self.process.wait(30)

    def completions(self) -> int:
        return self.out.read_text().count('"POST /v1/completions')

    def health(self) -> int:
        command = [sys.executable, "-m", "serve.health", "--port", str(self.port)]
        return subprocess.run(command, env=self.env, timeout=30, check=False, capture_output=True).returncode


@pytest.fixture
def serve(tmp_path: Path, program_env: dict[str, str]) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "vllm").write_text((HERE / "fakevllm.py").read_text())
    (programs / "vllm").chmod(0o755)

    def start(*argv: str, log: str = "ready", **env: str) -> Served:
        base = {
            **program_env,
            "PYTHONPATH": f"{program_env['PYTHONPATH']}{os.pathsep}{ORCHESTRATOR}",
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HF_HOME": str(tmp_path / "cache" / "huggingface"),
            "TMPDIR": str(tmp_path),
            "FAKE_LOG": str(DATA / f"0.32.0-cpu-{log}.txt"),
        }
        started.append(Served(tmp_path, base | env, *argv))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
    for one in started:
        assert eventually(one.all_gone), "processes are left"


def test_a_server_that_comes_up(serve: Callable[..., Served]) -> None:
    served = serve()
    served.wait_ready()
    assert eventually(lambda: served.events("stage")[-1]["stage"] == "ready")
    kinds = [event["kind"] for event in served.events() if event["kind"] != "stage"]
    assert kinds == ["started", "frameworks", "model", "server"]
    model, ready = served.events("model")[0], served.events("server")[0]
    assert (model["source"], model["random_weights"], model["generates"]) == ("tiny", True, True)
    assert (model["kv_bytes_per_token"], model["max_model_len"]) == (2048, 2048)
    assert (ready["version"], ready["model"], ready["max_model_len"]) == ("0.0.1", "tiny", 2048)
    assert ready["kv_cache_tokens"] == 524288
    assert 0 < ready["load_s"] <= ready["first_token_s"]
    stages = [event["stage"] for event in served.events("stage")]
    assert list(dict.fromkeys(stages)) == ["check", "load", "compile", "kv_cache", "warmup", "ready"]
    assert {event["rank"] for event in served.events()} == {0}
    assert [event["seq"] for event in served.events()] == list(range(len(served.events())))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["good", "slow"])
def test_a_signal_ends_it_with_75_and_leaves_nothing(
    serve: Callable[..., Served], number: signal.Signals, how: str
) -> None:
    served = serve(FAKE=how)
    served.wait_for("pids ")
    if how == "good":
        served.wait_ready()
    served.process.send_signal(number)
    assert served.end() == 75
    assert served.all_gone()
    assert served.err.read_text() == f"error [interrupted]: stopped by {number.name}\n  next: start it again to serve\n"
    assert served.events("error")[0]["exit_code"] == 75


def test_a_server_that_does_not_listen_is_killed(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="deaf")
    served.wait_for("Application startup complete")
    served.process.terminate()
    assert served.end() == 75
    assert served.all_gone()


def test_nothing_outlives_a_launcher_that_is_killed(serve: Callable[..., Served]) -> None:
    served = serve()
    served.wait_ready()
    served.process.kill()
    assert eventually(served.all_gone)


def test_a_server_that_dies_while_loading(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="dies", log="kv-cache-too-small")
    assert served.end() == 70
    (error,) = served.events("error")
    assert (error["code"], error["exit_code"]) == ("gpu-memory", 70)
    *lines, first, second = served.err.read_text().splitlines()
    assert first.startswith("error [gpu-memory]: ValueError: To serve at least one request")
    assert second == "  next: use --max-model-len 524160 or less, or more GPUs (--tensor-parallel)"
    assert all(line.startswith("  | ") for line in lines)
    assert served.all_gone()


def test_a_server_that_dies_while_it_is_used(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="dies later")
    assert served.end() == 70
    assert served.events("server")
    (error,) = served.events("error")
    assert error["code"] == "server-died"
    assert error["message"].startswith("the server ended while it was used (exit code 3)")


def test_a_server_that_dies_over_its_first_question(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="dies asked", log="kv-cache-too-small")
    assert served.end() == 70
    (error,) = served.events("error")
    assert error["code"] == "gpu-memory"


def test_a_model_that_does_not_answer_is_no_server(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="mute")
    assert served.end() == 70
    assert served.events("error")[0]["message"].startswith("the server is up and the model does not answer: ")


def test_what_vllm_is_told(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(
        "--model", "tiny", "--served-model-name", "my name", "--max-model-len", "512", "--", "--max-num-seqs", "8"
    )
    served.wait_for("pids ")
    argv = json.loads(served.out.read_text().partition("argv ")[2].split("\n")[0])
    assert argv == [
        "serve",
        str(tmp_path / "cache" / "tiny" / "v1"),
        "--served-model-name",
        "my name",
        "--host",
        "0.0.0.0",  # noqa: S104 - an expectation
        "--port",
        str(served.port),
        "--max-model-len",
        "512",
        "--max-num-seqs",
        "8",
    ]


def test_a_port_that_is_taken(serve: Callable[..., Served]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        served = serve("--model", "tiny", "--port", str(taken.getsockname()[1]))
        assert served.end() == 69
    assert served.events("error")[0]["code"] == "port-taken"


def test_bad_parameters_land_in_the_events_too(serve: Callable[..., Served]) -> None:
    served = serve("--model", "tiny", "--", "--api-key", "sk-secret")
    assert served.end() == 64
    assert served.events("error")[0]["code"] == "bad-parameter"
    assert "sk-secret" not in served.err.read_text() + (served.results / "events.jsonl").read_text()


def test_the_healthcheck_asks_only_an_idle_server(serve: Callable[..., Served]) -> None:
    served = serve()
    served.wait_ready()
    assert eventually(lambda: served.events("stage")[-1]["stage"] == "ready")
    # The recorded start has one, the launcher's own first token is another.
    assert served.completions() == 2
    assert served.health() == 0
    assert eventually(lambda: served.completions() == 3)
    # Somebody else's request is answer enough.
    Server(served.port).first_token("tiny", 10)
    assert served.health() == 0
    assert eventually(lambda: served.completions() == 4)
    assert '"GET /metrics' not in served.out.read_text()
    served.process.terminate()
    served.end()
    assert served.health() == 1


def test_a_server_that_loads_is_not_healthy_yet(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="slow")
    served.wait_for("pids ")
    assert served.health() == 1


def test_a_model_that_writes_no_text_is_asked_for_what_it_gives(serve: Callable[..., Served]) -> None:
    served = serve("--model", "tiny", "--", "--runner", "pooling")
    served.wait_ready()
    assert served.events("model")[0]["generates"] is False
    assert served.events("server")[0]["first_token_s"] is None
    assert eventually(lambda: served.events("stage")[-1]["stage"] == "ready")
    assert served.health() == 0
    served.wait_for('"POST /pooling')
