"""The engine, its plugins, and the room for images and runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.gpu.preflight.machines import bare, box, found, nvml

from vaultcube.gpu.preflight.facts import Asked, Disk, Engine, Unseen
from vaultcube.gpu.preflight.judged import each, named

MISSING = Unseen("there is no docker command on the PATH", "docker-missing")
DEAF = Unseen("docker info did not answer within 10 s", "engine-unreachable")
DENIED = Unseen("permission denied on the Docker socket", "engine-permission")
OLD = Engine("20.10.24+dfsg1", "/var/lib/docker")
GB = 10**9


@pytest.mark.parametrize(
    ("code", "changes", "status", "said"),
    [
        ("docker", {}, "PASS", "engine 28.3.3"),
        ("docker", {"engine": MISSING}, "FAIL", "no docker command"),
        ("docker", {"engine": DEAF}, "FAIL", "did not answer within 10 s"),
        ("docker", {"engine": DENIED}, "UNAVAILABLE", "permission denied"),
        ("docker", {"engine": OLD}, "WARN", "20.10.24+dfsg1 cannot do CDI"),
        ("socket-permission", {"engine": DENIED}, "FAIL", "permission denied"),
        ("socket-permission", {"engine": DEAF}, "UNAVAILABLE", "see docker"),
        ("socket-permission", {"engine": Engine("28.0.0", "/x", rootless=True)}, "PASS", "rootless"),
        ("compose", {"compose": "2.24.4"}, "PASS", "2.24.4"),
        ("compose", {"compose": "2.24.3"}, "FAIL", "older than 2.24.4"),
        ("compose", {"compose": Unseen("docker has no compose v2 plugin", "compose-missing")}, "FAIL", "no compose"),
        ("compose", {"compose": MISSING}, "UNAVAILABLE", "no docker command"),
        ("buildx", {"buildx": "0.13.0"}, "PASS", "0.13.0"),
        ("buildx", {"buildx": "0.12.1"}, "WARN", "the image is here"),
        ("buildx", {"buildx": "0.12.1", "images": frozenset()}, "FAIL", "vaultcube/pytorch:cu128 is yet to be built"),
        ("buildx", {"buildx": Unseen("docker has no buildx plugin", "buildx-missing")}, "WARN", "no buildx plugin"),
        ("buildx", {"buildx": DEAF}, "UNAVAILABLE", "did not answer"),
        ("disk-images", {"images_disk": Disk("/d", 3 * GB)}, "PASS", "3.0 GB free in /d"),
        ("disk-images", {"images_disk": Disk("/d", GB)}, "WARN", "only 1.0 GB free"),
        ("disk-images", {"images_disk": Disk("/d", 3 * GB), "images": frozenset()}, "FAIL", "needs about 18 GB"),
        ("disk-images", {"images_disk": Disk("/d", 18 * GB), "images": frozenset()}, "PASS", "18.0 GB"),
        ("disk-images", {"images_disk": Unseen("/d: No such file")}, "UNAVAILABLE", "No such file"),
        ("disk-results", {"results_disk": Disk("/r", 900 * 10**6)}, "WARN", "only 0.9 GB"),
        ("disk-results", {"results_disk": Disk("/r", 9 * 10**6)}, "FAIL", "only 0.0 GB"),
        ("disk-results", {"results_disk": Disk("/r", GB, "/r is no folder")}, "FAIL", "is no folder"),
    ],
)
def test_what_is_said(code: str, changes: dict[str, Any], status: str, said: str) -> None:
    one = found(code, box(**changes))
    assert one.status == status, one
    assert said in one.seen


def test_an_old_engine_is_good_enough_without_gpus() -> None:
    assert found("docker", bare(engine=OLD)).status == "PASS"


def test_the_image_that_is_missed_is_that_of_the_flavour() -> None:
    gone = {"buildx": "0.12", "images": frozenset[str]()}
    assert "pytorch:cu124" in found("buildx", bare(**gone)).seen
    assert "pytorch:cu124" in found("buildx", box(**gone, nvml=nvml(compute_capability="8.9"))).seen
    asked = Asked(flavour="cu128")
    assert "pytorch:cu128" in found("buildx", box(**gone, nvml=nvml(compute_capability="8.9"), asked=asked)).seen
    # No image runs on these cards: which one is missing is not the question then.
    assert found("buildx", box(**gone, asked=Asked(flavour="cu124"))).status == "WARN"


def test_gpus_are_named_shortly() -> None:
    assert named([2]) == "GPU 2"
    assert named([3, 0, 1, 2, 5, 8, 7]) == "GPUs 0-3, 5, 7-8"
    assert each([(0, "a"), (1, "b"), (2, "a")]) == "GPUs 0, 2: a; GPU 1: b"
