"""Waits for a server to come up and its model to answer, in a thread, so that a signal is answered meanwhile."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from common.outcome import FAILED, Problem
from serve.client import NoAnswerError

if TYPE_CHECKING:
    from serve.client import Server

POLL_S = 0.25
LOOK_TIMEOUT_S = 5.0
FIRST_TIMEOUT_S = 300.0
"""The first request may still compile kernels."""


class Waiter:
    """Polls /health, then asks the model for its first token.

    Attributes:
        answer: the fields of the `server` event that the server itself knows; None before the model has answered.
        problem: why the model does not answer though the server is up.
    """

    def __init__(self, server: Server, model: str, started: float) -> None:
        """Count seconds from `started`, a reading of time.monotonic()."""
        self.answer: dict[str, Any] | None = None
        self.problem: Problem | None = None
        self._server = server
        self._model = model
        self._started = started
        self._stop = threading.Event()
        self._generates = True

    def start(self, *, generates: bool) -> None:
        """Begin to wait for a model that writes text, or one that does not."""
        self._generates = generates
        threading.Thread(target=self._wait, name="ready", daemon=True).start()

    def stop(self) -> None:
        """Give up."""
        self._stop.set()

    def _wait(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self._server.get("/health", LOOK_TIMEOUT_S)
                break
            except NoAnswerError:
                continue
        else:
            return
        load_s = time.monotonic() - self._started
        try:
            first_token_s = self._first_token()
            version = self._server.get_json("/version", LOOK_TIMEOUT_S).get("version")
            served = self._server.get_json("/v1/models", LOOK_TIMEOUT_S).get("data")
        except NoAnswerError as error:
            message = f"the server is up and the model does not answer: {error}"
            self.problem = Problem("server-died", message, "see the server's log above", FAILED)
            return
        self.answer = {
            "version": str(version),
            "model": self._model,
            "load_s": load_s,
            "first_token_s": first_token_s,
            "max_model_len": _length(served),
        }

    def _first_token(self) -> float | None:
        """Return when the first token came, in seconds since the start; None for a model that writes none."""
        if not self._generates:
            return None
        self._server.first_token(self._model, FIRST_TIMEOUT_S)
        return time.monotonic() - self._started


def _length(served: object) -> int | None:
    """Return the longest context that /v1/models states, in tokens."""
    if isinstance(served, list) and served and isinstance(served[0], dict):
        length = served[0].get("max_model_len")
        return length if isinstance(length, int) else None
    return None
