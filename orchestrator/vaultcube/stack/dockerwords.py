"""What docker's words mean: its exit status and stderr as our errors. Pure."""

from __future__ import annotations

from vaultcube.errors import (
    ComposeMissingError,
    EngineLostError,
    EnginePermissionError,
    EngineUnreachableError,
    RefusedError,
    VaultCubeError,
)
from vaultcube.stack.process import Finished

UNREACHABLE = (
    "cannot connect to the docker daemon",
    "failed to connect to the docker api",
    "error during connect",
    "connection refused",
    "dial unix",
    "connection reset by peer",
    "is the docker daemon running",
    "unexpected eof",
    "unable to resolve docker endpoint",
)


def checked(seen: Finished) -> Finished:
    """Return it, if it ended well.

    Raises:
        VaultCubeError: it did not; see `diagnose`.
    """
    if not seen.ok:
        raise diagnose(seen)
    return seen


def diagnose(seen: Finished) -> VaultCubeError:
    """Name the error behind a docker command that failed, from its stderr."""
    # Without the plugin docker takes compose's options for its own.
    if seen.argv[1:2] == ("compose",) and "unknown flag" in seen.stderr:
        return ComposeMissingError("docker has no compose v2 plugin")
    return known_error(seen.stderr) or RefusedError(
        f"docker {' '.join(seen.argv[1:3])} failed: {last_line(seen.stderr) or f'exit status {seen.returncode}'}",
        next_step="Run the command that failed by hand; --debug shows it whole.",
    )


def known_error(stderr: str) -> VaultCubeError | None:
    """Return the error that docker's words stand for, or None when they are not about docker itself."""
    # An engine that answered has been reached: its own words are about something else.
    low = "\n".join(line for line in stderr.lower().splitlines() if "error response from daemon" not in line)
    if "permission denied" in low and ("socket" in low or "daemon" in low or "docker api" in low):
        return EnginePermissionError("permission denied on the Docker socket")
    if any(sign in low for sign in UNREACHABLE):
        return EngineUnreachableError("no Docker engine answers: " + last_line(stderr))
    if any(sign in low for sign in ("is not a docker command", "unknown docker command", "unknown command: docker")):
        return ComposeMissingError(last_line(stderr))
    return None


def engine_is_gone(error: VaultCubeError) -> bool:
    """Say whether an error means that the engine itself does not answer."""
    return isinstance(error, EngineUnreachableError | EngineLostError)


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
