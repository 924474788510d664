"""What can go wrong with the local stack; every message says what to do."""

from schemas.errors import UnavailableError


class LocalStackError(UnavailableError):
    """Base of the errors of the local stack."""


class JavaNotFoundError(LocalStackError):
    """No Java runtime of the needed version was found."""


class DownloadError(LocalStackError):
    """An artefact of Kafka could not be downloaded or is not the pinned one."""


class DataDirectoryError(LocalStackError):
    """The data directory is in use, cannot be written or is full."""


class PortTakenError(LocalStackError):
    """A port that was asked for belongs to another program."""


class ServerStartError(LocalStackError):
    """A server ended or did not become ready while it was being started."""
