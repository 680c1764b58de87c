"""A stand-in for vLLM's server, not for our programs: it says what vLLM says while it loads, and answers with words.

Nothing is computed: loading and every token take the time that the model's `stand-in.json` says (read again for every
request), else that of DEFAULTS. What vLLM checks is checked: the API key, the model's name, the length of a context.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

VERSION = "0.10.2+standin"
SETTINGS = "stand-in.json"
DEFAULTS: dict[str, Any] = {
    # Seconds until it answers, once it began to load.
    "load_s": 0.2,
    # Seconds a token takes, and how many times that the first. A card of 1.8 TB/s needs 0.0075 for a 7B in bf16.
    "token_s": 0.01,
    "first_tokens": 3,
    # One of DEATHS: how it ends while it loads.
    "dies": "",
    # Every so manieth answer of more than a token fails; 0: none.
    "fails_every": 0,
    # Whether it prints its secrets, as libraries in trouble do.
    "leaks": False,
}
# How the engine ends when it cannot serve, in the words of 0.10.2; the server then ends with 1.
DEATHS = {
    "cuda": [
        "EngineCore failed to start.",
        "Traceback (most recent call last):",
        '  File "/opt/venv/lib/python3.11/site-packages/vllm/v1/engine/core.py", line 709, in run_engine_core',
        "    engine_core = EngineCoreProc(*args, **kwargs)",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
    ],
    "memory": [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 31.36 GiB",
    ],
}
DIED = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
# Flags of vLLM that take a value, and those that take none, as far as tests give them.
VALUED = (
    "--dtype",
    "--gpu-memory-utilization",
    "--max-num-seqs",
    "--quantization",
    "--revision",
    "--seed",
    "--kv-cache-dtype",
    "--load-format",
)
BARE = ("--enforce-eager", "--trust-remote-code", "--disable-log-requests", "--skip-tokenizer-init")
# What a good model knows: a word in a question, and the answer.
KNOWN = {"France": "Paris", "7 times 8": "56", "Monday": "Tuesday", "of hot": "cold"}
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]


class Settings:
    """What the model's directory says of how this server behaves; see DEFAULTS."""

    def __init__(self, model: str) -> None:
        """Take the settings of the model in a directory."""
        self._path = Path(model) / SETTINGS

    def __getitem__(self, name: str) -> Any:
        """Return a setting as it is now."""
        try:
            return json.loads(self._path.read_text(encoding="utf-8")).get(name, DEFAULTS[name])
        except (OSError, ValueError):
            return DEFAULTS[name]


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options; what vLLM does not know ends the program with 2, in argparse's own words."""
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - as vLLM
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", type=int, default=1)
    parser.add_argument("--max-model-len", type=int)
    for name in VALUED:
        parser.add_argument(name)
    for name in BARE:
        parser.add_argument(name, action="store_true")
    return parser.parse_args(argv)


