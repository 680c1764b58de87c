"""The loads themselves: products, memory traffic, transfers. Every result is compared as integers. Imports torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stress import sizes
from stress.digest import CHUNK_WORDS, GOLDEN, hexadecimal, signed
from stress.session import Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stress.fault import Fault

DTYPES = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_WORD = 8
_MOST_AT_ONCE = 256
_TRANSFER_BLOCK = 64 * sizes.MIB
_TRANSFER_SLOTS = 16
_ALL = -1
"""The iteration of results that others are held against: only a fault in every iteration is in them too."""


@dataclass(frozen=True)
class Site:
    """Where and what a load is."""

    device: torch.device
    phase: str
    seed: int
    fault: Fault | None

    def generator(self) -> torch.Generator:
        """Return the source of the operands: equal on equal devices."""
        return torch.Generator(self.device).manual_seed(self.seed)


@dataclass(frozen=True)
class Lane:
    """A queue of the device (None: the usual one) and its buffer for comparing, also as eight answers in a word."""

    stream: Any
    differs: torch.Tensor
    eights: torch.Tensor


@contextlib.contextmanager
def arithmetic(phase: str) -> Iterator[None]:
    """Multiply as `phase` does: "fp32" must not silently be tf32, nor the other way round."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = phase == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def bits(values: torch.Tensor) -> torch.Tensor:
    """Return the bits of each element as an integer: NaN equals itself there, and -0 is not 0."""
    return values.view(_INTEGERS[values.element_size()])


