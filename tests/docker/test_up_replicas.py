"""`vaultcube up vllm --replicas 2` on the CPU: two real servers behind the proxy, and one of them stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, docker
from tests.docker.services import EAGER, Running, cube_at, prompt, running, shell

pytestmark = [
    pytest.mark.docker,
    pytest.mark.image,
    pytest.mark.usefixtures("serving_images"),
    pytest.mark.timeout(900),
]

Wait = Callable[[Callable[[], Any], float], Any]
NAME = "test-replicas"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return two servers behind one address."""
    with running(cube_at(tmp_path_factory.mktemp("two")), NAME, "--replicas", "2", "--json", *EAGER) as one:
        yield one


def served(two: Running, container: str) -> int:
    """Return how many completions a server had from the proxy; the others are its own health checks."""
    proxy = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", proxy_of(two))
    return len(re.findall(rf'{re.escape(proxy)}:\d+ - "POST /v1/completions HTTP/1.1" 200', docker("logs", container)))


def proxy_of(two: Running) -> str:
    return two.containers()["proxy"]


def complete(two: Running, times: int) -> list[int]:
    """Have so many prompts completed at the same time, and return the HTTP statuses."""
    with ThreadPoolExecutor(times) as pool:
        asked = [pool.submit(two.ask, "/v1/completions", prompt("tiny", 32)) for _ in range(times)]
        return [one.result().status for one in asked]


def test_stdout_is_one_document_and_stderr_tells_of_both(two: Running) -> None:
    assert json.loads(two.out) == two.record
    jsonschema.validate(two.record, json.loads((ROOT / "docs/schema/service.schema.json").read_text()))
    assert (two.record["servers"], two.record["key_needed"], two.record["device"]) == (2, False, "cpu")
    for server in (0, 1):
        assert f"\n  server {server}: loading" in two.err
        assert f"\n  server {server}: ready after" in two.err


def test_one_address_and_only_the_proxy_has_it(two: Running) -> None:
    assert sorted(two.containers()) == ["proxy", "vllm", "vllm-1"]
    ports = {name: docker("port", container) for name, container in two.containers().items()}
    where = two.record["url"].removeprefix("http://")
    assert ports == {"proxy": f"8000/tcp -> {where}", "vllm": "", "vllm-1": ""}
    for container in two.containers().values():
        (raw,) = json.loads(docker("inspect", container))
        host = raw["HostConfig"]
        assert raw["Config"]["User"].split(":")[0] != "0"
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
        assert (host["SecurityOpt"], host["RestartPolicy"]["Name"]) == (["no-new-privileges:true"], "unless-stopped")


def test_the_printed_curl_line_works_without_a_key(two: Running) -> None:
    assert json.loads(shell(f"{two.record['example']} --silent"))["model"] == "tiny"


def test_both_answer(two: Running, wait_for: Wait) -> None:
    for name in ("vllm", "vllm-1"):
        wait_for(lambda name=name: f"servers/{name} is UP, reason: Layer7" in docker("logs", proxy_of(two)), 10)  # type: ignore[misc]
    before = {name: served(two, two.containers()[name]) for name in ("vllm", "vllm-1")}
    assert complete(two, 12) == [200] * 12
    more = {name: served(two, two.containers()[name]) - count for name, count in before.items()}
    assert sum(more.values()) == 12
    # The less busy one gets the next.
    assert min(more.values()) >= 3, more


def test_a_stream_comes_through_the_proxy_in_pieces(two: Running) -> None:
    answer = two.ask("/v1/completions", prompt("tiny", 12, stream=True))
    assert (answer.status, len(answer.chunks) > 6) == (200, True)


def test_one_that_is_stopped_is_missed_by_nobody_and_told_by_ps(two: Running, wait_for: Wait) -> None:
    wait_for(lambda: two.state() == "ready", 60)
    stopped = two.containers()["vllm-1"]
    docker("stop", stopped)
    assert [two.ask("/v1/completions", prompt("tiny")).status for _ in range(6)] == [200] * 6
    assert complete(two, 4) == [200] * 4
    assert two.state() not in {"", "ready"}
    # Not even when somebody cleared it away.
    docker("rm", stopped)
    assert two.state() == "partly gone"
    assert two.ask("/v1/completions", prompt("tiny")).status == 200


def test_down_removes_all_of_it(two: Running) -> None:
    seen = two.cube("down", NAME)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.startswith(f"{NAME}: stopped; ")
    assert not two.cube.left_behind()
    log = (two.directory / "container.log").read_text()
    assert "vllm-1 " in log
    assert two.result()["run"]["status"] == "completed"
