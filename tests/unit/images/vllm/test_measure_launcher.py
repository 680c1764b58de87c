"""The client as a whole: a server over real HTTP, and a stand-in for the `vllm` command that does as it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from measure import runner
from tests.unit.images.vllm.modelserver import good, serving

from common.outcome import Problem

RECORDED = Path(__file__).resolve().parents[3] / "data" / "vllm" / "bench"
KEY = "k3y-of-the-server"

# It understands the flags, draws the bar that the real one draws, and writes what the real one wrote.
TOOL = """
import json, os, sys, time
def flag(name):
    return sys.argv[sys.argv.index(name) + 1]
n, how = int(flag("--num-prompts")), os.environ.get("TOOL", "")
with open(os.environ["TOOL_LOG"], "a") as log:
    log.write(json.dumps({"argv": sys.argv[1:], "key": os.environ.get("OPENAI_API_KEY")}) + "\\n")
print("Starting main benchmark run...")
if how == "hang":
    time.sleep(600)
if how == "die":
    sys.exit("ValueError: no such tokenizer " + os.environ.get("OPENAI_API_KEY", ""))
for done in range(n + 1):
    sys.stderr.write(f"\\r {done * 100 // n}%|   | {done}/{n} [00:01<00:01,  1.0it/s]")
sys.stderr.flush()
print("\\n============ Serving Benchmark Result ============")
result = json.load(open(os.environ["TOOL_RESULT"]))
result["completed"] = n
if how == "half":
    result["completed"] = n // 2
    result["errors"] = ["", "Traceback (most recent call last):\\n  x\\nTimeoutError: too slow\\n"]
if how == "none":
    sys.exit(0)
if how == "nonsense":
    result["duration"] = "long"
with open(os.path.join(flag("--result-dir"), flag("--result-filename")), "w") as file:
    json.dump(result, file)
if how == "noisy":
    sys.exit("Exception ignored in: something")
