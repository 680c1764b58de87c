"""Follows the kernel's log from now on: `/dev/kmsg`, a file in its format, or a syslog file. Never waits.

Sources: Documentation/ABI/testing/dev-kmsg for the format and the errors of reading it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

# Names a file in the format of /dev/kmsg that is followed instead.
VARIABLE: Final = "VAULTCUBE_KERNEL_LOG"
DEVICE: Final = "/dev/kmsg"
# What rsyslog writes the kernel's messages to, where only root may open the device.
SYSLOG: Final = "/var/log/kern.log"
# The longest record that the kernel hands out (CONSOLE_EXT_LOG_MAX).
_RECORD_BYTES: Final = 8192
_CHUNK_BYTES: Final = 1 << 16
# More in one poll would keep a storm of messages from ever letting go of its reader.
_POLL_RECORDS: Final = 5000
_KERNEL_FACILITY: Final = 0
_BANNER: Final = re.compile(r"(?:^|\] )Linux version [0-9]")
_ESCAPE: Final = re.compile(r"\\x([0-9a-f]{2})")


class Polled(NamedTuple):
    """What came since the last poll: the kernel's messages, and whether some were overwritten before they were read."""

    messages: list[str]
    overwritten: bool = False


class KernelLog:
    """The kernel's log from the moment it is opened. Raises nothing: `reason` says why there is none.

    Args:
        environ: where `VAULTCUBE_KERNEL_LOG` is looked up.
        whole: begin with the oldest message that is still there.

    Attributes:
        path: what is followed, or None.
        reason: why nothing is, or None.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, *, whole: bool = False) -> None:
        self.path: str | None = None
        self.reason: str | None = None
        self._fd = -1
        self._device = False
        self._rest = b""
        named = environ.get(VARIABLE)
        reasons = []
        for path in (named,) if named else (DEVICE, SYSLOG):
            try:
                self._open(path, from_start=whole)
            except OSError as error:
                reasons.append(f"{path}: {error.strerror}")
            else:
                self.path = path
                return
        self.reason = "; ".join(reasons)

    def close(self) -> None:
        """Stop following it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def poll(self) -> Polled:
        """Return what came since the last call."""
        if self._fd < 0:
            return Polled([])
        return self._poll_device() if self._device else Polled(self._poll_file())

    def _open(self, path: str, *, from_start: bool) -> None:
        mode = Path(path).stat().st_mode
        if not stat.S_ISCHR(mode) and not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "neither a file nor a device")
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.close()
        self._fd, self._rest, self._device = fd, b"", stat.S_ISCHR(mode)
        if not from_start:
            os.lseek(fd, 0, os.SEEK_END)

    def _poll_device(self) -> Polled:
        messages: list[str] = []
        overwritten = False
        for _ in range(_POLL_RECORDS):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:
                # The ring went round past us; the next read begins at its oldest record.
                overwritten = True
                continue
            except OSError:
                break
            if not record:
                break
            messages += _messages(record.split(b"\n"))
        return Polled(messages, overwritten)

    def _poll_file(self) -> list[str]:
        messages = self._read_on()
        with suppress(OSError):
            # Rotated: what was read above is the old file's end.
            if Path(self.path or "").stat().st_ino != os.fstat(self._fd).st_ino:
                self._open(self.path or "", from_start=True)
                messages += self._read_on()
        return messages

    def _read_on(self) -> list[str]:
        with suppress(OSError):
            if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
                # Truncated: it begins anew.
                os.lseek(self._fd, 0, os.SEEK_SET)
                self._rest = b""
        lines: list[bytes] = []
        while len(lines) < _POLL_RECORDS:
            try:
                chunk = os.read(self._fd, _CHUNK_BYTES)
            except OSError:
                break
            if not chunk:
                break
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            lines += whole
            # A line without an end is no message.
            self._rest = self._rest[-_CHUNK_BYTES:]
        return _messages(lines)


def since_boot(environ: Mapping[str, str] = os.environ) -> tuple[list[str], str | None]:
    """Return the kernel's messages since it was booted, as far back as they are kept, or none and why."""
    log = KernelLog(environ, whole=True)
    messages: list[str] = []
    try:
        while batch := log.poll().messages:
            messages += batch
    finally:
        log.close()
    # A syslog file holds earlier boots too; each begins with the kernel naming itself.
    boot = max((at for at, text in enumerate(messages) if _BANNER.search(text)), default=0)
    return messages[boot:], log.reason


def _messages(lines: list[bytes]) -> list[str]:
    """Return the texts of the kernel's own messages among the lines of a log, in either format."""
    found = []
    for line in lines:
        if not line or line[:1] == b" ":
            # Properties of the record above (SUBSYSTEM=pci).
            continue
        text = line.decode(errors="replace")
        prefix, mark, message = text.partition(";")
        fields = prefix.split(",")
        if mark and len(fields) > 2 and fields[0].isdecimal() and fields[1].isdecimal():  # noqa: PLR2004
            # Programs may write into /dev/kmsg, under another facility.
            if int(fields[0][:6]) >> 3 == _KERNEL_FACILITY:
                found.append(_ESCAPE.sub(_unescape, message))
        elif " kernel: " in text:
            found.append(text)
    return found


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))
