"""Shows a build of the host image as it goes on, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from vaultcube.report.table import table
from vaultcube.results.hostimage import Manifest, Verified
from vaultcube.stack.hostimage.stages import Stage

MINUTE = 60


class BuildProgress:
    """A line when a stage begins, one for what goes on in it, and one with its time.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def begins(self, stage: Stage, doing: str) -> None:
        """Say that a stage begins."""
        self._say(f"[{stage.number}/{len(Stage)}] {stage}: {doing}")

    def note(self, text: str) -> None:
        """Say what is going on."""
        for line in text.splitlines():
            self._say(f"      {line}")

    def done(self, stage: Stage, seconds: float) -> None:
        """Say that a stage passed its gate, and how long it took."""
        self._say(f"[{stage.number}/{len(Stage)}] {stage}: passed after {duration(seconds)}")

    def _say(self, text: str) -> None:
        # A reader that went away is no reason to end a build.
        with suppress(OSError):
            self._stream.write(text + "\n")
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time in minutes and seconds."""
    minutes, rest = divmod(round(seconds), MINUTE)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def built(manifest: Manifest, folder: str) -> str:
    """Return what is told of a published image."""
    rows: list[Sequence[str]] = [("STAGE", "TIME")]
    rows += [(one.name, duration(one.seconds) + (" (earlier)" if one.resumed else "")) for one in manifest.stages]
    what = f"{manifest.os.name}, kernel {manifest.kernel}, driver {manifest.driver or '-'}, CUDA {manifest.cuda or '-'}"
    lines = [
        table(rows),
        f"{manifest.name} {manifest.version}: {what}\n",
        f"{len(manifest.packages)} packages, {manifest.image.size_bytes / 1e9:.2f} GB; {signed(manifest)}\n",
        f"published in {folder}\n",
    ]
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def verified(found: Verified) -> str:
    """Return what is told of an image that is whole."""
    manifest = found.manifest
    return (
        f"{found.image}: whole; {len(found.checked)} files are as they were published\n"
        f"{manifest.name} {manifest.version} of {manifest.built:%Y-%m-%d %H:%M} UTC, {manifest.os.name},"
        f" kernel {manifest.kernel}, driver {manifest.driver or '-'}, CUDA {manifest.cuda or '-'}\n"
        f"{signed(manifest)}\n"
    )


def signed(manifest: Manifest) -> str:
    """Return how an image was signed off, in one line."""
    sign_off = manifest.sign_off
    passed = sum(verdict == "PASS" for verdict in sign_off.health.values())
    return (
        f"signed off: {sign_off.boots} boots, hygiene {sign_off.hygiene},"
        f" health {passed} of {len(sign_off.health)} PASS, {sign_off.tests} tests"
    )
