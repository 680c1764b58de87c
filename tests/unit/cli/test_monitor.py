"""The view on a terminal, on this machine as it is: mostly without GPUs. The rig's tests see it with some."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Command
from tests.unit.replay import Recording
from tests.unit.terminals import HOME, Terminal

from vaultcube.cli.main import dispatch
from vaultcube.errors import UsageError
from vaultcube.report.graphs import ASCII, BLOCKS
from vaultcube.report.live import glyphs_of, redraws


@pytest.fixture
def quiet(recording: Recording) -> Recording:
    """Return a docker that has no containers."""
    recording.says("ps --quiet --no-trunc")
    return recording


def on_terminal(vaultcube: Command, *words: str, **env: str) -> Terminal:
    argv = [sys.executable, "-m", "vaultcube", "monitor", "--interval", "0.1", *words]
    environment = {**vaultcube.environment(), "TERM": "xterm-256color", **env}
    # Both overrule the terminal's own size; readline, which a debugger imports, sets LINES in this process.
    del environment["COLUMNS"]
    environment.pop("LINES", None)
    return Terminal(argv, environment)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("key", ["q", "Q", "\x04", "\x03"])
def test_a_key_ends_it_and_the_terminal_is_as_before(vaultcube: Command, key: str) -> None:
    with on_terminal(vaultcube) as terminal:
        terminal.shows("vaultcube monitor", "load ")
        terminal.press("x")
        terminal.press(key)
        assert terminal.end() == 0
        assert terminal.raw.count("\x1b[?1049h") == 1
        assert terminal.clean()
    assert "Traceback" not in terminal.raw


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_it_ends_every_verb(vaultcube: Command, number: signal.Signals) -> None:
    with on_terminal(vaultcube) as terminal:
        terminal.shows("vaultcube monitor")
        terminal.signal(number)
        assert terminal.end() == 130
        assert terminal.clean()
        assert f"stopped by {number.name}" in terminal.raw.rpartition("\x1b[?1049l")[2]


@pytest.mark.usefixtures("quiet")
def test_another_size_is_another_picture_at_once(vaultcube: Command) -> None:
    with on_terminal(vaultcube, "--interval", "60") as terminal:
        terminal.shows("vaultcube monitor", "load ")
        for columns, rows in ((40, 6), (200, 50), (10, 2), (80, 24)):
            terminal.resize(columns, rows)
            drawn = terminal.raw.count(HOME)
            terminal.until(lambda: terminal.raw.count(HOME) > drawn and terminal.fits(columns, rows))  # noqa: B023 - at once
        terminal.shows("load ")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.clean()


@pytest.mark.usefixtures("quiet")
def test_suspended_the_terminal_is_the_shells_and_afterwards_ours(vaultcube: Command) -> None:
    with on_terminal(vaultcube) as terminal:
        terminal.shows("vaultcube monitor")
        terminal.press("\x1a")
        terminal.until(terminal.stopped)
        terminal.until(lambda: terminal.raw.count("\x1b[?1049l") == 1)
        assert terminal.clean()
        terminal.signal(signal.SIGCONT)
        terminal.until(lambda: terminal.raw.count("\x1b[?1049h") == 2)
        terminal.shows("vaultcube monitor")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.clean()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_redraw_gets_pages(vaultcube: Command, term: str) -> None:
    with on_terminal(vaultcube, TERM=term) as terminal:
        terminal.until(lambda: terminal.raw.count("vaultcube monitor") >= 3)
        terminal.press("\x03")
        assert terminal.end() == 0
    assert "\x1b" not in terminal.raw


@pytest.mark.usefixtures("quiet")
def test_no_color_redraws_without_colour(vaultcube: Command) -> None:
    with on_terminal(vaultcube, NO_COLOR="1") as terminal:
        terminal.shows("vaultcube monitor")
        terminal.press("q")
        assert terminal.end() == 0
    assert "\x1b[?1049h" in terminal.raw
    # Bold and dim are no colours.
    assert not any(f"\x1b[{style}m" in terminal.raw for style in ("31", "1;31", "33", "1;33", "32", "36"))


def test_an_engine_that_hangs_freezes_nothing_and_is_ended(vaultcube: Command, recording: Recording) -> None:
    pids = recording.folder / "pids"
    recording.says("ps --quiet --no-trunc", does=f"echo $$ >> '{pids}'; exec sleep 600")
    with on_terminal(vaultcube) as terminal:
        terminal.shows("vaultcube monitor")
        drawn = terminal.raw.count("\x1b[H")
        terminal.until(lambda: terminal.raw.count("\x1b[H") > drawn + 5)
        terminal.press("q")
        assert terminal.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()) if pids.exists() else True


def test_without_a_terminal_it_is_pages_and_a_reader_may_have_enough(vaultcube: Command, quiet: Recording) -> None:
    with vaultcube.start("monitor", "--interval", "0.1") as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(12)]
        child.stdout.close()
        assert child.wait(60) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""
    assert seen[0].startswith("vaultcube monitor")
    assert quiet.calls


def test_once_is_one_picture_and_with_json_one_document(vaultcube: Command, quiet: Recording) -> None:
    seen = vaultcube("monitor", "--once")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.startswith("vaultcube monitor  driver ")
    assert seen.stdout.count("vaultcube monitor") == 1
    seen = vaultcube("monitor", "--once", "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    document = json.loads(seen.stdout)
    assert document["schema"] == "vaultcube.monitor/1"
    assert document["system"]["disk_path"] == str(vaultcube.runs)
    assert quiet.calls


def test_json_is_for_one_look() -> None:
    with pytest.raises(UsageError, match="one document") as seen:
        dispatch(["monitor", "--json"])
    assert seen.value.next_step == "Add --once."


@pytest.mark.parametrize("interval", ["0", "0.09", "61", "nan", "often"])
def test_an_interval_out_of_range_is_refused(interval: str) -> None:
    with pytest.raises(UsageError, match="--interval"):
        dispatch(["monitor", "--once", "--interval", interval])


def test_graphs_are_drawn_with_what_the_stream_can_write() -> None:
    for encoding, glyphs in (("utf-8", BLOCKS), ("UTF-8", BLOCKS), ("ascii", ASCII), ("iso8859-1", ASCII)):
        assert glyphs_of(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is glyphs
    assert not redraws(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
