"""Profiles: a box's expected hardware and its acceptance targets, in TOML that a user can copy and edit."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vaultcube.errors import ProfileError

T = TypeVar("T", bound=BaseModel)


class Hardware(BaseModel):
    """What should be in the box."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_name: str
    gpu_count: int = Field(ge=1)
    gpu_memory_total_bytes: int = Field(ge=1)
    compute_capability: str


class Profile(BaseModel):
    """A profile file. `targets` holds one table a workload; each workload says which keys it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    description: str = ""
    hardware: Hardware | None = None
    targets: dict[str, dict[str, float]] = Field(default_factory=dict)


def parse_profile(text: str, source: str) -> Profile:
    """Read a profile from TOML text; `source` names it in errors.

    Raises:
        ProfileError: the TOML is wrong, or holds keys that no profile has.
    """
    try:
        return Profile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ProfileError(f"{source}: {describe(error)}") from error


def to_toml(profile: Profile) -> str:
    """Return a profile as TOML text that `parse_profile` reads as the same."""
    import json

    def word(value: object) -> str:
        # JSON's strings and finite numbers are TOML's, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    def table(values: Mapping[str, object]) -> str:
        return "".join(f"{word(key)} = {word(value)}\n" for key, value in values.items())

    text = table({"name": profile.name, "description": profile.description})
    if profile.hardware:
        text += f"\n[hardware]\n{table(profile.hardware.model_dump())}"
    return text + "".join(f"\n[targets.{word(name)}]\n{table(values)}" for name, values in profile.targets.items())


def load_profile(name_or_path: str, built_in: Path) -> Profile:
    """Read a built-in profile by name, or a TOML file by path.

    Args:
        name_or_path: a name without a slash or `.toml`, or a path.
        built_in: the folder of the built-in profiles.

    Raises:
        ProfileError: it is not there, cannot be read, or is wrong.
    """
    known = sorted(file.stem for file in built_in.glob("*.toml"))
    path = built_in / f"{name_or_path}.toml" if name_or_path in known else Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"cannot read the profile {name_or_path}: {getattr(error, 'strerror', None) or error}",
            next_step=f"Built-in profiles: {', '.join(known)}; or name a TOML file.",
        ) from error
    return parse_profile(text, str(name_or_path))


def read_targets(profile: Profile, workload: str, kind: type[T]) -> T:
    """Return a profile's targets for a workload; what it leaves out keeps its default.

    Raises:
        ProfileError: a target that the workload does not know.
    """
    try:
        return kind.model_validate(profile.targets.get(workload, {}))
    except ValidationError as error:
        known = ", ".join(kind.model_fields)
        raise ProfileError(
            f"profile {profile.name}: targets.{workload}.{describe(error)}", next_step=f"Targets: {known}."
        ) from error


def describe(error: ValidationError) -> str:
    """Return the first fault of a pydantic error in one line: where, and what."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
