"""``backtest run --trades FILE``: the trades of a run as a file, and their measures as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.base import (
    Choice,
    DataError,
    ParameterError,
    format_money,
    format_number,
    format_percent,
    write_file,
)
from backtest.measures.trade_rows import VIEWS

if TYPE_CHECKING:
    import pandas as pd

    from backtest.engine import Result, Trades

ENDINGS = (".csv", ".parquet", ".json")


def check_trades_file(path: Path | None, by: Any) -> None:
    """Check the name of a file of trades and its view, before anything runs."""
    Choice(*VIEWS).check("trades_by", by, where="--trades-by")
    if path is None and by != "trip":
        raise ParameterError(
            f"--trades-by needs a file of trades, got {by} without one",
            where="--trades-by",
            cure="add --trades FILE",
        )
    if path is not None and path.suffix.lower() not in ENDINGS:
        raise ParameterError(
            f"a file of trades ends in {', '.join(ENDINGS)}, got {path.name!r}",
            where="--trades",
            cure="choose one of these endings",
        )


def write_trades(result: Result, path: Path, by: Any) -> Trades:
    """Write the trades of a run to a file, and return them."""
    trades = result.trades.lots(by)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, encode_trades(trades, path.suffix.lower()))
    except OSError as error:
        raise DataError(
            f"cannot write the trades: {error.strerror or error}",
            where=str(path),
            cure="choose another place, or free some space",
        ) from error
    return trades


def encode_trades(trades: pd.DataFrame, ending: str) -> bytes:
    """Return a table of trades as the bytes of a file."""
    if ending == ".parquet":
        found: bytes = trades.to_parquet(index=False)
        return found
    if ending == ".json":
        text: str = trades.to_json(orient="records", date_format="iso", indent=1)
        return text.encode()
    return trades.to_csv(index=False, lineterminator="\n").encode()


def describe_trades(trades: Trades) -> str:
    """Return the measures of trades as a sentence."""
    found = trades.measures
    if not found["trades"]:
        return f"no closed trade, {found['open']:,.0f} open"
    kinds = {"trip": "round trips", "fifo": "lots, first in first out", "average": "closing fills"}
    return (
        f"{found['trades']:,.0f} closed ({kinds[trades.view]}), {found['open']:,.0f} open; "
        f"{format_percent(found['win_rate'])} won, mean win {format_money(found['mean_win'])}, "
        f"mean loss {format_money(found['mean_loss'])}; profit factor "
        f"{format_number(found['profit_factor'])}, expectancy {format_money(found['expectancy'])}; "
        f"at most {found['longest_losing_run']:,.0f} losers in a row; held "
        f"{format_number(found['mean_days'])} days on average, in the market at "
        f"{format_percent(found['time_in_market'])} of closes"
    )
