"""Where requests of one kind go, where the replies come from, and who answers."""

from dataclasses import dataclass

from schemas.settings import Settings


@dataclass(frozen=True, slots=True)
class RequestTopics:
    """The topics of one kind of request.

    Attributes:
        kind: Name of the kind, and of the role that answers.
        requests: Topic of requests.
        replies: Topic of replies.
        group: Consumer group of those who answer.
    """

    kind: str
    requests: str
    replies: str
    group: str

    @classmethod
    def of(cls, settings: Settings, kind: str) -> "RequestTopics":
        """Returns the topics of a kind, for example ``compute``.

        Args:
            settings: Names the environment, which has workers of its own.
            kind: Name of the kind.
        """
        return cls(kind, f"{kind}.requests", f"{kind}.replies", f"{settings.environment}.{kind}")
