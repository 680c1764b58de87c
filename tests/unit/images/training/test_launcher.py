import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ddp.program import PROGRAM, DdpParams, environment
from hypothesis import given
from hypothesis import strategies as st

from common.outcome import Problem
from training import cli, launcher, machine
from training.launcher import Recorded, conclude, resolve
from training.outcome import EVENTS_LOST
from training.params import Params

Events = list[dict[str, Any]]
PARAMS = PROGRAM.params(device="cpu", ranks=2, preset="smoke", **PROGRAM.presets["smoke"])


def finished(*ranks: int) -> Events:
    return [{"kind": "finished", "rank": rank} for rank in ranks]


def error(rank: int, code: str, exit_code: int = 70) -> dict[str, Any]:
    return {"kind": "error", "rank": rank, "code": code, "message": "m", "next_step": "n", "exit_code": exit_code}


def end(events: Events, child_code: int = 1, **report: Any) -> Problem:
    problem = conclude(events, PROGRAM, PARAMS, child_code=child_code, report=report)
    assert problem is not None
    return problem


def test_every_rank_finished_and_torchrun_agrees() -> None:
    assert conclude(finished(0, 1), PROGRAM, PARAMS, child_code=0, report={"failures": {}}) is None


@pytest.mark.parametrize(("code", "exit_code"), [("no-kernels", 69), ("bad-parameter", 64), ("hang", 70)])
def test_a_rank_s_own_word_decides(code: str, exit_code: int) -> None:
    problem = end([error(1, code, exit_code)], failures={"1": exit_code})
    assert isinstance(problem, Recorded)
    assert (problem.code, problem.exit_code, problem.message) == (code, exit_code, "rank 1: m")


def test_the_cause_comes_before_those_it_took_along() -> None:
    assert end([error(0, "peer-lost"), error(1, "out-of-memory")]).code == "out-of-memory"


def test_a_silent_death_is_the_cause_where_others_only_lost_a_peer() -> None:
    problem = end([error(0, "peer-lost")], failures={"0": 70, "1": -9})
    assert (problem.code, problem.exit_code) == ("rank-failed", 70)
    assert "rank 1 was killed by SIGKILL" in problem.message
    assert not isinstance(problem, Recorded)


def test_only_lost_peers_is_still_an_end() -> None:
    assert end([error(0, "peer-lost"), error(1, "peer-lost")], failures={"0": 70, "1": 70}).code == "peer-lost"


def test_the_kernel_s_word_on_memory_comes_before_signal_9() -> None:
    problem = conclude([], PROGRAM, PARAMS, child_code=1, report={"failures": {"1": -9}}, oom_killed=True)
    assert problem is not None
    assert (problem.code, problem.exit_code) == ("container-out-of-memory", 70)
    assert "DDP_MEMORY" in problem.next_step


def test_a_kill_that_did_not_matter_is_no_problem() -> None:
    assert conclude(finished(0, 1), PROGRAM, PARAMS, child_code=0, report={}, oom_killed=True) is None


def test_a_rank_that_could_not_write_is_explained() -> None:
    problem = end([], failures={"0": EVENTS_LOST})
    assert (problem.code, problem.exit_code) == ("events-unwritable", 74)


def test_a_missing_rank_is_never_success() -> None:
    problem = end(finished(0), child_code=0, failures={})
    assert (problem.code, problem.exit_code) == ("rank-failed", 70)
    assert "1 of 2" in problem.message


def test_a_child_that_is_all_ranks_may_be_unable_to_write() -> None:
    assert end([], child_code=EVENTS_LOST).code == "events-unwritable"


def test_the_log_of_a_silent_death_is_read(tmp_path: Path) -> None:
    def autopsy(params: Params, log: Path) -> Problem | None:
        return Problem("found", f"{log.read_text()} on {params.device}", "n") if log.stat().st_size else None

    program = replace(PROGRAM, autopsy=autopsy)
    log = tmp_path / "log"
    log.write_text("boom")
    problem = conclude([], program, PARAMS, child_code=-6, report={}, log=log)
    assert problem is not None
    assert (problem.code, problem.message) == ("found", "boom on cpu")
    log.write_text("")
    problem = conclude([], program, PARAMS, child_code=-6, report={}, log=log)
    assert problem is not None
    assert problem.message == "only 0 of 2 ranks finished: torchrun was killed by SIGABRT"
    log.write_text("boom")
    problem = conclude([error(0, "hang")], program, PARAMS, child_code=70, report={}, log=log)
    assert problem is not None
    assert problem.code == "hang"


def test_torchrun_itself_may_die() -> None:
    assert "torchrun was killed by SIGKILL" in end([], child_code=-9).message
    assert "no rendezvous" in end([], error="no rendezvous").message


