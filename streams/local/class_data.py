"""A class-data archive of the broker: made once per machine, it halves every later start.

The Java runtime maps the archive instead of loading and verifying thousands of classes from jars.
It belongs to one build of the runtime and one class path, so its name carries a hash of both.
"""

import contextlib
import fcntl
import hashlib
import subprocess
import tempfile
from pathlib import Path

from streams.local.artifacts import Progress
from streams.local.errors import LocalStackError
from streams.local.java import Java
from streams.local.kafka import KafkaBroker

_STEP = "preparing a faster start of Apache Kafka"
_CLIENT_TIMEOUT_S = 10.0
_DUMP_TIMEOUT_S = 60.0


def ensure_class_data(java: Java, jars: Path, progress: Progress | None = None) -> tuple[str, ...]:
    """Returns the flags that make the runtime use the archive, made now if it is not there.

    No flags when this runtime cannot make one; the broker then starts without it, only slower.
    """
    archive = _archive_path(java, jars)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs speed only
        _make_once(archive, java, jars, progress or (lambda *_: None))
    return (_use(_base_path(archive), archive),) if archive.exists() else ()


def _make_once(archive: Path, java: Java, jars: Path, progress: Progress) -> None:
    impossible = archive.with_suffix(".impossible")
    if archive.exists() or impossible.exists():
        return
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if archive.exists() or impossible.exists():
            return
        progress(_STEP, 0, 1)
        if not _make(archive, java, jars):
            impossible.touch()
        progress(_STEP, 1, 1)


def _archive_path(java: Java, jars: Path) -> Path:
    identity = hashlib.sha256(f"{java.description}{java.path.resolve()}{jars}".encode())
    return jars.with_name(f"{jars.name}-{identity.hexdigest()[:12]}.jsa")


def _base_path(archive: Path) -> Path:
    return archive.with_suffix(".base.jsa")


def _use(*archives: Path) -> str:
    """The flag for those of the archives that exist, the base first."""
    return "-XX:SharedArchiveFile=" + ":".join(str(path) for path in archives if path.exists())


def _make(archive: Path, java: Java, jars: Path) -> bool:
    base = _base_path(archive)
    if not (java.path.resolve().parents[1] / "lib" / "server" / "classes.jsa").exists():
        _make_base(base, java)  # runtimes cut down to a wheel lack their own
    partial = archive.with_suffix(".partial")
    with tempfile.TemporaryDirectory(prefix="mystocks-") as directory:
        broker = KafkaBroker(
            Path(directory) / "kafka",
            Path(directory) / "kafka.log",
            java=java,
            jars=jars,
            jvm_flags=[
                f"-XX:ArchiveClassesAtExit={partial}",
                *([_use(base)] if base.exists() else []),
            ],
            quick_start=True,
        )
        try:
            broker.launch()
            broker.wait_ready()
            _exercise(broker.address)
        except LocalStackError:
            return False
        finally:
            broker.stop()
    if not partial.exists():
        return False
    partial.rename(archive)
    return True


def _make_base(base: Path, java: Java) -> None:
    partial = base.with_suffix(".partial")
    subprocess.run(
        [java.path, "-XX:+UseSerialGC", "-Xshare:dump", f"-XX:SharedArchiveFile={partial}"],
        capture_output=True,
        timeout=_DUMP_TIMEOUT_S,
        check=False,
    )
    if partial.exists():
        partial.rename(base)


def _exercise(bootstrap: str) -> None:
    """Makes the broker load what the first topic, transaction and group need."""
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    try:
        client = {"bootstrap.servers": bootstrap, "log_level": 0}
        admin = AdminClient(client)
        for created in admin.create_topics([NewTopic("exercise", 1, 1)]).values():
            created.result(_CLIENT_TIMEOUT_S)
        consumer = Consumer(
            client
            | {
                "group.id": "exercise",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        consumer.subscribe(["exercise"])
        producer = Producer(client | {"transactional.id": "exercise"})
        producer.init_transactions(_CLIENT_TIMEOUT_S)
        producer.begin_transaction()
        producer.produce("exercise", b"value", b"key")
        producer.commit_transaction(_CLIENT_TIMEOUT_S)
        consumer.consume(1, _CLIENT_TIMEOUT_S)
        consumer.commit(asynchronous=False)
        consumer.close()
    except KafkaException:
        return  # an archive with fewer classes is still one
