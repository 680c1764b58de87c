"""A stand-in for a model server: answers over real HTTP, as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
# From a path and what was sent to a status and what is answered.
Answers = Callable[[str, Body], tuple[int, Body]]

KNOWN = {"capital of France": "Paris.", "7 times 8": "It is 56.", "after Monday": "TUESDAY", "opposite of hot": "cold"}
MODELS = {"data": [{"id": "org/model", "root": "/model", "max_model_len": 512}]}


def good(path: str, body: Body) -> tuple[int, Body]:
    """Answer as a model that knows everything."""
    if path == "/v1/models":
        return 200, MODELS
    if path == "/v1/chat/completions":
        text = body["messages"][0]["content"]
        return 200, {"choices": [{"message": {"content": answer(text)}}]}
    if path == "/v1/completions":
        return 200, {"choices": [{"text": answer(body["prompt"])}]}
    return 200, {}


def answer(text: str) -> str:
    asked = text.rpartition("Question:")[2]
    return next((known for words, known in KNOWN.items() if words in asked), "on their fingers")


class ModelServer:
    """What was asked, and where."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, Body]] = []
        self.keys: set[str | None] = set()


@contextmanager
def serving(answers: Answers = good) -> Iterator[ModelServer]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            if self.path != "/health":
                seen.asked.append((self.path, sent))
                seen.keys.add(self.headers.get("Authorization"))
            status, body = answers(self.path, sent)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - http.server's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen = ModelServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
