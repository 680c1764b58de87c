"""Questions, over real HTTP to a server that answers as it is told to."""

from __future__ import annotations

import itertools
import socket
import threading
from typing import Any

import pytest
from measure import probes
from measure.server import Model, NoAnswerError, RefusedError, Server
from tests.unit.images.vllm.modelserver import Answers, Body, good, serving

from common.outcome import Problem

MODEL = Model("org/model", "/model", 512)


class Quiet:
    """No signal ever comes."""

    def check(self) -> None:
        pass


def server(url: str, key: str | None = None) -> Server:
    return Server(url, key, Quiet())  # type: ignore[arg-type]


def ask(answers: Answers, model: Model = MODEL) -> dict[str, dict[str, Any]]:
    with serving(answers) as seen:
        return {fields["name"]: fields for fields in probes.ask_all(server(seen.url), model)}


def test_a_model_that_knows_is_right_and_says_the_same_again() -> None:
    found = ask(good)
    assert list(found) == ["capital", "product", "weekday", "opposite", "greedy"]
    assert [one["correct"] for one in found.values()] == [True, True, True, True, None]
    assert all(one["repeatable"] for one in found.values())
    assert found["product"]["answer"] == "It is 56."
    assert found["greedy"]["question"] == probes.GREEDY


def test_questions_are_asked_greedily_three_times_and_compared_after_the_first() -> None:
    turns = itertools.count()

    def warming(path: str, body: Body) -> tuple[int, Body]:
        status, answer = good(path, body)
        # The very first answer of every question is another one: it came from a cold cache.
        if path == "/v1/completions" and next(turns) == 0:
            return 200, {"choices": [{"text": "cold"}]}
        return status, answer

    with serving(warming) as seen:
        found = {fields["name"]: fields for fields in probes.ask_all(server(seen.url), MODEL)}
        bodies = [body for path, body in seen.asked if path == "/v1/chat/completions" and body["max_tokens"] > 1]
    assert found["greedy"]["repeatable"]
    assert len(bodies) == 3 * len(probes.QUESTIONS)
    assert {(body["temperature"], body["seed"]) for body in bodies} == {(0, 0)}


def test_an_answer_that_changes_is_not_repeatable() -> None:
    turns = itertools.count()

    def restless(path: str, body: Body) -> tuple[int, Body]:
        status, answer = good(path, body)
        if path == "/v1/completions":
            answer = {"choices": [{"text": f"text {next(turns)}"}]}
        return status, answer

    found = ask(restless)
    assert not found["greedy"]["repeatable"]
    assert found["capital"]["repeatable"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Paris", True),
        ("The capital of France is **Paris**.", True),
        ("paris\n", True),
        ("", False),
        ("Parisian", False),
        ("London", False),
    ],
)
def test_a_right_answer_has_the_known_one_as_a_word(answer: str, right: bool) -> None:  # noqa: FBT001 - a table
    assert probes.correct(probes.QUESTIONS[0], answer) is right


def test_figures_are_words_too() -> None:
    assert probes.correct(probes.QUESTIONS[1], "7*8=56")
    assert not probes.correct(probes.QUESTIONS[1], "560")
    assert not probes.correct(probes.QUESTIONS[1], "156")


def test_a_wrong_answer_is_wrong_even_when_it_is_repeated() -> None:
    def mistaken(path: str, body: Body) -> tuple[int, Body]:
        return (
            good(path, body)
            if path == "/v1/models"
            else (200, {"choices": [{"message": {"content": "42"}, "text": "42"}]})
        )

    found = ask(mistaken)
    assert [one["correct"] for one in found.values()] == [False, False, False, False, None]
    assert all(one["repeatable"] for one in found.values())


def test_a_model_without_a_chat_template_is_given_examples_to_go_on_with() -> None:
    def plain(path: str, body: Body) -> tuple[int, Body]:
        return (400, {"error": "no chat template"}) if path == "/v1/chat/completions" else good(path, body)

    with serving(plain) as seen:
        found = list(probes.ask_all(server(seen.url), MODEL))
        prompts = [body["prompt"] for path, body in seen.asked if path == "/v1/completions"]
    assert [one["correct"] for one in found] == [True, True, True, True, None]
    assert f"{probes.EXAMPLES}Question: {probes.QUESTIONS[0].text}\nAnswer:" in prompts


