"""The server's program in its image, against a stand-in for the hub: what is refused before vLLM is started.

The image's own huggingface_hub is the client, so that what is tested is what ships.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.docker.conftest import docker
from tests.docker.hub import REVISION, Hub, Repository

IMAGE = "vaultcube/vllm:cpu"
FILES = {
    "config.json": json.dumps(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "vocab_size": 300,
            "torch_dtype": "float16",
        }
    ).encode(),
    "tokenizer_config.json": b"{}",
    "model.safetensors": (128).to_bytes(8, "little")
    + json.dumps({"w": {"dtype": "U8", "shape": [100000], "data_offsets": [0, 100000]}}).encode().ljust(128)
    + bytes(100000),
    "pytorch_model.bin": bytes(100),
    "README.md": b"read me",
}


@pytest.fixture(scope="module", autouse=True)
def image(engine: str) -> None:  # noqa: ARG001 - an image needs an engine
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"these tests need {IMAGE} (make setup)")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """Return a hub that containers reach over the default bridge."""
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    with Hub(address) as found:
        found.models["acme/model"] = Repository(FILES)
        found.models["acme/gated"] = Repository(FILES, gated=True, token="hf_right")  # noqa: S106 - a stand-in's
        yield found


@pytest.fixture
def cache() -> Iterator[str]:
    """Return a volume."""
    name = f"vaultcube-test-{uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name)


class Ended:
    """What the program said when it had ended."""

    def __init__(self, done: subprocess.CompletedProcess[str], results: Path) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.text = (results / "events.jsonl").read_text()
        self.events: list[dict[str, Any]] = [json.loads(line) for line in self.text.splitlines()]

    def error(self) -> tuple[str, int, int]:
        last = self.events[-1]
        return str(last["code"]), int(last["exit_code"]), self.code


@pytest.fixture
def serve(tmp_path: Path, hub: Hub, cache: str) -> Callable[..., Ended]:
    def run(*argv: str, endpoint: str | None = None, token: str = "") -> Ended:
        results = tmp_path / uuid4().hex
        results.mkdir()
        results.chmod(0o777)
        secret = tmp_path / "hf_token"
        secret.write_text(token)
        secret.chmod(0o644)
        command = ["docker", "run", "--rm", "--init", "--read-only", "--cap-drop", "ALL", "--user", "10001:10001"]
        command += ["--security-opt", "no-new-privileges:true", "--tmpfs", "/tmp:mode=1777,exec"]
        command += ["--volume", f"{cache}:/cache", "--volume", f"{results}:/results"]
        command += ["--volume", f"{secret}:/run/secrets/hf_token:ro", "--env", f"HF_ENDPOINT={endpoint or hub.url}"]
        command += [IMAGE, "python3", "-m", "serve", "--results", "/results", "--device", "cpu", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        return Ended(done, results)

    return run


def test_a_model_that_the_hub_does_not_have(serve: Callable[..., Ended]) -> None:
    ended = serve("--model", "acme/none")
    assert ended.error() == ("model-not-found", 64, 64)
    assert ended.err.startswith(
        "error [model-not-found]: the hub has no model acme/none: Repository not found\n  next: "
    )


@pytest.mark.parametrize(
    ("token", "says"), [("", "then give a token"), ("hf_wrong", "the token that was given has no access")]
)
def test_a_gated_model(serve: Callable[..., Ended], token: str, says: str) -> None:
    ended = serve("--model", "acme/gated", token=token)
    assert ended.error() == ("model-gated", 69, 69)
    assert says in ended.err
    assert "hf_wrong" not in ended.text + ended.out + ended.err


def test_no_hub_and_nothing_in_the_cache(serve: Callable[..., Ended]) -> None:
    ended = serve("--model", "acme/model", endpoint="http://127.0.0.1:9")
    assert ended.error() == ("hub-unreachable", 69, 69)


def test_a_model_that_does_not_fit_is_not_downloaded(serve: Callable[..., Ended], hub: Hub) -> None:
    config = json.loads(FILES["config.json"]) | {"num_hidden_layers": 10000, "max_position_embeddings": 10**9}
    hub.models["acme/large"] = Repository(FILES | {"config.json": json.dumps(config).encode()})
    hub.asked.clear()
    ended = serve("--model", "acme/large")
    assert ended.error() == ("model-too-large", 69, 69)
    assert "--max-model-len" in ended.err
    assert not [path for _, path, _ in hub.asked if path.endswith("model.safetensors")]


def test_the_token_reaches_the_hub_and_nothing_else(serve: Callable[..., Ended], hub: Hub) -> None:
    hub.asked.clear()
    # A flag that vLLM does not know ends it after the download, before anything is loaded.
    ended = serve("--model", "acme/gated", "--", "--no-such-flag", token="hf_right")  # noqa: S106 - a stand-in's
    assert ended.error() == ("bad-parameter", 64, 64)
    assert "unrecognized arguments: --no-such-flag" in ended.err
    assert {token for _, _, token in hub.asked} == {"hf_right"}
    assert "hf_right" not in ended.text + ended.out + ended.err


def test_a_download_is_told_and_kept(serve: Callable[..., Ended], hub: Hub) -> None:
    hub.asked.clear()
    ended = serve("--model", "acme/model", "--", "--no-such-flag")
    kinds = [event["stage"] for event in ended.events if event["kind"] == "stage"]
    assert list(dict.fromkeys(kinds)) == ["check", "download", "load"]
    (model,) = [event for event in ended.events if event["kind"] == "model"]
    assert (model["source"], model["revision"]) == ("hub", REVISION)
    assert model["weights_bytes"] == len(FILES["model.safetensors"])
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path}
    assert fetched == {"config.json", "tokenizer_config.json", "model.safetensors"}
    # What is in the cache needs no hub: it comes as far as before.
    assert (
        serve("--model", "acme/model", "--", "--no-such-flag", endpoint="http://127.0.0.1:9").error()[0]
        == "bad-parameter"
    )


def test_a_directory_is_looked_at_before_anything_is_started(serve: Callable[..., Ended]) -> None:
    assert serve("--model", "/model").error() == ("model-not-found", 64, 64)
