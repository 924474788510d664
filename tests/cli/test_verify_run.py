"""What `mystocks verify` keeps in memory does not grow with the log."""

from collections import Counter

from confluent_kafka import Message

from mystocks.cli import verify_run
from mystocks.cli.verify_run import Recent, TickReport
from schemas.ticks import SymbolTable

TIME = 1_700_000_000_000_000_000


def count(values: list[bytes]) -> TickReport:
    report, reasons = TickReport("market.ticks"), Counter()
    messages = [
        Message(
            topic="market.ticks", partition=0, offset=i, value=value, timestamp=(1, TIME // 10**6)
        )
        for i, value in enumerate(values)
    ]
    verify_run._count_ticks(report, reasons, iter(messages), SymbolTable(100))
    report.reasons = dict(reasons)
    return report


def tick(number: int) -> bytes:
    return b'{"symbol":"A","event_time_ns":%d,"price":1,"sequence":%d}' % (TIME + number, number)


def test_only_the_last_identities_are_kept():
    recent = Recent(100)
    for number in range(10_000):
        assert not recent.had((1, number, 7))
        assert len(recent) <= 100
    assert len(recent._known) == 100
    assert all(recent.had((1, number, 7)) for number in range(9_900, 10_000))
    assert not recent.had((1, 9_800, 7))


def test_a_duplicate_counts_once_for_each_time_that_it_comes_again():
    report = count([tick(1), tick(2), tick(1), tick(1), tick(3)])
    assert (report.ticks, report.duplicates, report.out_of_order) == (5, 2, 2)


def test_a_log_full_of_garbage_has_a_bounded_number_of_reasons(monkeypatch):
    monkeypatch.setattr(verify_run, "_MOST_REASONS", 3)
    garbage = [b'{"symbol":"!%d","event_time_ns":1,"price":1}' % i for i in range(50)]
    report = count([*garbage, b"x", b'{"symbol":"A","event_time_ns":1,"price":-1}', b"[1]"])
    assert report.refused == 53
    assert len(report.reasons) <= 4
    assert sum(report.reasons.values()) == 53
