"""How chosen GPUs get into a container: by which of the engine's drivers, and under which names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from vaultcube.errors import PinningError

if TYPE_CHECKING:
    from vaultcube.gpu.readings import GpuInfo
    from vaultcube.results.schema import Gpu

CDI_KIND: Final = "nvidia.com/gpu"
# The engine offers its `nvidia` driver when it finds this program in its own PATH.
HOOK: Final = "nvidia-container-runtime-hook"
GENERATE: Final = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"

Method = Literal["cdi", "nvidia"]

_KIND = re.compile(r"""(?<!\w)["']?kind["']?\s*:\s*["']?([\w./-]+)""")
_NAME = re.compile(r"""(?<!\w)["']?name["']?\s*:\s*["']?([\w.:-]+)""")


class PinningFacts(NamedTuple):
    """What an engine offers.

    Attributes:
        cdi: the names of the GPUs' CDI devices, without the kind; None where the engine does no CDI.
        hook: whether the classic driver's hook is on this machine.
    """

    cdi: frozenset[str] | None
    hook: bool


class Pinning(NamedTuple):
    """How GPUs are named to the engine.

    Attributes:
        method: the driver of the device request.
        reason: why this one, in one phrase.
        devices: the device ids, in the order of the GPUs.
    """

    method: Method
    reason: str
    devices: tuple[str, ...]


def choose_pinning(engine: PinningFacts, gpus: Sequence[Gpu | GpuInfo]) -> Pinning:
    """Return how these GPUs are pinned: through CDI where the engine has their names, else by the classic driver.

    CDI comes first because a container keeps what it got that way: with the classic hook and systemd's cgroups,
    `systemctl daemon-reload` takes the GPUs away from what runs (nvidia-container-toolkit issue 48).

    Raises:
        PinningError: the engine can do neither.
    """
    uuids = tuple(gpu.uuid for gpu in gpus)
    names, said = _cdi_names(engine.cdi, gpus)
    if names:
        return Pinning("cdi", said, tuple(f"{CDI_KIND}={name}" for name in names))
    if engine.hook:
        return Pinning("nvidia", f"by UUID through the NVIDIA hook: {said}", uuids)
    raise PinningError(
        f"no container can get a GPU: {said}, and there is no {HOOK}",
        # The toolkit is there when something of CDI is: only its specification is missing or old.
        next_step=None if engine.cdi is None else f"Install the NVIDIA Container Toolkit, then: {GENERATE}",
    )


def _cdi_names(offered: frozenset[str] | None, gpus: Sequence[Gpu | GpuInfo]) -> tuple[tuple[str, ...], str]:
    """Return the GPUs' names in CDI and why these, or no names and why not."""
    if offered is None:
        return (), "the engine does no CDI"
    if not offered:
        return (), f"the engine finds no CDI device of kind {CDI_KIND}"
    by_uuid = tuple(gpu.uuid for gpu in gpus)
    if offered.issuperset(by_uuid):
        return by_uuid, "by UUID through CDI"
    # A specification with UUIDs that lacks one is older than the card: its indices mean other cards.
    if not any(name.startswith("GPU-") for name in offered):
        # nvidia-ctk's two strategies for indices.
        for form in ("{}", "gpu{}"):
            by_index = tuple(form.format(gpu.index) for gpu in gpus)
            if offered.issuperset(by_index):
                return by_index, "by index through CDI: the specification has no UUIDs"
    lacking = next(gpu for gpu in gpus if gpu.uuid not in offered)
    return (), f"the CDI specification does not know GPU {lacking.index} ({lacking.uuid})"


def cdi_names(specification: str) -> frozenset[str]:
    """Return the names of the GPUs in a CDI specification (YAML or JSON); none where it is of another kind.

    Only the two keys are looked for: the standard library reads no YAML, and nothing else in such a file has a `name`.
    """
    kind = _KIND.search(specification)
    return frozenset(_NAME.findall(specification)) if kind and kind[1] == CDI_KIND else frozenset()


def qualified(devices: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """Return the GPUs' names among the `DiscoveredDevices` of `docker info` (28.2 and newer)."""
    ids = [device.get("ID", "").partition("=") for device in devices if device.get("Source") == "cdi"]
    return frozenset(name for kind, _, name in ids if kind == CDI_KIND)
