"""`make rig`: a shell, or one command, on a simulated GPU machine with its own Docker engine.

    PROFILE=2x4090 make rig
    make rig ARGS='--mode hook -- vaultcube gpus'

Everything lives in one folder that is gone afterwards, results included unless VAULTCUBE_RESULTS_DIR says where.
The exit code is the command's; 3 where this machine cannot run the rig.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import ROOT, Mode, RigEngine, RigError
from tests.rig.profiles import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXIT_REFUSED = 3
WELCOME = """
A simulated machine: {gpus}.
NVML, nvidia-smi, the kernel log and a Docker engine of its own ({ways}) are real programs
on invented hardware. The images that train are stand-ins that sleep instead.
Nothing here can end as PASS.

  nvidia-smi -L                                  the GPUs
  vaultcube gpus                                 the same, and who holds them
  vaultcube doctor                               is this machine fit?
  vaultcube bench ddp --gpus 2 --preset smoke    a run
  python -m tests.rig lose 2                     let a GPU fall off the bus
  exit                                           takes everything away: {folder}
"""
WAYS = {
    Mode.HOOK: "GPUs by container hook",
    Mode.CDI: "GPUs by CDI",
    Mode.BOTH: "GPUs by hook and by CDI",
    Mode.NEITHER: "without the NVIDIA Container Toolkit",
}
# After the user's own .bashrc, which may set PATH anew.
BASHRC = """[ -f ~/.bashrc ] && . ~/.bashrc
export PATH={path}
PS1='(rig {profile}) \\w\\$ '
"""


def environment(box: Box, engine: RigEngine) -> dict[str, str]:
    """Return the environment of a process that lives in the box."""
    env = {**os.environ, **box.env(), "DOCKER_HOST": engine.host}
    env["PATH"] = f"{ROOT}/.venv/bin{os.pathsep}{env['PATH']}"
    env.setdefault("VAULTCUBE_RESULTS_DIR", str(engine.folder / "runs"))
    return env


def shell(folder: Path, profile: str, env: Mapping[str, str]) -> list[str]:
    """Return the command of an interactive shell that says where one is."""
    if shutil.which("bash") is None:
        return ["sh"]
    rc = folder / "bashrc"
    quoted = "'" + env["PATH"].replace("'", "'\\''") + "'"
    rc.write_text(BASHRC.format(path=quoted, profile=profile))
    return ["bash", "--rcfile", str(rc), "-i"]


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the command to its end, and return its exit code as a shell has it. It alone answers to Ctrl-C."""
    with subprocess.Popen(argv, env=env, cwd=ROOT) as child:
        # Handlers, not SIG_IGN: that the child would inherit.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: child.send_signal(number))
        code = child.wait()
    return code if code >= 0 else 128 - code


def visit(profile: str, mode: Mode, command: Sequence[str]) -> int:
    """Set a machine up, run the command or a shell in it, take everything away; return the exit code.

    Raises:
        RigError, RuntimeError: this machine cannot run the rig.
    """
    if profile not in LAYOUTS:
        raise RigError(f"there is no machine {profile!r}; those that are known: {', '.join(LAYOUTS)}")
    started = time.monotonic()
    with RigEngine(mode) as engine:
        box = Box(engine.folder / "machine", profile)
        images.pytorch().load(engine)
        images.tensorflow().load(engine)
        images.load_recorder(engine)
        engine.use(box)
        env = environment(box, engine)
        if command:
            return run(command, env)
        gpus = f"profile {profile}, {len(box.uuids)} GPU(s), ready in {time.monotonic() - started:.1f} s"
        sys.stdout.write(WELCOME.format(gpus=gpus, ways=WAYS[mode], folder=engine.folder))
        sys.stdout.flush()
        return run(shell(engine.folder, profile, env), env)


def main() -> int:
    """Parse, visit, and tell in one line what stands in the way."""
    parser = argparse.ArgumentParser(prog="make rig", description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "4x5090", help="which machine")
    parser.add_argument("--mode", type=Mode, choices=tuple(Mode), default=Mode.BOTH, help="how containers get GPUs")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="instead of a shell")
    given = parser.parse_args()
    # Whoever ends us still gets everything taken away.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return visit(given.profile, given.mode, given.command)
    except (RigError, RuntimeError) as error:
        sys.stderr.write(f"make rig: {error}\n")
        return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
