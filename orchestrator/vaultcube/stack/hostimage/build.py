"""The five stages in their order, each with its gate and its time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from vaultcube import __version__
from vaultcube.errors import CheckoutNeededError, InterruptedRunError, ResumeError, RunActiveError
from vaultcube.results.hostimage import Manifest, Revision, SignOff, Source, StageTime, sha256_of
from vaultcube.results.lock import locked
from vaultcube.stack.assets import checkout
from vaultcube.stack.environment import git_revision, utc_now
from vaultcube.stack.hostimage import preflight
from vaultcube.stack.hostimage.guest import Hardware
from vaultcube.stack.hostimage.packer import LOG, Packer, disk_of
from vaultcube.stack.hostimage.publish import (
    Inventory,
    ManifestMaker,
    Publication,
    cuda_of,
    driver_of,
    read_inventory,
)
from vaultcube.stack.hostimage.signoff import ADMIN, SignOffRun
from vaultcube.stack.hostimage.stages import Options, Stage, State, Watcher
from vaultcube.stack.hostimage.tools import versions
from vaultcube.stack.signals import Stop

T = TypeVar("T")

DOING = {
    Stage.PREFLIGHT: "tools, acceleration, room, keys, template, playbooks",
    Stage.BUILD: "the cloud image boots once",
    Stage.PROVISION: "the roles, their health, then the guest is cleaned",
    Stage.TEST: "hygiene, two boots, health and tests over SSH",
    Stage.FINALISE: "compressed, described, published",
}


class HostBuild:
    """One build of the host image.

    Args:
        options: what was asked for.
        watcher: is told.
        stop: ends it; the virtual machine is gone then, and nothing is published.
    """

    def __init__(self, options: Options, watcher: Watcher, stop: Stop) -> None:
        root = checkout()
        if root is None or not (root / "packer").is_dir():
            raise CheckoutNeededError(
                "this vaultcube is not run from a checkout, and the roles and the template are there"
            )
        self._root, self._options, self._watcher, self._stop = root, options, watcher, stop
        self._state = State.read(options.work)
        self._resumed: set[Stage] = set()

    def run(self) -> tuple[Manifest, Path]:
        """Build, test and publish the image; return its manifest and its folder.

        Raises:
            VaultCubeError: a gate did not open; which, and what to do, is in it.
        """
        options = self._options
        preflight.check_given(options)
        publication = Publication(self._root, options, self._watcher, self._stop)
        publication.check_free()
        options.work.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(options.work))
            except RunActiveError as error:
                raise RunActiveError(
                    f"another build works in {options.work}",
                    next_step="Wait for it, or work elsewhere: --work-dir DIR.",
                ) from error
            try:
                return self._run(publication)
            finally:
                if not options.keep:
                    self._forget_secrets()

    def _forget_secrets(self) -> None:
        """Remove keys and passwords: they open nothing any more, and a later call makes others."""
        for name in ("key", "password", "askpass", "variables.json"):
            for path in self._options.work.rglob(name):
                path.unlink(missing_ok=True)

    def _run(self, publication: Publication) -> tuple[Manifest, Path]:
        options, state = self._options, self._state
        hardware = preflight.check_machine(options, self._stop)
        prints = preflight.check_keys(options, self._stop)
        inputs = self._inputs()
        state.check_resume(options.start, inputs)
        self._check_disks()
        state.forget(options.start)
        if options.start.number <= Stage.BUILD.number:
            (options.work / LOG).unlink(missing_ok=True)
        packer = Packer(self._root, options, hardware, self._stop)
        if hardware.accelerator == "tcg":
            self._watcher.note("emulated, many times slower than with KVM: half an hour or more")

        def check() -> None:
            preflight.check_sources(self._root, packer, options, self._watcher, self._stop)

        def boot(stage: Stage, source: str, sha256: str) -> Path:
            packer.prepare(stage)
            return packer.build(stage, source, sha256, self._watcher)

        self._stage(Stage.PREFLIGHT, inputs, check)
        self._stage(Stage.BUILD, inputs, lambda: boot(Stage.BUILD, options.source, options.source_sha256))
        base, disk = disk_of(options, Stage.BUILD), disk_of(options, Stage.PROVISION)
        self._stage(Stage.PROVISION, inputs, lambda: boot(Stage.PROVISION, str(base), sha256_of(base)))
        inventory = read_inventory(options)
        signed = self._stage(Stage.TEST, inputs, lambda: self._sign_off(disk, inventory, hardware))
        sign_off = signed or self._signed_before(disk)
        start = time.monotonic()
        self._watcher.begins(Stage.FINALISE, DOING[Stage.FINALISE])
        maker = ManifestMaker(**self._known(inventory, hardware, prints, sign_off))
        manifest = publication.publish(disk, inventory, maker)
        self._watcher.done(Stage.FINALISE, time.monotonic() - start)
        if not options.keep:
            shutil.rmtree(options.work, ignore_errors=True)
        return manifest, publication.final

    def _check_disks(self) -> None:
        """Refuse to go on without the disk that an earlier call made.

        Raises:
            ResumeError: it is gone.
        """
        start = self._options.start
        for stage in (Stage.BUILD, Stage.PROVISION):
            # A stage needs the disk of the one before it, and no older one.
            needed = start is Stage.PROVISION if stage is Stage.BUILD else start.number > stage.number
            if needed and not disk_of(self._options, stage).is_file():
                raise ResumeError(f"--from {start}: {disk_of(self._options, stage)} is gone")

    def _stage(self, stage: Stage, inputs: dict[str, str], work: Callable[[], T]) -> T | None:
        """Do a stage, unless the build begins after it."""
        if stage.number < self._options.start.number and stage is not Stage.PREFLIGHT:
            self._resumed.add(stage)
            return None
        if stage is Stage.PREFLIGHT and self._options.start.number > Stage.PROVISION.number:
            # The template and the roles are done with; a faulty one does no harm now.
            self._resumed.add(stage)
            return None
        self._watcher.begins(stage, DOING[stage])
        start = time.monotonic()
        try:
            done = work()
        except InterruptedRunError as error:
            raise InterruptedRunError(
                error.message, next_step=f"Go on with the same command and --from {stage}; nothing was published."
            ) from error
        seconds = time.monotonic() - start
        self._state.passed(stage, seconds, inputs)
        self._watcher.done(stage, seconds)
        return done

    def _sign_off(self, disk: Path, inventory: Inventory, hardware: Hardware) -> SignOff:
        """Sign the disk off, and keep what was seen for a later `--from finalise`."""
        seen = SignOffRun(
            self._root,
            disk,
            self._options,
            hardware,
            ADMIN,
            inventory.kernel,
            inventory.text,
            self._watcher,
            self._stop,
        ).run()
        self._state.facts.update(sign_off=seen.model_dump_json(), disk_sha256=sha256_of(disk))
        return seen

    def _signed_before(self, disk: Path) -> SignOff:
        """Return what an earlier call saw of this very disk.

        Raises:
            ResumeError: the disk is not the one that was signed off.
        """
        if sha256_of(disk) != self._state.facts.get("disk_sha256"):
            raise ResumeError(
                f"{disk} was changed after it was signed off", next_step="Sign it off again: --from test."
            )
        return SignOff.model_validate_json(self._state.facts["sign_off"])

    def _inputs(self) -> dict[str, str]:
        options = self._options
        variables = sha256_of(options.variables) if options.variables is not None else ""
        return {
            "source_sha256": options.source_sha256,
            "disk_size": options.disk_size,
            "layers": ",".join(map(str, options.layers)),
            "variables_sha256": variables,
            "version": options.version,
            "keys": "\n".join(options.keys),
        }

    def _known(
        self, inventory: Inventory, hardware: Hardware, prints: list[str], sign_off: SignOff
    ) -> dict[str, object]:
        """Return everything of the manifest but the files."""
        options = self._options
        described = git_revision()
        dirty = described is not None and described.endswith("-dirty")
        times = [
            StageTime(name=stage, seconds=round(self._state.seconds.get(stage, 0.0), 1), resumed=stage in self._resumed)
            for stage in list(Stage)[:-1]
        ]
        return {
            "name": options.name,
            "version": options.version,
            "built": utc_now(),
            "vaultcube": __version__,
            "revision": Revision(commit=described.removesuffix("-dirty") if described else None, dirty=dirty),
            "source": Source(image=options.source.rpartition("/")[2], sha256=options.source_sha256),
            "layers": list(options.layers),
            "os": inventory.system,
            "kernel": inventory.kernel,
            "driver": driver_of(inventory.packages),
            "cuda": cuda_of(inventory.packages),
            "login_keys": prints,
            "emulated": hardware.accelerator == "tcg",
            "tools": versions(self._stop),
            "stages": times,
            "sign_off": sign_off,
            "packages": inventory.packages,
        }
