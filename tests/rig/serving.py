"""Services on a simulated machine: models that take no room on a disk, and questions asked where they answer.

The rig's engine has a network of its own, so whatever uses a published port runs in there: `vaultcube` as well.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docker.conftest import Vaultcube
from tests.rig.box import Box
from tests.rig.engine import RigEngine

# Shapes as the hub has them, and the bytes of their weights.
LLAMA_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
LLAMA_70B = LLAMA_7B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "vocab_size": 128256,
}
OK = 200
BYTES_7B, BYTES_70B, BYTES_70B_AWQ = 13_476_839_424, 141_107_412_992, 39_770_000_384
# One request or more, side by side: reads what to ask as JSON, writes [status, text] of each.
ASKER = """
import http.client, json, sys
from concurrent.futures import ThreadPoolExecutor
told = json.load(sys.stdin)
def ask(_):
    connection = http.client.HTTPConnection(told["where"], timeout=30)
    connection.request("POST" if told["body"] else "GET", told["path"], told["body"], told["headers"])
    answer = connection.getresponse()
    return [answer.status, answer.read().decode()]
with ThreadPoolExecutor(told["times"]) as pool:
    json.dump(list(pool.map(ask, range(told["times"]))), sys.stdout)
"""


def behave(model: Path, **settings: Any) -> None:
    """Say how the stand-in serves a model from now on; see tests/rig/standin/vllm/server.py."""
    fresh = model / ".stand-in"
    fresh.write_text(json.dumps(settings))
    fresh.rename(model / "stand-in.json")


def make_model(
    folder: Path, config: dict[str, Any] = LLAMA_7B, weights_bytes: int = BYTES_7B, *, files: int = 2, **settings: Any
) -> Path:
    """Make a model whose files have the size of a real one's, and no content: they take no room."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    (folder / "tokenizer.json").write_text("{}")
    index = {}
    for number in range(1, files + 1):
        name = f"model-{number:05}-of-{files:05}.safetensors"
        count = weights_bytes // files // 2
        tensor = {"dtype": "BF16", "shape": [count], "data_offsets": [0, 2 * count]}
        header = json.dumps({f"part.{number}": tensor}).encode()
        with (folder / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 2 * count)
        index[f"part.{number}"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    behave(folder, **settings)
    return folder


@dataclass
class Neighbour(Vaultcube):
    """The command where the engine's published ports are.

    Attributes:
        before: the words that lead there.
    """

    before: list[str] = field(default_factory=list)

    def argv(self, *args: str) -> list[str]:
        # sudo takes these away, whatever it is told.
        lost = [f"{k}={v}" for k, v in self.environment().items() if k == "PATH" or k.startswith(("PYTHON", "LD_"))]
        return [*self.before, "env", *(lost if os.getuid() else []), *super().argv(*args)]


class Serving:
    """What a test of services has.

    Attributes:
        cube: the command.
        engine: it uses this one.
        box: the simulated machine.
    """

    def __init__(self, cube: Neighbour, engine: RigEngine, box: Box) -> None:
        self.cube = cube
        self.engine = engine
        self.box = box

    def up(self, *args: str) -> dict[str, Any]:
        """Start a service, and return its record."""
        seen = self.cube("up", "vllm", *args, "--json")
        assert seen.returncode == 0, seen.stderr
        record: dict[str, Any] = json.loads(seen.stdout)
        assert record["schema"] == "vaultcube.service/1"
        return record

    def ps(self) -> list[dict[str, Any]]:
        """Return what `ps` lists."""
        found: list[dict[str, Any]] = json.loads(self.cube("ps", "--json").stdout)
        return found

    def states(self) -> dict[str, str]:
        """Return how each instance stands."""
        return {one["name"]: one["state"] for one in self.ps()}

    def down(self, *args: str) -> str:
        """Stop, and return what was said."""
        seen = self.cube("down", *args)
        assert seen.returncode == 0, seen.stderr
        return seen.stdout + seen.stderr

    def containers(self, run: str) -> dict[str, str]:
        """Return the ids of a run's containers that are running, by their service."""
        words = ["--filter", f"label=io.vaultcube.run={run}", "--no-trunc"]
        lines = self.engine.ask("ps", *words, "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}')
        return dict(line.split() for line in lines.splitlines())

    def seen_inside(self, container: str) -> list[str]:
        """Return the UUIDs of the GPUs that `nvidia-smi -L` lists in a container."""
        return re.findall(r"UUID: (GPU-[0-9a-f-]+)", self.engine.ask("exec", container, "nvidia-smi", "-L"))

    def pid(self, container: str) -> int:
        """Return the pid of a container's first process on this machine."""
        return int(self.engine.ask("inspect", "--format", "{{.State.Pid}}", container))

    def gpus(self, run: str) -> dict[str, list[str]]:
        """Return the UUIDs that each server of a run sees."""
        return {
            service: self.seen_inside(container)
            for service, container in self.containers(run).items()
            if service.startswith("vllm")
        }

    def ask(
        self, url: str, path: str, body: dict[str, Any] | None = None, *, key: str = "", times: int = 1
    ) -> list[tuple[int, str]]:
        """Ask the service at an address, so many times at once; return the status and text of each answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        told = {"where": url.removeprefix("http://"), "path": path, "headers": headers, "times": times}
        told["body"] = json.dumps(body) if body else None
        argv = [*self.engine.network, sys.executable, "-ISc", ASKER]
        seen = subprocess.run(
            argv, input=json.dumps(told), capture_output=True, text=True, timeout=60, env=dict(os.environ), check=False
        )
        assert seen.returncode == 0, seen.stderr
        return [(status, text) for status, text in json.loads(seen.stdout)]

    def answers(self, record: dict[str, Any]) -> bool:
        """Say whether a service answers."""
        try:
            return self.ask(record["url"], "/health")[0][0] == OK
        except AssertionError:
            return False

    def complete(self, record: dict[str, Any], *, key: str = "", times: int = 1, tokens: int = 4) -> list[str]:
        """Have prompts completed, and return the id of each answer: it names the container that gave it."""
        body = {"model": record["model"], "prompt": "The capital of France is", "max_tokens": tokens}
        answers = self.ask(record["url"], "/v1/completions", body, key=key, times=times)
        assert {status for status, _ in answers} == {200}, answers
        return [str(json.loads(text)["id"]) for _, text in answers]

    def nothing_left(self) -> bool:
        """Say whether the engine holds neither containers nor networks of ours."""
        networks = self.engine.ask("network", "ls", "--quiet", "--filter", "type=custom")
        return not self.engine.ask("ps", "--all", "--quiet") and not networks


def neighbour(vaultcube: Vaultcube, engine: RigEngine, home: Path) -> Neighbour:
    """Return the command where an engine's published ports are, with a home that holds nobody's secrets."""
    env = {**vaultcube.env, "XDG_DATA_HOME": str(home), "HF_TOKEN_PATH": str(home / "none")}
    env |= {"HF_TOKEN": "", "VLLM_API_KEY": ""}
    return Neighbour(vaultcube.runs, env=env, started=vaultcube.started, before=engine.network)
