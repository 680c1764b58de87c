"""What an engine offers for getting GPUs into containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from vaultcube.gpu.pinning import HOOK, PinningFacts, cdi_names, qualified

# An engine's PATH is not ours: these are in it wherever systemd starts it.
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pinning_facts(info: Mapping[str, Any]) -> PinningFacts:
    """Return what an engine offers.

    Args:
        info: `docker info`. From 28.2 it lists the CDI devices; before that only the folders of their specifications,
            and none where the engine does no CDI.
    """
    folders = info.get("CDISpecDirs") or ()
    listed = info.get("DiscoveredDevices")
    if listed is not None:
        cdi: frozenset[str] | None = qualified(listed)
    else:
        # A newer engine that found none leaves them out as well: then there is nothing in its folders.
        cdi = frozenset().union(*map(cdi_names, _specifications(folders))) if folders else None
    return PinningFacts(cdi, hook=find_hook() is not None or _configured(info))


def find_hook() -> str | None:
    """Return where the classic driver's hook is on this machine, or None."""
    return shutil.which(HOOK, path=os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATH)))


def _configured(info: Mapping[str, Any]) -> bool:
    """Say whether the toolkit was set up in the engine (`nvidia-ctk runtime configure`): the hook came with it."""
    return any(name.startswith("nvidia") for name in info.get("Runtimes") or ())


def _specifications(folders: Iterable[str]) -> list[str]:
    """Return the texts of the CDI specifications; one that cannot be read offers nothing."""
    found = []
    for folder in folders:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix in {".yaml", ".json"}:
                with suppress(OSError):
                    found.append(path.read_text(encoding="utf-8", errors="replace"))
    return found