@given(
    events=st.lists(st.sampled_from([*finished(0, 1), error(0, "hang"), error(1, "peer-lost")]), max_size=5),
    child_code=st.sampled_from([0, 1, -9, -15]),
    failures=st.dictionaries(st.sampled_from(["0", "1"]), st.sampled_from([1, 64, 69, 70, 74, -6, -9, -11])),
    oom_killed=st.booleans(),
)
def test_success_is_all_ranks_or_nothing(
    events: Events, child_code: int, failures: dict[str, int], *, oom_killed: bool
) -> None:
    report = {"failures": failures}
    problem = conclude(events, PROGRAM, PARAMS, child_code=child_code, report=report, oom_killed=oom_killed)
    if problem is None:
        assert child_code == 0
        assert {event["rank"] for event in events if event["kind"] == "finished"} == {0, 1}
        assert not any(event["kind"] == "error" and event["code"] == "hang" for event in events)
    else:
        assert problem.exit_code in ({74} if problem.code == "events-unwritable" else {64, 69, 70})


def options(*argv: str) -> cli.Options:
    return cli.parse(["--results", "/r", *argv], PROGRAM)


@pytest.mark.parametrize(
    ("argv", "gpus", "device", "ranks"),
    [
        ([], 4, "cuda", 4),
        ([], 0, "cpu", 2),
        (["--device", "cpu"], 4, "cpu", 2),
        (["--device", "cuda", "--ranks", "2"], 4, "cuda", 2),
        (["--ranks", "3"], 0, "cpu", 3),
    ],
)
def test_auto_becomes_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], gpus: int, device: str, ranks: int
) -> None:
    monkeypatch.setattr(machine, "gpu_count", lambda: gpus)
    monkeypatch.setattr(machine, "cpu_ranks", lambda: 2)
    params = resolve(options(*argv), PROGRAM)
    assert (params.device, params.ranks) == (device, ranks)
    assert params.preset == "acceptance"
    assert params.batch_size == 256


@pytest.mark.parametrize(
    ("argv", "gpus", "code", "exit_code"),
    [
        (["--device", "cuda"], 0, "no-gpu", 69),
        (["--ranks", "5"], 4, "bad-parameter", 64),
        (["--data", "/no/such/folder"], 0, "bad-parameter", 64),
        (["--precision", "tf32"], 0, "bad-parameter", 64),
    ],
)
def test_what_the_machine_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], gpus: int, code: str, exit_code: int
) -> None:
    monkeypatch.setattr(machine, "gpu_count", lambda: gpus)
    with pytest.raises(Problem) as caught:
        resolve(options(*argv), PROGRAM)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)