class Model:
    """What is served.

    Attributes:
        name: what clients call it.
        root: where it was loaded from.
        length: its longest context in tokens.
        kv_tokens: tokens that fit its KV cache.
        settings: how this server behaves.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        """Read the model's config."""
        self.root = given.model
        self.name = given.served_model_name or given.model
        config = json.loads((Path(given.model) / "config.json").read_text(encoding="utf-8"))
        self.length = given.max_model_len or config.get("max_position_embeddings", 2048)
        self.shards = max(1, len(list(Path(given.model).glob("*.safetensors"))))
        self.kv_tokens = 2 * self.length
        self.settings = Settings(given.model)

    def load(self) -> int:
        """Say what vLLM says while it loads, and take as long; return the exit code."""
        part = self.settings["load_s"] / (self.shards + 4)
        engine = "(EngineCore_DP0 pid=77) "
        say("INFO 11-25 04:19:20 [__init__.py:216] Automatically detected platform cuda.")
        say(f"(APIServer pid=7) INFO 11-25 04:19:20 [api_server.py:1896] vLLM API server version {VERSION}")
        if self.settings["leaks"]:
            say(f"WARNING token {os.environ.get('HF_TOKEN')} for {os.environ.get('VLLM_API_KEY')}")
        say(f"{engine}INFO 11-25 04:19:21 [gpu_model_runner.py:2338] Starting to load model {self.root}...")
        for done in range(self.shards + 1):
            share = 100 * done // self.shards
            bar = f"{engine}\rLoading safetensors checkpoint shards: {share:3d}% Completed | {done}/{self.shards} "
            sys.stdout.write(bar + "[00:00<00:00, 2.13it/s]")
            sys.stdout.flush()
            time.sleep(part)
        say("")
        if death := self.settings["dies"]:
            for line in DEATHS[death]:
                say(f"{engine}ERROR 11-25 04:19:23 [core.py:718] {line}")
            say(DIED)
            return 1
        say(f"{engine}INFO 11-25 04:19:22 [gpu_model_runner.py:2392] Model loading took 12.5523 GiB and 2.342 seconds")
        say(
            f"{engine}INFO 11-25 04:19:22 [backends.py:539] Using cache directory: "
            "/cache/vllm/torch_compile_cache/1a2b/rank_0_0/backbone for vLLM's torch.compile"
        )
        say(f"{engine}INFO 11-25 04:19:22 [backends.py:550] Dynamo bytecode transform time: 4.31 s")
        time.sleep(part)
        say(f"{engine}INFO 11-25 04:19:23 [gpu_worker.py:298] Available KV cache memory: 14.06 GiB")
        say(f"{engine}INFO 11-25 04:19:23 [kv_cache_utils.py:864] GPU KV cache size: {self.kv_tokens:,} tokens")
        for done in (33, 67):
            share = 100 * done // 67
            say(
                f"{engine}\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE): {share:3d}%|###       | {done}/67 "
                "[00:02<00:00, 25.68it/s]"
            )
            time.sleep(part)
        say(
            f"{engine}INFO 11-25 04:19:24 [core.py:218] init engine (profile, create kv cache, warmup model) took "
            "8.12 seconds"
        )
        return 0


