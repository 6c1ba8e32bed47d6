import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.kafka.partitioning import murmur2, shard_of


# org.apache.kafka.common.utils.UtilsTest, testMurmur2 (signed there).
@pytest.mark.parametrize(
    ("key", "published"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas_own(key: bytes, published: int) -> None:
    assert murmur2(key) == published % 2**32


@given(st.text(min_size=1, max_size=20), st.integers(1, 64))
def test_every_symbol_has_one_shard(symbol: str, partitions: int) -> None:
    assert 0 <= shard_of(symbol, partitions=partitions) < partitions
    assert shard_of(symbol, partitions=1) == 0


def test_a_negative_hash_loses_its_sign_bit_as_in_the_default_partitioner() -> None:
    assert shard_of("21", partitions=1000) == (-973932308 & 0x7FFFFFFF) % 1000
