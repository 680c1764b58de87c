"""What an engine offers, from what `docker info` was recorded to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.support import box

from vaultcube.gpu.pinning import HOOK, PinningFacts
from vaultcube.stack import pinning
from vaultcube.stack.pinning import find_hook, pinning_facts

UUIDS = [gpu.uuid for gpu in box(2).gpus]
SPECIFICATION = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n" + "".join(f"- name: {uuid}\n" for uuid in UUIDS)
# Docker 26.1.5.
INFO: dict[str, Any] = {"ServerVersion": "26.1.5+dfsg1", "CDISpecDirs": [], "Runtimes": {"runc": {"path": "runc"}}}


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder where programs are looked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(pinning, "SYSTEM_PATH", "/nonsuch")
    return folder


def test_an_engine_with_neither() -> None:
    assert pinning_facts(INFO) == PinningFacts(cdi=None, hook=False)
    assert pinning_facts({}) == PinningFacts(cdi=None, hook=False)
    # As some engines say nothing.
    assert pinning_facts({"CDISpecDirs": None, "Runtimes": None, "DiscoveredDevices": None}).cdi is None


def test_the_hook_is_on_this_machine(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_hook() is None
    (path / HOOK).write_text("#!/bin/sh\n")
    assert find_hook() is None
    (path / HOOK).chmod(0o755)
    assert find_hook() == str(path / HOOK)
    assert pinning_facts(INFO) == PinningFacts(cdi=None, hook=True)
    # Our PATH need not be the engine's.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_hook() is None
    monkeypatch.setattr(pinning, "SYSTEM_PATH", str(path))
    assert find_hook() == str(path / HOOK)


def test_an_engine_that_was_set_up_for_the_toolkit_has_the_hook() -> None:
    runtimes = {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime", "args": []}}
    assert pinning_facts({**INFO, "Runtimes": runtimes}) == PinningFacts(cdi=None, hook=True)


def test_an_older_engine_tells_where_the_specifications_are(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    info = {**INFO, "CDISpecDirs": [str(etc), str(run)]}
    assert pinning_facts(info).cdi == frozenset()
    etc.mkdir()
    assert pinning_facts(info).cdi == frozenset()
    (etc / "nvidia.yaml").write_text(SPECIFICATION)
    (etc / "other.yaml").write_text("kind: vendor.example/fpga\ndevices:\n- name: nine\n")
    assert pinning_facts(info).cdi == frozenset(UUIDS)
    run.mkdir()
    (run / "more.json").write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}')
    assert pinning_facts(info).cdi == frozenset({*UUIDS, "all"})


def test_what_the_engine_does_not_read_either_offers_nothing(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yml").write_text(SPECIFICATION)
    (tmp_path / "nvidia.yaml.new").write_text(SPECIFICATION)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to("/nonsuch")
    assert pinning_facts({**INFO, "CDISpecDirs": [str(tmp_path)]}).cdi == frozenset()


def test_a_newer_engine_lists_its_devices_and_no_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(SPECIFICATION)
    listed = [{"Source": "cdi", "ID": f"nvidia.com/gpu={UUIDS[0]}"}]
    info = {**INFO, "ServerVersion": "28.3.3", "CDISpecDirs": [str(tmp_path)], "DiscoveredDevices": listed}
    assert pinning_facts(info).cdi == frozenset(UUIDS[:1])
    assert pinning_facts({**info, "DiscoveredDevices": []}).cdi == frozenset()
