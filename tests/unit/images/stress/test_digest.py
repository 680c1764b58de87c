from hypothesis import given
from hypothesis import strategies as st
from stress.digest import MASK, digest, hexadecimal, signed, weight

WORDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)


def test_it_never_changes() -> None:
    # Digests of one soak are compared over months.
    assert digest([]) == 0
    assert hexadecimal(digest([1])) == "0000000000000001"
    assert hexadecimal(digest([1, 2, -3])) == "8722191a02d60faa"
    assert hexadecimal(digest(range(1000))) == "9836ed6fcf19baa8"
    assert hexadecimal(digest(range(7), 3)) == "c772706b4434551f"


@given(words=WORDS, place=st.integers(0, 19), bit=st.integers(0, 63), chunk=st.integers(1, 8))
def test_one_bit_is_always_seen(words: list[int], place: int, bit: int, chunk: int) -> None:
    place %= len(words)
    flipped = [*words]
    flipped[place] = signed(words[place] ^ (1 << bit))
    assert flipped != words
    assert digest(flipped, chunk) != digest(words, chunk)


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_places_matter(one: int, other: int) -> None:
    assert (digest([one, other]) == digest([other, one])) == (one == other or (one - other) % 2**64 == 0)


@given(WORDS)
def test_signed_and_unsigned_words_are_the_same_bits(words: list[int]) -> None:
    assert digest(words) == digest([word & MASK for word in words])
    assert [signed(word & MASK) for word in words] == words


@given(st.integers(0, 2**22))
def test_weights_are_odd(place: int) -> None:
    assert weight(place) % 2 == 1
    assert 0 < weight(place) <= MASK


def test_hexadecimal_is_as_wide_as_the_bits() -> None:
    assert hexadecimal(-1, 16) == "ffff"
    assert hexadecimal(5, 32) == "00000005"
    assert hexadecimal(-(2**63)) == "8000000000000000"
