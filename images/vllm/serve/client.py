"""Asking a server of our own: is it there, and does the model answer. Plain HTTP over the loopback interface."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
OK = 200


_POOLING = ("/v1/embeddings", "/classify", "/pooling")


class NoAnswerError(Exception):
    """The server cannot be reached, or does not answer as it should.

    Attributes:
        refused: it answered that it will not do this (a status of 400 to 499).
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True)
class Server:
    """Where it listens, and the key it wants."""

    port: int
    api_key: str | None = None

    def get(self, path: str, timeout_s: float) -> bytes:
        """Return the body of `path`.

        Raises:
            NoAnswerError: there was none within `timeout_s` seconds of silence, or its status is not 200.
        """
        return self._ask("GET", path, None, timeout_s)

    def get_json(self, path: str, timeout_s: float) -> dict[str, Any]:
        """Return the JSON object at `path`, {} when it is none. Raises NoAnswerError as `get` does."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.get(path, timeout_s))
            if isinstance(found, dict):
                return found
        return {}

    def first_token(self, model: str, timeout_s: float) -> None:
        """Return when the first token of a streamed completion has come.

        Raises:
            NoAnswerError: none came.
        """
        body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0, "stream": True}
        self._ask("POST", "/v1/completions", body, timeout_s, until=b"data: {")

    def one_answer(self, model: str, timeout_s: float, *, generates: bool) -> None:
        """Return when the model has answered: with one token, or with an embedding, class or score.

        Raises:
            NoAnswerError: it has not.
        """
        if generates:
            self.first_token(model, timeout_s)
            return
        body = {"model": model, "input": "Hello"}
        # Which of them a model has depends on its kind, and on the version of vLLM.
        *others, last = _POOLING
        if not any(self._takes(path, body, timeout_s) for path in others):
            self._ask("POST", last, body, timeout_s)

    def _takes(self, path: str, body: dict[str, Any], timeout_s: float) -> bool:
        try:
            self._ask("POST", path, body, timeout_s)
        except NoAnswerError as error:
            if error.refused:
                return False
            raise
        return True

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float, until: bytes | None = None
    ) -> bytes:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        headers = {"Content-Type": "application/json"} if body else {}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            if answer.status != OK:
                text = answer.read(500).decode("utf-8", "replace")
                refused = 400 <= answer.status < 500  # noqa: PLR2004 - HTTP's own
                raise NoAnswerError(f"{path} answered {answer.status}: {text}", refused=refused)
            if until is None:
                return answer.read()
            for line in answer:
                if line.startswith(until):
                    return line
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(f"{path}: {type(error).__name__} {error}".rstrip()) from error
        finally:
            connection.close()
        raise NoAnswerError(f"{path} ended without a token")
