"""What options cost: a row for each contract that was held, or for each leg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.policies.combinators import SCHEDULED, TOTAL
from backtest.results.run_options import GREEKS, measure_equity
from backtest.results.trade_fills import (
    ENDED,
    Fills,
    list_option_holdings,
    list_trades,
    read_entries,
    read_fills,
)
from backtest.results.trade_measures import ROLL_COSTS, RollSplit

if TYPE_CHECKING:
    from backtest.results.run_record import RunRecord

ROLL_COLUMNS = (
    "leg",
    "contract",
    "side",
    "opened",
    "closed",
    "ended",
    "quantity",
    *ROLL_COSTS,
)


def tabulate_rolls(run: RunRecord, by: RollSplit) -> pd.DataFrame:
    """Return what options cost.

    By ``"roll"`` a row for each contract from its first fill to its last, in the settlement
    currency; by ``"leg"`` a row for each leg and their ``total``, with the number of ``rolls``, as
    fractions of the mean equity per year.
    """
    table = list_rolls(run)
    if by == "roll":
        return table

    # A leg of which one figure is unknown has no sum.
    legs = table.groupby("leg", sort=False)
    costs = legs[list(ROLL_COSTS)]
    sums = costs.sum()
    is_known = costs.count().eq(legs.size(), axis=0)
    shares = sums.where(is_known) / measure_equity(run)
    shares.insert(0, "rolls", legs["contract"].count())
    shares.loc[TOTAL] = shares.sum(skipna=False)
    return shares.astype({"rolls": np.int64})


def list_rolls(run: RunRecord) -> pd.DataFrame:
    """Return a row for each round trip in a contract, in the order of their first fills."""
    parts = []
    options = run.options
    if options is not None:
        entries = read_entries(run)
        for k, holding in enumerate(list_option_holdings(options)):
            part = tabulate_contract(
                run,
                read_fills(run, entries, holding),
                leg=options.legs[k] or SCHEDULED,
                contract=options.terms.names[k],
            )
            parts.append(part)

    if parts:
        table = pd.concat(parts)
    else:
        table = pd.DataFrame(columns=ROLL_COLUMNS)
        table = table.astype(dict.fromkeys(ROLL_COSTS, np.float64))
    return table.sort_values(["opened", "contract"], kind="stable", ignore_index=True)


def tabulate_contract(
    run: RunRecord,
    fills: Fills,
    *,
    leg: str,
    contract: str,
) -> pd.DataFrame:
    """Return the round trips in one contract, with what they cost."""
    rows = list_trades(fills, "trip")
    premium = rows.side * rows.quantity * rows.entry_value
    proceeds = rows.side * rows.quantity * rows.exit_value
    fees = rows.costs["fees"] + rows.loss
    return pd.DataFrame(
        {
            "leg": leg,
            "contract": contract,
            "side": np.where(rows.side > 0.0, "long", "short"),
            "opened": core.utc_index(run.time[fills.bar[rows.entry]]),
            "closed": core.utc_index(run.time[fills.bar[rows.exit]]),
            "ended": [ENDED[kind] for kind in fills.kind[rows.exit].tolist()],
            "quantity": rows.quantity,
            "premium": premium,
            "proceeds": proceeds,
            "fees": fees,
            "spread": rows.costs["slippage"],
            "cost": premium - proceeds + fees,
        }
    )


def collect_options(run: RunRecord) -> dict[str, Any]:
    """Return the tables of options as data for JSON; empty of a run without options."""
    if run.options is None:
        return {}
    last = run.greeks.iloc[-1]
    greeks = {name: float(last[name]) for name in (*GREEKS, "net_delta")}
    return {
        "options": {
            "explained": run.explained().to_dict("index"),
            "rolls": core.list_records(tabulate_rolls(run, "roll")),
            "costs": tabulate_rolls(run, "leg").to_dict("index"),
            "hedging_error": run.hedging_error().to_dict("index"),
            "greeks": greeks,
            "contracts": [contract.to_dict() for contract in run.options.contracts],
        }
    }
