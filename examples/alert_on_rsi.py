"""Prints symbols that leave the range 30 to 70 of RSI(14), and goes on where it stopped.

Run `mystocks up`, then this, then send ticks. Position and symbols outside the range are kept in
one file, so a restart misses no crossing.
"""

import json
import sys
from pathlib import Path

from mystocks import FeatureSubscriber


def main(file: Path, *, follow: bool = True) -> None:
    """Reads features until stopped; without `follow`, until the end of the topic.

    Args:
        file: Where the state is kept.
        follow: Whether to wait for new rows.
    """
    state = json.loads(file.read_text()) if file.exists() else {"position": "earliest"}
    outside = set(state.get("outside", ()))
    with FeatureSubscriber(start=state["position"], follow=follow) as rows:
        for row in rows:
            rsi = row.values["rsi_14"]
            if rsi is None or 30 <= rsi <= 70:
                outside.discard(row.symbol)
                continue
            if row.symbol not in outside:
                print(f"{row.symbol} rsi_14={rsi:.1f} price={row.price}", flush=True)
                outside.add(row.symbol)
                save(file, rows.position, outside)
        save(file, rows.position, outside)


def save(file: Path, position: object, outside: set[str]) -> None:
    """Replaces the file as a whole, so that a crash leaves the old or the new one."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"position": str(position), "outside": sorted(outside)}))
    partial.replace(file)


if __name__ == "__main__":
    main(Path("alert_on_rsi.json"), follow="--once" not in sys.argv)
