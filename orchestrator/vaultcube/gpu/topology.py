"""Which GPUs belong together. Pure.

Near is what `nvidia-smi topo -m` says: NVLink, then a PCIe switch, a host bridge, a NUMA node, and at last another
processor. Where NVML does not say, the NUMA nodes do, and so they do where all are joined by NVLink.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb
from typing import Final

from vaultcube.gpu.readings import Level, Link
from vaultcube.results.schema import Gpu

_FARNESS: Final[dict[Level, int]] = {"NV": 0, "PIX": 1, "PXB": 2, "PHB": 3, "NODE": 4, "SYS": 5}
# More NVLinks than two GPUs have between them, and units that all pairs of what is nearer together do not reach.
_NVLINKS, _UNIT, _LINK_UNIT = 32, 2**40, 2**20
# All sets of up to 16 GPUs are looked at (at most 12 870, under 0.1 s); of more, those that grow from each GPU.
SETS_MAX: Final = 20_000


def nearest(count: int, gpus: Sequence[Gpu], links: Sequence[Link], always: Sequence[Gpu] = ()) -> tuple[Gpu, ...]:
    """Return the `count` GPUs that are nearest to each other, by index.

    Of two sets the better one has fewer pairs at the farthest level, then at the next nearer one, and so on. Among
    equals it is the one that leaves the GPUs that belong together, then the one with the lower indices.

    Args:
        count: how many, at most as many as there are.
        gpus: to choose from.
        links: between them; a pair without one is as far as its NUMA nodes say.
        always: GPUs among them that must be in the set.
    """
    cards = sorted(gpus, key=lambda gpu: gpu.index)
    far = _farness(cards, links)
    sums = [sum(row) for row in far]
    fixed = tuple(at for at, card in enumerate(cards) if card in always)
    rest = [at for at in range(len(cards)) if at not in fixed]

    def cost(chosen: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        inside = sum(far[a][b] for a, b in combinations(chosen, 2))
        # What is left costs all pairs less those of the chosen, which are counted twice among their own sums.
        left = sum(sums) // 2 - sum(sums[at] for at in chosen) + inside
        return inside, left, chosen

    more = count - len(fixed)
    sets: Iterable[tuple[int, ...]] = (
        (tuple(sorted(fixed + added)) for added in combinations(rest, more))
        if comb(len(rest), more) <= SETS_MAX
        else (_grown(fixed or (seed,), count, far) for seed in rest)
    )
    return tuple(cards[at] for at in min(sets, key=cost))


def _grown(start: tuple[int, ...], count: int, far: list[list[int]]) -> tuple[int, ...]:
    """Return a set that grew from its first GPUs, each time by the GPU nearest to all of them."""
    chosen = list(start)
    while len(chosen) < count:
        others = (at for at in range(len(far)) if at not in chosen)
        chosen.append(min(others, key=lambda at: (sum(far[at][one] for one in chosen), at)))
    return tuple(sorted(chosen))


def _farness(cards: Sequence[Gpu], links: Sequence[Link]) -> list[list[int]]:
    """Return how far every pair is: a number whose digits, a level each, add up without carrying over."""
    place = {card.uuid: at for at, card in enumerate(cards)}
    far = [[0 if a is b else _by_node(a, b) for b in cards] for a in cards]
    for link in links:
        if link.level is not None and link.a in place and link.b in place:
            a, b = place[link.a], place[link.b]
            rank = _FARNESS[link.level]
            far[a][b] = far[b][a] = int(_UNIT**rank) if rank else _by_nvlink(link, cards[a], cards[b])
    return far


def _by_nvlink(link: Link, a: Gpu, b: Gpu) -> int:
    """Return how far two GPUs with NVLink are: fewer links first, then another processor, for what they get from it."""
    return (_NVLINKS - min(link.nvlinks, _NVLINKS)) * _LINK_UNIT + (not _same_node(a, b))


def _by_node(a: Gpu, b: Gpu) -> int:
    return int(_UNIT ** _FARNESS["NODE" if _same_node(a, b) else "SYS"])


def _same_node(a: Gpu, b: Gpu) -> bool:
    return a.numa_node is not None and a.numa_node == b.numa_node
