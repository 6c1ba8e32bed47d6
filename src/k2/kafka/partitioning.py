"""PURE: which partition a symbol lives in, by Kafka's own rule."""

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_M = 0x5BD1E995


def murmur2(key: bytes) -> int:
    """Return Kafka's 32-bit murmur2 of ``key``, as an unsigned number.

    Source: ``org.apache.kafka.common.utils.Utils.murmur2``; librdkafka's ``murmur2_random``
    partitioner agrees for keys that are not null.
    """
    h = (_SEED ^ len(key)) & _MASK
    whole = len(key) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    if tail := key[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def shard_of(symbol: str, *, partitions: int) -> int:
    """Return the partition Kafka's default partitioner gives a record keyed by ``symbol``."""
    return (murmur2(symbol.encode()) & 0x7FFFFFFF) % partitions