def test_what_a_model_thinks_aloud_counts() -> None:
    def thinking(path: str, body: Body) -> tuple[int, Body]:
        status, answer = good(path, body)
        if path == "/v1/chat/completions":
            answer["choices"][0]["message"] = {"content": None, "reasoning": answer["choices"][0]["message"]["content"]}
        return status, answer

    assert all(one["correct"] is not False for one in ask(thinking).values())


def test_a_model_that_writes_nothing_cannot_be_measured() -> None:
    def embedding(path: str, body: Body) -> tuple[int, Body]:
        return (404, {"detail": "Not Found"}) if "completions" in path else good(path, body)

    with pytest.raises(Problem, match="writes no text") as seen:
        ask(embedding)
    assert (seen.value.code, seen.value.exit_code) == ("model-unsupported", 69)


def test_a_short_context_gets_short_answers() -> None:
    with serving() as seen:
        list(probes.ask_all(server(seen.url), Model("m", "m", 64)))
        asked = {body["max_tokens"] for _, body in seen.asked}
    assert asked == {1, 16}


def test_a_server_that_breaks_off_is_no_answer() -> None:
    def broken(path: str, body: Body) -> tuple[int, Body]:
        return (500, {"error": "boom"}) if path == "/v1/chat/completions" else good(path, body)

    with pytest.raises(RefusedError, match="boom"):
        ask(broken)
    with pytest.raises(NoAnswerError, match="no text"):
        ask(lambda path, body: (200, {"choices": []}) if path == "/v1/chat/completions" else good(path, body))


# --- waiting for the server --------------------------------------------------------------------------------------


def test_the_model_is_what_the_server_says() -> None:
    with serving() as seen:
        assert server(seen.url, "s3cret").wait(5) == MODEL
        assert seen.keys == {"Bearer s3cret"}
    with serving(lambda _path, _body: (200, {"data": [{"id": "m"}]})) as seen:
        assert server(seen.url).wait(5) == Model("m", "m", None)
        assert seen.keys == {None}


def test_a_server_that_is_not_ready_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measure.server._RETRY_S", 0.01)
    turns = itertools.count()

    def late(path: str, body: Body) -> tuple[int, Body]:
        return (503, {}) if next(turns) < 3 else good(path, body)

    with serving(late) as seen:
        assert server(seen.url).wait(60) == MODEL
    assert next(turns) == 4


def nobody() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measure.server._RETRY_S", 0.01)
    with pytest.raises(Problem, match="did not answer within 0 s: ConnectionRefusedError") as seen:
        server(nobody()).wait(0)
    assert (seen.value.code, seen.value.exit_code) == ("server-died", 70)
    assert not server(nobody()).alive()


@pytest.mark.parametrize(("status", "code", "exit_code"), [(401, "key-needed", 69), (404, "workload-failed", 70)])
def test_a_server_that_refuses_is_not_waited_for(status: int, code: str, exit_code: int) -> None:
    with serving(lambda _path, _body: (status, {})) as seen, pytest.raises(Problem) as problem:
        server(seen.url).wait(3600)
    assert (problem.value.code, problem.value.exit_code) == (code, exit_code)


def test_a_server_without_a_model_is_no_model_server() -> None:
    with serving(lambda _path, _body: (200, {"data": []})) as seen, pytest.raises(Problem, match="names no model"):
        server(seen.url).wait(1)


def test_a_signal_is_heard_while_a_server_hangs() -> None:
    release = threading.Event()

    def hanging(_path: str, _body: Body) -> tuple[int, Body]:
        release.wait(60)
        return 200, {}

    class Stopped:
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked > 2:
                raise Problem("interrupted", "stopped by SIGTERM", "", 75)

    with serving(hanging) as seen:
        try:
            with pytest.raises(Problem, match="SIGTERM"):
                Server(seen.url, None, Stopped()).wait(3600)  # type: ignore[arg-type]
        finally:
            release.set()
