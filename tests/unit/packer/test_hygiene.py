"""packer/scripts/hygiene.sh on root file systems: a clean one passes, and each thing that may be left is found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "packer/scripts/hygiene.sh"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFkbWluaXN0cmF0b3JzIG93biBrZXkgb2YgdGhlIGltYWdl"


def put(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of a clean image, as far as hygiene.sh looks at it."""
    root = tmp_path / "root"
    put(root, "etc/passwd", "root:x:0:0::/root:/bin/bash\nvaultadmin:x:1000:1000::/home/vaultadmin:/bin/bash\n")
    put(root, "etc/shadow", "root:!:20000::::::\ndaemon:*:20000::::::\nvaultadmin:$y$j9T$abc:20000::::::\n")
    put(root, "etc/group", "root:x:0:\nsudo:x:27:vaultadmin\n")
    put(root, "etc/sudoers", "# NOPASSWD: nobody\n%sudo ALL=(ALL:ALL) ALL\n")
    put(root, "etc/sudoers.d/10-vaultcube", "Defaults use_pty\n")
    put(root, "etc/machine-id")
    put(root, "etc/ssh/sshd_config.d/01-vaultcube.conf", "allowusers vaultadmin\n")
    put(root, "etc/cloud/cloud.cfg.d/90-vaultcube.cfg", "users: []\n")
    put(root, "etc/netplan/60-vaultcube.yaml", "network: {version: 2}\n")
    put(root, "etc/vaultcube/host.json", '{"ssh": {"settings": {"allowusers": "vaultadmin"}}}\n')
    put(root, "home/vaultadmin/.ssh/authorized_keys", KEY + " admin\n")
    put(root, "home/vaultadmin/.bashrc", "# hello\n")
    put(root, "var/log/dpkg.log")
    put(root, "var/log/journal/.keep")
    (root / "var/log/journal/.keep").unlink()
    for folder in (
        "root",
        "tmp",
        "var/tmp",
        "var/lib/dpkg",
        "var/lib/cloud",
        "var/lib/vaultcube",
        "var/cache/apt/archives",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    put(tmp_path, "keys", f"# who may log in\n{KEY} somebody\n")
    return root


def hygiene(root: Path) -> subprocess.CompletedProcess[str]:
    argv = ["bash", str(SCRIPT), str(root), "builder", "vaultadmin", str(root.parent / "keys")]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)


def test_a_clean_image_is_clean(root: Path) -> None:
    done = hygiene(root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "clean: 14 checks\n", "")


def append(root: Path, name: str, text: str) -> None:
    path = root / name
    path.write_text(path.read_text() + text)


