"""How large a response may be."""

from schemas.settings import GrpcSettings

# What clients of gRPC accept unless they are told otherwise.
_ACCEPTED_BY_DEFAULT = 4 * 1024**2


def max_response_bytes(settings: GrpcSettings) -> int:
    """Returns the size of the largest response.

    The setting bounds what clients send. It may be small, and the bridge's own responses, which
    hold whole blocks of a topic, still have to pass.
    """
    return max(settings.max_message_bytes, _ACCEPTED_BY_DEFAULT)
