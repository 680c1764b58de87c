"""Stage 4: the finished disk is booted twice from copies, looked at from outside and from inside, and signed off."""

from __future__ import annotations

import json
import re
import secrets
import sys
from pathlib import Path
from typing import Final

from vaultcube.errors import DirtyImageError, HostBuildError, SignOffError
from vaultcube.results.hostimage import SignOff
from vaultcube.stack.hostimage.guest import SSH_OPTIONS, Guest, Hardware
from vaultcube.stack.hostimage.packer import boot_limit
from vaultcube.stack.hostimage.seeds import (
    BUILD_USER,
    make_key,
    public_half,
    sign_off_user_data,
    write_private,
    write_seed,
)
from vaultcube.stack.hostimage.stages import Options, Watcher
from vaultcube.stack.hostimage.tools import checked
from vaultcube.stack.process import run
from vaultcube.stack.signals import Stop

ADMIN: Final = "vaultadmin"
BOOTS: Final = 2
IDENTITY: Final = "cat /etc/machine-id && cut -d' ' -f1,2 /etc/ssh/ssh_host_*_key.pub"
SERIAL: Final = "pristine"


class SignOffRun:
    """The two boots of one disk.

    Args:
        root: the checkout, with the tests and scripts.
        disk: the finished disk; it is not changed.
        options: what was asked for.
        hardware: what the virtual machines get.
        admin: who logs in.
        kernel, packages: what the manifest will say.
        watcher: is told.
        stop: ends it.
    """

    def __init__(
        self,
        root: Path,
        disk: Path,
        options: Options,
        hardware: Hardware,
        admin: str,
        kernel: str,
        packages: str,
        watcher: Watcher,
        stop: Stop,
    ) -> None:
        self._root, self._disk, self._options, self._hardware = root, disk, options, hardware
        self._admin, self._kernel, self._packages, self._watcher, self._stop = admin, kernel, packages, watcher, stop
        self._folder = options.work / "test"

    def run(self) -> SignOff:
        """Boot, look, and return what was seen.

        Raises:
            DirtyImageError: something of the build is left on the disk.
            GuestSilentError: a boot does not answer.
            HostBuildError, SignOffError: it is not as it should be.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        identities = []
        with self._boot(1) as guest:
            self._ready(guest)
            identities.append(self._identity(guest))
            health = self._health(guest)
            self._no_password(guest)
            # From here on this copy is the test's own: root without a password.
            rule = f"{self._admin} ALL=(ALL) NOPASSWD:ALL"
            self._root_command(guest, f"sh -c 'echo \"{rule}\" >/etc/sudoers.d/99-sign-off'", "becoming root")
            hygiene = self._hygiene(guest)
            tests = self._tests(guest)
        with self._boot(BOOTS) as guest:
            self._ready(guest)
            identities.append(self._identity(guest))
        self._watcher.note("the two boots: machine-id and host keys compared")
        for what, first, second in zip(("machine-id", "SSH host keys"), *identities, strict=True):
            if first == second:
                raise SignOffError(f"two machines from this image have the same {what}")
        return SignOff(boots=BOOTS, hygiene=hygiene, health=health, tests=tests)

    def _boot(self, number: int) -> Guest:
        """Return a machine from a fresh copy, with a fresh seed, key and password."""
        folder = self._folder / f"boot{number}"
        folder.mkdir(parents=True, exist_ok=True)
        key = make_key(folder, self._stop)
        password = secrets.token_urlsafe(18)
        write_private(folder / "password", password + "\n")
        write_private(folder / "askpass", f"#!/bin/sh\ncat '{folder / 'password'}'\n")
        (folder / "askpass").chmod(0o700)
        argv = ["openssl", "passwd", "-6", "-in", str(folder / "password")]
        hashed = checked(argv, "hashing a password", timeout=30, stop=self._stop).stdout.strip()
        write_seed(folder / "seed", sign_off_user_data(self._admin, public_half(key), hashed), f"sign-off-{number}")
        self._watcher.note(f"boot {number} of {BOOTS}")
        return Guest(self._disk, folder / "seed", folder, self._hardware, key, self._admin, self._stop)

    def _ready(self, guest: Guest) -> None:
        """Wait until a boot is over.

        Raises:
            SignOffError: cloud-init failed, or units did.
        """
        seconds = guest.wait(boot_limit(self._options, self._hardware))
        self._watcher.note(f"answers over SSH after {seconds:.0f} s")
        done = guest.ssh("cloud-init status --wait", timeout=300)
        if not done.ok and done.returncode != 2:  # noqa: PLR2004 - done, with warnings
            raise SignOffError(f"cloud-init on the finished image: {done.stdout.strip() or done.stderr.strip()}")
        state = guest.ssh("systemctl is-system-running --wait", timeout=300).stdout.strip()
        if state != "running":
            units = guest.ssh("systemctl --failed --plain --no-legend").stdout.split()
            raise SignOffError(f"the system is {state or 'in no known state'}: {' '.join(units[:1])} failed")

    def _identity(self, guest: Guest) -> tuple[str, str]:
        """Return machine-id and host keys."""
        machine, _, keys = guest.must(IDENTITY, "asking who it is").partition("\n")
        if not re.fullmatch(r"[0-9a-f]{32}", machine) or not keys.strip():
            raise SignOffError(f"a machine from this image has no machine-id or no host key: {machine!r}, {keys!r}")
        return machine, keys.strip()

    def _root_command(self, guest: Guest, command: str, what: str) -> str:
        """Run a command as root, with the password that the seed set: as the administrator would."""
        guest.put(self._folder / "boot1" / "password")
        return guest.must(f"sudo -S -p '' {command} <password", what, timeout=300)

    def _health(self, guest: Guest) -> dict[str, str]:
        """Return the verdict of each health check.

        Raises:
            SignOffError: one is not as it should be.
        """
        guest.put(self._folder / "boot1" / "password")
        self._watcher.note(f"health of layers {', '.join(map(str, self._options.layers))}")
        # It exits with 1 for a finding; the document says which.
        words = "".join(f" --waive={code}" for code in self._options.waived)
        words += f" --patience={self._hardware.patience:.0f}"
        done = guest.ssh(f"sudo -S -p '' vaultcube-health --json{words} <password", timeout=600)
        try:
            found = json.loads(done.stdout)
            checks = {str(one["code"]): one for one in found["checks"]}
        except (ValueError, KeyError, TypeError) as error:
            raise SignOffError(f"vaultcube-health gave no report: {done.stderr.strip()[-300:]}") from error
        bad = [one for one in checks.values() if one["verdict"] in {"FAIL", "INVALID"}]
        if bad or not checks:
            told = "; ".join(f"{one['code']}: {one['seen']}" for one in bad) or "it looked at nothing"
            raise SignOffError(f"health of the booted image: {told}")
        return {code: str(one["verdict"]) for code, one in checks.items()}

    def _no_password(self, guest: Guest) -> None:
        """Prove that no password opens the machine, not even the right one.

        Raises:
            SignOffError: one does, or is asked for.
        """
        self._watcher.note("no password opens it, and the build user is gone")
        folder = self._folder / "boot1"
        askpass = {"SSH_ASKPASS": str(folder / "askpass"), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        only = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive")
        # The first value counts for ssh: BatchMode=no here wins over the one that follows.
        done = guest.ssh("true", options=("-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1", *only), env=askpass)
        if done.ok or "Permission denied (publickey)" not in done.stderr:
            said = "it let us in" if done.ok else done.stderr.strip()
            raise SignOffError(f"SSH with the right password and without a key: {said}")
        argv = ["ssh", *SSH_OPTIONS, "-o", "ConnectTimeout=30", "-p", str(guest.port)]
        for user in ("root", BUILD_USER):
            as_user = run([*argv, "-i", str(folder / "key"), f"{user}@127.0.0.1", "true"], timeout=300, stop=self._stop)
            if as_user.ok:
                raise SignOffError(f"SSH lets {user} in")

    def _hygiene(self, guest: Guest) -> str:
        """Look at the untouched disk, which the booted copy is given to read; return the last line.

        Raises:
            DirtyImageError: something is left.
        """
        self._watcher.note("hygiene of the untouched disk")
        guest.attach(self._disk, SERIAL)
        keys = self._folder / "keys"
        keys.write_text("\n".join(self._options.keys) + "\n", encoding="utf-8")
        guest.put(self._root / "packer/scripts/hygiene.sh", self._root / "packer/scripts/look.sh", keys)
        done = guest.ssh(f"sudo bash look.sh {SERIAL} {BUILD_USER} {self._admin} keys", timeout=300)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        for line in lines[:50]:
            if line.startswith("dirty: "):
                self._watcher.note(line)
        if done.returncode == 1 and lines:
            raise DirtyImageError(f"the finished image is not clean: {lines[0].removeprefix('dirty: ')}"[:300])
        if not done.ok or not lines or not lines[-1].startswith("clean: "):
            raise HostBuildError(f"the hygiene test did not run: {(done.stderr or done.stdout).strip()[-300:]}")
        return lines[-1]

    def _tests(self, guest: Guest) -> int:
        """Run the tests of packer/signoff over SSH; return how many passed.

        Raises:
            SignOffError: one failed.
        """
        self._watcher.note("tests over SSH")
        config = self._folder / "ssh_config"
        options = "".join(f"  {SSH_OPTIONS[at + 1].replace('=', ' ')}\n" for at in range(0, len(SSH_OPTIONS) - 2, 2))
        write_private(
            config, f"Host 127.0.0.1\n  Port {guest.port}\n  IdentityFile {self._folder}/boot1/key\n{options}"
        )
        expected = self._folder / "expected.json"
        told = {"admin": self._admin, "build_user": BUILD_USER, "layers": self._options.layers}
        expected.write_text(json.dumps({**told, "kernel": self._kernel, "packages": self._packages}), encoding="utf-8")
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--override-ini=addopts=", "--tb=short"]
        argv += ["--rootdir", str(self._root / "packer/signoff"), f"--hosts=ssh://{guest.user}@127.0.0.1:{guest.port}"]
        argv += [f"--ssh-config={config}", "--sudo", f"--expected={expected}", str(self._root / "packer/signoff")]
        done = run(argv, timeout=600 * self._hardware.patience, stop=self._stop)
        passed = re.search(r"(\d+) passed", done.stdout)
        if not done.ok or passed is None:
            for line in done.stdout.splitlines()[-40:]:
                self._watcher.note(line)
            failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
            raise SignOffError(f"tests of the booted image: {'; '.join(failed) or done.stdout.strip()[-300:]}"[:600])
        return int(passed[1])
