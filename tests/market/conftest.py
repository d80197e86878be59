"""A replayed archive, what a fetch from it stores, and the folder of real data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.market.fetches import content, fetch
from tests.replay import Replay, epoch, kline_text, klines

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"the real data are not at {REAL}")
    return REAL


@pytest.fixture(scope="session")
def quarter() -> Replay:
    """January and February by the month, March by the day; funding by the month only."""
    days = [f"2024-03-{day:02d}" for day in range(1, 20)]
    return Replay().publish("2024-01", "2024-02", *days)


@pytest.fixture
def server(quarter: Replay) -> Iterator[Replay]:
    """The quarter, to be changed at will."""
    replay = Replay()
    replay.files = dict(quarter.files)
    with replay.serve():
        yield replay


@pytest.fixture(scope="session")
def calm(quarter: Replay, tmp_path_factory) -> dict[str, bytes]:
    """What a fetch of January and February stores when nothing misbehaves."""
    folder = tmp_path_factory.mktemp("calm") / "btc"
    with quarter.serve():
        fetch(folder, quarter)
    return content(folder)


@pytest.fixture
def torn(server: Replay) -> Replay:
    """Bars lack hours, mark prices a day, funding two settlements."""
    rows = klines(epoch("2024-01-01"), epoch("2024-02-01"), server.length)
    kept = (rows[:, 0] < epoch("2024-01-05T03:00")) | (rows[:, 0] >= epoch("2024-01-05T06:00"))
    server.put("bars", "2024-01", kline_text(rows[kept], server.length))
    rows = klines(epoch("2024-02-01"), epoch("2024-03-01"), server.length, "mark")
    kept = (rows[:, 0] < epoch("2024-02-02")) | (rows[:, 0] >= epoch("2024-02-03"))
    server.put("mark", "2024-02", kline_text(rows[kept], server.length))
    text = server.text("funding", "2024-02").decode().splitlines()
    server.put("funding", "2024-02", "\n".join([*text[:10], *text[12:]]).encode())
    return server