class Checked:
    """A load whose results go round through slots of the device's memory, each checked as it is made.

    Attributes:
        key, unit, work, capacity: see stress.session.Load.
    """

    def __init__(
        self, site: Site, unit: str, work: int, key: str, slots: Sequence[torch.Tensor], lanes: int = 1
    ) -> None:
        self.key = f"{site.phase}/{key}/{site.seed}"
        self.unit = unit
        self.work = work
        self.capacity = min(len(slots), _MOST_AT_ONCE)
        self._site = site
        self._slots = slots
        self._words = [slot.view(-1).view(torch.int64) for slot in slots]
        self._expected = torch.empty_like(slots[0])
        self._expected_words = self._expected.view(-1).view(torch.int64)
        self._lanes = [self._lane(several=lanes > 1) for _ in range(lanes)]
        self._marks = torch.zeros(self.capacity, dtype=torch.int64, device=site.device)
        length = min(CHUNK_WORDS, self._expected_words.numel())
        self._weights = torch.arange(length, device=site.device).mul_(signed(GOLDEN)).bitwise_or_(1)
        self._weighed = torch.empty_like(self._weights)
        self._next = self._first_slot = 0

    def _lane(self, *, several: bool) -> Lane:
        stream = torch.cuda.Stream(self._site.device) if several and self._site.device.type == "cuda" else None
        differs = torch.empty_like(self._expected_words, dtype=torch.bool)
        return Lane(stream, differs, differs.view(torch.int64))

    def produce(self, slot: int, lane: int) -> None:
        """Give the device the work whose result goes into `slot`."""
        raise NotImplementedError

    def settle(self) -> Wrong | None:
        """Make the result that all others are held against.

        It is made twice; where the two differ, a third says which of them stays. Returns what was wrong with the other.
        """
        first, second, third = self._words[:3]
        self._once(0, 0, _ALL)
        self._wait()
        self._expected_words.copy_(first)
        self._wait()
        for slot in (1, 2):
            self._once(slot, slot, _ALL)
        self._wait()
        if torch.equal(first, second):
            # Were the third to differ now, the iterations that follow would tell.
            return None
        if torch.equal(second, third):
            self._expected_words.copy_(second)
            self._wait()
            return self._compare(self._slots[0])
        return self._compare(self._slots[1])

    def run(self, first: int, count: int) -> list[int]:
        """Do `count` iterations, the first of which is number `first`; return the positions of wrong results."""
        self._first_slot = self._next
        for position in range(count):
            self._once(position, self._slot(position), first + position)
        self._wait()
        self._next = self._slot(count)
        return [position for position, wrong in enumerate(self._marks[:count].tolist()) if wrong]

    def _slot(self, position: int) -> int:
        return (self._first_slot + position) % len(self._slots)

    def _once(self, position: int, slot: int, iteration: int) -> None:
        number = position % len(self._lanes)
        lane = self._lanes[number]
        with torch.cuda.stream(lane.stream) if lane.stream else contextlib.nullcontext():
            self.produce(slot, number)
            if self._site.fault and self._site.fault.hits("flip", self._site.phase, iteration):
                words = self._words[slot]
                words[words.numel() // 2].bitwise_xor_(1 << 33)
            # Words of 64 bits: fewer comparisons than elements. Which element it is, is asked when there is one.
            torch.ne(self._words[slot], self._expected_words, out=lane.differs)
            torch.amax(lane.eights, dim=0, out=self._marks[position])

    def _wait(self) -> None:
        if self._site.device.type == "cuda":
            torch.cuda.synchronize(self._site.device)

    def examine(self, position: int) -> Wrong:
        """Return what is wrong at a position of the last run."""
        return self._compare(self._slots[self._slot(position)])

    def _compare(self, result: torch.Tensor) -> Wrong:
        found, expected = bits(result.view(-1)), bits(self._expected.view(-1))
        differs = found != expected
        place = int(differs.view(torch.uint8).argmax())
        width = result.element_size() * 8
        first = [place] if result.dim() == 1 else [place // result.shape[1], place % result.shape[1]]
        words = [f"0x{hexadecimal(int(values[place]), width)}" for values in (expected, found)]
        return Wrong(int(differs.sum()), first, *words)

    def digest(self, position: int) -> int:
        """Return the digest of the result at a position of the last run, as stress.digest defines it."""
        total = torch.zeros((), dtype=torch.int64, device=self._site.device)
        for chunk in self._words[self._slot(position)].split(CHUNK_WORDS):
            weighed = self._weighed[: chunk.numel()]
            torch.mul(chunk, self._weights[: chunk.numel()], out=weighed)
            total.mul_(signed(GOLDEN)).add_(weighed.sum())
        return int(total)


class Matmul(Checked):
    """The same product of two matrices again and again."""

    def __init__(self, site: Site, side: int, depth: int, slots: int) -> None:
        kind, generator = DTYPES[site.phase], site.generator()
        self._a = torch.empty(side, depth, dtype=kind, device=site.device).uniform_(-1, 1, generator=generator)
        self._b = torch.empty(depth, side, dtype=kind, device=site.device).uniform_(-1, 1, generator=generator)
        results = torch.empty(slots, side, side, dtype=kind, device=site.device).unbind()
        super().__init__(site, "flop", 2 * side * side * depth, str(side), results)

    def produce(self, slot: int, lane: int) -> None:  # noqa: ARG002 - there is one
        """Multiply into `slot`."""
        torch.mm(self._a, self._b, out=self._slots[slot])

    def run(self, first: int, count: int) -> list[int]:
        """Multiply as the phase says."""
        with arithmetic(self._site.phase):
            return super().run(first, count)

    def settle(self) -> Wrong | None:
        """Multiply as the phase says."""
        with arithmetic(self._site.phase):
            return super().settle()


class Blocks(Checked):
    """Blocks of 64-bit words, moved by `move(slot, lane)`."""

    def __init__(
        self,
        site: Site,
        work: int,
        slots: Sequence[torch.Tensor],
        move: Callable[[torch.Tensor, int, int], None],
        lanes: int = 1,
    ) -> None:
        super().__init__(site, "bytes", work, str(slots[0].numel() * _WORD), slots, lanes)
        self._move = move

    def produce(self, slot: int, lane: int) -> None:
        """Move a block, the last step of which is into `slot`."""
        self._move(self._slots[slot], slot, lane)


def matmul(site: Site, budget: int | None) -> Checked | None:
    """Return the load of products that fits into `budget` bytes, None when none does; a small one on the CPU."""
    if budget is None:
        side = sizes.CPU_SIDES[site.phase]
        return Matmul(site, side, sizes.CPU_DEPTH * side, sizes.CPU_SLOTS)
    size = sizes.matmul(budget, DTYPES[site.phase].itemsize)
    return Matmul(site, size.side, sizes.DEPTH * size.side, size.slots) if size else None


def memory(site: Site, budget: int | None) -> Checked | None:
    """Return the load of memory traffic: c = a + 3 b, and c copied, through all of the memory.

    Sums of integers wrap around, and are exact so. Work is what is read and written: 3 blocks for the sum, 2 for the
    copy, 2 for the comparison.
    """
    # Two operands and the expected result.
    size = sizes.Size(sizes.CPU_BLOCK, sizes.CPU_SLOTS) if budget is None else sizes.blocks(budget, 3)
    if size is None:
        return None
    words, generator = size.side // _WORD, site.generator()
    a, b = (torch.empty(words, dtype=torch.int64, device=site.device).random_(generator=generator) for _ in range(2))
    half = size.slots // 2
    sums, copies = (torch.empty(half, words, dtype=torch.int64, device=site.device).unbind() for _ in range(2))

    def move(result: torch.Tensor, slot: int, _lane: int) -> None:
        torch.add(a, b, alpha=3, out=sums[slot])
        result.copy_(sums[slot])

    return Blocks(site, 7 * size.side, copies, move)


def transfer(site: Site, budget: int | None) -> Checked | None:
    """Return the load of the bus: a block to the host and back, in two lanes, so that both directions are busy.

    A GPU that is visible beside this one and reachable as a peer gets a lane of its own.
    """
    size = None if budget is None else sizes.blocks(min(budget, _TRANSFER_BLOCK * (_TRANSFER_SLOTS + 3)), 2)
    if size is None:
        return None
    words = size.side // _WORD
    block = torch.empty(words, dtype=torch.int64, device=site.device).random_(generator=site.generator())
    slots = torch.empty(min(size.slots, _TRANSFER_SLOTS), words, dtype=torch.int64, device=site.device).unbind()
    places = [torch.empty(words, dtype=torch.int64, pin_memory=True) for _ in range(2)]
    own = site.device.index or 0
    places += [
        torch.empty(words, dtype=torch.int64, device=torch.device("cuda", peer))
        for peer in range(torch.cuda.device_count())
        if peer != own and torch.cuda.can_device_access_peer(own, peer)
    ]

    def move(result: torch.Tensor, _slot: int, lane: int) -> None:
        places[lane].copy_(block, non_blocking=True)
        result.copy_(places[lane], non_blocking=True)

    # Made on the usual queue, used on others.
    torch.cuda.synchronize(site.device)
    return Blocks(site, 2 * size.side, slots, move, len(places))