"""


class Client:
    """Runs `python3 -m measure` in a folder of its own."""

    def __init__(self, folder: Path, program_env: dict[str, str]) -> None:
        tool = folder / "bin" / "vllm"
        tool.parent.mkdir()
        tool.write_text(TOOL)
        tool.chmod(0o755)
        # The interpreter is found there too, so that `vllm` beside it is ours.
        (folder / "bin" / "python3").symlink_to(sys.executable)
        self.results = folder / "results"
        self.log = folder / "tool.log"
        self.env = {
            **program_env,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "TOOL_LOG": str(self.log),
            "TOOL_RESULT": str(RECORDED / "0.32.0-c2.json"),
            "TMPDIR": str(folder),
            "VAULTCUBE_FLAVOUR": "cpu",
        }

    def start(self, *argv: str, tool: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["python3", "-m", "measure", "--results", str(self.results), *argv],
            env=self.env | {"TOOL": tool},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *argv: str, tool: str = "") -> tuple[int, str]:
        with self.start(*argv, tool=tool) as process:
            out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        lines = (self.results / "events.jsonl").read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["kind"] == kind or not kind]

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def client(tmp_path: Path, program_env: dict[str, str]) -> Client:
    return Client(tmp_path, program_env)


SHORT = ["--concurrency", "1,2", "--requests", "2", "--warmup", "0", "--min-seconds", "0"]
SHORT += ["--input-len", "32", "--output-len", "16"]


def flag(call: dict[str, Any], name: str) -> str:
    return str(call["argv"][call["argv"].index(name) + 1])


def test_a_measurement_from_its_start_to_its_end(client: Client) -> None:
    with serving() as server:
        code, out = client.run("--url", server.url, *SHORT)
    assert code == 0, out
    kinds = [event["kind"] for event in client.events()]
    assert [kind for kind in kinds if kind != "progress"] == [
        "started", "frameworks", *["probe"] * 5, *["level"] * 2, "finished",
    ]  # fmt: skip
    assert {event["rank"] for event in client.events()} == {-1}
    started = client.events("started")[0]
    assert (started["program"], started["device"], started["world_size"]) == ("vllm-bench", "cpu", 1)
    assert started["params"]["concurrency"] == "1,2"
    levels = client.events("level")
    assert [(one["concurrency"], one["requests"], one["failed"]) for one in levels] == [(1, 2, 0), (2, 4, 0)]
    for one in levels:
        assert one["until_s"] <= one["mono"]
        assert one["replica"] is None
    told = client.events("progress")
    assert [event["done"] for event in told] == sorted({event["done"] for event in told})
    assert (told[-1]["done"], told[-1]["total"]) == (20, 20)
    assert "These are measurements, not a verdict" in out
    assert "TTFT p50/p90/p99 ms" in out


def test_every_call_has_prompts_of_its_own(client: Client) -> None:
    with serving() as server:
        argv = [word if word != "0" else "1" for word in SHORT]
        code, out = client.run("--url", server.url, *argv, "--seed", "7", "--no-probes")
    assert code == 0, out
    # A warm-up and the load of two levels.
    assert [flag(call, "--seed") for call in client.calls()] == ["7", "8", "9", "10"]
    assert [flag(call, "--max-concurrency") for call in client.calls()] == ["1", "1", "2", "2"]
    assert flag(client.calls()[0], "--num-prompts") == "3"
    assert len(client.events("level")) == 2


def test_the_length_of_a_level_follows_from_its_warm_up(client: Client) -> None:
    recorded = json.loads((RECORDED / "0.32.0-c2.json").read_text())
    with serving() as server:
        argv = ["--concurrency", "2", "--requests", "2", "--warmup", "2", "--min-seconds", "30", "--no-probes"]
        code, out = client.run("--url", server.url, *argv, "--input-len", "32", "--output-len", "16")
    assert code == 0, out
    needed = 30 * 1.15 / (recorded["p50_e2el_ms"] / 1000)
    assert int(flag(client.calls()[1], "--num-prompts")) == pytest.approx(2 * needed, abs=2)


def test_replicas_are_asked_one_by_one_and_the_first_is_measured_alone(client: Client) -> None:
    with serving() as first, serving() as second, serving() as proxy:
        argv = ["--replica-url", first.url, "--replica-url", second.url]
        code, out = client.run("--url", proxy.url, *argv, *SHORT)
    assert code == 0, out
    assert [event["replica"] for event in client.events("probe")] == [0] * 5 + [1] * 5
    assert [(one["replica"], one["concurrency"]) for one in client.events("level")] == [(0, 1), (None, 1), (None, 2)]
    assert [flag(call, "--base-url") for call in client.calls()] == [first.url, proxy.url, proxy.url]
    assert [path for path, _ in proxy.asked if "completions" in path] == []


def test_failed_requests_are_counted_and_the_first_error_is_kept(client: Client) -> None:
    with serving() as server:
        code, out = client.run("--url", server.url, *SHORT, "--no-probes", tool="half")
    assert code == 0, out
    assert [(one["completed"], one["failed"]) for one in client.events("level")] == [(1, 1), (2, 2)]
    assert {one["error"] for one in client.events("level")} == {"TimeoutError: too slow"}
    assert "2 of 4 requests failed: TimeoutError: too slow" in out


@pytest.mark.parametrize(
    ("tool", "argv", "words"),
    [
        ("die", [], "ended with exit code 1 (ValueError: no such tokenizer"),
        ("none", [], "left no result"),
        ("nonsense", [], "left no result: duration is no number"),
        ("hang", ["--level-timeout-s", "0.5"], "did not end within 0 s"),
    ],
)
def test_a_tool_that_fails_ends_the_measurement(client: Client, tool: str, argv: list[str], words: str) -> None:
    with serving() as server:
        code, out = client.run("--url", server.url, *SHORT, "--no-probes", *argv, tool=tool)
    assert code == 70, out
    (error,) = client.events("error")
    assert (error["code"], error["exit_code"]) == ("workload-failed", 70)
    assert words in error["message"]
    assert "error [workload-failed]" in out
    assert client.events("finished") == []


def test_a_server_that_is_gone_is_the_cause(client: Client) -> None:
    def dying(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return (503, {}) if path == "/health" else good(path, body)

    with serving(dying) as server:
        code, out = client.run("--url", server.url, *SHORT, "--no-probes", tool="die")
    assert code == 70, out
    assert client.events("error")[0]["code"] == "server-died"


def test_a_server_that_breaks_off_a_question_is_told(client: Client) -> None:
    def broken(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return (500, {"error": "boom"}) if path == "/v1/chat/completions" else good(path, body)

    with serving(broken) as server:
        code, out = client.run("--url", server.url, *SHORT)
    assert code == 70, out
    assert "did not answer a question: " in client.events("error")[0]["message"]


def test_lengths_that_do_not_fit_the_context_are_refused(client: Client) -> None:
    with serving() as server:
        code, out = client.run("--url", server.url, "--input-len", "500", "--output-len", "13")
    assert code == 64, out
    assert "do not fit the context of 512" in client.events("error")[0]["message"]
    assert client.calls() == []


def test_the_key_goes_by_the_environment_and_is_never_shown(client: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secrets"
    secret.mkdir()
    (secret / "api_key").write_text(KEY + "\n")
    # The folder of secrets is fixed in a container.
    program = tmp_path / "run.py"
    program.write_text(
        "import pathlib, sys\nimport serve.secrets as s\n"
        f"s.Secrets.__init__.__defaults__ = (pathlib.Path({str(secret)!r}),)\n"
        "from measure.launcher import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    with serving() as server:
        argv = ["python3", str(program), "--results", str(client.results), "--url", server.url, *SHORT]
        done = subprocess.run(argv, env=client.env | {"TOOL": "die"}, capture_output=True, text=True, check=False)
        assert server.keys == {f"Bearer {KEY}"}
    assert done.returncode == 70
    assert client.calls()[0]["key"] == KEY
    written = (client.results / "events.jsonl").read_text()
    for shown in (done.stdout, done.stderr, written, json.dumps(client.calls()[0]["argv"])):
        assert KEY not in shown
    assert "no such tokenizer ***" in written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_the_tool_too(client: Client, number: signal.Signals) -> None:
    with serving() as server, client.start("--url", server.url, *SHORT, "--no-probes", tool="hang") as process:
        deadline = time.monotonic() + 30
        while not client.calls() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 75, out
    assert client.events("error")[0]["code"] == "interrupted"
    assert f"stopped by {number.name}" in out


def test_results_of_a_raw_run_get_a_folder_of_their_own(client: Client) -> None:
    with serving() as server:
        code, _ = client.run("--url", server.url, *SHORT, "--no-probes", "--stamp")
    assert code == 0
    (folder,) = client.results.iterdir()
    assert folder.name.startswith("vllm-bench-")


def test_nonsense_is_told_in_the_results_as_well(client: Client) -> None:
    code, out = client.run("--url", "ftp://x")
    assert code == 64
    assert out.startswith("error [bad-parameter]")
    assert client.events("error")[0]["code"] == "bad-parameter"


# --- the parts ---------------------------------------------------------------------------------------------------


class Silent:
    """A process without output."""

    stdout = None


def output(requests: int) -> runner.Output:
    return runner.Output(Silent(), requests, lambda text: text)  # type: ignore[arg-type]


def test_the_load_ends_when_the_bar_is_full() -> None:
    seen = output(4)
    assert seen.feed(b"Starting\n  0%|  | 0/4 [00:00<?, ?it/s]", 10.0).endswith(b"?it/s]")
    assert (seen.done, seen.ended_s) == (0, None)
    seen.feed(b"\r 50%|##| 2/4 [00:01<00:01, 1.9it/s]", 11.0)
    assert (seen.done, seen.ended_s) == (2, None)
    seen.feed(b"\r100%|####| 4/4 [00:02<00:00, 2.0it/s]\n==== Serving Benchmark Result ====\n", 12.5)
    seen.feed(b"100%|####| 4/4 [00:02<00:00, 2.0it/s]", 20.0)
    assert (seen.done, seen.ended_s) == (4, 12.5)
    assert seen.last() == ["Starting", "==== Serving Benchmark Result ===="]


def test_without_a_bar_the_first_line_after_the_load_is_its_end() -> None:
    seen = output(4)
    seen.feed(b"100%|###| 1/1 [00:02<00:00]\nother 7/9 [\n", 3.0)
    assert (seen.done, seen.ended_s) == (0, None)
    seen.feed(b"============ Serving Benchmark Result ============\n", 5.0)
    assert seen.ended_s == 5.0


def test_no_proxy_is_between_client_and_server() -> None:
    env = runner.environment({"HTTP_PROXY": "http://p", "NO_PROXY": "other"}, None, ["http://vllm:8000"])
    assert env["NO_PROXY"] == env["no_proxy"] == "other,vllm"
    assert "OPENAI_API_KEY" not in env
    assert runner.environment({}, "k", ["http://proxy:8000"])["OPENAI_API_KEY"] == "k"
    assert runner.environment({}, None, ["http://proxy:8000"])["no_proxy"] == "proxy"


def test_an_image_without_vllm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with pytest.raises(Problem, match="no vllm command") as seen:
        runner.program()
    assert seen.value.exit_code == 69


@pytest.mark.parametrize(("package", "said"), [("vllm", "['bench', 'x'] cuda"), ("other", "['bench', 'x'] none")])
def test_the_tool_is_told_of_a_device_so_that_0_10_2_reads_its_flags_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, said: str
) -> None:
    # vllm/config/__init__.py:1863 of 0.10.2 raises "Failed to infer device type" where a default for a flag is made.
    platforms = tmp_path / "lib" / package / "platforms"
    platforms.mkdir(parents=True)
    (platforms / "interface.py").write_text("class UnspecifiedPlatform: pass\n")
    command = tmp_path / "vllm"
    command.write_text("""
import sys
assert __name__ == "__main__" and "" not in sys.path
found = sys.modules.get("vllm.platforms.interface")
print(sys.argv[1:], found.UnspecifiedPlatform.device_type if found else "none")
""")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    argv = [*runner.program()[:-1], str(command), "bench", "x"]
    env = {"PYTHONPATH": str(tmp_path / "lib")}
    assert subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.strip() == said
