from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Command
from tests.unit.replay import Recording
from tests.unit.support import ROOT

from vaultcube import __version__, cli
from vaultcube.__main__ import _run, _without_debug
from vaultcube.cli.main import VERBS, dispatch
from vaultcube.errors import InterruptedRunError, NotFoundError, UsageError
from vaultcube.results.store import PLAN, RunStore

GROUPS = {"bench": ["ddp", "tensorflow"], "runs": ["list", "show", "compare"], "images": ["build", "list"]}


def test_the_version(vaultcube: Command) -> None:
    for words in (["--version"], ["--debug", "--version"], ["--version", "ps"]):
        seen = vaultcube(*words)
        assert (seen.returncode, seen.stdout, seen.stderr) == (0, f"vaultcube {__version__}\n", "")


def test_the_version_costs_no_imports() -> None:
    code = (
        "import sys, runpy; sys.argv = ['vaultcube', '--version']; runpy.run_module('vaultcube', run_name='__main__')"
    )
    watched = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))\n{code}"
    seen = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    for heavy in ("pydantic", "typer", "rich", "pynvml", "subprocess"):
        assert f"'{heavy}'" not in seen.stderr


def test_every_verb_has_a_module_and_every_module_a_verb() -> None:
    modules = {file.stem for file in Path(cli.__file__).parent.glob("*.py")}
    assert modules - {"__init__", "main", "options", "crash", "early", "generated", "standalone", "stressjudge"} == set(
        VERBS
    )


def test_help_of_everything_has_an_example(vaultcube: Command) -> None:
    """In one process: thirteen starts of Python would tell no more."""
    calls = [[], *([verb] for verb in VERBS), *([verb, sub] for verb, subs in GROUPS.items() for sub in subs)]
    code = (
        "import json, sys\nfrom vaultcube.cli.main import dispatch\n"
        "for words in json.loads(sys.argv[1]):\n    dispatch([*words, '--help'])\n    print('=====')\n"
    )
    env = vaultcube.environment()
    seen = subprocess.run(
        [sys.executable, "-c", code, json.dumps(calls)], capture_output=True, text=True, env=env, check=True
    )
    pages = seen.stdout.split("=====\n")[:-1]
    assert len(pages) == len(calls)
    for words, page in zip(calls, pages, strict=True):
        assert page.startswith(" ".join(["Usage: vaultcube", *words])), page
        assert "Example: vaultcube " + " ".join(words) in page
        assert max(len(line) for line in page.splitlines()) <= 100
    assert [line.split()[0] for line in pages[0].partition("Commands:\n")[2].splitlines()[: len(VERBS)]] == list(VERBS)


def test_no_words_are_answered_with_help_and_usage(vaultcube: Command) -> None:
    for words in ([], ["runs"]):
        seen = vaultcube(*words)
        assert seen.returncode == 2
        assert "Usage: vaultcube" in seen.stdout + seen.stderr


def test_what_makes_no_sense_is_two_lines_and_exit_2(vaultcube: Command) -> None:
    seen = vaultcube("runs", "show", "nonsuch")
    assert (seen.returncode, seen.stdout) == (2, "")
    first, second = seen.stderr.splitlines()
    assert first == f"vaultcube: there is no run 'nonsuch' in {vaultcube.runs}"
    assert second == f"  next: {NotFoundError.next_step}  [not-found]"


@pytest.mark.parametrize(
    ("words", "said", "step"),
    [
        (["nonsuch"], "nonsuch", "See `vaultcube --help`."),
        (["--nonsuch"], "--nonsuch", "See `vaultcube --help`."),
        (["ps", "--nonsuch"], "--nonsuch", "See `vaultcube ps --help`."),
        (["ps", "word"], "word", "See `vaultcube ps --help`."),
        (["bench", "nonsuch"], "nonsuch", "See `vaultcube bench --help`."),
        (["bench", "ddp", "--dry-run", "--windows", "many"], "--windows", "See `vaultcube bench ddp --help`."),
        (["bench", "ddp", "--dry-run", "--flavour", "cu999"], "cu999", "See `vaultcube bench ddp --help`."),
        (["images", "build", "--nonsuch"], "--nonsuch", "See `vaultcube images build --help`."),
    ],
)
def test_what_typer_refuses_is_told_in_the_same_two_lines(words: list[str], said: str, step: str) -> None:
    with pytest.raises(UsageError) as seen:
        dispatch(words)
    assert said in seen.value.message
    assert "\n" not in seen.value.message
    assert seen.value.next_step == step


