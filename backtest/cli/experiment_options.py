"""List the options of an experiment among its markets: table ``[options]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from backtest.base import ParameterError, pick_value, utc_index
from backtest.cli.experiment_data import SAMPLE
from backtest.cli.experiment_draft import Draft, located
from backtest.cli.progress import show_progress
from backtest.engine import check_columns, schedule_options
from backtest.market import Market, Markets, as_markets, read_weight_file
from backtest.market.panel_data import MAX_AGE
from backtest.options import Chain, Surfaces, find_underlying
from backtest.venue import Option, OptionField, Venue, require_costs


def list_options(
    draft: Draft, market: Market | Markets, venue: Venue | Mapping[str, Venue]
) -> Market | Markets:
    """Return the markets of a draft with its options, with surfaces fitted to its quotes.

    What takes no time is checked before the fit, which does.
    """
    entries = draft.section("options").entries
    if not entries:
        return market
    where = draft.locate("options")
    with located(where):
        contracts = read_contracts(entries.get("contracts", []))
        if not contracts or "chains" not in entries:
            raise ParameterError(
                "options need contracts and chains, got "
                + ("no contracts" if not contracts else "no chains"),
                where="contracts, chains",
                cure="name contracts, as --option BTC-26JUN26-60000-P does, and a folder of "
                "quotes, as --chains chains does, or 'sample'",
            )
        markets = as_markets(market)
        owners = find_owners(contracts, markets)
        for name in dict.fromkeys(owners.values()):
            costs = pick_value(venue, name).option_costs
            require_costs(costs, name)
        quantities = read_quantities(draft, contracts)
        is_sample = entries["chains"] == SAMPLE
        chains = (
            dict.fromkeys(owners.values(), Chain.sample())
            if is_sample
            else read_chains(draft, owners, contracts, markets)
        )
        found: Market | Markets = Markets(
            {**markets, **contracts},
            currency=markets.currency or None,
            surfaces=fit_surfaces(chains),
            chains=None if is_sample else chains,
            quote_age=entries.get("quote_age"),
            max_age=entries.get("max_age", MAX_AGE),
        )
        return found if quantities is None else schedule_options(found, quantities)


def find_owners(contracts: Mapping[str, Option], markets: Markets) -> dict[str, str]:
    """Return the instrument of each contract."""
    return {
        name: find_underlying(str(each.underlying), markets, f"option {name!r}")
        for name, each in contracts.items()
    }


def read_quantities(draft: Draft, contracts: Mapping[str, Option]) -> pd.DataFrame | None:
    """Return the signed contracts to hold by time and contract, if a file gives them."""
    if "quantities" not in draft.section("options").entries:
        return None
    file = draft.find_path("options", "quantities")
    frame = read_weight_file(file, draft.tables.get("data", {}).get("timezone"))
    check_columns(frame, [*contracts])
    return frame


def fit_surfaces(chains: Mapping[str, Chain]) -> dict[str, Surfaces]:
    """Return surfaces fitted to the quotes of each instrument."""
    found = {}
    for name, chain in chains.items():
        with show_progress(f"surfaces of {name}", "snapshots") as progress:
            found[name] = Surfaces.fit(chain, progress=progress)
    return found


def read_contracts(given: Any) -> dict[str, Option]:
    """Return contracts by name; each is a name, or a table of the fields of an option."""
    listed = [given] if isinstance(given, str | Mapping) else given
    found = [OptionField().check("contracts", each, where="contracts") for each in listed]
    return {str(each.name): each for each in found}


def read_chains(
    draft: Draft, owners: Mapping[str, str], contracts: Mapping[str, Option], markets: Markets
) -> dict[str, Chain]:
    """Return the quotes by instrument, of the days of the markets and those before."""
    settlement = draft.section("options").entries.get("settlement")
    chain = Chain.load(draft.find_path("options", "chains"), settlement=settlement)
    end = utc_index(markets.time[-1:] + markets.interval)[0]
    known = Chain(
        chain.table[chain.table["time"] < end].reset_index(drop=True),
        chain.settlement,
        chain.source,
    )
    found: dict[str, Chain] = {}
    for name, owner in owners.items():
        if owner not in found:
            several = len(known.underlyings) > 1
            found[owner] = known.select(contracts[name].underlying) if several else known
    return found
