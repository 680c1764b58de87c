"""A service from its start to its record with docker replayed. The real engine and the real server are in tests/docker."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.replay import Recording
from tests.unit.stack.test_plan_service import RUN, plan
from tests.unit.support import box

from vaultcube.report.service import running
from vaultcube.results.events import AnyEvent, EventLog
from vaultcube.results.schema import Result, Status, Verdict
from vaultcube.results.service import ServiceRecord, read_record
from vaultcube.results.store import RunDirectory, RunStore
from vaultcube.stack.docker import Docker, EngineInfo
from vaultcube.stack.ending import read_plan
from vaultcube.stack.plan import Address, Plan
from vaultcube.stack.secrets import API_KEY, secrets_folder
from vaultcube.stack.service import ServiceRun, answers, example, finish_service
from vaultcube.stack.signals import Stop

ENGINE = EngineInfo("26.1.5", "2.26.1")
COMPOSE = f"compose --progress plain --project-name {RUN} "


def line(seq: int, kind: str, rank: int = 0, **fields: Any) -> str:
    envelope = {"schema": 1, "seq": seq, "time": "2026-01-01T12:00:00Z", "mono": 1.0 + seq, "rank": rank, "kind": kind}
    return json.dumps(envelope | fields) + "\n"


MODEL: dict[str, Any] = {"model": "tiny", "source": "tiny", "random_weights": True, "generates": True}
READY: dict[str, Any] = {"version": "0.32.0", "model": "tiny", "load_s": 80.0, "first_token_s": 81.5}


class Engine:
    """A run directory and a replayed engine whose servers say `events` and end with `exit_code`, or go on."""

    def __init__(self, recording: Recording, root: Path, one: Plan) -> None:
        self.docker = recording
        self.directory = RunStore(root / "runs").create(RUN)
        self.plan = one
        self.seen: list[AnyEvent] = []

    def says(self, events: str, exit_code: int | None = None) -> None:
        gone, told = self.docker.folder / "gone", self.docker.folder / "events"
        told.write_text(events)
        ids = [f"{number:064x}" for number in range(len(self.plan.servers))]
        rows = [
            json.dumps(
                [one, f"{RUN}-{server.service}-1", "running", "Up", RUN, "vllm", str(self.directory.path), "vllm"]
            )
            for one, server in zip(ids, self.plan.servers, strict=True)
        ]
        (self.docker.folder / "rows").write_text("".join(row + "\n" for row in rows))
        state = {"Running": exit_code is None, "ExitCode": exit_code or 0, "OOMKilled": False, "Error": ""}
        inspected = [
            {
                "Id": one,
                "State": state,
                "Image": "sha256:1",
                "Config": {"Labels": {"com.docker.compose.service": server.service}},
            }
            for one, server in zip(ids, self.plan.servers, strict=True)
        ]
        self.docker.says(f"{COMPOSE}* up --detach", does=f"cp '{told}' '{self.directory.events}'")
        whole = {"services": {"vllm": {"read_only": True}}}
        self.docker.says(f"{COMPOSE}* config", stdout=json.dumps(whole) + "\n")
        self.docker.says(f"compose --project-name {RUN} * config", stdout=json.dumps(whole) + "\n")
        self.docker.says(f"compose --project-name {RUN} down", does=f"touch '{gone}'")
        self.docker.says(f"compose --project-name {RUN} logs", stdout="vllm-1  | said\n")
        self.docker.says("volume create")
        self.docker.says("update --restart")
        self.docker.says("wait", does="sleep 60" if exit_code is None else ":")
        self.docker.says("stop")
        self.docker.says("inspect", stdout=json.dumps(inspected))
        self.docker.says("ps", does=f"[ -e '{gone}' ] || cat '{self.docker.folder / 'rows'}'")
        self.docker.says("version", stdout='"26.1.5"\n')
        self.docker.says("compose version", stdout="2.26.1\n")
        self.docker.says("image ls")

    def start(self, secrets: dict[str, str] | None = None) -> ServiceRecord | Result:
        with Stop() as stop:
            run = ServiceRun(self.plan, self.directory, Docker(stop), stop, self.seen.append, secrets=secrets)
            return run.start(ENGINE)

    @property
    def cleared(self) -> bool:
        return (self.docker.folder / "gone").exists()


@pytest.fixture
def address() -> Iterator[Address]:
    """Somebody who answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address(host="127.0.0.1", port=server.server_port)
        server.shutdown()
        thread.join()


@pytest.fixture
def engine(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: Address) -> Engine:
    monkeypatch.setattr("vaultcube.stack.lifecycle.POLL_S", 0.02)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    one = plan(box(0), secrets=("api_key",)).model_copy(update={"address": address})
    return Engine(recording, tmp_path, one)


def test_what_answers_is_left_running_and_written_down(engine: Engine) -> None:
    engine.says(line(0, "model", **MODEL) + line(1, "server", **READY))
    found = engine.start({API_KEY: "sk-secret"})
    assert isinstance(found, ServiceRecord)
    assert (found.name, found.model, found.load_s, found.first_token_s) == ("vllm", "tiny", 80.0, 81.5)
    assert (found.random_weights, found.key_needed, found.servers) == (True, True, 1)
    assert found.stop == "vaultcube down vllm"
    assert not engine.cleared
    assert any(call.startswith("update --restart unless-stopped") for call in engine.docker.calls)
    assert read_record(engine.directory) == found
    assert engine.directory.read_result() is None
    assert [event.kind for event in engine.seen] == ["model", "server"]


