"""What can be wrong with a device."""

from schemas.errors import ConfigurationError


class BackendError(ConfigurationError):
    """The backend asked for does not exist or cannot be used on this machine."""