@pytest.mark.parametrize(
    ("words", "code"),
    [(["ps", "--json", "--nonsuch"], "usage"), (["runs", "show", "nonsuch", "--json"], "not-found")],
)
def test_an_error_with_json_is_one_document_on_stdout(vaultcube: Command, words: list[str], code: str) -> None:
    seen = vaultcube(*words)
    assert seen.returncode == 2
    error = json.loads(seen.stdout)["error"]
    assert set(error) == {"code", "message", "next_step"}
    assert error["code"] == code
    assert f"[{code}]" in seen.stderr


def test_what_the_environment_cannot_do_is_refused_with_3(vaultcube: Command, tmp_path: Path) -> None:
    vaultcube.env["PATH"] = str(tmp_path)
    seen = vaultcube("ps", "--json")
    assert seen.returncode == 3
    assert json.loads(seen.stdout)["error"]["code"] == "docker-missing"


def test_debug_may_stand_anywhere_and_shows_where_it_happened(vaultcube: Command) -> None:
    seen = vaultcube("runs", "show", "nonsuch", "--debug")
    assert "Traceback" in seen.stderr
    assert "NotFoundError: there is no run" in seen.stderr
    assert _without_debug(["--debug", "ps"]) == (["ps"], True)
    assert _without_debug(["logs", "--", "--debug"]) == (["logs", "--", "--debug"], False)
    assert _without_debug(["a", "--debug", "--", "b"]) == (["a", "--", "b"], True)


# --- streams ---------------------------------------------------------------------------------------------------


def kept_runs(vaultcube: Command, count: int) -> None:
    store = RunStore(vaultcube.runs)
    for number in range(count):
        directory = store.root / f"ddp-20260101-120000-{number:04x}"
        directory.mkdir(parents=True)
        (directory / PLAN).write_text("{}")


# A little output waits in a buffer for the end, much of it meets the closed pipe on the way.
@pytest.mark.parametrize(("count", "unbuffered"), [(1, ""), (200, ""), (1, "1")])
def test_a_reader_that_had_enough_is_no_error(vaultcube: Command, count: int, unbuffered: str) -> None:
    kept_runs(vaultcube, count)
    vaultcube.env["PYTHONUNBUFFERED"] = unbuffered
    read, write = os.pipe()
    os.close(read)
    seen = vaultcube("runs", "list", stdout=write)
    os.close(write)
    assert (seen.returncode, seen.stderr) == (0, "")


@pytest.mark.parametrize(("closed", "code"), [(">&-", 2), ("2>&-", 2), (">&- 2>&-", 2)])
def test_closed_streams_are_no_bug(vaultcube: Command, closed: str, code: int) -> None:
    argv = ["bash", "-c", f'"$@" {closed}', "bash", *vaultcube.argv("runs", "show", "nonsuch", "--json")]
    seen = subprocess.run(argv, capture_output=True, text=True, env=vaultcube.environment(), check=False)
    assert seen.returncode == code
    assert "this is a bug" not in seen.stderr


# --- a bug of ours ---------------------------------------------------------------------------------------------


