"""How many messages to ask for: what fits into a batch of bounded bytes."""

# A first guess that no message size turns into an oversized batch.
_FIRST_BATCH = 64
# consume() builds one object a message; more than this at once only adds memory.
_MOST_MESSAGES = 20_000


class BatchSizer:
    """Learns the size of messages and bounds a batch by bytes.

    Attributes:
        messages: Number of messages to ask for next.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._mean_bytes = 0.0
        self.messages = _FIRST_BATCH

    def observe(self, messages: int, size: int) -> None:
        """Takes into account a batch of `messages` messages and `size` bytes."""
        mean = size / messages
        # Growth is believed at once, shrinking slowly: a batch too small costs little.
        self._mean_bytes = max(mean, 0.8 * self._mean_bytes + 0.2 * mean)
        fits = int(self._max_bytes / max(self._mean_bytes, 1.0))
        self.messages = max(1, min(fits, _MOST_MESSAGES))
