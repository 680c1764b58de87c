"""Where the compose files, image sources and profiles are: inside an installed wheel, or in the checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CHECKOUT = PACKAGE.parent.parent
PROFILES = PACKAGE / "profiles"


def asset(name: str) -> Path:
    """Return the folder `compose` or `images`."""
    packed = PACKAGE / "_assets" / name
    return packed if packed.is_dir() else CHECKOUT / name


def checkout() -> Path | None:
    """Return the checkout's root when vaultcube runs from one, else None."""
    return CHECKOUT if (CHECKOUT / "images").is_dir() and (CHECKOUT / "pyproject.toml").is_file() else None