DIRT: dict[str, tuple[Callable[[Path], object], str]] = {
    "the build user": (
        lambda root: append(root, "etc/passwd", "builder:x:2000:2000::/home/builder:/bin/bash\n"),
        "build-user: /etc/passwd names builder",
    ),
    "its group membership": (
        lambda root: append(root, "etc/group", "docker:x:990:vaultadmin,builder\n"),
        "build-user: /etc/group names builder",
    ),
    "its line in a backup": (
        lambda root: put(root, "etc/shadow-", "builder:!:20000::::::\n"),
        "build-user: /etc/shadow- names builder",
    ),
    "its home": (lambda root: put(root, "home/builder/.profile"), "build-user: /home/builder"),
    "its way in": (
        lambda root: put(root, "etc/ssh/sshd_config.d/01-vaultcube.conf", "allowusers vaultadmin builder\n"),
        "build-user: /etc/ssh/sshd_config.d/01-vaultcube.conf names builder",
    ),
    "its way in, expected": (
        lambda root: put(root, "etc/vaultcube/host.json", '{"allowusers": "vaultadmin builder"}'),
        "build-user: /etc/vaultcube/host.json names builder",
    ),
    "sudo without a password": (
        lambda root: put(root, "etc/sudoers.d/90-cloud-init-users", "ada ALL=(ALL) NOPASSWD:ALL\n"),
        "sudoers: /etc/sudoers.d/90-cloud-init-users:ada ALL=(ALL) NOPASSWD:ALL",
    ),
    "an account without a password": (
        lambda root: append(root, "etc/shadow", "ada::20000::::::\n"),
        "passwords: ada has no password at all",
    ),
    "another account with one": (
        lambda root: append(root, "etc/shadow", "ubuntu:$6$x$y:20000::::::\n"),
        "passwords: ubuntu has a password",
    ),
    "root with one": (
        lambda root: put(root, "etc/shadow", "root:$6$x$y:20000::::::\n"),
        "passwords: root is not locked",
    ),
    "a key of root": (
        lambda root: put(root, "root/.ssh/authorized_keys", KEY),
        "authorized-keys: /root/.ssh/authorized_keys",
    ),
    "a key that nobody asked for": (
        lambda root: append(root, "home/vaultadmin/.ssh/authorized_keys", "ssh-ed25519 AAAAother build\n"),
        "authorized-keys: /home/vaultadmin/.ssh/authorized_keys has a key that was not asked for: ssh-ed25519 AAAAother",
    ),
    "a private key": (
        lambda root: put(root, "home/vaultadmin/.ssh/id_ed25519", "x"),
        "authorized-keys: /home/vaultadmin/.ssh/id_ed25519",
    ),
    "a host key": (lambda root: put(root, "etc/ssh/ssh_host_ed25519_key"), "host-keys: /etc/ssh/ssh_host_ed25519_key"),
    "a machine-id": (
        lambda root: put(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        "machine-id: /etc/machine-id is not empty",
    ),
    "a deleted machine-id": (
        lambda root: (root / "etc/machine-id").unlink(),
        "machine-id: /etc/machine-id is not there",
    ),
    "a machine-id of dbus": (
        lambda root: put(root, "var/lib/dbus/machine-id", "0123"),
        "machine-id: /var/lib/dbus/machine-id",
    ),
    "a random seed": (
        lambda root: put(root, "var/lib/systemd/random-seed", "x"),
        "machine-id: /var/lib/systemd/random-seed",
    ),
    "the engine's id": (
        lambda root: put(root, "var/lib/docker/engine-id", "x"),
        "machine-id: /var/lib/docker/engine-id",
    ),
    "the state of cloud-init": (
        lambda root: put(root, "var/lib/cloud/instance/user-data.txt", "x"),
        "cloud-init: /var/lib/cloud/instance",
    ),
    "no settings for cloud-init": (
        lambda root: (root / "etc/cloud/cloud.cfg.d/90-vaultcube.cfg").unlink(),
        "cloud-init: /etc/cloud/cloud.cfg.d/90-vaultcube.cfg is not there",
    ),
    "the network of the build": (
        lambda root: put(root, "etc/netplan/50-cloud-init.yaml", "x"),
        "network: /etc/netplan/50-cloud-init.yaml",
    ),
    "a network for one card": (
        lambda root: put(root, "etc/netplan/60-vaultcube.yaml", "match: {macaddress: '52:54:00:12:34:56'}\n"),
        "network: /etc/netplan/60-vaultcube.yaml names one card's address",
    ),
    "a lease": (
        lambda root: put(root, "var/lib/dhcp/dhclient.ens3.leases", "x"),
        "network: /var/lib/dhcp/dhclient.ens3.leases",
    ),
    "a log": (lambda root: put(root, "var/log/auth.log", "Accepted publickey\n"), "logs: /var/log/auth.log"),
    "a journal": (lambda root: put(root, "var/log/journal/0123/system.journal", "x"), "logs: /var/log/journal/0123"),
    "a history of root": (lambda root: put(root, "root/.bash_history", "id\n"), "histories: /root/.bash_history"),
    "a history": (
        lambda root: put(root, "home/vaultadmin/.python_history", "1\n"),
        "histories: /home/vaultadmin/.python_history",
    ),
    "a package": (
        lambda root: put(root, "var/cache/apt/archives/a.deb", "x"),
        "caches: /var/cache/apt/archives/a.deb",
    ),
    "package lists": (
        lambda root: put(root, "var/lib/apt/lists/x_Packages", "x"),
        "caches: /var/lib/apt/lists/x_Packages",
    ),
    "what Ansible left": (lambda root: put(root, "root/.ansible/tmp/x"), "caches: /root/.ansible"),
    "a temporary file": (lambda root: put(root, "var/tmp/finalise.sh", "x"), "temporary: /var/tmp/finalise.sh"),
    "a hidden temporary file": (lambda root: put(root, "tmp/.secret", "x"), "temporary: /tmp/.secret"),
    "a key that signs modules": (
        lambda root: put(root, "var/lib/shim-signed/mok/MOK.priv", "x"),
        "secrets: /var/lib/shim-signed/mok/MOK.priv",
    ),
    "a private key in a home": (
        lambda root: put(root, "home/vaultadmin/notes", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        "secrets: /home/vaultadmin/notes holds a private key",
    ),
    "a registry's password": (
        lambda root: put(root, "root/.docker/config.json", "{}"),
        "secrets: /root/.docker/config.json",
    ),
    "the build's proxy": (
        lambda root: put(root, "etc/apt/apt.conf.d/01vaultcube-proxy", "x"),
        "build-settings: /etc/apt/apt.conf.d/01vaultcube-proxy",
    ),
    "a rollback to the build": (
        lambda root: put(root, "var/lib/vaultcube/rollback/layer1/record.json", "{}"),
        "build-settings: /var/lib/vaultcube/rollback/layer1",
    ),
    "a specification of GPUs": (
        lambda root: put(root, "etc/cdi/nvidia.yaml", "x"),
        "build-settings: /etc/cdi/nvidia.yaml",
    ),
}


@pytest.mark.parametrize(("soil", "finding"), DIRT.values(), ids=DIRT)
def test_a_dirty_image_is_dirty(root: Path, soil: Callable[[Path], object], finding: str) -> None:
    soil(root)
    done = hygiene(root)
    assert done.returncode == 1
    assert f"dirty: {finding}" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("dirty: ")


def test_all_findings_are_told_at_once(root: Path) -> None:
    for soil, _ in (DIRT["a host key"], DIRT["a log"], DIRT["the build user"]):
        soil(root)
    assert hygiene(root).stdout.count("dirty: ") == 4


def test_what_is_no_root_file_system_is_no_clean_one(tmp_path: Path) -> None:
    put(tmp_path, "keys")
    (tmp_path / "root").mkdir()
    done = hygiene(tmp_path / "root")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no root file system" in done.stderr
