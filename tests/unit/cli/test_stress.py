"""`vaultcube stress judge`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.results.soakruns import Plant, Story, write

from vaultcube.cli.main import dispatch
from vaultcube.errors import DataUnreadableError, VerdictError


def test_a_good_soak_is_kept_with_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "my soak", Story(3600))
    dispatch(["stress", "judge", str(tmp_path / "my soak")])
    out = capsys.readouterr().out
    assert "verdict PASS" in out
    assert str(tmp_path / "my soak") in out
    assert json.loads((tmp_path / "my soak/result.json").read_text())["verdict"] == "PASS"


def test_a_bad_one_exits_with_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, Story(3600, (Plant("flip", 1, 60),)))
    with pytest.raises(VerdictError) as caught:
        dispatch(["stress", "judge", str(tmp_path), "--json"])
    assert caught.value.exit_code == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "FAIL"
    assert document["evidence"][0]["gpu_index"] == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadableError) as caught:
        dispatch(["stress", "judge", str(tmp_path / "none")])
    assert caught.value.exit_code == 3