def test_the_ranks_environment(monkeypatch: pytest.MonkeyPatch, params: Callable[..., Params]) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    on_gpu = environment(params(device="cuda"))
    assert "NVIDIA_TF32_OVERRIDE" not in on_gpu
    assert "CUDA_VISIBLE_DEVICES" not in on_gpu
    assert on_gpu["OMP_NUM_THREADS"] == "1"
    assert on_gpu["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert on_gpu["TORCH_NCCL_USE_COMM_NONBLOCKING"] == "0"
    assert on_gpu["NCCL_SOCKET_IFNAME"] == "eth7"
    assert environment(params())["CUDA_VISIBLE_DEVICES"] == ""


# The launcher as a process, with a stand-in for torchrun and its ranks.

PRELUDE = """
import json, os, sys, time
from pathlib import Path
from common.events import EventWriter
from common.watchdog import Board
from ddp.program import DdpParams
from training.params import Job
from training.program import JOB
from common.processes import die_with_parent
die_with_parent()
job = Job.from_json(os.environ[JOB], DdpParams)
ranks = [EventWriter(Path(job.events_path), rank) for rank in range(job.params.ranks)]
board = Board(Path(job.board_path), job.params.ranks)
def report(**failures): Path(job.report_path).write_text(json.dumps({"failures": failures}))
"""
DRIVER = """
import os, subprocess, sys
from dataclasses import replace
from common import processes
from ddp.program import PROGRAM
from training import launcher, machine
processes.start = lambda module, env, stderr: subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], env=env | {processes.PARENT: str(os.getpid())}, stderr=stderr)
machine.gpu_count = lambda: 0
machine.cpu_ranks = lambda: 2
sys.exit(launcher.main(sys.argv[2:], replace(PROGRAM, keeps_log=bool(os.environ["KEEPS_LOG"]))))
"""


class Launched:
    def __init__(self, folder: Path, env: dict[str, str], ranks: str, *argv: str, keeps_log: bool = False) -> None:
        self.results = folder / "results with space"
        env = env | {"KEEPS_LOG": "1" if keeps_log else ""}
        command = [sys.executable, "-c", DRIVER, PRELUDE + ranks, "--results", str(self.results), "--preset", "smoke"]
        self.process = subprocess.Popen(
            [*command, *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )

    def events(self) -> Events:
        try:
            return [json.loads(line) for line in (self.results / "events.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def wait_for(self, kind: str) -> None:
        limit = time.monotonic() + 30
        while not any(event["kind"] == kind for event in self.events()):
            assert time.monotonic() < limit, self.events()
            time.sleep(0.02)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def launch(tmp_path: Path, program_env: dict[str, str]) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(ranks: str, *argv: str, keeps_log: bool = False) -> Launched:
        started.append(Launched(tmp_path, program_env, ranks, *argv, keeps_log=keeps_log))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_a_run_that_goes_well(launch: Callable[..., Launched]) -> None:
    run = launch(
        "for rank in ranks:\n"
        "    rank.write('window', phase='solo', samples=8, elapsed_s=1.0)\n"
        "    rank.write('window', phase='all', samples=8, elapsed_s=2.0)\n"
        "    rank.write('finished')\n"
        "report()"
    )
    code, out, err = run.end()
    assert (code, err) == (0, "")
    assert "weak scaling efficiency: 8.0 / (2 x 8.0) = 50.0%" in out
    first = run.events()[0]
    assert (first["kind"], first["rank"], first["seq"], first["world_size"], first["device"]) == (
        "started",
        -1,
        0,
        2,
        "cpu",
    )
    assert first["params"]["batch_size"] == 4
    assert set(first["params"]) == set(DdpParams.__dataclass_fields__)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_75_within_two_seconds(
    launch: Callable[..., Launched], number: signal.Signals
) -> None:
    run = launch("import signal; signal.signal(15, signal.SIG_IGN); ranks[0].write('up'); time.sleep(60)")
    run.wait_for("up")
    sent = time.monotonic()
    run.process.send_signal(number)
    code, _, err = run.end()
    assert time.monotonic() - sent < 2.5
    assert code == 75
    assert err.startswith(f"error [interrupted]: stopped by {number.name}\n  next: ")
    last = run.events()[-1]
    assert (last["kind"], last["code"], last["exit_code"], last["rank"]) == ("error", "interrupted", 75, -1)


def test_a_rank_s_error_is_not_repeated_in_the_events(launch: Callable[..., Launched]) -> None:
    run = launch(
        "ranks[1].write('error', code='no-kernels', message='m', next_step='n', exit_code=69); report(**{'1': 69}); sys.exit(1)"
    )
    code, _, err = run.end()
    assert (code, err) == (69, "error [no-kernels]: rank 1: m\n  next: n\n")
    assert [event["kind"] for event in run.events()] == ["started", "error"]


def test_ranks_that_linger_after_an_error_are_killed(
    launch: Callable[..., Launched],
) -> None:
    start = time.monotonic()
    run = launch(
        "import signal; signal.signal(15, signal.SIG_IGN)\n"
        "ranks[1].write('error', code='hang', message='m', next_step='n', exit_code=70); time.sleep(60)"
    )
    assert run.end()[0] == 70
    assert time.monotonic() - start < 20


def test_a_rank_that_stands_still_is_a_hang(launch: Callable[..., Launched]) -> None:
    run = launch("board.beat(0); board.leave(1); time.sleep(60)", "--hang-timeout-s", "0.5")
    code, _, err = run.end()
    assert code == 70
    assert err.startswith("error [hang]: rank 0 gave no sign of life")
    assert run.events()[-1]["code"] == "hang"


def test_a_silent_death_is_told(launch: Callable[..., Launched]) -> None:
    run = launch("report(**{'0': -11}); sys.exit(1)")
    code, _, err = run.end()
    assert code == 70
    assert "rank 0 was killed by SIGSEGV" in err
    assert run.events()[-1]["code"] == "rank-failed"


def test_what_the_child_says_on_stderr_is_kept_and_handed_on(launch: Callable[..., Launched]) -> None:
    run = launch(
        "import os\n"
        "os.write(2, b'first\\n'); ranks[0].write('up')\n"
        "while not os.path.exists(job.events_path + '.go'): time.sleep(0.02)\n"
        "os.write(2, b'\\xff last')\n"
        "assert Path(job.log_path).read_bytes() == b'first\\n\\xff last'\n"
        "for rank in ranks: rank.write('finished')\n"
        "report()",
        keeps_log=True,
    )
    run.wait_for("up")
    (run.results / "events.jsonl.go").touch()
    code, _, err = run.end()
    assert (code, err) == (0, "first\n\ufffd last")


def test_bad_parameters_land_in_the_events_too(launch: Callable[..., Launched]) -> None:
    run = launch("", "--batch-size", "-1")
    code, out, err = run.end()
    assert (code, out) == (64, "")
    first, second = err.splitlines()
    assert first == "error [bad-parameter]: argument --batch-size: -1 is not between 1 and 65536"
    assert second == "  next: see: python3 -m ddp --help"
    assert [(event["kind"], event["exit_code"]) for event in run.events()] == [("error", 64)]


def test_events_that_cannot_be_written_are_one_line_and_74(tmp_path: Path, program_env: dict[str, str]) -> None:
    (tmp_path / "results with space").mkdir()
    (tmp_path / "results with space" / "events.jsonl").symlink_to("/dev/full")
    run = Launched(tmp_path, program_env, "")
    code, _, err = run.end()
    assert code == 74
    assert err.startswith("error [events-unwritable]: cannot write")
    assert err.count("error [") == 1


def test_there_has_to_be_room_for_scratch_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    try:
        assert launcher.main(["--results", str(tmp_path), "--preset", "smoke", "--device", "cpu"], PROGRAM) == 70
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert "error [no-scratch]" in capsys.readouterr().err
