"""What Packer and Ansible print, read as it comes: what is going on, and in the end what went wrong. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from vaultcube.errors import BaseChecksumError, GuestSilentError, HostBuildError, ProvisionError, VaultCubeError

_PREFIX: Final = re.compile(r"^(?:==> |    )?(?:qemu\.\w+|\S+\.qemu\.\w+): ?")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TASK: Final = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\] \*+$")
_PLAY: Final = re.compile(r"^PLAY \[(.+?)\] \*+$")
_FATAL: Final = re.compile(r"^(?:fatal|failed): \[\S+?\](?: \(item=.*?\))?[:!]? ?(.*)$")
_MESSAGE: Final = re.compile(r"^\s*(?:msg|stderr): ?(.+)$")
_STEPS: Final = {
    "Retrieving ISO": "fetching the cloud image",
    "Copying hard drive": "copying its disk",
    "Converting hard drive": "copying its disk",
    "Resizing hard drive": "resizing its disk",
    "Starting VM": "booting",
    "Waiting for SSH": "booting, until it answers over SSH",
    "Connected to SSH": "connected",
    "Provisioning with Ansible": "the roles",
    "Gracefully halting": "switching it off",
}


@dataclass
class PackerLog:
    """The state of a build, by its output.

    Attributes:
        play, task: the last that began.
        failure: what the failed task said, one line.
        tail: the last lines, for what nothing else explains.
    """

    play: str = ""
    task: str = ""
    failed_task: str = ""
    failure: str = ""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    _reading: str = ""

    def feed(self, raw: str) -> str | None:
        """Take one line; return what is worth telling about it, or None."""
        line = _PREFIX.sub("", _COLOUR.sub("", raw)).rstrip()
        if not line:
            return None
        self.tail.append(line)
        if match := _PLAY.match(line):
            self.play = match[1]
            return match[1]
        if match := _TASK.match(line):
            self.task, self._reading = match[1], ""
            return None
        self._read_failure(line)
        if line == "...ignoring":
            self.failed_task = self.failure = ""
        return next((told for words, told in _STEPS.items() if line.startswith(words)), None)

    def _read_failure(self, line: str) -> None:
        """Take the first failed task, and the first line of its message."""
        if (match := _FATAL.match(line)) and not self.failed_task:
            self.failed_task, self._reading = self.task, "keys"
            self.failure = match[1].removeprefix("FAILED! =>").strip()
        elif self._reading == "keys" and (match := _MESSAGE.match(line)):
            self.failure = match[1].strip().strip("'\"|->")
            # A text of several lines begins on the next one.
            self._reading = "" if self.failure else "text"
        elif self._reading == "text" and line.strip():
            self.failure, self._reading = line.strip(), ""

    def error(self, stage: str, console: str) -> VaultCubeError:
        """Return what a failed build comes to.

        Args:
            stage: the stage that failed.
            console: the last lines of the guest's console.
        """
        text = "\n".join(self.tail)
        if re.search(r"checksums? did not match|Checksums did not match", text, re.IGNORECASE):
            return BaseChecksumError("Packer fetched a cloud image whose SHA-256 is not the one that is pinned")
        if self.failed_task:
            return ProvisionError(f"the task [{self.failed_task}] failed: {self.failure or 'see the log'}")
        if re.search(r"Timeout waiting for SSH|ssh: handshake failed|SSH Timeout", text, re.IGNORECASE):
            return GuestSilentError(f"stage {stage}: the machine never answered over SSH\n{console}")
        if "Timeout while waiting for machine to shut" in text or "timed out waiting for shut" in text.lower():
            return HostBuildError(f"stage {stage}: finalise.sh did not switch the machine off\n{console}")
        # Our own scripts say it themselves; Packer adds only that they failed.
        for line in reversed(self.tail):
            if line.startswith("error: "):
                return HostBuildError(f"stage {stage}: {line.removeprefix('error: ')}")
        for line in reversed(self.tail):
            if re.match(r"(?:Build '.*' errored.*?|Error.*?|\* .*?): (.+)", line) or line.startswith("* "):
                return HostBuildError(f"stage {stage}: {line.lstrip('* ')}")
        last = self.tail[-1] if self.tail else "Packer ended without a word"
        return HostBuildError(f"stage {stage}: {last}")
