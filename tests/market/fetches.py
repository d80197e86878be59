"""Fetches from a replayed archive, and the files they leave."""

from pathlib import Path

from backtest.base.units import to_nanoseconds
from backtest.cli import main
from backtest.market.fetch import fetch_market, read_request
from tests.replay import Replay


def at(text: str) -> int:
    return to_nanoseconds(text)


NOW = at("2024-03-20T15:00")


def fetch(folder: Path, server: Replay, start="2024-01-01", end="2024-03-01", **how):
    options = {
        name: how.pop(name)
        for name in ("interval", "without", "market", "source", "symbol")
        if name in how
    }
    symbol = options.pop("symbol", "BTCUSDT")
    request = read_request(symbol, start=start, end=end, **{"interval": "1h", **options})
    settings = {"now": NOW, "base_url": server.url, "first_wait": 0.001, **how}
    return fetch_market(folder, request, **settings)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["data", "fetch", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
