from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vaultcube.results.store import RUN_ID
from vaultcube.stack import assets
from vaultcube.stack.assets import CHECKOUT, asset, checkout
from vaultcube.stack.docker import EngineInfo
from vaultcube.stack.environment import container_user, cpu_model, cpu_ranks, git_revision, new_run_id, provenance

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 24
model name\t: AMD Ryzen Threadripper PRO 7985WX 64-Cores
stepping\t: 1
flags\t\t: fpu vme de pse tsc

processor\t: 1
model name\t: AMD Ryzen Threadripper PRO 7985WX 64-Cores
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0c
"""


def test_the_processors_name() -> None:
    assert cpu_model(X86) == "AMD Ryzen Threadripper PRO 7985WX 64-Cores"
    assert cpu_model(ARM) is None
    assert cpu_model("") is None
    assert cpu_model("model name\n: x\nmodel name : a: b\n") == ""


def test_a_run_id_has_the_time_in_it_and_is_never_the_same() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    ids = {new_run_id("ddp", noon) for _ in range(50)}
    assert len(ids) > 45
    for one in ids:
        assert RUN_ID.fullmatch(one)
        assert re.fullmatch(r"ddp-20260101-120000-[0-9a-f]{4}", one)


def test_containers_never_run_as_root() -> None:
    uid, gid = container_user()
    assert uid != 0
    assert gid != 0
    if os.getuid():
        assert (uid, gid) == (os.getuid(), os.getgid())


def test_there_is_something_to_scale_over_where_cores_allow() -> None:
    assert cpu_ranks() == min(2, len(os.sched_getaffinity(0)))


def test_where_a_run_came_from() -> None:
    found = provenance(
        EngineInfo("26.1.5", "2.26.1"), driver="575.57.08", images={"ddp": "sha256:1"}, compose_sha256="0"
    )
    assert (found.engine, found.compose, found.driver) == ("26.1.5", "2.26.1", "575.57.08")
    assert found.kernel.startswith("Linux ")
    assert found.os
    assert found.cpu
    assert provenance(None, driver=None, images={}, compose_sha256=None).engine is None


def test_the_checkout_is_named_by_its_commit() -> None:
    # Tests run from a checkout; a source archive has no history.
    assert checkout() == CHECKOUT
    revision = git_revision()
    if not (CHECKOUT / ".git").exists():
        assert revision is None
        return
    assert revision is not None
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small checkout of its own."""
    monkeypatch.setattr(assets, "CHECKOUT", tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.invalid", "GIT_COMMITTER_NAME": "a"}
    for name, value in {**who, "GIT_COMMITTER_EMAIL": "a@b.invalid", "GIT_CONFIG_GLOBAL": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "file").write_text("one")
    for argv in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "One"], ["tag", "v1"]):
        subprocess.run(["git", "-C", tmp_path, *argv], check=True)
    return tmp_path


def test_a_changed_checkout_is_dirty_and_a_tag_does_not_hide_the_commit(copy: Path) -> None:
    clean = git_revision()
    assert clean is not None
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    (copy / "file").write_text("two")
    assert git_revision() == f"{clean}-dirty"


def test_a_machine_without_git_says_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(copy))
    assert git_revision() is None


def test_no_checkout_has_no_commit(copy: Path) -> None:
    (copy / ".git").rename(copy / "git")
    assert checkout() == copy
    assert git_revision() is None
    (copy / "pyproject.toml").unlink()
    assert checkout() is None
    assert git_revision() is None


def test_assets_are_found() -> None:
    assert (asset("images") / "docker-bake.hcl").is_file()
    assert asset("compose").name == "compose"
