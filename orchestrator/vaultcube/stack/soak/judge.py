"""Waits beside the workers of a soak until they have ended, and judges: `vaultcube stress judge FOLDER --wait`.

It reads files and locks only, and needs no engine: it runs as a container beside them, and goes on after a reboot. Rungs
of a ladder are judged while the soak goes on. What it leaves in the folder: result.json, rung-1h.json, `ended` for the
recorder, and stop.json for the workers when a rung is missed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vaultcube.errors import InterruptedRunError, VaultCubeError
from vaultcube.results.events import EventLog, one_line
from vaultcube.results.profile import Profile
from vaultcube.results.schema import Result, Verdict
from vaultcube.results.soakwait import PATIENCE_S, SETTLE_S, Look, Reached, Waiting, next_rung, spell, stood
from vaultcube.results.store import RunDirectory, read_plain
from vaultcube.stack.signals import Stop
from vaultcube.stack.soak.weigh import EVENTS, at_work, judge_soak

# Shared with workers and recorder (images/pytorch/stress, gpu/beat.py).
BEAT, ENDED, STOP, STOPPED = "recorder.json", "ended", "stop.json", ".stopped.json"
POLL_S: Final = 1.0
TELL_S: Final = 60.0
# A recorder looks once a second, and NVML may hold it up; workers stop within two seconds, and write their last word.
RECORDER_S, WORKERS_S = 20.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """For how long to wait for what may still come, in seconds: see `results/soakwait.py`."""

    settle_s: float = SETTLE_S
    patience_s: float = PATIENCE_S


@dataclass
class _Watched:
    """One worker, read on from where it was left."""

    path: Path
    log: EventLog = field(default_factory=EventLog)
    reached: Reached = field(default_factory=Reached)
    offset: int = 0

    def look(self) -> Look:
        # In this order: whoever holds no lock any more has written all it will.
        busy = at_work(self.path)
        chunk = read_plain(self.path, self.offset)
        self.offset += len(chunk)
        self.reached.take(self.log.feed(chunk))
        # A day has 17 000 of them.
        self.log.events.clear()
        folder, name = self.path.parent.parent, self.path.parent.name
        stopped = (folder / f"{name}{STOPPED}").exists() or (folder / STOP).exists()
        return Look(busy, self.reached.finished, stopped)


class SoakWatch:
    """A soak that goes on, and its end.

    Args:
        folder: the soak's.
        profile: what is asked for.
        ladder: hours at which it is judged too.
        say: shows a line.
        stop: what may be asked for meanwhile.
        patience: for what may still come.
    """

    def __init__(
        self,
        folder: Path,
        profile: Profile,
        ladder: Sequence[float],
        say: Callable[[str], None],
        stop: Stop,
        patience: Patience | None = None,
    ) -> None:
        self.folder = folder
        self.profile = profile
        self.ladder = ladder
        self._say = say
        self._stop = stop
        self._patience = patience or Patience()
        self._watched: dict[str, _Watched] = {}
        self._looks: dict[str, Look] = {}
        self._stopped: set[str] = set()
        self._told_at: float | None = None

    def wait(self) -> tuple[Result, InterruptedRunError | None]:
        """Wait for the end; return the verdict, kept as result.json, and what came before the end if something did.

        Raises:
            InterruptedRunError: stopped before the end, and what there was by then cannot be judged.
            VaultCubeError: it has ended, and cannot be judged, or not kept.
        """
        if self._go_on():
            self._put(ENDED, "")
            self._until(self._recorded, RECORDER_S)
            self._climb_up()
            return self._judge(alive=False), None
        # Workers and recorder were told to stop as we were.
        over = self._until(lambda: self._recorded() and not self._busy(), WORKERS_S)
        if over:
            self._climb_up()
            if self._looks and all(look.finished or look.stopped for look in self._looks.values()):
                # Whoever told us saw the end before we took it for one.
                return self._judge(alive=False), None
        name = self._stop.received.name if self._stop.received else "a signal"
        message = f"stopped by {name} before the soak had ended"
        step = "What there is was judged. Start the soak again, and it goes on where it stopped."
        try:
            return self._judge(alive=not over), InterruptedRunError(message, next_step=step)
        except VaultCubeError as why:
            raise InterruptedRunError(f"{message}; not judged: {why.message}", next_step=why.next_step) from why

    def _go_on(self) -> bool:
        """Wait for the end of the soak; say whether it came before a signal."""
        waiting = Waiting(time.monotonic(), self._patience.settle_s, self._patience.patience_s)
        self._say(f"waiting for the workers in {self.folder}")
        while not self._stop.requested:
            now = time.monotonic()
            self._look()
            going_on = waiting.take(now, self._looks)
            self._tell_stops()
            if waiting.settled(now):
                if not going_on:
                    self._say("all workers have ended")
                    return True
                self._climb(going_on, alive=True)
            self._progress(now, going_on)
            self._stop.wait(POLL_S)
        return False

    def _look(self) -> None:
        with suppress(OSError):
            for path in sorted(self.folder.glob(f"*/{EVENTS}")):
                self._watched.setdefault(path.parent.name, _Watched(path))
        for name, worker in self._watched.items():
            with suppress(OSError):
                self._looks[name] = worker.look()

    def _busy(self) -> bool:
        self._look()
        return any(look.at_work for look in self._looks.values())

    def _wanted_s(self) -> float:
        return max((one.reached.wanted_s for one in self._watched.values()), default=0.0)

    def _progress(self, now: float, going_on: Sequence[str]) -> None:
        if not self._looks or (self._told_at is not None and now - self._told_at < TELL_S):
            return
        self._told_at = now
        told = [stood(name, look, self._watched[name].reached) for name, look in self._looks.items()]
        left = max((self._left_s(name) for name in going_on), default=0.0)
        self._say(f"{'; '.join(told)}; at least {spell(left)} to go")

    def _left_s(self, name: str) -> float:
        reached = self._watched[name].reached
        return max(reached.wanted_s - reached.covered_s, 0.0)

    def _tell_stops(self) -> None:
        for name in self._looks:
            path = self.folder / f"{name}{STOPPED}"
            if name not in self._stopped and (said := _read(path)):
                self._stopped.add(name)
                self._say(f"{name} was stopped: {one_line(str(said.get('message', 'it does not say why')))[:200]}")

    def _climb_up(self) -> None:
        """Judge the rungs that were passed while nobody looked: the judge came late, or was killed meanwhile."""
        while not (self.folder / STOP).exists() and self._climb(self._looks, alive=False):
            pass

    def _climb(self, workers: Iterable[str], *, alive: bool) -> bool:
        """Judge the next rung, if all of these have reached it; say whether one was, and held.

        Who has ended without it holds nobody up who goes on, and is found missing.
        """
        judged = [hours for hours in self.ladder if (self.folder / rung_file(hours)).exists()]
        covered = [self._watched[name].reached.covered_s for name in workers]
        hours = next_rung(self.ladder, judged, self._wanted_s(), covered)
        if hours is None:
            return False
        result = judge_soak(self.folder, self.profile, alive=alive, rung_s=hours * 3600)
        RunDirectory(self.folder).write(rung_file(hours), result.to_json())
        missed = ", ".join(check.name for check in result.checks if check.verdict in {Verdict.FAIL, Verdict.INVALID})
        self._say(f"after {hours:g} h: {result.verdict}{f' ({missed})' if missed else ''}")
        held = result.verdict not in {Verdict.FAIL, Verdict.INVALID}
        if alive and not held:
            message = f"the verdict after {hours:g} h is {result.verdict}: {missed}"
            self._put(STOP, json.dumps({"schema": 1, "by": "judge", "message": message}) + "\n")
        return held

    def _recorded(self) -> bool:
        """Say whether no recorder is at work."""
        said = _read(self.folder / BEAT)
        return said is None or said.get("ended") is True

    def _until(self, ask: Callable[[], bool], seconds: float) -> bool:
        """Poll until something is so; say whether it came to be."""
        deadline = time.monotonic() + seconds
        while not ask():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S / 10)
        return True

    def _judge(self, *, alive: bool) -> Result:
        result = judge_soak(self.folder, self.profile, alive=alive)
        RunDirectory(self.folder).write_result(result)
        return result

    def _put(self, name: str, text: str) -> None:
        RunDirectory(self.folder).write(name, text)


def rung_file(hours: float) -> str:
    """Return the name of the file that a rung is judged in."""
    return f"rung-{hours:g}h.json"


def _read(path: Path) -> dict[str, Any] | None:
    """Return what another part of the soak said in a file, or None."""
    with suppress(ValueError, RecursionError):
        said = json.loads(read_plain(path))
        return said if isinstance(said, dict) else None
    return None
