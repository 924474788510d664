"""Telling the encodings of a message apart: by its content-type header, else by its first byte."""

from schemas import headers

# Kinds of messages; SNIFF asks for the first byte, OTHER is for the library path to decide.
SNIFF, JSON, PROTOBUF, ARROW, OTHER = range(5)

LINE_FEED = 0x0A
_BY_TYPE = {
    None: SNIFF,
    headers.CONTENT_JSON: JSON,
    headers.CONTENT_PROTOBUF: PROTOBUF,
    headers.CONTENT_ARROW: ARROW,
}


def kind_of(content_type: str | None) -> int:
    """Returns the kind that a content-type header names."""
    kind = _BY_TYPE.get(content_type)
    if kind is None and content_type is not None:
        kind = _BY_TYPE.get(content_type.partition(";")[0].strip().lower())
    return OTHER if kind is None else kind


def sniff(message: bytes) -> int:
    """Returns the kind of a message without header; `PROTOBUF` may turn out to be JSON.

    A line feed is both the first byte of a TickBatch and white space before JSON.
    """
    first = message[0]
    if first == LINE_FEED:
        return PROTOBUF
    if first in b"{[ \t\r" or message.startswith(b"\xef\xbb\xbf"):
        return JSON
    return ARROW if first == 0xFF else OTHER


def unknown_reason(message: bytes, content_type: str | None) -> str:
    """Returns why a message of kind `OTHER` is refused."""
    expected = f"{headers.CONTENT_PROTOBUF}, {headers.CONTENT_JSON} or {headers.CONTENT_ARROW}"
    if content_type is not None:
        return f"content-type is {content_type[:100]!a}, expected {expected}"
    if message[0] == 0:
        return (
            "first byte is 0x00, reserved for the Confluent wire format, which is not supported; "
            "send the message without its five-byte header"
        )
    return (
        f"first byte is 0x{message[0]:02X}, expected 0x0A (protobuf TickBatch), {{ or [ (JSON) or "
        "0xFF (Arrow stream)"
    )
