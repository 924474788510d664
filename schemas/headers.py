"""Names of Kafka record headers. Values are ASCII text, numbers in decimal."""

from collections.abc import Iterable

CONTENT_TYPE = "content-type"

CONTENT_PROTOBUF = "application/x-protobuf"
CONTENT_JSON = "application/json"
CONTENT_ARROW = "application/vnd.apache.arrow.stream"

# Feature blocks and other outputs.
FIRST_ROW = "first_row"
SOURCE_FIRST_OFFSET = "source_first_offset"
SOURCE_LAST_OFFSET = "source_last_offset"
SET_HASH = "set_hash"
ORIGIN = "origin"
BACKEND = "backend"

# Dead letters and late ticks.
REASON = "reason"
# One of the few kinds of `schemas.processing`.
KIND = "kind"
SOURCE_TOPIC = "topic"
SOURCE_PARTITION = "partition"
SOURCE_OFFSET = "offset"
GROUP = "group"
ROWS = "rows"
ORIGINAL_BYTES = "original_bytes"
SHA256 = "sha256"

# Records that were sent again from dead letters: how often, and on the mark that says so.
ATTEMPT = "attempt"
REQUEUED = "requeued"
# And the groups that are meant, separated by commas: all others pass the record over.
FOR_GROUPS = "for_groups"

# Requests over topics, and replies to them.
REQUEST_ID = "request_id"
REQUESTER = "requester"
REPLY_TOPIC = "reply_topic"
REPLY_PARTITION = "reply_partition"
# When the requester stops waiting, milliseconds since 1970 (UTC).
DEADLINE_MS = "deadline_ms"
# Of a reply that says why there is no answer: the code of `schemas.requests.Code`.
FAILURE = "failure"


def join_groups(groups: Iterable[str]) -> bytes:
    """Returns the value of the header `FOR_GROUPS`."""
    return ",".join(sorted(groups)).encode()


def split_groups(text: str) -> frozenset[str]:
    """Returns the groups that the header `FOR_GROUPS` names."""
    return frozenset(text.split(","))
