"""Asking the engine for its containers while something else is done: in a thread, with a limit, and ended with us.

Imports little, so that the engine can think while the rest is imported.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vaultcube.errors import VaultCubeError
from vaultcube.stack.docker import Docker
from vaultcube.stack.signals import Stop

if TYPE_CHECKING:
    from vaultcube.gpu.leases import GpuContainer

# Longer than a call of docker takes to see that it is to stop.
CANCEL_S = 0.3


class Containers:
    """The containers that may hold GPUs, as one question to the engine that is under way from the beginning."""

    def __init__(self) -> None:
        self._stop = Stop()
        self._found: list[GpuContainer] = []
        self._reason: str | None = "the question to the engine failed"
        # Not `Thread.join`: an exception out of it, as Ctrl-C raises one, marks a running thread as ended.
        self._done = threading.Event()
        try:
            threading.Thread(target=self._ask, name="containers", daemon=True).start()
        except BaseException:
            # A Ctrl-C can come at any line.
            self._stop.ask()
            raise

    def _ask(self) -> None:
        try:
            raw = Docker(self._stop).live()
            from vaultcube.stack.leases import parse_containers

            self._found, self._reason = parse_containers(raw), None
        except VaultCubeError as error:
            self._reason = error.message
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # Another engine that speaks through a docker command; not to know must not read as free.
            self._reason = f"the engine's answer cannot be read: {error}"
        finally:
            self._done.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for an answer, so many seconds at most; say whether there is one, be it that nobody answers."""
        return self._done.wait(timeout_s)

    def result(self, timeout_s: float) -> tuple[list[GpuContainer], str | None]:
        """Return the containers; or none, and why.

        Args:
            timeout_s: how long to wait for the answer at most, in seconds.
        """
        if not self.wait(timeout_s):
            return [], f"the engine did not answer within {timeout_s:g} s"
        return self._found, self._reason

    def cancel(self) -> None:
        """Forget the question, and end what asks it. Nothing happens when it was answered."""
        self._stop.ask()
        self._done.wait(CANCEL_S)
