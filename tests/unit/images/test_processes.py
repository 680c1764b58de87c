import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import processes


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def eventually(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_a_child_dies_with_its_parent_even_while_it_is_stopped(program_env: dict[str, str]) -> None:
    child = "from common import processes; processes.die_with_parent(); print('up', flush=True); import time; time.sleep(60)"
    parent = (
        "import os, subprocess, sys; from common.processes import PARENT\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], env=os.environ | {{PARENT: str(os.getpid())}},"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], env=program_env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    process.stdout.close()
    assert eventually(lambda: gone(pid))


def test_an_orphan_does_not_even_start(program_env: dict[str, str]) -> None:
    program = "from common import processes; processes.die_with_parent(); print('ran')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=program_env | {processes.PARENT: "0"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_stop_asks_first_and_then_kills() -> None:
    polite = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    processes.stop(polite, 10.0)
    assert polite.returncode == -signal.SIGTERM
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    processes.stop(deaf, 0.2)
    deaf.stdout.close()
    assert deaf.returncode == -signal.SIGKILL


def test_stop_of_an_ended_process_keeps_its_exit_code() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert processes.ended(process, 20.0)
    processes.stop(process, 1.0)
    assert process.returncode == 3
