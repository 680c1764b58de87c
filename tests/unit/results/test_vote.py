from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.results.vote import Answer, Blame, vote

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RIGHT, WRONG, OTHER = "a" * 16, "b" * 16, "c" * 16


def answers(*digests: str, key: str = "bf16/8192/0") -> list[Answer]:
    return [Answer(key, digest, NOON + timedelta(seconds=5 * place)) for place, digest in enumerate(digests)]


def equal(told: Mapping[str, list[Answer]]) -> dict[str, str]:
    return dict.fromkeys(told, "NVIDIA GeForce RTX 5090 12.0")


def kinds(found: list[Blame]) -> list[tuple[str, str]]:
    return [(blame.gpu, blame.kind) for blame in found]


def test_equal_cards_that_agree_are_to_blame_for_nothing() -> None:
    told = {gpu: answers(RIGHT, RIGHT) for gpu in "abcd"}
    assert vote(told, equal(told)) == []
    assert vote({}, {}) == []


def test_the_one_that_stands_alone_is_to_blame() -> None:
    told = {"a": answers(RIGHT, RIGHT), "b": answers(WRONG, WRONG), "c": answers(RIGHT, RIGHT)}
    assert vote(told, equal(told)) == [
        Blame("b", "bf16/8192/0", "outvoted", NOON, NOON + timedelta(seconds=5), 2, RIGHT, WRONG)
    ]


def test_one_that_contradicts_itself_is_to_blame_from_the_first_wrong_answer_on() -> None:
    # It was wrong first: what the others say tells which of its answers that was.
    told = {"a": answers(WRONG, RIGHT, WRONG, RIGHT), "b": answers(RIGHT), "c": answers(RIGHT)}
    assert vote(told, equal(told)) == [
        Blame("a", "bf16/8192/0", "inconsistent", NOON, NOON + timedelta(seconds=10), 2, RIGHT, WRONG)
    ]


def test_one_alone_can_only_contradict_itself() -> None:
    told = {"a": answers(RIGHT, RIGHT, WRONG, RIGHT)}
    (blame,) = vote(told, equal(told))
    assert (blame.kind, blame.first, blame.found) == ("inconsistent", NOON + timedelta(seconds=10), WRONG)


def test_two_that_differ_are_both_suspects() -> None:
    told = {"a": answers(RIGHT), "b": answers(WRONG)}
    found = vote(told, equal(told))
    assert kinds(found) == [("a", "suspect"), ("b", "suspect")]
    assert (found[0].expected, found[0].found) == (WRONG, RIGHT)


@pytest.mark.parametrize(("doubt", "guilty"), [("a", "a"), ("b", "b")])
def test_of_two_that_differ_the_one_that_found_errors_of_its_own_is_to_blame(doubt: str, guilty: str) -> None:
    told = {"a": answers(RIGHT), "b": answers(WRONG)}
    assert kinds(vote(told, equal(told), {doubt})) == [(guilty, "outvoted")]


def test_of_two_that_differ_the_one_that_contradicts_itself_elsewhere_is_to_blame() -> None:
    told = {
        "a": answers(RIGHT) + answers(RIGHT, OTHER, key="fp32/4096/0"),
        "b": answers(WRONG) + answers(RIGHT, key="fp32/4096/0"),
    }
    assert {(blame.gpu, blame.kind, blame.key) for blame in vote(told, equal(told))} == {
        ("a", "outvoted", "bf16/8192/0"),
        ("a", "inconsistent", "fp32/4096/0"),
    }


@pytest.mark.parametrize("split", [(RIGHT, RIGHT, WRONG, WRONG), (RIGHT, WRONG, OTHER)])
def test_without_a_majority_all_are_suspects(split: tuple[str, ...]) -> None:
    told = {str(place): answers(digest) for place, digest in enumerate(split)}
    assert kinds(vote(told, equal(told))) == [(gpu, "suspect") for gpu in told]


def test_a_tie_is_broken_by_those_who_can_be_trusted() -> None:
    told = {gpu: answers(digest) for gpu, digest in zip("abcd", (RIGHT, RIGHT, WRONG, WRONG), strict=True)}
    assert kinds(vote(told, equal(told), {"d"})) == [("c", "outvoted"), ("d", "outvoted")]


def test_other_cards_and_other_computations_are_not_compared() -> None:
    told = {"a": answers(RIGHT), "b": answers(WRONG), "c": answers(OTHER, key="other/1/0")}
    assert vote(told, {"a": "RTX 5090", "b": "RTX 4090", "c": "RTX 5090"}) == []
    assert vote(told, {}) == []


@given(
    gpus=st.integers(3, 8),
    keys=st.integers(1, 4),
    rounds=st.integers(1, 6),
    data=st.data(),
)
def test_a_planted_flip_among_three_or_more_is_always_blamed_on_the_right_one(
    gpus: int, keys: int, rounds: int, data: st.DataObject
) -> None:
    guilty = data.draw(st.integers(0, gpus - 1), label="guilty")
    # One wrong answer, some, or all of them: to some computations or all.
    planted = data.draw(
        st.sets(st.tuples(st.integers(0, keys - 1), st.integers(0, rounds - 1)), min_size=1), label="planted"
    )
    told: dict[str, list[Answer]] = {}
    for gpu in range(gpus):
        told[str(gpu)] = [
            Answer(
                f"phase{key}",
                f"{key:015x}1" if gpu == guilty and (key, turn) in planted else f"{key:015x}0",
                NOON + timedelta(seconds=turn),
            )
            for turn in range(rounds)
            for key in range(keys)
        ]
    found = vote(told, equal(told))
    assert {blame.gpu for blame in found} == {str(guilty)}
    assert {blame.key for blame in found} == {f"phase{key}" for key, _ in planted}
    for blame in found:
        turns = [turn for key, turn in planted if f"phase{key}" == blame.key]
        assert (blame.first, blame.last, blame.count) == (
            NOON + timedelta(seconds=min(turns)),
            NOON + timedelta(seconds=max(turns)),
            len(turns),
        )


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from([RIGHT, WRONG, OTHER]), max_size=5)))
def test_whatever_is_said_there_is_blame_exactly_where_answers_differ(said: dict[str, list[str]]) -> None:
    told = {gpu: answers(*digests) for gpu, digests in said.items()}
    differ = len({digest for digests in said.values() for digest in digests}) > 1
    assert bool(vote(told, equal(told))) == differ
