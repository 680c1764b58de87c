"""Secrets on their way to containers: files that only their user can read, outside every run directory.

Never in argv, the environment of a container as `docker inspect` shows it, a log, a plan or a result.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from vaultcube.errors import ResultsUnwritableError, UsageError

# As they are called below /run/secrets.
HF_TOKEN, API_KEY = "hf_token", "api_key"
SECRETS = (HF_TOKEN, API_KEY)
# No token or key is longer, and nobody means to mount a disk image as one.
SIZE_MAX = 4096
NEXT_STEP = "Set XDG_DATA_HOME to a folder that can be written, or do without the secret."


def secrets_folder(run_id: str) -> Path:
    """Return where the secrets of a run are; the service needs them for as long as it may be started again."""
    import platformdirs

    return platformdirs.user_data_path("vaultcube") / "secrets" / run_id


def read_secret(option: str, file: Path | None, value: str | None) -> str | None:
    """Return a secret from its file, else from the environment, else None.

    Args:
        option: the option that names the file, for messages.
        file: the file that was named, if any.
        value: what the environment holds, if anything.

    Raises:
        UsageError: the file cannot be read, or holds no single line.
    """
    if file is not None:
        try:
            with file.open("rb") as stream:
                value = stream.read(SIZE_MAX + 1).decode()
        except OSError as error:
            raise UsageError(f"{option} {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{option} {file} holds no text") from error
    word = (value or "").strip()
    if not word and file is None:
        return None
    if not word.isprintable() or not word.isascii() or not word or " " in word or len(word) > SIZE_MAX:
        where = f"{option} {file}" if file is not None else f"the environment's secret for {option}"
        raise UsageError(f"{where} is not one word", next_step="Put the token alone on one line.")
    return word


def hub_token(environment: Mapping[str, str]) -> str | None:
    """Return the token that the hub's own command line keeps for this user, if it keeps one."""
    home = environment.get("HF_HOME") or str(Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    try:
        return read_secret("", Path(environment.get("HF_TOKEN_PATH") or f"{home}/token").expanduser(), None)
    except (UsageError, RuntimeError):
        return None


def keep_secrets(run_id: str, secrets: Mapping[str, str], owner: tuple[int, int]) -> None:
    """Write the secrets of a run, readable for the containers' user alone.

    Args:
        run_id: whose they are.
        secrets: by name.
        owner: uid and gid that the containers run as.

    Raises:
        ResultsUnwritableError: they cannot be written.
    """
    if not secrets:
        return
    folder = secrets_folder(run_id)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, value in secrets.items():
            # Before anything is in it, it is nobody else's.
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(value + "\n")
            if owner[0] != os.getuid():
                os.chown(folder / name, *owner)
    except OSError as error:
        forget_secrets(run_id)
        raise ResultsUnwritableError(f"cannot write {folder}: {error.strerror}", next_step=NEXT_STEP) from error


def forget_secrets(run_id: str) -> None:
    """Remove the secrets of a run. None is no error."""
    shutil.rmtree(secrets_folder(run_id), ignore_errors=True)