def test_an_address_that_does_not_answer_is_said_to(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultcube.stack.service.ADDRESS_LIMIT_S", 0.05)
    engine.plan = engine.plan.model_copy(update={"address": Address(host="127.0.0.1", port=1)})
    engine.says(line(0, "server", **READY))
    found = engine.start()
    assert isinstance(found, ServiceRecord)
    assert not found.reachable
    assert not engine.cleared
    assert "UNREACHED" in running(found)
    assert "UNREACHED" not in running(found.model_copy(update={"reachable": True}))


def test_the_key_is_in_its_file_alone(engine: Engine) -> None:
    engine.says(line(0, "server", **READY))
    engine.start({API_KEY: "sk-secret"})
    assert (secrets_folder(RUN) / API_KEY).read_text() == "sk-secret\n"
    kept = [file for file in engine.directory.path.rglob("*") if file.is_file()]
    assert not [file for file in kept if b"sk-secret" in file.read_bytes()]
    assert not [call for call in engine.docker.calls if "sk-secret" in call]


def test_it_is_ready_when_every_server_is(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    engine = Engine(recording, tmp_path, plan(box(0), given={"replicas": 2}).model_copy(update={"address": None}))
    slow = {**READY, "load_s": 99.0, "first_token_s": None}
    engine.says(line(0, "server", **READY) + line(0, "server", rank=1, **slow))
    found = engine.start()
    assert isinstance(found, ServiceRecord)
    assert (found.servers, found.load_s, found.first_token_s) == (2, 99.0, 81.5)
    assert (engine.directory.path / "haproxy.cfg").read_text().count(":8000 check") == 2


@pytest.mark.parametrize(
    ("code", "exit_code", "shown"),
    [
        ("model-too-large", 69, "model-too-large"),
        ("model-not-found", 64, "model-not-found"),
        ("gpu-memory", 70, "gpu-memory"),
        ("whatever", 70, "workload-failed"),
        ("whatever", 69, "flavour-unsupported"),
    ],
)
def test_a_server_that_says_why_it_ends_is_believed(engine: Engine, code: str, exit_code: int, shown: str) -> None:
    engine.says(line(0, "error", code=code, message="it is so", next_step="do that", exit_code=exit_code), exit_code)
    found = engine.start({API_KEY: "sk-secret"})
    assert isinstance(found, Result)
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code, found.run.error.message) == (Status.FAILED, shown, "it is so")
    assert found.run.error.next_step == "do that"
    assert engine.cleared
    assert not secrets_folder(RUN).exists()
    assert read_record(engine.directory) is None


def test_a_server_that_ends_without_a_word_is_no_success(engine: Engine) -> None:
    engine.says("", exit_code=0)
    found = engine.start()
    assert isinstance(found, Result)
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code) == (Status.FAILED, "server-died")


def test_a_server_that_never_answers_is_stopped_in_time(engine: Engine) -> None:
    engine.plan = engine.plan.model_copy(update={"timeout_s": 0.2})
    engine.says(line(0, "stage", stage="load", elapsed_s=1.0, detail="2 of 4 files"))
    found = engine.start()
    assert isinstance(found, Result)
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code) == (Status.TIMEOUT, "timeout")
    assert found.run.error.message == "the server was not ready after 0.2 s; the last it said: load 2 of 4 files"
    assert engine.cleared


def test_a_service_that_is_stopped_keeps_what_its_start_took(engine: Engine) -> None:
    engine.says(line(0, "model", **MODEL) + line(1, "server", **READY))
    engine.start({API_KEY: "sk-secret"})
    found = finish_service(read_plan(engine.directory), engine.directory, Docker())
    assert (found.run.status, found.run.error, found.verdict) == (Status.COMPLETED, None, Verdict.UNAVAILABLE)
    assert found.checks == []
    assert found.metrics["load_s"].value == 80.0
    assert engine.cleared
    assert not secrets_folder(RUN).exists()


def test_a_service_whose_vaultcube_was_killed_before_it_answered(engine: Engine) -> None:
    engine.says(line(0, "stage", stage="load", elapsed_s=1.0))
    engine.directory.write("plan.json", engine.plan.to_json())
    found = finish_service(read_plan(engine.directory), engine.directory, Docker())
    assert found.run.status is Status.INTERRUPTED


def test_what_is_no_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text("{}")
    assert read_record(RunDirectory(tmp_path)) is None


def test_who_answers(address: Address) -> None:
    assert answers(address)
    assert not answers(Address(host="127.0.0.1", port=1))


@pytest.mark.parametrize(
    ("generates", "key", "path", "word"),
    [(True, False, "completions", '"prompt"'), (False, True, "embeddings", '"input"')],
)
def test_the_example_is_one_that_works(*, generates: bool, key: bool, path: str, word: str) -> None:
    found = example("http://127.0.0.1:8000", "it's mine", generates=generates, key=key)
    assert f"/v1/{path}" in found
    assert word in found
    assert ("$VLLM_API_KEY" in found) is key
    # The key is no argument of curl's.
    assert "$" not in found.partition("curl ")[2]


def test_events_of_servers_are_taken_over_with_new_numbers() -> None:
    from vaultcube.stack.measure import adopted

    log = EventLog()
    text = line(0, "stage", stage="load", elapsed_s=1.0) + line(1, "model", **MODEL) + line(2, "server", **READY)
    log.feed((text + line(0, "server", rank=1, **READY)).encode())
    again = EventLog()
    again.feed(adopted(log).encode())
    assert not again.garbled
    assert [(event.rank, event.seq, event.kind) for event in again.events] == [
        (0, 0, "model"),
        (0, 1, "server"),
        (1, 0, "server"),
    ]
