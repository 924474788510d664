"""Sends the prices of a file and prints, as features come back, crossings of two averages.

Run `mystocks up`, then ``python examples/stream_over_grpc.py ticks.csv`` with a file that has the
columns ``symbol,event_time_ns,price``. Sending and reading share one stream.
"""

import asyncio
import csv
import sys
from pathlib import Path

from mystocks import AsyncClient


async def main(file: Path) -> None:
    """Sends all of the file and ends when the features of its last tick are there.

    Args:
        file: CSV with a header.
    """
    async with AsyncClient() as client, client.stream(features=["ema_12", "ema_26"]) as stream:
        sending = asyncio.create_task(send(stream, file))
        above: dict[str, bool] = {}
        async for row in stream:
            fast, slow = row.values["ema_12"], row.values["ema_26"]
            if fast is None or slow is None:
                continue
            if row.symbol in above and above[row.symbol] != (fast > slow):
                way = "up" if fast > slow else "down"
                print(f"{row.symbol} crosses {way} at {row.price} ({row.event_time_ns})")
            above[row.symbol] = fast > slow
        await sending
    print(f"{stream.acknowledged} ticks in the log, {len(stream.refused)} refused")


async def send(stream, file: Path) -> None:
    """Sends the file line by line, as fast as the bridge takes it."""
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            await stream.send(line["symbol"], int(line["event_time_ns"]), float(line["price"]))
    await stream.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
