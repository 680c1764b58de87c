"""Asking the server: which model it has, and the questions. Plain HTTP, never through a proxy of the surroundings."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from common.outcome import CANNOT_RUN_HERE, Problem, first_line

if TYPE_CHECKING:
    from common.signals import Signals

OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, SERVER_ERROR = 200, 400, 401, 403, 404, 500
_POLL_S = 0.1
_RETRY_S = 1.0
_ASK_S = 10.0
# An answer of some hundred tokens may take long on a CPU.
_ANSWER_S = 600.0


class NoAnswerError(Exception):
    """The server cannot be reached, or broke off."""


class RefusedError(Exception):
    """The server answered that it will not. `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Model:
    """What a server serves: its name, where its files are (also its tokenizer), and its longest context in tokens."""

    name: str
    root: str
    max_len: int | None


class Server:
    """A server at an address.

    Attributes:
        url: http://HOST:PORT.
    """

    def __init__(self, url: str, key: str | None, signals: Signals) -> None:
        """Ask the server at `url`, with `key` if it wants one; a signal ends every wait."""
        self.url = url
        self._where = urlsplit(url).netloc
        self._key = key
        self._signals = signals

    def alive(self) -> bool:
        """Say whether it answers now."""
        try:
            self._call("GET", "/health", None, _ASK_S)
        except NoAnswerError:
            return False
        except RefusedError as refused:
            return refused.status < SERVER_ERROR
        return True

    def wait(self, timeout_s: float) -> Model:
        """Return its model as soon as it answers.

        Raises:
            Problem: it did not within `timeout_s` seconds, wants a key, or is no such server.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._model()
            except NoAnswerError as error:
                said = str(error)
            except RefusedError as refused:
                if refused.status < SERVER_ERROR:
                    raise self._unfit(refused) from refused
                # A proxy in front of servers that are not ready.
                said = f"it answered {refused.status}"
            if time.monotonic() > deadline:
                message = f"{self.url} did not answer within {timeout_s:.0f} s: {said}"
                raise Problem("server-died", message, "see what the server's log says")
            self._pause(_RETRY_S)

    def _model(self) -> Model:
        found = self._call("GET", "/v1/models", None, _ASK_S)
        try:
            first = found["data"][0]
            name, length = str(first["id"]), first.get("max_model_len")
            return Model(name, str(first.get("root") or name), length if isinstance(length, int) else None)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise Problem("workload-failed", f"{self.url} names no model", "measure a vLLM server") from error

    def _unfit(self, refused: RefusedError) -> Problem:
        if refused.status in {UNAUTHORIZED, FORBIDDEN}:
            message = f"{self.url} wants an API key, and not the one that was given"
            return Problem("key-needed", message, "give the server's key as the secret api_key", CANNOT_RUN_HERE)
        message = f"{self.url} is no OpenAI-compatible server: /v1/models answered {refused.status}"
        return Problem("workload-failed", message, "measure a vLLM server")

    def complete(self, model: str, prompt: str, tokens: int, **more: Any) -> str:
        """Return how the model goes on after `prompt`, greedily, with at most `tokens` tokens.

        Raises:
            NoAnswerError, RefusedError: it does not.
        """
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "seed": 0, **more}
        return _text(self._call("POST", "/v1/completions", body, _ANSWER_S), "text")

    def chat(self, model: str, question: str, tokens: int) -> str:
        """Return the model's answer, greedily, with at most `tokens` tokens; what it thinks aloud counts too.

        Raises:
            NoAnswerError, RefusedError: it does not; a model without a chat template is refused with 400.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "temperature": 0,
            "seed": 0,
            # Templates that know no such switch do not look at it.
            "chat_template_kwargs": {"enable_thinking": False},
        }
        return _text(self._call("POST", "/v1/chat/completions", body, _ANSWER_S), "message")

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._signals.check()
            time.sleep(min(left, _POLL_S))

    def _call(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """Do one exchange in a thread of its own, so that a signal is heard while a server hangs."""
        self._signals.check()
        answer: list[dict[str, Any] | Exception] = []

        def exchange() -> None:
            try:
                answer.append(self._exchange(method, path, body, timeout_s))
            except (NoAnswerError, RefusedError) as error:
                answer.append(error)

        thread = threading.Thread(target=exchange, name="ask", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            self._signals.check()
        if not answer:
            raise NoAnswerError("asking broke off")
        found = answer[0]
        if isinstance(found, Exception):
            raise found
        return found

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection = http.client.HTTPConnection(self._where, timeout=timeout_s)
            try:
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NoAnswerError(f"{type(error).__name__} {error}".rstrip()) from error
        if answer.status != OK:
            raise RefusedError(answer.status, first_line(content[:1000].decode("utf-8", "replace")))
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}


def _text(answer: dict[str, Any], name: str) -> str:
    """Return the text of the first choice; of a message also what a reasoning parser split off.

    Raises:
        NoAnswerError: there is none.
    """
    try:
        found = answer["choices"][0][name]
        if isinstance(found, str):
            return found
        parts = [found.get(part) for part in ("reasoning_content", "reasoning", "content")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise NoAnswerError("the answer has no text in it") from error
    return "\n".join(part for part in parts if isinstance(part, str))
