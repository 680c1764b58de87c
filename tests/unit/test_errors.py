from __future__ import annotations

import pytest

from vaultcube.errors import UsageError, VaultCubeError, all_errors

ERRORS = all_errors()


def test_codes_are_unique_and_words_to_search_for() -> None:
    codes = [cls.code for cls in ERRORS]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("-", "").isalpha() and code.islower() for code in codes)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.code)
def test_every_error_says_what_happened_and_what_to_do(cls: type[VaultCubeError]) -> None:
    error = cls("the message")
    assert (error.message, str(error)) == ("the message", "the message")
    for text in (cls.summary, error.next_step):
        assert text.strip() == text != ""
        assert "\n" not in text
        assert "|" not in text, "it would break the table of docs/errors.md"
    assert not cls.summary.endswith(".")
    assert error.next_step.endswith(".")
    assert cls.__doc__


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.code)
def test_the_exit_code_is_one_of_the_six(cls: type[VaultCubeError]) -> None:
    assert cls.exit_code in {1, 2, 3, 4, 130}
    assert issubclass(cls, UsageError) == (cls.exit_code == 2)


def test_a_next_step_of_its_own_wins_over_the_classes() -> None:
    assert UsageError("x", next_step="Do this.").next_step == "Do this."
    assert UsageError("x").next_step == UsageError.next_step
    assert UsageError("x", next_step="").next_step == ""


def test_every_class_is_its_own_error() -> None:
    assert len({cls.summary for cls in ERRORS}) == len(ERRORS)
    assert ERRORS[0] is VaultCubeError
