import redis
from confluent_kafka.admin import AdminClient


def test_broker_answers(kafka_bootstrap):
    assert AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=10).brokers


def test_redis_answers(redis_url):
    assert redis.Redis.from_url(redis_url).ping()
