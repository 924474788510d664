"""Apache Kafka as one local process: broker and controller (KRaft) on the loopback interface."""

import base64
import contextlib
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.kafka.clients import LIBRDKAFKA_LOG
from streams.local.java import Java
from streams.local.ports import HOST, free_port
from streams.local.server import Server, explain_failure

_STARTED = "Kafka Server started"
_FORMAT_TIMEOUT_S = 60.0
# Leaders are there tens of milliseconds after the start; one that never comes is not waited for.
_LEADERS_TIMEOUT_S = 20.0
_LEADERS_POLL_S = 0.05
_METADATA_TIMEOUT_S = 2.0

# Relative to the working directory: in an absolute path a comma would mean two directories.
_PROPERTIES_FILE = "server.properties"
_LOG_DIRECTORY = "log"

# The collector that starts soonest and takes the least memory.
_JVM_FLAGS = ("-Xmx512m", "-Xms256m", "-XX:+UseSerialGC")
# Without the optimizing compiler: quick at once. With it a broker under load (5,000 single ticks a
# second on two cores) is slower for half a minute, and takes 0.4 of a core in place of 0.6 after
# the first one.
_QUICK_START_FLAGS = ("-XX:TieredStopAtLevel=1",)
# Compiling what only the start needs is not worth it: three times the usual thresholds halve what
# the optimizing compiler adds to the start. What waits for it runs without counting until then.
_LONG_LIFE_FLAGS = (
    "-XX:Tier4InvocationThreshold=15000",
    "-XX:Tier4MinInvocationThreshold=1800",
    "-XX:Tier4CompileThreshold=45000",
    "-XX:Tier4BackEdgeThreshold=120000",
    "-XX:Tier3DelayOn=0",
    "-XX:Tier3DelayOff=0",
)

_LOG4J = f"""\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{{ISO8601}} %p %c{{1}}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.server.name=kafka.server.KafkaRaftServer
# Its line "{_STARTED}" tells that clients can connect.
logger.server.level=info
"""

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "BROKER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node holds everything.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A restart after a kill waits until the controller has given up the broker's last life:
    # 11 s with the default session of 9 s, 4.5 s with this.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "300",
    # By default the controller writes and syncs a record of no meaning twice a second. While the
    # disk is busy that takes seconds, in which it hears no heartbeat and takes the broker for dead.
    "metadata.max.idle.interval.ms": "0",
    # Groups settle at once instead of waiting for members that never come, and notice within a
    # heartbeat that a member came or left (the default of 5 s is meant for thousands of groups).
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "300",
    "group.consumer.heartbeat.interval.ms": "300",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    # A stack that was off for a month must find its offsets again.
    "offsets.retention.minutes": str(2**31 - 1),
    # Feature blocks and snapshot chunks stay below 1 MiB; dead letters add up to 64 KiB.
    "message.max.bytes": str(4 * 1024 * 1024),
    # Records of the past and of simulated futures keep their event time as timestamp.
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
    # Sized for one machine that does other work too.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    # A commit of offsets waits for this; it is worth it only with many groups.
    "group.coordinator.append.linger.ms": "0",
    "num.network.threads": "2",
    "listener.name.broker.num.network.threads": "1",
    "num.io.threads": "4",
}


