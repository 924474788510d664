"""The part of the settings that says where Kafka is and what is created there."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from schemas.errors import ConfigurationError

ENV_PREFIX = "MYSTOCKS_"
ENV_DELIMITER = "__"


class Section(BaseModel):
    """A part of the settings: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSecurity(Section):
    """How to log in to Kafka; the defaults suit the embedded broker on the loopback interface."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: Path | None = None
    ssl_certificate_location: Path | None = None
    ssl_key_location: Path | None = None
    ssl_key_password: SecretStr | None = None

    @model_validator(mode="after")
    def _login_is_complete(self) -> Self:
        if self.protocol.startswith("sasl"):
            fields = ("sasl_mechanism", "sasl_username", "sasl_password")
            missing = [name for name in fields if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"protocol {self.protocol} also needs {', '.join(missing)}; set them"
                )
        return self


class KafkaSettings(Section):
    """Connection to Kafka and the properties of topics that this project creates.

    Attributes:
        bootstrap_servers: ``host:port[,host:port…]``; None stands for the embedded broker.
        security: Login and encryption.
        fast_consumer: ``auto`` lets the roles that read topics in bulk (features, bars, replay)
            read polled messages where the client library keeps them, if they lie there as expected;
            ``off`` asks it for each field of each message.
        replication_factor: Of created topics.
        partitions: Of created topics.
        retention_bytes: Of one partition of a topic that is kept by size; -1 keeps everything.
        group_protocol: How a group shares partitions: ``classic``, or ``consumer`` (KIP-848, needs
            Kafka 4), where the broker moves them one by one and the others go on meanwhile.
        session_timeout_ms: A member that is silent for this long loses its partitions; one that
            starts again within it keeps them. With ``consumer`` the broker's setting counts.
        max_poll_interval_ms: Likewise for a member that lives but does not poll.
    """

    bootstrap_servers: str | None = Field(default=None, min_length=1)
    security: KafkaSecurity = KafkaSecurity()
    fast_consumer: Literal["auto", "off"] = "auto"
    replication_factor: int = Field(default=1, ge=1, le=32)
    partitions: int = Field(default=4, ge=1, le=10_000)
    retention_bytes: int = Field(default=10 * 1024**3, ge=-1)
    group_protocol: Literal["classic", "consumer"] = "classic"
    session_timeout_ms: int = Field(default=10_000, ge=1000, le=3_600_000)
    max_poll_interval_ms: int = Field(default=300_000, ge=1000, le=86_400_000)

    @field_validator("bootstrap_servers")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        for server in (value or "").split(","):
            if value is None:
                break
            host, colon, port = server.strip().rpartition(":")
            if not host or not colon or not port.isdigit() or not 0 < int(port) <= 65535:
                raise ValueError("expected host:port, or several separated by commas")
        return value

    def as_librdkafka(self) -> dict[str, Any]:
        """Returns the connection part of a librdkafka configuration.

        Raises:
            ConfigurationError: No server is configured.
        """
        if self.bootstrap_servers is None:
            raise ConfigurationError(
                "expected the address of a Kafka server, was nothing "
                f"({ENV_PREFIX}KAFKA{ENV_DELIMITER}BOOTSTRAP_SERVERS); set it to host:port, "
                "or start the embedded one with `mystocks up`"
            )
        config: dict[str, Any] = {"bootstrap.servers": self.bootstrap_servers}
        security = self.security
        if security.protocol != "plaintext":
            config["security.protocol"] = security.protocol
        for key, value in (
            ("sasl.mechanisms", security.sasl_mechanism),
            ("sasl.username", security.sasl_username),
            ("sasl.password", security.sasl_password),
            ("ssl.ca.location", security.ssl_ca_location),
            ("ssl.certificate.location", security.ssl_certificate_location),
            ("ssl.key.location", security.ssl_key_location),
            ("ssl.key.password", security.ssl_key_password),
        ):
            if value is not None:
                clear = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                config[key] = clear
        return config
