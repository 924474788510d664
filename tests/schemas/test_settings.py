import os

import pytest
from pydantic import SecretStr, ValidationError

from schemas.errors import ConfigurationError
from schemas.settings import load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("MYSTOCKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_defaults(tmp_path):
    settings = load_settings()
    assert settings.data_dir == tmp_path / "mystocks"
    assert settings.features.indicators[0] == "sma_20"
    assert settings.features_group == "local.features.ticks"
    assert settings.grpc.port == 50051
    assert settings.gpu.memory_fraction == 0.8
    assert (settings.backtest.max_concurrent, settings.training.max_concurrent) == (5, 3)


def test_arguments_win_over_environment_over_file_over_defaults(monkeypatch, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("[kafka]\npartitions = 7\nreplication_factor = 3\n[features]\nslot = 1\n")
    monkeypatch.setenv("MYSTOCKS_KAFKA__PARTITIONS", "8")
    monkeypatch.setenv("MYSTOCKS_FEATURES__SLOT", "2")
    settings = load_settings(config, features={"slot": 3})
    assert settings.features.slot == 3
    assert settings.kafka.partitions == 8
    assert settings.kafka.replication_factor == 3
    assert settings.features.name == "ticks"


def test_indicators_are_separated_by_commas_or_a_json_list(monkeypatch):
    for text in ("sma_3, rsi", '["sma_3", "rsi"]'):
        monkeypatch.setenv("MYSTOCKS_FEATURES__INDICATORS", text)
        assert load_settings().features.indicators == ("sma_3", "rsi")


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("MYSTOCKS_REDIS__URL", "")
    assert load_settings().redis.url is None


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        load_settings().features.slot = 1


def test_a_child_started_with_as_environment_has_the_same_settings(monkeypatch):
    settings = load_settings(
        environment="test",
        features={"indicators": ("sma_3", "rsi"), "slot": 4},
        redis={"url": "redis://:secret@127.0.0.1:1/0"},
        kafka={"security": {"protocol": "ssl"}},
    )
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == settings.model_dump()


def test_secrets_are_neither_printed_nor_shown():
    settings = load_settings(
        redis={"url": "redis://user:hunter2@host:1/0"},
        kafka={
            "bootstrap_servers": "a:1,b:2",
            "security": {
                "protocol": "sasl_ssl",
                "sasl_mechanism": "PLAIN",
                "sasl_username": "me",
                "sasl_password": "hunter2",
            },
        },
    )
    assert "hunter2" not in repr(settings)
    assert settings.redis.redacted_url() == "redis://***@host:1/0"
    assert isinstance(settings.kafka.security.sasl_password, SecretStr)
    assert settings.kafka.as_librdkafka() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "hunter2",
    }


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        (
            "MYSTOCKS_KAFKA__PARTITONS",
            "3",
            ["MYSTOCKS_KAFKA__PARTITONS='3'", "did you mean MYSTOCKS_KAFKA__PARTITIONS?"],
        ),
        ("MYSTOCKS_NONSENSE", "1", ["MYSTOCKS_NONSENSE='1'", "unknown"]),
        (
            "MYSTOCKS_KAFKA__PARTITIONS",
            "0",
            ["MYSTOCKS_KAFKA__PARTITIONS = '0'", "greater than or equal to 1"],
        ),
        (
            "MYSTOCKS_GPU__MEMORY_FRACTION",
            "1.5",
            ["MYSTOCKS_GPU__MEMORY_FRACTION = '1.5'", "less than or equal to 1"],
        ),
        (
            "MYSTOCKS_FEATURES__BACKEND",
            "tpu",
            ["MYSTOCKS_FEATURES__BACKEND = 'tpu'", "'auto', 'cpu' or 'gpu'"],
        ),
        ("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", "here", ["'here'", "expected host:port"]),
        ("MYSTOCKS_FEATURES__INDICATORS", ",", ["at least one indicator"]),
        ("MYSTOCKS_FEATURES__INDICATORS", "[1", ["MYSTOCKS_FEATURES__INDICATORS"]),
        ("MYSTOCKS_KAFKA", "{", ["kafka"]),
        ("MYSTOCKS_KAFKA__SECURITY__PROTOCOL", "sasl_ssl", ["needs sasl_mechanism, sasl_username"]),
        ("MYSTOCKS_GRPC__PORT", "99999", ["MYSTOCKS_GRPC__PORT = '99999'", "65535"]),
    ],
)
def test_a_bad_variable_is_named_with_value_and_expectation(monkeypatch, name, value, parts):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    for part in parts:
        assert part in str(caught.value)


def test_a_bad_secret_is_not_repeated(monkeypatch):
    monkeypatch.setenv("MYSTOCKS_REDIS__URL", "http://user:hunter2@host")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "MYSTOCKS_REDIS__URL = (hidden)" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[kafka]\npartition = 3\n", ["kafka.partition = 3", "did you mean kafka.partitions?"]),
        ("[kafka]\npartitions = 'x'\n", ["kafka.partitions (file", "= 'x'", "integer"]),
        ("kafka = ", ["expected TOML"]),
    ],
)
def test_a_bad_file_is_named_with_key_and_value(tmp_path, text, parts):
    config = tmp_path / "settings.toml"
    config.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config)
    for part in [*parts, str(config)]:
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_settings(tmp_path / "absent.toml")


def test_arguments_are_checked_too():
    with pytest.raises(ConfigurationError, match=r"features\.slot = -1"):
        load_settings(features={"slot": -1})
    with pytest.raises(ConfigurationError, match=r"did you mean features\.slot"):
        load_settings(features={"slott": 1})


def test_commits_must_fit_into_a_transaction():
    with pytest.raises(ConfigurationError, match="half of transaction_timeout_ms"):
        load_settings(features={"commit_interval_ms": 6000})


def test_kafka_without_address_says_what_to_do():
    with pytest.raises(ConfigurationError, match="MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS"):
        load_settings().kafka.as_librdkafka()
