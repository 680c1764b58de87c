"""A build clears away the image that it replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.replay import Recording
from tests.unit.stack.test_images import NAME, attempt, here, plain, ready

pytestmark = pytest.mark.usefixtures(plain.__name__)


def replaced(recording: Recording, tmp_path: Path, tags: list[str]) -> list[str]:
    """Build while an older image is here; return what was removed."""
    ready(recording)
    old, new = (f'[{{"Id": "sha256:{name}", "Size": 1, "Created": "2026", "RepoTags": []}}]' for name in ("old", "new"))
    built = tmp_path / "built"
    recording.says(f"image inspect {NAME}", does=f"if [ -e {built} ]; then echo '{new}'; else echo '{old}'; fi")
    here(recording, "sha256:old", identity="sha256:old", tags=tags)
    recording.says("buildx bake", does=f"touch {built}")
    recording.says("image rm")
    attempt()
    return [call for call in recording.calls if call.startswith("image rm")]


def test_the_replaced_image_goes(recording: Recording, tmp_path: Path) -> None:
    assert replaced(recording, tmp_path, []) == ["image rm sha256:old"]


def test_the_replaced_image_stays_when_somebody_gave_it_a_name(recording: Recording, tmp_path: Path) -> None:
    assert replaced(recording, tmp_path, ["mine:before"]) == []


def test_what_vllm_was_built_from_goes_with_it(recording: Recording, tmp_path: Path) -> None:
    ready(recording)
    built = tmp_path / "built"
    for name in ("vllm:cu124", "pytorch:cu124-framework"):
        old, new = (f'[{{"Id": "sha256:{name}-{age}", "Size": 1, "Created": "2026"}}]' for age in ("old", "new"))
        asked = f"if [ -e {built} ]; then echo '{new}'; else echo '{old}'; fi"
        recording.says(f"image inspect vaultcube/{name}", does=asked)
        here(recording, f"sha256:{name}-old", identity=f"sha256:{name}-old")
    recording.says("buildx bake", does=f"touch {built}")
    recording.says("image rm")
    attempt(image="vllm")
    assert [call for call in recording.calls if call.startswith("image rm")] == [
        "image rm sha256:vllm:cu124-old",
        "image rm sha256:pytorch:cu124-framework-old",
    ]
