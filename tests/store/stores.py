"""Results of short runs in a store, and ways to damage them."""

from pathlib import Path

import backtest as bt
from backtest.store import list_results

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
DAYS = 40


def live(policy, venue=VENUE, **settings):
    market = bt.Market.sample(bars=24 * DAYS)
    return bt.run(market, policy, venue=venue, account=bt.Account(**settings), compile=False)


def folder_of(store: Path, kind: str) -> Path:
    return next(store / each.name for each in list_results(store) if each.kind == kind)


def spoil(path: Path, change: str) -> None:
    """Damage a file in one of several ways."""
    content = path.read_bytes()
    match change:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "deleted":
            path.unlink()
        case "flipped":
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
