"""Which partition a symbol belongs to: murmur2, as Kafka's Java clients use it."""

from functools import lru_cache

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Returns the unsigned 32-bit murmur2 of ``org.apache.kafka.common.utils.Utils``."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = (h * _M) & _MASK
        h ^= k
    if length > whole:
        h ^= int.from_bytes(data[whole:], "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    h ^= h >> 15
    return h


# Twice the default number of symbols of one partition; an entry takes about 200 bytes.
@lru_cache(maxsize=200_000)
def _positive_hash(symbol: str) -> int:
    return murmur2(symbol.encode()) & 0x7FFFFFFF


def partition_for(symbol: str, partitions: int) -> int:
    """Returns the partition of `symbol` as librdkafka's ``murmur2_random`` chooses it.

    Args:
        symbol: The record's key.
        partitions: Number of partitions of the topic, at least 1.
    """
    return _positive_hash(symbol) % partitions