class KafkaBroker(Server):
    """A broker of Apache Kafka that keeps its log below a directory."""

    name = "Kafka"
    ready_timeout_s = 60.0
    stop_timeout_s = 20.0

    def __init__(
        self,
        directory: Path,
        log: Path,
        *,
        java: Java,
        jars: Path,
        jvm_flags: Sequence[str] = (),
        quick_start: bool = False,
        port: int = 0,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Prepares a broker that is not running yet.

        Args:
            directory: Where it keeps its log; formatted on the first start.
            log: File for its output.
            java: Runtime to run it with.
            jars: Directory of Kafka's jars.
            jvm_flags: Further flags of the runtime, such as those of `class_data`.
            quick_start: Be quick at once, rather than quickest after a minute.
            port: The port it must have; 0 lets it have any.
            keep_open: File descriptors that stay open in it.
        """
        super().__init__(directory, log, port=port, keep_open=keep_open)
        self._java = java
        self._jars = jars
        self._jvm_flags = [*_JVM_FLAGS, *jvm_flags]
        self._quick_start = quick_start
        self._past: list[socket.socket] = []

    def launch(self, preferred_port: int = 0) -> None:
        """Formats the directory if it is new and starts the broker."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "log4j2.properties").write_text(_LOG4J)
        if not (self._directory / _LOG_DIRECTORY / "meta.properties").exists():
            self._format()
        self._hold_past_port()
        super().launch(preferred_port)

    def wait_ready(self) -> None:
        """Waits until the broker can be used; after a restart until it leads its partitions."""
        super().wait_ready()
        if self._past:
            self._await_leaders()
            self._release_past_ports()

    def stop(self) -> None:
        """Stops the broker."""
        super().stop()
        self._release_past_ports()

    def _await_leaders(self) -> None:
        client = AdminClient({"bootstrap.servers": self.address}, logger=LIBRDKAFKA_LOG)
        deadline = time.monotonic() + _LEADERS_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                topics = client.list_topics(timeout=_METADATA_TIMEOUT_S).topics.values()
                if all(part.leader >= 0 for topic in topics for part in topic.partitions.values()):
                    return
            time.sleep(_LEADERS_POLL_S)

    def _release_past_ports(self) -> None:
        while self._past:
            self._past.pop().close()

    def _hold_past_port(self) -> None:
        """Listens, and never answers, where the broker of the last run talked to itself.

        After a kill -9 the new broker first believes what the metadata log says of its last life,
        and sends the markers of transactions that were about to end to its last address. Where
        that refuses, Kafka 4.3 looks the leaders up again; while it registers itself anew there
        are none, it takes the partitions for deleted, and the transactions end without markers:
        readers of committed records and group offsets then wait for ever. An address that takes
        the connection keeps the markers waiting, and closing it once there are leaders makes the
        broker send them to itself.
        """
        properties = self._directory / _PROPERTIES_FILE
        text = properties.read_text() if properties.exists() else ""
        found = re.search(r"^listeners=.*\bBROKER://[^:,]+:(\d+)", text, re.MULTILINE)
        if found is None:
            return
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, int(found[1])))
            listener.listen()
        except OSError:  # somebody else has the port: nothing to be done
            listener.close()
        else:
            self._past.append(listener)

    def _command(self) -> list[str | Path]:
        self._write_properties(self._port)
        flags = _QUICK_START_FLAGS if self._quick_start else _LONG_LIFE_FLAGS
        return self._java_command(flags, "kafka.Kafka", _PROPERTIES_FILE)

    def _is_ready(self) -> bool:
        return _STARTED in self._output()

    def _format(self) -> None:
        self._write_properties(free_port())
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self._java_command(
            _QUICK_START_FLAGS,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "-c",
            _PROPERTIES_FILE,
        )
        result = subprocess.run(
            command,
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            raise explain_failure(self.name, self._directory, self._log, result.stdout)

    def _write_properties(self, port: int) -> None:
        controller = f"{HOST}:{free_port()}"
        brokers = f"PLAINTEXT://{HOST}:{port},BROKER://{HOST}:{free_port()}"
        settings = _PROPERTIES | {
            "listeners": f"{brokers},CONTROLLER://{controller}",
            "advertised.listeners": brokers,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": _LOG_DIRECTORY,
        }
        (self._directory / _PROPERTIES_FILE).write_text(
            "".join(f"{key}={value}\n" for key, value in settings.items())
        )

    def _java_command(
        self, flags: Sequence[str], main_class: str, *arguments: str | Path
    ) -> list[str | Path]:
        return [
            self._java.path,
            *self._jvm_flags,
            *flags,
            "-Dlog4j2.configurationFile=file:log4j2.properties",
            "-cp",
            # Sorted by name, as the class-data archive holds only for the same class path.
            ":".join(str(jar) for jar in sorted(self._jars.glob("*.jar"))),
            main_class,
            *arguments,
        ]