@pytest.fixture
def broken(vaultcube: Command, tmp_path: Path) -> Command:
    """Return the command with a broken installation: one of its libraries does not load."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pynvml.py").write_text("raise RuntimeError('the installation is broken')\n")
    vaultcube.env["PYTHONPATH"] = f"{tmp_path / 'broken'}{os.pathsep}{ROOT / 'orchestrator'}"
    return vaultcube


def test_a_bug_is_exit_4_with_a_log_to_paste(broken: Command) -> None:
    seen = broken("bench", "ddp", "--dry-run")
    assert (seen.returncode, seen.stdout) == (4, "")
    first, second = seen.stderr.splitlines()
    assert first == "vaultcube: this is a bug: RuntimeError: the installation is broken"
    (log,) = (broken.home / ".local" / "state" / "vaultcube" / "log").iterdir()
    assert second == f"  next: Report it with the log {log}  [bug]"
    text = log.read_text()
    assert text.startswith(f"vaultcube {__version__}, Python 3.")
    assert "arguments: ['bench', 'ddp', '--dry-run']" in text
    assert "Traceback" in text
    assert "RuntimeError: the installation is broken" in text


def test_a_bug_with_debug_is_a_traceback_and_no_log(broken: Command) -> None:
    seen = broken("bench", "ddp", "--dry-run", "--debug")
    assert seen.returncode == 1
    assert seen.stderr.rstrip().endswith("RuntimeError: the installation is broken")
    assert not (broken.home / ".local").exists()


def test_a_bug_with_json_is_a_document_too(broken: Command) -> None:
    seen = broken("bench", "ddp", "--dry-run", "--json")
    assert seen.returncode == 4
    assert json.loads(seen.stdout)["error"]["code"] == "bug"


def test_a_home_that_cannot_be_written_does_not_lose_the_log(broken: Command, tmp_path: Path) -> None:
    broken.env |= {"HOME": "/dev/null", "TMPDIR": str(tmp_path)}
    seen = broken("bench", "ddp", "--dry-run")
    assert seen.returncode == 4
    (log,) = tmp_path.glob("crash-*.log")
    assert str(log) in seen.stderr


def test_with_nowhere_to_write_the_log_is_shown(broken: Command) -> None:
    """Such as a read-only file system; in a namespace or as another user it would not be for everybody."""
    code = (
        "import sys, tempfile, pathlib\n"
        "from vaultcube.cli.crash import crash\n"
        "tempfile.tempdir = '/proc/nonsuch'\n"
        "print(crash(RuntimeError('the reason'), ['ps']), file=sys.stderr)\n"
    )
    env = {**broken.environment(), "HOME": "/dev/null"}
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "this is a bug: RuntimeError: the reason" in seen.stderr
    assert "arguments: ['ps']" in seen.stderr


# --- signals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_verb_with_130_and_its_docker_too(
    vaultcube: Command, recording: Recording, number: signal.Signals
) -> None:
    pids = recording.folder / "pids"
    recording.says("", does=f"echo $$ >> '{pids}'; exec sleep 600")
    vaultcube.env["PATH"] = os.environ["PATH"]
    with vaultcube.start("ps", "--json") as child:
        while not pids.exists() or len(pids.read_text().split()) < 2:
            time.sleep(0.01)
        child.send_signal(number)
        stdout, stderr = child.communicate(timeout=30)
    assert child.returncode == 130
    assert json.loads(stdout)["error"]["code"] == "interrupted"
    assert f"stopped by {number.name}" in stderr
    assert "Traceback" not in stderr
    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_results_are_not_kept_under_a_name_that_nothing_can_say(vaultcube: Command) -> None:
    vaultcube.env["LC_ALL"] = "C.UTF-8"
    seen = vaultcube("bench", "ddp", "--dry-run", "--results-dir", b"/tmp/\xff")
    assert (seen.returncode, seen.stdout) == (2, "")
    assert "not UTF-8: '/tmp/\\udcff'" in seen.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("words", [["runs", "list"], ["bench", "ddp", "--dry-run"]])
def test_an_output_without_room_is_told_and_no_bug(words: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        seen = subprocess.run(
            [sys.executable, "-m", "vaultcube", *words, "--results-dir", str(tmp_path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert (seen.returncode, "[disk-too-small]" in seen.stderr, "Traceback" in seen.stderr) == (3, True, False), (
        seen.stderr
    )


def test_a_signal_while_a_class_is_being_made_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Importing makes many, and Python before 3.12 hides in a RuntimeError what came up meanwhile."""

    class Field:
        def __set_name__(self, owner: type, name: str) -> None:
            raise InterruptedRunError("stopped by SIGINT")

    monkeypatch.setattr("vaultcube.cli.main.dispatch", lambda *_: type("Outcome", (), {"images": Field()}))
    assert _run(["ps"], debug=False) == 130
    assert capsys.readouterr().err.startswith("vaultcube: stopped by SIGINT\n")
