"""`--gpus`: Docker's own grammar, parsed once at the edge, and which GPUs a request gets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from vaultcube.errors import GpuBusyError, GpuSelectionError, GpuUnavailableError, MigError
from vaultcube.gpu.leases import Holder
from vaultcube.gpu.readings import Link
from vaultcube.gpu.topology import nearest
from vaultcube.results.schema import Gpu

_UUID = re.compile(r"GPU-[0-9a-fA-F-]+")
# Not \d: that takes the digits of every script.
_INDEX = re.compile(r"[0-9]{1,3}")
_COUNT = re.compile(r"[0-9]{1,3}")
# A message names no more holders than these.
_NAMED_MAX: Final = 3

Held = Mapping[str, Sequence[Holder]]
NOBODY: Final[Held] = MappingProxyType({})


@dataclass(frozen=True)
class GpuRequest:
    """What `--gpus` asked for.

    Attributes:
        kind: `auto` (all there are, else the CPU), `all`, `none`, `count`, or `named`.
        count: for `count`.
        names: for `named`: indices and UUIDs, as written.
    """

    kind: Literal["auto", "all", "none", "count", "named"]
    count: int = 0
    names: tuple[str, ...] = ()


def parse_gpus(text: str | None) -> GpuRequest:
    """Read `all`, `none`, a count (`2`), `device=0,2`, `device=GPU-<uuid>`, or a bare list with a comma or a UUID.

    Raises:
        GpuSelectionError: anything else; `0` too, because it reads as a count and as an index.
    """
    if text is None:
        return GpuRequest("auto")
    word = text.strip()
    if word in {"all", "none"}:
        return GpuRequest("all" if word == "all" else "none")
    if _COUNT.fullmatch(word):
        count = int(word)
        if count == 0:
            raise GpuSelectionError(
                "--gpus 0 could mean no GPU or the first one",
                next_step="Write --gpus none for no GPU, or --gpus device=0 for the first one.",
            )
        return GpuRequest("count", count=count)
    names = word.removeprefix("device=")
    if not ("," in word or word.startswith(("device=", "GPU-"))):
        raise GpuSelectionError(f"--gpus {text!r} is not in the grammar")
    parts = [part.strip() for part in names.split(",")]
    for part in parts:
        if part.startswith("MIG-"):
            raise GpuSelectionError(
                f"--gpus names the MIG device {part}, and only whole GPUs can be used",
                next_step="Name the whole GPU, by index or by its GPU-<uuid>.",
            )
        if not (_INDEX.fullmatch(part) or _UUID.fullmatch(part)):
            raise GpuSelectionError(f"--gpus {text!r}: {part!r} is neither an index nor a GPU-<uuid>")
    return GpuRequest("named", names=tuple(parts))


def choose(
    request: GpuRequest,
    gpus: Sequence[Gpu],
    why_none: str | None = None,
    *,
    held: Held = NOBODY,
    links: Sequence[Link] = (),
    share: bool = False,
) -> tuple[Gpu, ...]:
    """Return the GPUs that a request means: nearest to each other and by index for counts, as named otherwise.

    Args:
        request: from `parse_gpus`.
        gpus: the machine's.
        why_none: why there are no GPUs, for the error.
        held: who holds which GPU, by UUID.
        links: how GPUs reach each other.
        share: take held GPUs too; a count still takes free ones first.

    Raises:
        GpuSelectionError: an unknown or repeated name.
        GpuUnavailableError: fewer GPUs than asked for.
        GpuBusyError: not enough of them are free.
        MigError: a GPU that was asked for is cut into MIG devices.
    """
    if request.kind == "none" or (request.kind == "auto" and not gpus):
        return ()
    if not gpus:
        raise GpuUnavailableError(f"GPUs were asked for and none is here ({why_none or 'none is listed'})")
    if request.kind == "count":
        return _by_count(request.count, gpus, held, links, share=share)
    chosen = _by_name(request.names, gpus) if request.kind == "named" else tuple(gpus)
    _refuse_mig([gpu for gpu in chosen if gpu.mig])
    if not share and any(held.get(gpu.uuid) for gpu in chosen):
        raise GpuBusyError(_who([gpu for gpu in chosen if held.get(gpu.uuid)], held), next_step=_instead(gpus, held))
    return chosen


def _by_count(count: int, gpus: Sequence[Gpu], held: Held, links: Sequence[Link], *, share: bool) -> tuple[Gpu, ...]:
    if count > len(gpus):
        raise GpuUnavailableError(f"--gpus {count}: only {len(gpus)} GPU(s) are here")
    whole = [gpu for gpu in gpus if not gpu.mig]
    if count > len(whole):
        _refuse_mig([gpu for gpu in gpus if gpu.mig])
    free = _free(gpus, held)
    if count <= len(free):
        return nearest(count, free, links)
    if share:
        return nearest(count, whole, links, always=free)
    taken = [gpu for gpu in whole if held.get(gpu.uuid)]
    here = f"{len(free)} of {len(gpus)} GPUs {'is' if len(free) == 1 else 'are'} free"
    raise GpuBusyError(f"--gpus {count}: {here}; {_who(taken, held)}", next_step=_instead(gpus, held))


def _by_name(names: Sequence[str], gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    known = {str(gpu.index): gpu for gpu in gpus} | {gpu.uuid.lower(): gpu for gpu in gpus}
    chosen: list[Gpu] = []
    for name in names:
        gpu = known.get(str(int(name)) if name.isdigit() else name.lower())
        if gpu is None:
            here = ", ".join(str(gpu.index) for gpu in gpus)
            raise GpuSelectionError(f"--gpus: there is no GPU {name}", next_step=f"GPUs here: {here}.")
        if gpu in chosen:
            raise GpuSelectionError(f"--gpus names GPU {gpu.index} twice", next_step="Name each GPU once.")
        chosen.append(gpu)
    return tuple(chosen)


def _refuse_mig(sliced: Sequence[Gpu]) -> None:
    if sliced:
        one = sliced[0].index
        raise MigError(
            f"{_numbers(sliced)} cut into MIG devices, and only whole GPUs can be used",
            next_step=f"Choose others with --gpus, or make it whole again: sudo nvidia-smi -i {one} -mig 0.",
        )


def _free(gpus: Sequence[Gpu], held: Held) -> list[Gpu]:
    return [gpu for gpu in gpus if not gpu.mig and not held.get(gpu.uuid)]


def _numbers(gpus: Sequence[Gpu]) -> str:
    """Return `GPU 1 is` or `GPUs 0, 2 are`."""
    indices = ", ".join(str(gpu.index) for gpu in gpus)
    return f"GPUs {indices} are" if len(gpus) > 1 else f"GPU {indices} is"


def _who(taken: Sequence[Gpu], held: Held) -> str:
    """Return who holds which GPU, those of one holder together."""
    by_holder: dict[str, list[Gpu]] = {}
    for gpu in taken:
        first, *others = [holder.said for holder in held[gpu.uuid]]
        by_holder.setdefault(first + (f" and {len(others)} more" if others else ""), []).append(gpu)
    said = [f"{_numbers(gpus)} held by {who}" for who, gpus in by_holder.items()]
    left = len(said) - _NAMED_MAX
    return "; ".join(said[:_NAMED_MAX]) + (f"; and {left} more" if left > 0 else "")


def _instead(gpus: Sequence[Gpu], held: Held) -> str:
    """Return what can be asked for instead."""
    free = len(_free(gpus, held))
    if free:
        return (
            f"--gpus {free} takes {'the free one' if free == 1 else f'the {free} free ones'}; --share takes held ones."
        )
    runs = sorted({holder.instance or holder.run for gpu in gpus for holder in held.get(gpu.uuid, ()) if holder.run})
    wait = f"Wait, or stop it with `vaultcube down {runs[0]}`" if len(runs) == 1 else "Wait until one is free"
    return f"{wait}; --share takes held ones."
