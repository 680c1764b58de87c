"""A stand-in for the model hub: enough of its HTTP interface for the real huggingface_hub client, old and new.

Behaviour after the hub's documented API: model info with sizes of files, files by `resolve` with the headers that name
their version and content, and errors told by `X-Error-Code`.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "5ad0" * 10
_PATH = re.compile(r"/(?:api/models/)?(?P<model>[^/]+/[^/]+?)(?:/(?P<what>revision|tree|resolve)/(?P<rest>.*))?$")


@dataclass
class Repository:
    """A model: its files, and who may have them."""

    files: dict[str, bytes]
    gated: bool = False
    token: str | None = None


@dataclass
class Hub:
    """The hub on a free port of `host`; use it as a context manager.

    Attributes:
        models: by their ids.
        asked: every request: method, path, and the token that came with it.
        flowing: cleared by a test to hold downloads of weights back half-way; set again, they go on.
    """

    host: str = "127.0.0.1"
    models: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    flowing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.flowing.set()
        handler = type("Handler", (_Handler,), {"found": self})
        self._server = http.server.ThreadingHTTPServer((self.host, 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flowing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return what HF_ENDPOINT has to be on this machine."""
        return f"http://{self.host}:{self.port}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])


class _Handler(http.server.BaseHTTPRequestHandler):
    found: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing: `asked` has it."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.found.asked.append((self.command, address.path, token))
        match = _PATH.match(unquote(address.path))
        model = self.found.models.get(match["model"]) if match else None
        if match is None or model is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif model.token is not None and token is not None and token != model.token:
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif match["what"] == "resolve":
            self._file(match["model"], model, match["rest"].partition("/")[2], token)
        elif match["what"] == "tree":
            self._send(200, json.dumps([_entry(name, data) for name, data in model.files.items()]).encode())
        else:
            blobs = "blobs" in parse_qs(address.query)
            self._send(200, json.dumps(_info(match["model"], model, blobs=blobs)).encode())

    def _file(self, name: str, model: Repository, path: str, token: str | None) -> None:
        if model.gated and token != model.token:
            status = 401 if token is None else 403
            words = f"Access to model {name} is restricted and you are not in the authorized list."
            self._refuse(status, "GatedRepo", words)
            return
        data = model.files.get(path)
        if data is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{_digest(path, data)}"', "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if self.headers.get("Range"):
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers, slow=_is_large(path))

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, slow: bool = False) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            half = len(body) // 2
            self.wfile.write(body[:half])
            if slow:
                self.wfile.flush()
                self.found.flowing.wait(60)
            self.wfile.write(body[half:])
        except OSError:
            # The client went: a test may well kill it.
            self.close_connection = True


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def _digest(path: str, data: bytes) -> str:
    if _is_large(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _digest(path, data)}
    return entry | (
        {"lfs": {"oid": _digest(path, data), "size": len(data), "pointerSize": 134}} if _is_large(path) else {}
    )


def _info(name: str, model: Repository, *, blobs: bool) -> dict[str, Any]:
    siblings = []
    for path, data in model.files.items():
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(data), "blobId": _digest(path, data)}
            if _is_large(path):
                sibling["lfs"] = {"sha256": _digest(path, data), "size": len(data), "pointerSize": 134}
        siblings.append(sibling)
    return {
        "_id": "0" * 24,
        "id": name,
        "modelId": name,
        "sha": REVISION,
        "private": False,
        "gated": "manual" if model.gated else False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": siblings,
    }
