from hypothesis import given
from hypothesis import strategies as st
from stress import sizes

GIB = 1 << 30
BUDGETS = st.integers(0, 200 * GIB)


def test_the_four_gpu_box_takes_the_largest() -> None:
    budget = int(31 * GIB * 0.85)
    assert sizes.matmul(budget, 2) == sizes.Size(8192, 201)
    assert sizes.matmul(budget, 4) == sizes.Size(8192, 96)
    assert sizes.blocks(budget, 3) == sizes.Size(256 * sizes.MIB, 102)


def test_a_small_card_takes_less_and_a_full_one_nothing() -> None:
    assert sizes.matmul(2 * GIB, 4) == sizes.Size(4096, 22)
    assert sizes.matmul(1 << 20, 4) is None
    assert sizes.blocks(1 << 20, 3) is None


@given(BUDGETS, st.sampled_from([2, 4]))
def test_products_fit_and_are_the_largest_that_do(budget: int, width: int) -> None:
    size = sizes.matmul(budget, width)
    if size is None:
        return
    result = size.side**2 * width
    assert 2 * sizes.DEPTH * result + result * (1 + size.slots) + result // 8 <= budget
    assert size.slots >= sizes.LEAST_SLOTS
    more = sizes.matmul(budget + GIB, width)
    assert more is not None
    assert more.side >= size.side


@given(BUDGETS, st.integers(1, 4))
def test_blocks_fit(budget: int, fixed: int) -> None:
    size = sizes.blocks(budget, fixed)
    if size is not None:
        assert size.side * (fixed + size.slots) <= budget
        assert size.slots >= sizes.LEAST_SLOTS


@given(st.sampled_from(sizes.SIDES), st.sampled_from([2, 4]))
def test_comparing_reads_little_beside_a_product(side: int, width: int) -> None:
    flop = 2 * sizes.DEPTH * side**3
    moved = 2 * side**2 * width + side**2 * width // 4
    # FLOP a byte: an RTX 5090 does some 120 (210 TFLOP/s over 1.8 TB/s), an H100 300; 20 times that is 5 %.
    assert side < 4096 or flop / moved >= 300 * 20 / (2 if width == 2 else 4)
