"""What the options of a run cost: by roll, by leg in shares of the equity a year, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import Choice, list_records, utc_index
from backtest.engine.option_chain import SCHEDULED, TOTAL
from backtest.engine.option_results import GREEKS, measure_equity
from backtest.engine.trade_fills import hold_options, read_entries, read_fills
from backtest.engine.trades import ENDINGS
from backtest.measures import list_trades

if TYPE_CHECKING:
    from backtest.engine.run_closes import RunCloses
    from backtest.engine.run_options import RunOptions
    from backtest.engine.run_record import RunRecord

RollSplit: TypeAlias = Literal["roll", "leg"]
ROLL_SPLITS = Choice("roll", "leg")
COSTS = ("premium", "proceeds", "fees", "spread", "cost")
COLUMNS = ("leg", "contract", "side", "opened", "closed", "ended", "quantity", *COSTS)


def tabulate_rolls(run: RunRecord, options: RunOptions | None, by: RollSplit) -> pd.DataFrame:
    """Return what options cost, by roll or by leg.

    Parameters
    ----------
    run, options
        The run, and the options that it held.
    by : str
        ``"roll"``: a row for each contract from its first fill to its last, in the settlement
        currency. ``"leg"``: a row for each leg and their ``total``, with the number of ``rolls``,
        as fractions of the mean equity per year.
    """
    ROLL_SPLITS.check("by", by)
    parts = [] if options is None else list_rolls(run, options)
    nothing = pd.DataFrame(columns=COLUMNS).astype(dict.fromkeys(COSTS, np.float64))
    table = pd.concat(parts) if parts else nothing
    table = table.sort_values(["opened", "contract"], kind="stable", ignore_index=True)
    return table if by == "roll" else share_costs(run, table)


def list_rolls(run: RunRecord, options: RunOptions) -> list[pd.DataFrame]:
    entries, parts = read_entries(run), []
    pairs = zip(hold_options(options), options.legs, options.terms.names, strict=True)
    for held, leg, contract in pairs:
        read = read_fills(run, entries, held)
        rows = list_trades(read.fills, "trip")
        premium = rows.side * rows.quantity * rows.entry_value
        proceeds = rows.side * rows.quantity * rows.exit_value
        fees = rows.fees + rows.loss
        own = {
            "leg": leg or SCHEDULED,
            "contract": contract,
            "side": np.where(rows.side > 0.0, "long", "short"),
            "opened": utc_index(run.time[read.bar[rows.entry]]),
            "closed": utc_index(run.time[read.bar[rows.exit]]),
            "ended": [ENDINGS[kind] for kind in read.kind[rows.exit].tolist()],
            "quantity": rows.quantity,
            "premium": premium,
            "proceeds": proceeds,
            "fees": fees,
            "spread": rows.slippage,
            "cost": premium - proceeds + fees,
        }
        parts.append(pd.DataFrame(own))
    return parts


def share_costs(run: RunCloses, rolls: pd.DataFrame) -> pd.DataFrame:
    """Return what each leg cost, and all of them, as fractions of the mean equity per year."""
    legs = rolls.groupby("leg", sort=False)[list(COSTS)]
    sums = legs.sum().where(legs.count().eq(legs.size(), axis=0))
    counts = rolls.groupby("leg", sort=False)["contract"].count()
    table = sums / measure_equity(run)
    table.insert(0, "rolls", counts)
    table.loc[TOTAL] = table.sum(skipna=False)
    return table.astype({"rolls": np.int64})


def collect_options(run: RunRecord) -> dict[str, Any]:
    if run.options is None:
        return {}
    last = run.greeks.iloc[-1]
    return {
        "options": {
            "explained": run.explained().to_dict("index"),
            "rolls": list_records(tabulate_rolls(run, run.options, "roll")),
            "costs": tabulate_rolls(run, run.options, "leg").to_dict("index"),
            "hedging_error": run.hedging_error().to_dict("index"),
            "greeks": {name: float(last[name]) for name in (*GREEKS, "net_delta")},
            "contracts": [each.to_dict() for each in run.options.contracts],
        }
    }
