"""The table of fills of a run, with the time and the price of each."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.account.events import ENDINGS, STOPS, TRADED, TRADES, Entries, Event
from backtest.account.money import FILL_COSTS, IN_PRICE
from backtest.core.code_names import pd
from backtest.market import place_on_bars
from backtest.results import tables
from backtest.results.run_data import label_owners

if TYPE_CHECKING:
    import numpy.typing as npt

    from backtest.core import FloatArray, IntArray
    from backtest.results.run_record import RunRecord


def tabulate_fills(run: RunRecord) -> pd.DataFrame:
    """Return the fills of a run, a row for each change of a position or of the collateral.

    ``time`` is the open for what happens there, one ns before the end of the bar at its close, and
    two before it for stops and liquidations inside. ``step`` is the step of the bar. ``price`` has
    slippage and impact, ``reference`` has not. The ``fee`` of a liquidation is all that it cost;
    ``fee_currency`` is the settlement currency, empty if it is unknown.
    """
    entries = run.entries[run.entries["kind"] != Event.CAUSED]
    kinds = entries["kind"]
    names = label_owners(run)[entries["owner"]]
    is_debt = kinds == Event.BAD_DEBT

    price = tables.find_prices(entries, run.list_venues())
    shown_kinds = []
    for kind, name in zip(kinds.tolist(), names, strict=True):
        shown_kinds.append(name_fill(run, kind, name))
    table = pd.DataFrame(
        {
            "time": core.utc_index(place_entries(run, entries, names)),
            "instrument": names,
            "quantity": np.where(is_debt, 0.0, entries["quantity"]),
            "price": price,
            "reference": find_references(run, entries, names, price),
            "fee": np.where(is_debt, -entries["amount"], sum_fees(entries)),
            "fee_currency": tables.find_settlement(run),
            "kind": shown_kinds,
            "step": entries["step"],
        }
    )

    has_quantity = entries["quantity"] != 0.0
    is_traded = np.isin(kinds, (*TRADED, Event.CONVERTED)) & has_quantity
    rows: pd.DataFrame = table[is_debt | is_traded].reset_index(drop=True)
    return rows


def find_references(
    run: RunRecord,
    entries: Entries,
    names: npt.NDArray[np.object_],
    price: FloatArray,
) -> FloatArray:
    """Return the prices of entries without slippage and impact, which are in the prices of trades.

    A trade at v whose slippage and impact cost c in all was at v - c / quantity without them.
    """
    is_trade = np.isin(entries["kind"], TRADES)
    in_price = sum(entries[FILL_COSTS[name]] for name in IN_PRICE)
    worsened = np.where(is_trade, in_price, 0.0)

    quantity = entries["quantity"]
    divisor = np.where(quantity != 0.0, quantity, 1.0)
    unworsened = entries.copy()
    unworsened["value"] -= worsened / divisor
    without_costs = tables.find_prices(unworsened, run.list_venues())
    reference: FloatArray = np.where(worsened != 0.0, without_costs, price)

    # Collateral is sold with a slippage of its own.
    for asset in run.account.collateral:
        is_sale = (entries["kind"] == Event.CONVERTED) & (names == asset.name)
        if asset.slippage < 1.0:
            reference[is_sale] /= 1.0 - asset.slippage
    return reference


def sum_fees(entries: Entries) -> FloatArray:
    """Return the costs of fills that are not in their price; of a liquidation all of them."""
    kinds = entries["kind"]
    fees = sum(entries[column] for name, column in FILL_COSTS.items() if name not in IN_PRICE)
    has_fee = np.isin(kinds, TRADES) | (kinds == Event.LIQUIDATED)
    return np.where(has_fee, fees, 0.0)


class Settlement(NamedTuple):
    """The stamp of a payment of funding, ns, and whether it falls on the open of its bar."""

    stamp: int
    is_at_open: bool


def list_settlements(run: RunRecord) -> dict[tuple[str, int], list[Settlement]]:
    """Return the settlements of a run by instrument and open of their bar; none of a loaded run."""
    settlements: dict[tuple[str, int], list[Settlement]] = defaultdict(list)
    for name, market in (run.markets or {}).items():
        stamps = market.funding_time
        venue = run.venues[name]
        jitter = core.parse_duration(venue.funding_jitter)
        bars, are_at_open = place_on_bars(stamps, market.time, market.interval, jitter)

        # Those before the first bar and after the last one are of no bar.
        is_inside = (bars >= 0) & (bars < market.n_bars)
        for k in np.flatnonzero(is_inside).tolist():
            bar = bars[k]
            opened = int(market.time[bar])
            stamp = int(stamps[k])
            is_at_open = bool(are_at_open[k])
            settlements[name, opened].append(Settlement(stamp, is_at_open))
    return settlements


FUNDING_AT_OPEN = 2
INSIDE = 6
EXITS_INSIDE = 7
"""Steps of a bar: payments at the open, those inside, and stops and liquidations."""


def place_entries(
    run: RunRecord,
    entries: Entries,
    names: npt.NDArray[np.object_],
) -> IntArray:
    """Return the times of entries, ns: as :func:`tabulate_fills` says, inside at a settlement.

    ``names`` are those of their owners. The stamp of a settlement or an expiry holds for the
    entries after it in the same bar. Payments have no stamp in the log: they are matched with the
    settlements of the market, in their order.
    """
    settlements = list_settlements(run)
    expiries: dict[str, int] = {}
    if run.options is not None:
        stamps_of_options = run.options.terms.expiries.tolist()
        expiries = dict(zip(run.options.names, stamps_of_options, strict=True))

    n_paid: dict[tuple[str, int, int], int] = defaultdict(int)
    times = []
    opens = run.time.tolist()
    last_bar = -1
    stamp = 0
    rows = entries[["bar", "kind", "step"]].tolist()
    for (bar, kind, step), name in zip(rows, names, strict=True):
        opened = opens[bar - run.span.first]
        if bar != last_bar:
            stamp = opened
        last_bar = bar

        if kind == Event.FUNDING:
            # The k-th payment of an instrument in this step is that of the k-th settlement there.
            in_bar = settlements.get((name, opened), [])
            stamps = list_stamps(in_bar, is_at_open=step == FUNDING_AT_OPEN)
            k = n_paid[name, bar, step]
            n_paid[name, bar, step] = k + 1
            stamp = stamps[k] if k < len(stamps) else opened
        elif kind == Event.EXPIRED:
            stamp = expiries.get(name, opened)
        times.append(place_in_bar(step, opened, interval=run.interval, stamp=stamp))
    return np.array(times, dtype=np.int64)


def list_stamps(settlements: list[Settlement], *, is_at_open: bool) -> list[int]:
    """Return the stamps of the settlements of a bar that fall on its open, or of the others."""
    return [known.stamp for known in settlements if known.is_at_open == is_at_open]


def place_in_bar(
    step: int,
    opened: int,
    *,
    interval: int,
    stamp: int,
) -> int:
    """Return the time of a step of a bar, ns: sorted by time, steps keep their order in the bar."""
    if step < INSIDE:
        return opened
    if step == INSIDE:
        return max(stamp, opened)
    if step == EXITS_INSIDE:
        return opened + interval - 2
    return opened + interval - 1


def name_fill(run: RunRecord, kind: int, name: str) -> str:
    """Return the kind of an entry as the table of fills has it."""
    venue = run.venues.get(name)
    if kind == Event.LIQUIDATED:
        # The log of a pool names no venue: then all of them have to agree.
        venues = [venue] if venue else run.list_venues()
        modes = {known.liquidation.mode for known in venues}
        if modes == {"takeover"}:
            return "takeover"
        return "liquidation"

    if kind == Event.DELISTED:
        is_expiring = venue is not None and venue.contract.expires is not None
        return "expiry" if is_expiring else "delisting"
    if kind in STOPS:
        return "stop"
    return ENDINGS.get(Event(kind)) or Event(kind).kind.name
