"""`--gpus`: Docker's own grammar, parsed once at the edge. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vaultcube.errors import GpuSelectionError, GpuUnavailableError
from vaultcube.results.schema import Gpu

_UUID = re.compile(r"GPU-[0-9a-fA-F-]+")
# Not \d: that takes the digits of every script.
_INDEX = re.compile(r"[0-9]{1,3}")
_COUNT = re.compile(r"[0-9]{1,3}")


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


def choose(request: GpuRequest, gpus: Sequence[Gpu], why_none: str | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that a request means, in inventory order for counts, as named otherwise.

    Args:
        request: from `parse_gpus`.
        gpus: the machine's.
        why_none: why there are no GPUs, for the error.

    Raises:
        GpuSelectionError: an unknown or repeated name.
        GpuUnavailableError: fewer GPUs than asked for.
    """
    if request.kind == "none" or (request.kind == "auto" and not gpus):
        return ()
    if not gpus:
        raise GpuUnavailableError(f"GPUs were asked for and none is here ({why_none or 'none is listed'})")
    if request.kind == "count":
        if request.count > len(gpus):
            raise GpuUnavailableError(f"--gpus {request.count}: only {len(gpus)} GPU(s) are here")
        return tuple(gpus[: request.count])
    if request.kind == "named":
        return _by_name(request.names, gpus)
    return tuple(gpus)


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
