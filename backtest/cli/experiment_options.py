"""List the options of an experiment among its markets: table ``[options]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest.base.errors import ParameterError
from backtest.base.units import utc_index
from backtest.cli.draft import Draft, located
from backtest.engine.option_schedule import schedule_options
from backtest.market import Market, Markets, as_markets
from backtest.market.panel_data import MAX_AGE
from backtest.market.weight_files import read_weight_file
from backtest.options import Chain, Surfaces
from backtest.options.option_listing import find_underlying
from backtest.venue.option_contract import Option, OptionField


def list_options(draft: Draft, market: Market | Markets) -> Market | Markets:
    """Return the markets of a draft with its options, with surfaces fitted to its quotes."""
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
                where=where,
                cure="give contracts = ['BTC-26JUN26-60000-P'] and chains = 'chains/'",
            )
        markets = as_markets(market)
        path = draft.find_path("options", "chains")
        chains = read_chains(path, entries.get("settlement"), contracts, markets)
        surfaces = {name: Surfaces.fit(each) for name, each in chains.items()}
        found: Market | Markets = Markets(
            {**markets, **contracts},
            currency=markets.currency or None,
            surfaces=surfaces,
            chains=chains,
            quote_age=entries.get("quote_age"),
            max_age=entries.get("max_age", MAX_AGE),
        )
        if "quantities" in entries:
            file = draft.find_path("options", "quantities")
            zone = draft.tables.get("data", {}).get("timezone")
            found = schedule_options(found, read_weight_file(file, zone))
    return found


def read_contracts(given: Any) -> dict[str, Option]:
    """Return contracts by name; each is a name, or a table of the fields of an option."""
    listed = [given] if isinstance(given, str | Mapping) else given
    found = [OptionField().check("contracts", each, where="contracts") for each in listed]
    return {str(each.name): each for each in found}


def read_chains(
    path: Path, settlement: str | None, contracts: Mapping[str, Option], markets: Markets
) -> dict[str, Chain]:
    """Return the quotes by underlying, of the days of the markets and those before."""
    chain = Chain.load(path, settlement=settlement)
    end = utc_index(markets.time[-1:] + markets.interval)[0]
    known = Chain(
        chain.table[chain.table["time"] < end].reset_index(drop=True),
        chain.settlement,
        chain.source,
    )
    found: dict[str, Chain] = {}
    for name, each in contracts.items():
        owner = find_underlying(str(each.underlying), markets, f"option {name!r}")
        if owner not in found:
            several = len(known.underlyings) > 1
            found[owner] = known.select(each.underlying) if several else known
    return found
