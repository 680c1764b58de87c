"""The recorder's sign of life: a small file, replaced about once a second, that says how hot and how well the GPUs are.

Whoever loads a GPU reads it: without a recorder a load proves nothing, and a GPU that is too hot must not go on. The
file says no more than the last reading; what happened is in the recording. Standard library only.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from vaultcube.gpu.readings import GpuInfo, Reading

SCHEMA: Final = 1
# Often enough for a guard that counts beats, and nothing to a disk: it is never waited for.
EVERY_NS: Final = 1_000_000_000
_UNREAD: Final = Reading()


class Beat:
    """Writes the file, whole or not at all.

    Args:
        path: the file; its folder must be there.
        boot_id: the kernel's, "" where it does not say.
        gpus: those that are recorded, in their order: `take` counts in it.
    """

    def __init__(self, path: str, boot_id: str, gpus: Sequence[GpuInfo]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.part")
        # A recorder that comes back must not seem to be one that stands still.
        self._session = os.urandom(8).hex()
        self._number = int.from_bytes(os.urandom(3))
        self._boot_id = boot_id
        self._gpus = gpus
        self._last = [_UNREAD] * len(gpus)
        self._next = 0

    @property
    def next_ns(self) -> int:
        """When the next one is due, CLOCK_MONOTONIC."""
        return self._next

    def take(self, position: int, reading: Reading) -> None:
        """Take what was read of a GPU."""
        self._last[position] = reading

    def write(self, now: int, *, hanging: bool) -> None:
        """Write it if it is time.

        Args:
            now: CLOCK_MONOTONIC in ns.
            hanging: NVML does not answer: what was read of GPUs is no longer so.

        Raises:
            OSError: it cannot be written.
        """
        if now < self._next:
            return
        # Even times; after a pause not all that were missed at once.
        self._next = max(self._next + EVERY_NS, now + EVERY_NS // 2)
        self._put({"ended": False}, hanging=hanging)

    def end(self, reason: str) -> None:
        """Say that there will be no more, and why: a signal's name, `parent` or `until`.

        Raises:
            OSError: it cannot be written.
        """
        self._put({"ended": True, "reason": reason}, hanging=False)

    def _put(self, how: dict[str, Any], *, hanging: bool) -> None:
        self._number += 1
        text = json.dumps(
            {
                "schema": SCHEMA,
                "beat": self._number,
                "session": self._session,
                "boot_id": self._boot_id,
                **how,
                "gpus": [
                    _gpu(info, reading, hanging=hanging) for info, reading in zip(self._gpus, self._last, strict=True)
                ],
            }
        )
        try:
            self._part.write_text(text + "\n")
            self._part.replace(self._path)
        except OSError:
            with suppress(OSError):
                self._part.unlink()
            raise


def _gpu(info: GpuInfo, reading: Reading, *, hanging: bool) -> dict[str, Any]:
    # A GPU that is known to be lost stays so; of the others nothing is known while no question is answered.
    now = Reading(problem="hang") if hanging and reading.problem != "lost" else reading
    return {
        "uuid": info.uuid,
        # `info.index` is what mypy takes for the method of a tuple.
        "index": info[1],
        "temperature_c": now.temperature_c,
        "limit_c": info.temperature_limit_c,
        "margin_c": now.temperature_margin_c,
        "lost": now.problem == "lost",
        "problem": now.problem,
    }