class Server(ThreadingHTTPServer):
    """The API, as far as our programs and their clients ask it.

    Attributes:
        model: what is served.
        key: the API key that clients must send; empty for none.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, given: argparse.Namespace, model: Model) -> None:
        """Bind the port, and answer nothing yet."""
        super().__init__((given.host, given.port), Handler)
        self.model = model
        self.key = os.environ.get("VLLM_API_KEY", "")
        self.prompt_tokens = 0
        self.tokens = 0
        self.finished = 0
        self.numbers = count(1)
        self.longer = count(1)
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""

    def count(self, *, prompt: int = 0, tokens: int = 0, finished: int = 0) -> None:
        """Count what /metrics tells."""
        with self.lock:
            self.prompt_tokens += prompt
            self.tokens += tokens
            self.finished += finished

    def metrics(self) -> str:
        """Return the counters in Prometheus' text."""
        labels = f'{{engine="0",model_name="{self.model.name}"}}'
        found = {
            "vllm:prompt_tokens_total": self.prompt_tokens,
            "vllm:generation_tokens_total": self.tokens,
            "vllm:request_success_total": self.finished,
        }
        return "".join(f"# TYPE {name} counter\n{name}{labels} {float(value)}\n" for name, value in found.items())


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    # When the next token of this answer is due, by the monotonic clock.
    _due = 0.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002 - the base class's
        """Log as uvicorn does."""
        say(f'INFO:     {self.address_string()}:{self.client_address[1]} - "{self.requestline}" {args[1]} OK')

    def do_GET(self) -> None:
        """Answer what needs no model."""
        model = self.server.model
        if not self._allowed():
            return
        if self.path in {"/health", "/ping"}:
            self._send(b"", "text/plain")
        elif self.path == "/version":
            self._json({"version": VERSION})
        elif self.path == "/metrics":
            self._send(self.server.metrics().encode(), "text/plain; version=0.0.4")
        elif self.path == "/v1/models":
            one = {"id": model.name, "object": "model", "root": model.root, "max_model_len": model.length}
            self._json({"object": "list", "data": [one]})
        else:
            self._json({"detail": "Not Found"}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Answer a prompt, or the messages of a chat."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if not self._allowed():
            return
        if self.path not in {"/v1/completions", "/v1/chat/completions"}:
            self._json({"detail": "Not Found"}, HTTPStatus.NOT_FOUND)
        elif body.get("model") != self.server.model.name:
            self._refuse(f"The model `{body.get('model')}` does not exist.", HTTPStatus.NOT_FOUND)
        else:
            self._complete(body)

    def _allowed(self) -> bool:
        """Check the key, as vLLM does: for everything below /v1."""
        given = self.headers.get("Authorization", "").encode()
        if not self.server.key or not self.path.startswith("/v1"):
            return True
        if hmac.compare_digest(given, f"Bearer {self.server.key}".encode()):
            return True
        self._json({"error": "Unauthorized"}, HTTPStatus.UNAUTHORIZED)
        return False

    def _complete(self, body: dict[str, Any]) -> None:
        server, settings = self.server, self.server.model.settings
        number = next(server.numbers)
        chat = "messages" in body
        prompt = " ".join(str(one["content"]) for one in body["messages"]) if chat else body.get("prompt", "")
        asked = len(prompt) if isinstance(prompt, list) else len(prompt.split())
        wanted = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        if asked + wanted > server.model.length:
            self._refuse(
                f"This model's maximum context length is {server.model.length} tokens. However, you requested "
                f"{asked + wanted} tokens.",
                HTTPStatus.BAD_REQUEST,
            )
            return
        every = settings["fails_every"]
        if every and wanted > 1 and next(server.longer) % every == 0:
            self._refuse("EngineCore encountered an issue.", HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        server.count(prompt=asked)
        kind = "chat.completion" if chat else "text_completion"
        # The host's name is the container's: a test can see who answered.
        head = {"id": f"cmpl-{socket.gethostname()}-{number}", "object": kind, "created": 0, "model": body["model"]}
        told = said(prompt, wanted, stops=chat or "stop" in body)
        usage = {"prompt_tokens": asked, "completion_tokens": len(told), "total_tokens": asked + len(told)}
        if body.get("stream"):
            self._stream(body, head, told, usage, chat=chat)
        else:
            for at in range(len(told)):
                self._token(at)
            text = "".join(told)
            answer = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            self._json({**head, "choices": [{"index": 0, **answer, "finish_reason": "length"}], "usage": usage})
        server.count(finished=1)

    def _token(self, at: int) -> None:
        settings = self.server.model.settings
        # Against a schedule: a sleep that ends late does not slow all that follow.
        self._due = (self._due if at else time.monotonic()) + settings["token_s"] * (
            1 if at else settings["first_tokens"]
        )
        time.sleep(max(0.0, self._due - time.monotonic()))
        self.server.count(tokens=1)

    def _stream(
        self, body: dict[str, Any], head: dict[str, Any], told: list[str], usage: dict[str, int], *, chat: bool
    ) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at, word in enumerate(told):
            self._token(at)
            answer = {"delta": {"content": word}} if chat else {"text": word}
            end = "length" if at == len(told) - 1 else None
            self._chunk(json.dumps({**head, "choices": [{"index": 0, **answer, "finish_reason": end}]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            self._chunk(json.dumps({**head, "choices": [], "usage": usage}))
        self._chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _refuse(self, message: str, status: HTTPStatus) -> None:
        self._json({"error": {"message": message, "type": status.phrase, "code": int(status)}}, status)

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def said(prompt: str | list[int], wanted: int, *, stops: bool) -> list[str]:
    """Return the tokens of an answer: to a question at the end of the prompt the right one, where it may stop early."""
    question = prompt[-80:] if isinstance(prompt, str) else ""
    known = next((answer for word, answer in KNOWN.items() if word in question), "")
    return [f" {known}"] if known and stops else [" " + WORDS[at % len(WORDS)] for at in range(wanted)]


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Load, then serve until a signal."""
    given = parse(argv)
    model = Model(given)
    if code := model.load():
        return code
    server = Server(given, model)
    say("INFO:     Started server process [7]")
    say("INFO:     Application startup complete.")
    server.serve_forever()
    return 0
