"""Which of several equal GPUs computes wrongly: the digests of one computation are held against each other. Pure.

A computation (`key`) gives the same bits on equal cards, every time. So a GPU that gives two answers to one key
contradicts itself, and one that stands alone against the others is wrong, however often it repeats its answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

# Of fewer than three, nobody is a majority.
MAJORITY_OF = 3


class Answer(NamedTuple):
    """What a GPU answered to a computation, and when (wall time)."""

    key: str
    digest: str
    at: datetime


class Blame(NamedTuple):
    """A GPU whose answers to a computation are not what they should be.

    Attributes:
        gpu: whose.
        key: the computation.
        kind: `inconsistent`: it contradicts itself; `outvoted`: it contradicts the majority of equal GPUs; `suspect`:
            equal GPUs contradict each other, and nothing says which of them is right.
        first, last: when it first and last gave such an answer.
        count: how many such answers it gave.
        expected, found: the digests; `expected` is that of the other side where nobody knows.
    """

    gpu: str
    key: str
    kind: Literal["inconsistent", "outvoted", "suspect"]
    first: datetime
    last: datetime
    count: int  # type: ignore[assignment] # nobody counts a value in it
    expected: str
    found: str


def vote(
    answers: Mapping[str, Sequence[Answer]], models: Mapping[str, str], distrusted: Collection[str] = ()
) -> list[Blame]:
    """Return who is to blame, in the order of GPUs and keys.

    Args:
        answers: by GPU, each GPU's in the order in which they were given.
        models: by GPU: what says that two are equal. A GPU that is not in it has no equal.
        distrusted: GPUs that found wrong results of their own: their word counts only where there is no other.
    """
    told: dict[tuple[str, str], dict[str, list[Answer]]] = defaultdict(dict)
    for gpu, given in answers.items():
        for answer in given:
            told[models.get(gpu, gpu), answer.key].setdefault(gpu, []).append(answer)
    torn = {gpu for by_gpu in told.values() for gpu, given in by_gpu.items() if len(_digests(given)) > 1}
    doubtful = torn | set(distrusted)
    found = [blame for (_, key), by_gpu in told.items() for blame in _one(key, by_gpu, doubtful)]
    order = {gpu: place for place, gpu in enumerate(answers)}
    return sorted(found, key=lambda blame: (order[blame.gpu], blame.first, blame.key))


def _one(key: str, by_gpu: Mapping[str, Sequence[Answer]], doubtful: Collection[str]) -> list[Blame]:
    """Return who is to blame for one computation on equal GPUs."""
    if len({answer.digest for given in by_gpu.values() for answer in given}) == 1:
        return []
    settled = {gpu: _digests(given) for gpu, given in by_gpu.items()}
    ballots = {gpu: digests[0] for gpu, digests in settled.items() if len(digests) == 1}
    right = _right(ballots, [gpu for gpu in ballots if gpu not in doubtful], many=len(by_gpu) >= MAJORITY_OF)
    found = []
    for gpu, given in by_gpu.items():
        digests = settled[gpu]
        if len(digests) > 1:
            found.append(_blame(gpu, key, "inconsistent", given, right or digests[0]))
        elif right is not None and digests[0] != right:
            found.append(_blame(gpu, key, "outvoted", given, right))
        elif right is None:
            # The commonest answer that is not its own.
            other = next(digest for digest, _ in Counter(ballots.values()).most_common() if digest != digests[0])
            found.append(_blame(gpu, key, "suspect", given, other))
    return found


def _right(ballots: Mapping[str, str], trusted: Sequence[str], *, many: bool) -> str | None:
    """Return the digest to believe, or None when it is open: that of the majority, else of those who can be trusted."""
    for voters in (list(ballots), trusted):
        counted = Counter(ballots[gpu] for gpu in voters).most_common(1)
        if not counted:
            continue
        (digest, votes) = counted[0]
        if votes == len(voters) or (many and votes > 1 and 2 * votes > len(voters)):
            return digest
    return None


def _digests(given: Sequence[Answer]) -> list[str]:
    """Return a GPU's different answers, the commonest first; of equally common ones the one it gave first."""
    return [digest for digest, _ in Counter(answer.digest for answer in given).most_common()]


def _blame(
    gpu: str, key: str, kind: Literal["inconsistent", "outvoted", "suspect"], given: Sequence[Answer], expected: str
) -> Blame:
    wrong = [answer for answer in given if answer.digest != expected]
    return Blame(gpu, key, kind, wrong[0].at, wrong[-1].at, len(wrong), expected, wrong[0].digest)
