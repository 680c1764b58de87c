from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import gpu

from vaultcube.gpu import topology
from vaultcube.gpu.readings import Level, Link
from vaultcube.gpu.topology import nearest
from vaultcube.results.schema import Gpu

LEVELS: tuple[Level, ...] = ("NV", "PIX", "PXB", "PHB", "NODE", "SYS")


def cards(count: int, nodes: Sequence[int | None] = ()) -> list[Gpu]:
    return [gpu(index).model_copy(update={"numa_node": nodes[index] if nodes else None}) for index in range(count)]


def link(a: Gpu, b: Gpu, level: Level | None, nvlinks: int = 0) -> Link:
    return Link(a.uuid, b.uuid, level, nvlinks, None)


def tree(gpus: Sequence[Gpu], switch: int, node: int) -> list[Link]:
    """Return the links of a machine with so many GPUs a switch, and so many a processor."""

    def level(a: int, b: int) -> Level:
        return "PIX" if a // switch == b // switch else "NODE" if a // node == b // node else "SYS"

    return [link(gpus[a], gpus[b], level(a, b)) for a, b in combinations(range(len(gpus)), 2)]


def indices(chosen: Sequence[Gpu]) -> list[int]:
    return [one.index for one in chosen]


# --- the nearest ones --------------------------------------------------------------------------------------------


def test_where_all_are_alike_the_first_ones_are_taken() -> None:
    box = cards(4)
    for links in ([], tree(box, 4, 4), [link(a, b, None) for a, b in combinations(box, 2)]):
        for count in range(5):
            assert indices(nearest(count, box, links)) == list(range(count))


def test_a_pair_is_on_one_switch_and_of_one_processor() -> None:
    box = cards(8)
    links = tree(box, 2, 4)
    assert indices(nearest(2, box[1:], links)) == [2, 3]
    assert indices(nearest(2, [box[1], box[2], box[4], box[6]], links)) == [1, 2]
    assert indices(nearest(4, box[1:], links)) == [4, 5, 6, 7]


def test_nvlink_comes_before_a_switch_and_more_of_it_before_less() -> None:
    a, b, c, d = box = cards(4)
    links = [link(a, b, "PIX"), link(c, d, "PIX"), link(b, c, "NV", 2), link(a, d, "NV", 4)]
    links += [link(a, c, "SYS"), link(b, d, "SYS")]
    assert indices(nearest(2, box, links)) == [0, 3]
    assert indices(nearest(2, [a, b, c], links)) == [1, 2]


def test_where_nvlink_joins_all_the_processor_decides() -> None:
    box = cards(8, (0, 0, 0, 0, 1, 1, 1, 1))
    links = [link(a, b, "NV", 18) for a, b in combinations(box, 2)]
    assert indices(nearest(4, box[1:], links)) == [4, 5, 6, 7]
    assert indices(nearest(2, [box[3], box[4], box[5]], links)) == [4, 5]
    # More links weigh more than a processor in common.
    fewer = [one._replace(nvlinks=12) if {one.a, one.b} == {box[4].uuid, box[5].uuid} else one for one in links]
    assert indices(nearest(2, [box[3], box[4], box[5]], fewer)) == [3, 4]


def test_one_gpu_is_taken_where_it_parts_nobody() -> None:
    box = cards(4)
    links = tree(box, 2, 4)
    assert indices(nearest(1, box[1:], links)) == [1]
    assert indices(nearest(1, box, links)) == [0]
    # Three are free at one processor and four at the other: the four stay whole.
    eight = cards(8)
    assert indices(nearest(1, eight[:4] + eight[5:], tree(eight, 4, 4))) == [5]


def test_the_farthest_pair_decides_first() -> None:
    # 0-1-2 are near in a chain with one far pair; 3-4-5 are all of one node.
    box = cards(6)
    links = [link(box[0], box[1], "NV", 4), link(box[1], box[2], "NV", 4), link(box[0], box[2], "SYS")]
    links += [link(a, b, "NODE") for a, b in combinations(box[3:], 2)]
    links += [link(a, b, "SYS") for a in box[:3] for b in box[3:]]
    assert indices(nearest(3, box, links)) == [3, 4, 5]


