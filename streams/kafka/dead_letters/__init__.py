"""Dead letters as a list to work through: folded, filtered, read, sent again.

A dead letter stays in its topic. That it was sent again, and for whom, is a record of its own
beside it, written in one transaction with what was sent, so that nothing is sent twice by accident.
"""

from streams.kafka.dead_letters.letters import Letter, LetterFilter, Refused, list_letters
from streams.kafka.dead_letters.requeue import RequeueResult, requeue
from streams.kafka.dead_letters.values import letter_values

__all__ = [
    "Letter",
    "LetterFilter",
    "Refused",
    "RequeueResult",
    "letter_values",
    "list_letters",
    "requeue",
]
