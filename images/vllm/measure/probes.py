"""Questions with known answers, and whether the same question gets the same answer again.

Every question is asked three times, alone and at temperature 0. The first time fills the server's prefix cache; the
other two compute the same thing, token for token, and are compared. Answers under load may differ: batches are summed
in another order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from common.outcome import CANNOT_RUN_HERE, Problem
from measure.server import BAD_REQUEST, NOT_FOUND, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measure.server import Model, Server

ANSWER_TOKENS = 128
"""Enough for a sentence, and for a short thought before it."""
GREEDY_TOKENS = 64
TIMES = 3
_KEPT_CHARS = 300
_CONTEXT_SHARE = 4
"""An answer takes at most this part of the context."""


class Question(NamedTuple):
    """A question, and the word that a right answer has in it."""

    name: str
    text: str
    answer: str


QUESTIONS = (
    Question("capital", "What is the capital of France? Answer with one word.", "Paris"),
    Question("product", "What is 7 times 8? Answer with the number.", "56"),
    Question("weekday", "Which day of the week comes after Monday? Answer with one word.", "Tuesday"),
    Question("opposite", "What is the opposite of hot? Answer with one word.", "cold"),
)
# How a model that only goes on with texts is asked.
EXAMPLES = (
    "Question: What is the capital of Italy? Answer with one word.\nAnswer: Rome\n\n"
    "Question: What is 3 times 5? Answer with the number.\nAnswer: 15\n\n"
    "Question: What is the opposite of big? Answer with one word.\nAnswer: small\n\n"
)
GREEDY = "The history of computing began long before the first electronic machines. People counted with"


def correct(question: Question, answer: str) -> bool:
    """Say whether an answer has the known one in it, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(question.answer)}(?!\w)", answer, re.IGNORECASE) is not None


def ask_all(server: Server, model: Model) -> Iterator[dict[str, Any]]:
    """Ask everything; yield the fields of one `probe` event each.

    Raises:
        Problem: the model does not write text (exit code 69).
        NoAnswerError, RefusedError: the server breaks off.
    """
    tokens = ANSWER_TOKENS if model.max_len is None else max(1, min(ANSWER_TOKENS, model.max_len // _CONTEXT_SHARE))
    ask = _way(server, model, tokens)
    for question in QUESTIONS:
        answers = [ask(question.text) for _ in range(TIMES)]
        right = all(correct(question, answer) for answer in answers[1:])
        yield _probe(question.name, question.text, answers, right=right)
    longer = min(GREEDY_TOKENS, tokens)
    texts = [server.complete(model.name, GREEDY, longer, ignore_eos=True) for _ in range(TIMES)]
    yield _probe("greedy", GREEDY, texts, right=None)


def _probe(name: str, question: str, answers: list[str], *, right: bool | None) -> dict[str, Any]:
    """Return the fields of an event; the first answer is not compared (see above)."""
    first, again = answers[1], answers[2]
    shown = first.strip()[:_KEPT_CHARS]
    return {"name": name, "question": question, "answer": shown, "correct": right, "repeatable": first == again}


def _way(server: Server, model: Model, tokens: int) -> Callable[[str], str]:
    """Return how to ask: by chat where the model has a template for it, else as a text to go on with."""
    try:
        server.chat(model.name, QUESTIONS[0].text, 1)
    except RefusedError as refused:
        if refused.status not in {BAD_REQUEST, NOT_FOUND}:
            raise
    else:
        return lambda question: server.chat(model.name, question, tokens)
    try:
        server.complete(model.name, QUESTIONS[0].text, 1)
    except RefusedError as refused:
        if refused.status not in {BAD_REQUEST, NOT_FOUND}:
            raise
        message = f"{model.name} writes no text, and only that is measured: {refused}"
        raise Problem("model-unsupported", message, "measure a model that generates", CANNOT_RUN_HERE) from refused
    return lambda question: server.complete(model.name, f"{EXAMPLES}Question: {question}\nAnswer:", tokens, stop=["\n"])