def test_numa_nodes_speak_where_nvml_is_silent() -> None:
    box = cards(4, (0, 1, 1, 0))
    assert indices(nearest(2, box, [])) == [0, 3]
    assert indices(nearest(2, box, [link(a, b, None) for a, b in combinations(box, 2)])) == [0, 3]
    # A GPU whose node is unknown is near to none.
    assert indices(nearest(2, cards(4, (None, None, 1, 1)), [])) == [2, 3]


def test_links_of_other_gpus_do_not_matter() -> None:
    box = cards(4)
    assert indices(nearest(2, box[2:], tree(box, 2, 4))) == [2, 3]


def test_what_must_be_among_them_is() -> None:
    box = cards(4)
    links = tree(box, 2, 4)
    assert indices(nearest(2, box, links, always=[box[2]])) == [2, 3]
    assert indices(nearest(3, box, links, always=[box[1], box[2]])) == [0, 1, 2]


# --- for all machines --------------------------------------------------------------------------------------------


@st.composite
def machines(draw: st.DrawFn, largest: int = 6) -> tuple[list[Gpu], list[Link]]:
    box = cards(draw(st.integers(1, largest)), draw(st.lists(st.sampled_from([None, 0, 1]), min_size=16, max_size=16)))
    pairs = draw(st.lists(st.sampled_from(list(combinations(box, 2))), unique=True)) if len(box) > 1 else []
    levels = st.none() | st.sampled_from(LEVELS)
    return box, [link(a, b, draw(levels), draw(st.integers(0, 18))) for a, b in pairs]


def pair_counts(chosen: Sequence[Gpu], links: Sequence[Link]) -> list[int]:
    """Return how many pairs there are at every level, the farthest first; NVLinks are counted by those that lack."""
    known = {frozenset((one.a, one.b)): one for one in links if one.level is not None}
    counts: dict[str, int] = dict.fromkeys([*reversed(LEVELS), "processor"], 0)
    for a, b in combinations(chosen, 2):
        one = known.get(frozenset((a.uuid, b.uuid)))
        if one is None or one.level is None:
            counts["NODE" if a.numa_node is not None and a.numa_node == b.numa_node else "SYS"] += 1
        elif one.level == "NV":
            counts["NV"] += 32 - one.nvlinks
            counts["processor"] += a.numa_node is None or a.numa_node != b.numa_node
        else:
            counts[one.level] += 1
    return list(counts.values())


@given(machines(), st.data())
def test_no_other_set_is_nearer_or_leaves_more(machine: tuple[list[Gpu], list[Link]], data: st.DataObject) -> None:
    box, links = machine
    count = data.draw(st.integers(1, len(box)))
    chosen = nearest(count, data.draw(st.permutations(box)), data.draw(st.permutations(links)))

    def rank(one: Sequence[Gpu]) -> tuple[list[int], list[int], list[int]]:
        left = [card for card in box if card not in one]
        return pair_counts(one, links), pair_counts(left, links), indices(one)

    assert rank(chosen) == min(rank(one) for one in combinations(box, count))


@given(machines(), st.data())
def test_the_chosen_are_as_many_and_of_those_that_were_there(
    machine: tuple[list[Gpu], list[Link]], data: st.DataObject
) -> None:
    box, links = machine
    count = data.draw(st.integers(0, len(box)))
    always = data.draw(st.lists(st.sampled_from(box), unique=True, max_size=count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topology, "SETS_MAX", data.draw(st.sampled_from([1, 3, 20_000])))
        chosen = nearest(count, box, links, always)
    assert len(set(chosen)) == len(chosen) == count
    assert set(always) <= set(chosen) <= set(box)
    assert indices(chosen) == sorted(indices(chosen))


@pytest.mark.parametrize("count", range(1, 17))
def test_growing_finds_the_same_in_a_machine_like_a_tree(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    box = cards(16)
    links = tree(box, 2, 4)
    exact = nearest(count, box, links)
    monkeypatch.setattr(topology, "SETS_MAX", 0)
    assert pair_counts(nearest(count, box, links), links) == pair_counts(exact, links)


def test_a_machine_of_sixty_four_is_no_work() -> None:
    # All sets of 32 of them are 1.8e18: this ends because they are not looked at.
    box = cards(64)
    assert indices(nearest(32, box[1:] + box[:1], tree(box, 4, 32))) == list(range(32))
