"""Secrets of services on a simulated machine: who has to know them, and who gets to see them."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docker.engines import Call
from tests.rig.serving import Serving, make_model

TOKEN, KEY = "hf_RigTokenOfNobody0123456789", "sk-rig-key-0123456789"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "llama", leaks=True)


def command_lines() -> Iterator[bytes]:
    """Yield the command line of every process on this machine, those in containers included."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (entry / "cmdline").read_bytes()


def told(serving: Serving) -> dict[str, bytes]:
    """Return everything that others may read, by where it is: while it runs, and what is kept."""
    engine = serving.engine
    ids = engine.docker("ps", "--all", "--quiet").stdout.split()
    found = {"process list": b"\n".join(command_lines())}
    for one in ids:
        found[f"inspect {one}"] = engine.ask("inspect", one).encode()
        logs = engine.docker("logs", one)
        found[f"logs {one}"] = (logs.stdout + logs.stderr).encode()
    found |= {str(path): path.read_bytes() for path in serving.cube.runs.rglob("*") if path.is_file()}
    return found


def secret_files(home: Path) -> list[Path]:
    """Return the files that hold the secrets of instances."""
    return sorted(path for path in (home / "vaultcube/secrets").rglob("*") if path.is_file())


def test_secrets_are_seen_by_nobody_who_need_not_know_them(serving: Serving, model: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    serving.cube.env["VLLM_API_KEY"] = KEY
    words = ["--model", str(model), "--replicas", "2", "--hf-token-file", str(token)]
    dry = serving.cube("up", "vllm", *words, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    seen = serving.cube("up", "vllm", *words, "--json", "--debug")
    assert seen.returncode == 0, seen.stderr
    record = json.loads(seen.stdout)
    assert record["key_needed"]
    # Whoever asks has to know the key, and nobody who looks after the server is asked for it.
    body = {"model": record["model"], "prompt": "Hello", "max_tokens": 1}
    assert [status for status, _ in serving.ask(record["url"], "/v1/completions", body)] == [401]
    assert [status for status, _ in serving.ask(record["url"], "/v1/completions", body, key="sk-other")] == [401]
    serving.complete(record, key=KEY, times=4)
    for container in serving.containers(record["run"]).values():
        assert "/run/secrets/api_key" not in serving.engine.ask("exec", container, "env")
    files = secret_files(tmp_path / "home")
    assert [path.name for path in files] == ["api_key", "hf_token"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    everything = told(serving)
    # It did say them, and they were struck out.
    log = next(text for where, text in everything.items() if where.startswith("logs ") and b"WARNING token" in text)
    assert b"WARNING token *** for ***" in log
    assert any(where.startswith("inspect ") for where in everything)
    everything |= {"stdout": (seen.stdout + dry.stdout).encode(), "stderr": (seen.stderr + dry.stderr).encode()}
    listed = serving.cube("ps", "--json"), serving.cube("logs", "vllm"), serving.cube("down", "vllm")
    everything |= {f"{one.args[-2:]}": (one.stdout + one.stderr).encode() for one in listed}
    everything |= {f"kept {where}": text for where, text in told(serving).items()}
    for secret in (TOKEN, KEY):
        assert [where for where, text in everything.items() if secret.encode() in text] == []
    assert serving.nothing_left()
    assert secret_files(tmp_path / "home") == []


def test_a_start_that_fails_forgets_its_secrets(serving: Serving, model: Path, tmp_path: Path) -> None:
    serving.cube.env["HF_TOKEN"] = TOKEN
    (model / "model-00001-of-00002.safetensors").unlink()
    seen = serving.cube("up", "vllm", "--model", str(model))
    assert (seen.returncode, "[model-unreadable]" in seen.stderr) == (3, True), seen.stderr
    assert secret_files(tmp_path / "home") == []
    assert [where for where, text in told(serving).items() if TOKEN.encode() in text] == []


def test_what_others_can_reach_needs_a_key(serving: Serving, model: Path, tmp_path: Path) -> None:
    words = ["up", "vllm", "--model", str(model), "--host", "0.0.0.0"]  # noqa: S104 - what it is about
    Call(serving.cube).refused("key-needed", 3, *words)
    # A key that everybody who lists processes could see is none.
    Call(serving.cube).refused("bad-parameter", 2, "up", "vllm", "--model", str(model), "--", "--api-key", KEY)
    key = tmp_path / "key"
    key.write_text(KEY)
    record = serving.up(*words[2:], "--api-key-file", str(key))
    assert record["url"] == "http://127.0.0.1:8000"
    serving.complete(record, key=KEY)
