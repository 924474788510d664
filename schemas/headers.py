"""Names of Kafka record headers. Values are ASCII text, numbers in decimal."""

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

# Requests over topics, and replies to them.
REQUEST_ID = "request_id"
REQUESTER = "requester"
REPLY_TOPIC = "reply_topic"
REPLY_PARTITION = "reply_partition"
# When the requester stops waiting, milliseconds since 1970 (UTC).
DEADLINE_MS = "deadline_ms"
# Of a reply that says why there is no answer: the code of `schemas.requests.Code`.
FAILURE = "failure"
