"""Role snapshot: which packages, units and marks a rollback takes back, and what it leaves."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.ansible.modules import module_of

plan = module_of("snapshot", "layer_plan")


def state(**kinds: dict[str, str]) -> dict[str, dict[str, str]]:
    return {"packages": {}, "residue": {}, "marks": {}, "holds": {}, "units": {}, "accounts": {}, **kinds}


def planned(before: str | None, after: str | None, here: str | None, **options: Any) -> tuple[list[str], ...]:
    now = state(packages={"p": here} if here else {}, residue=options.pop("residue", {}))
    found = plan.plan_packages(
        {"packages": {"p": [before, after]}},
        now,
        options.get("spare", {}),
        options.get("offered", {}),
        options.get("basic", []),
    )
    return found["purge"], found["install"], found["kept"]


def test_what_the_layer_installed_goes() -> None:
    assert planned(None, "1", "1") == (["p"], [], [])


def test_what_is_newer_by_now_goes_too() -> None:
    assert planned(None, "1", "2") == (["p"], [], [])


def test_what_is_gone_already_is_no_work() -> None:
    assert planned(None, "1", None) == ([], [], [])


def test_what_is_left_of_a_removed_package_goes() -> None:
    assert planned(None, "1", None, residue={"p": "1"}) == (["p"], [], [])


def test_what_the_rollback_stands_on_stays_and_is_told() -> None:
    assert planned(None, "1", "1", spare={"p": "the way in"}) == ([], [], ["p: the way in"])


def test_what_the_layer_removed_comes_back() -> None:
    assert planned("1", None, None, offered={"p": {"1", "2"}}) == ([], ["p=1"], [])


def test_what_the_layer_upgraded_goes_back() -> None:
    assert planned("1", "2", "2", offered={"p": {"1", "2"}}) == ([], ["p=1"], [])


def test_what_was_changed_since_stays() -> None:
    assert planned("1", "2", "3", offered={"p": {"1"}})[2] == ["p: 3, changed again after the layer set 2"]


def test_what_is_as_before_already_is_no_work() -> None:
    assert planned("1", "2", "1", offered={"p": {"1"}}) == ([], [], [])


def test_a_version_that_apt_no_longer_has_is_told() -> None:
    assert planned("1", "2", "2", offered={"p": {"2"}})[2] == ["p: 2, apt no longer offers 1"]
    assert planned("1", None, None)[2] == ["p: not installed, apt no longer offers 1"]


def test_the_ground_of_the_system_is_not_taken_to_an_older_version() -> None:
    kept = planned("1", "2", "2", offered={"p": {"1"}}, basic=["p"])[2]
    assert kept == ["p: 2, the system stands on it (was 1)"]


@pytest.mark.parametrize(
    ("before", "after", "here", "found"),
    [
        ("enabled", "disabled", "disabled", {"enabled": ["u"]}),
        (None, "enabled", "enabled", {"": ["u"]}),
        ("enabled", "disabled", "enabled", {}),
        ("disabled", "enabled", "masked", {}),
        ("enabled", None, None, {}),
    ],
)
def test_a_unit_is_switched_back_where_it_still_is_as_the_layer_left_it(
    before: str | None, after: str | None, here: str | None, found: dict[str, list[str]]
) -> None:
    now = state(units={"u": here} if here else {})
    assert plan.plan_switches({"units": {"u": [before, after]}}, now, "units") == found


def test_a_hold_that_the_layer_took_away_comes_back() -> None:
    assert plan.plan_switches({"holds": {"p": ["hold", None]}}, state(), "holds") == {"hold": ["p"]}


def test_marks_of_what_goes_are_no_work() -> None:
    changes = {"marks": {"gone": [None, "auto"], "stays": ["auto", "manual"]}}
    now = state(marks={"gone": "auto", "stays": "manual"})
    assert plan.plan_switches(changes, now, "marks", ["gone"]) == {"auto": ["stays"]}


def test_a_layer_under_another_is_blocked_by_it() -> None:
    assert plan.blocked_by("layer1", ["layer1", "layer2", "layer3"]) == ["layer3", "layer2"]
    assert plan.blocked_by("layer3", ["layer1", "layer2", "layer3"]) == []
