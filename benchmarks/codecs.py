"""Nanoseconds per tick to decode each encoding, and per row to write feature blocks.

    python benchmarks/codecs.py [--quick] [--json]

Decoding is from a list of message values to columns, symbols interned. The peers do the same work
with the library that a Python program would use: orjson, protobuf and pyarrow, values into lists.
Every figure is the best of several rounds, with all cases taken in turn in each round.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from mystocks.v1 import market_pb2
from schemas.features import FeatureBlockWriter
from schemas.ticks import SymbolTable, TickDecoder
from schemas.ticks.encode import encode_arrow, encode_batch, encode_json

TIME = 1_700_000_000_000_000_000
SYMBOLS = 500
FEATURES = (
    "sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_hist",
    "boll_upper", "boll_mid", "boll_lower",
)  # fmt: skip


def make_columns(ticks: int) -> tuple[list[str], list[int], list[float], list[float]]:
    """Symbols by Zipf's law, prices with four decimals."""
    rng = random.Random(1)
    names = [f"{600000 + i}.SH" if i % 2 else f"SYM{i}" for i in range(SYMBOLS)]
    symbols = rng.choices(names, [1 / (i + 1) for i in range(SYMBOLS)], k=ticks)
    prices = [round(rng.uniform(1, 500), 4) for _ in range(ticks)]
    sizes = [float(rng.randrange(1, 1000)) for _ in range(ticks)]
    return symbols, [TIME + 1000 * i for i in range(ticks)], prices, sizes


def peer_json(values: list[bytes]) -> int:
    codes: dict[str, int] = {}
    columns: tuple[list[Any], ...] = ([], [], [], [])
    for value in values:
        tick = orjson.loads(value)
        columns[0].append(codes.setdefault(tick["symbol"], len(codes)))
        columns[1].append(tick["event_time_ns"])
        columns[2].append(tick["price"])
        columns[3].append(tick.get("size", 0.0))
    return len(columns[0])


def peer_batch(values: list[bytes]) -> int:
    codes: dict[str, int] = {}
    columns: tuple[list[Any], ...] = ([], [], [], [])
    for value in values:
        for tick in market_pb2.TickBatch.FromString(value).ticks:
            columns[0].append(codes.setdefault(tick.symbol, len(codes)))
            columns[1].append(tick.event_time_ns)
            columns[2].append(tick.price)
            columns[3].append(tick.size)
    return len(columns[0])


def peer_arrow(values: list[bytes]) -> int:
    codes: dict[str, int] = {}
    parts: list[Any] = []
    for value in values:
        with pa.ipc.open_stream(value) as reader:
            for batch in reader:
                column = batch.column(0)
                names = column.dictionary.to_pylist()
                local = np.array([codes.setdefault(name, len(codes)) for name in names], np.int32)
                parts.append([local[column.indices.to_numpy()]])
                parts[-1] += [batch.column(i).to_numpy() for i in (1, 2, 3)]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(4)]
    return len(joined[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one flat object as last line")
    options = parser.parse_args()
    rounds, ticks = (15, 20_000) if options.quick else (60, 100_000)
    symbols, times, prices, sizes = make_columns(ticks)

    def messages(encode: Callable[..., bytes], block: int) -> list[bytes]:
        return [
            encode(symbols[i:j], times[i:j], prices[i:j], sizes[i:j])
            for i, j in ((i, i + block) for i in range(0, ticks, block))
        ]

    def received(values: list[bytes]) -> list[bytes]:
        # A consumer allocates values of their exact size one after the other; an encoder's buffer
        # is larger and shrinks, which spreads the values over several times the memory.
        return [bytes(memoryview(value)) for value in values]

    inputs = {
        "json": (received(messages(encode_json, 1)), peer_json),
        "json_array_100": (received(messages(encode_json, 100)), None),
        "batch_1": (received(messages(encode_batch, 1)), peer_batch),
        "batch_100": (received(messages(encode_batch, 100)), peer_batch),
        "arrow_500": (received(messages(encode_arrow, 500)), peer_arrow),
    }
    decoder, table = TickDecoder(), SymbolTable(100_000)
    decoder.warm_up()
    cases: dict[str, tuple[Callable[[], int], int]] = {}
    for name, (values, peer) in inputs.items():
        stamps = np.full(len(values), -1, np.int64)

        def ours(values: list[bytes] = values, stamps: Any = stamps) -> int:
            columns, refusals = decoder.decode(values, None, stamps, table)
            return len(columns) if not refusals else -1

        cases[f"decode_{name}_ns"] = (ours, ticks)
        if peer is not None:
            cases[f"peer_{name}_ns"] = ((lambda v=values, p=peer: p(v)), ticks)
    for name, encode, block in (
        ("batch_100", encode_batch, 100),
        ("arrow_500", encode_arrow, 500),
    ):
        cases[f"encode_{name}_ns"] = ((lambda e=encode, b=block: len(messages(e, b)) * b), ticks)
    rng = np.random.default_rng(0)
    names = sorted(set(symbols))
    for dtype, rows in (("float64", 5000), ("float32", 5000), ("float64", 1)):
        writer = FeatureBlockWriter(FEATURES, dtype)  # type: ignore[arg-type]
        codes = rng.integers(0, len(names), rows).astype(np.int32)
        event_time, price = np.arange(rows) + TIME, rng.random(rows)
        features = [rng.random(rows) for _ in FEATURES]
        features[0][:1] = np.nan

        def write(
            w: Any = writer, c: Any = codes, t: Any = event_time, p: Any = price, f: Any = features
        ) -> int:
            w.encode(c, names, t, p, f)
            return len(c)

        cases[f"write_{dtype}_{rows}_rows_ns"] = (write, rows)

    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, (run, expected) in cases.items():
            start = time.perf_counter()
            done = run()
            elapsed = time.perf_counter() - start
            if done != expected:
                raise SystemExit(f"expected {expected} rows, was {done} ({name})")
            best[name] = min(best[name], elapsed / expected * 1e9)
    for name, value in best.items():
        sys.stdout.write(f"{name:32s} {value:10.1f}\n")
    if options.json:
        sys.stdout.write(json.dumps({name: round(value, 1) for name, value in best.items()}) + "\n")


if __name__ == "__main__":
    main()
