"""The stages, and what a build knows of those that are done. Pure but for its one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, Self

from vaultcube.errors import ResumeError

STATE: Final = "state.json"
# The cloud image that is pinned, as its dated folder's SHA256SUMS lists it; packer/variables.pkr.hcl has it too.
UBUNTU: Final = "https://cloud-images.ubuntu.com/releases/noble/release-20260911/ubuntu-24.04-server-cloudimg-amd64.img"
UBUNTU_SHA256: Final = "612b2c0cc1bc413a6cb8c38fd611794caf0f2b436c50013d8b3794db12ad7354"


class Stage(StrEnum):
    """The stages in their order."""

    PREFLIGHT = "preflight"
    BUILD = "build"
    PROVISION = "provision"
    TEST = "test"
    FINALISE = "finalise"

    @property
    def number(self) -> int:
        """Return its number, from 1."""
        return list(Stage).index(self) + 1


# What each stage's outcome depends on beside the stage before it: going on with another value would not be that image.
DEPENDS: Final[Mapping[Stage, tuple[str, ...]]] = {
    Stage.BUILD: ("source_sha256", "disk_size"),
    Stage.PROVISION: ("layers", "variables_sha256", "keys"),
}


class Watcher(Protocol):
    """Who is told how a build goes on."""

    def begins(self, stage: Stage, doing: str) -> None:
        """A stage begins."""

    def note(self, text: str) -> None:
        """One line of what is going on."""

    def done(self, stage: Stage, seconds: float) -> None:
        """A stage passed its gate."""


@dataclass
class State:
    """What is kept of a build in its work folder.

    Attributes:
        folder: the work folder.
        inputs: values that outcomes depend on, as they were when the stage ran.
        seconds: how long each stage took that passed its gate.
        facts: what stages found out for those after them.
    """

    folder: Path
    inputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what an earlier call left in a work folder; nothing, when there is none or it cannot be read."""
        try:
            found = json.loads((folder / STATE).read_text(encoding="utf-8"))
            return cls(folder, dict(found["inputs"]), dict(found["seconds"]), dict(found["facts"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder)

    def write(self) -> None:
        """Keep it, whole or not at all."""
        new = self.folder / (STATE + ".new")
        told = {key: value for key, value in asdict(self).items() if key != "folder"}
        new.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        new.replace(self.folder / STATE)

    def forget(self, stage: Stage) -> None:
        """Forget a stage and all after it: they are about to be done again."""
        for later in list(Stage)[stage.number - 1 :]:
            self.seconds.pop(later, None)
            for name in DEPENDS.get(later, ()):
                self.inputs.pop(name, None)

    def passed(self, stage: Stage, seconds: float, inputs: Mapping[str, str]) -> None:
        """Keep that a stage passed its gate."""
        self.seconds[stage] = seconds
        self.inputs.update({name: inputs[name] for name in DEPENDS.get(stage, ())})
        self.write()

    def check_resume(self, start: Stage, inputs: Mapping[str, str]) -> None:
        """Refuse to go on from a stage when those before it are not done, or were done with other values.

        Raises:
            ResumeError: they were not.
        """
        for stage in list(Stage)[1 : start.number - 1]:
            if stage not in self.seconds:
                raise ResumeError(f"--from {start}: stage {stage} has not passed in {self.folder}")
            for name in DEPENDS.get(stage, ()):
                if self.inputs.get(name) != inputs[name]:
                    what = name.removesuffix("_sha256").replace("_", " ")
                    raise ResumeError(
                        f"--from {start}: stage {stage} was done with {what} {self.inputs.get(name)!r},"
                        f" and now it is {inputs[name]!r}",
                        next_step=f"Give the same again, or begin with that stage: --from {stage}.",
                    )


@dataclass(frozen=True)
class Options:
    """What was asked for, as the command line gives it.

    Attributes:
        name, version: of the image.
        source: the cloud image, a path or an address; source_sha256 its sum.
        output: where images are published; work: what a build in progress keeps; cache: what builds share.
        accelerator: auto, kvm, hvf or tcg.
        layers: which layers of ansible/playbooks/site.yml, from 1.
        keys: public keys of who may log in, each one line.
        variables: a file of variables for the roles, or None.
        apt_proxy: a cache of packages for the build, or empty.
        boot_limit_s: how long a machine may take until it answers over SSH; None for what is usual.
        start: the stage to begin with.
        waived: health checks that cannot be judged where the image is built.
        keep: leave the virtual machine, and the work folder, for a look.
        lint: whether pre-flight lints the roles.
    """

    name: str
    version: str
    source: str
    source_sha256: str
    output: Path
    work: Path
    cache: Path
    accelerator: str
    disk_gb: int
    memory_mb: int
    cpus: int
    layers: tuple[int, ...]
    keys: tuple[str, ...]
    variables: Path | None = None
    apt_proxy: str = ""
    boot_limit_s: int | None = None
    start: Stage = Stage.PREFLIGHT
    waived: tuple[str, ...] = ()
    keep: bool = False
    lint: bool = True

    @property
    def disk_size(self) -> str:
        """Return the size of the disk as qemu-img spells it."""
        return f"{self.disk_gb}G"

    @property
    def title(self) -> str:
        """Return the name of everything that is published."""
        return f"{self.name}-{self.version}"
