"""The listed options of an experiment: ``[options]``, with its chains and fitted surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from backtest import core, options
from backtest.experiments.draft import Draft
from backtest.experiments.tables import SAMPLE
from backtest.market import Market, Markets, as_markets
from backtest.market.markets import MAX_AGE
from backtest.market.weight_frame import read_weight_file
from backtest.options.option_checks import check_settlement
from backtest.options.option_schedule import check_lots
from backtest.venue import Option, require_costs

if TYPE_CHECKING:
    from collections.abc import Callable

ShowProgress: TypeAlias = "Callable[[str, str], AbstractContextManager[core.Progress | None]]"
"""Takes what is done and the noun that is counted, and returns what shows how far it is."""


def show_nothing(title: str, noun: str) -> AbstractContextManager[None]:  # noqa: ARG001 - as above
    """Return a context that shows no progress."""
    return nullcontext()


def list_options(
    draft: Draft, market: Market | Markets, venue: Any, show_progress: ShowProgress
) -> Market | Markets:
    """Return the markets with the options of ``[options]``, their chains and their surfaces.

    Terms are checked before surfaces are fitted, which takes minutes.
    """
    entries = draft.table("options")
    timezone = draft.table("data").get("timezone")
    contracts = read_contracts(entries.get("contracts", []))
    if not contracts or "chains" not in entries:
        lacking = "chains" if contracts else "contracts"
        raise core.ParameterError(
            f"options need contracts, and chains: a folder of quotes or 'sample'; got no {lacking}"
        )

    markets = as_markets(market)
    owners = {}
    for name, contract in contracts.items():
        underlying = str(contract.underlying)
        owners[name] = options.find_underlying(underlying, markets, f"option {name!r}")
    settlement = entries.get("settlement")
    check_contracts(contracts, owners, venue, settlement)

    quantities = None
    if "quantities" in entries:
        quantities = read_weight_file(Path(entries["quantities"]), timezone)
        check_quantities(quantities, contracts, owners, venue)

    is_sample = entries["chains"] == SAMPLE
    if is_sample:
        chains = dict.fromkeys(owners.values(), options.Chain.sample())
    else:
        folder = Path(entries["chains"])
        quotes = options.Chain.load(folder, settlement=settlement, timezone=timezone)
        chains = split_chain(quotes, markets, contracts, owners)

    surfaces = {}
    for name, chain in chains.items():
        with show_progress(f"surfaces of {name}", "snapshots") as progress:
            surfaces[name] = options.Surfaces.fit(chain, progress=progress)

    with_options = Markets(
        {**markets, **contracts},
        currency=markets.currency or None,
        surfaces=surfaces,
        chains=None if is_sample else chains,
        quote_age=entries.get("quote_age"),
        max_age=entries.get("max_age", MAX_AGE),
    )
    scheduled: Market | Markets = options.schedule_options(with_options, quantities)
    return scheduled


def read_contracts(entry: Any) -> dict[str, Option]:
    """Return the options of ``options.contracts`` by name: one, or a list, of names or tables."""
    entries = [entry] if isinstance(entry, str | Mapping) else entry
    contracts: dict[str, Option] = {}
    for number, one_entry in enumerate(entries):
        if isinstance(one_entry, str):
            contract = Option(one_entry)
        else:
            contract = Option.from_dict(one_entry, where=f"options.contracts.{number}")

        contracts[str(contract.name)] = contract
    return contracts


def check_contracts(
    contracts: Mapping[str, Option], owners: Mapping[str, str], venue: Any, settlement: Any
) -> None:
    """Raise an error if a venue has no costs of options, or a contract settles otherwise.

    ``owners`` has the instrument under each contract, ``settlement`` is ``options.settlement``.
    """
    for name, contract in contracts.items():
        owner_venue = core.pick_value(venue, owners[name])
        require_costs(owner_venue.option_costs, owners[name])
        check_settlement(name, contract, owners[name], owner_venue)
        if settlement not in (None, contract.settlement):
            raise core.ParameterError(
                f"options.settlement must match the contracts, {contract.settlement!r}, "
                f"got {settlement!r}"
            )


def check_quantities(
    quantities: Any, contracts: Mapping[str, Option], owners: Mapping[str, str], venue: Any
) -> None:
    """Raise a ParameterError if the columns are no contracts, or hold no whole lots."""
    options.check_columns(quantities, [*contracts])
    lots = []
    for name, contract in contracts.items():
        costs = core.pick_value(venue, owners[name]).option_costs
        lots.append(costs.find_lot(contract))
    check_lots(quantities, [*contracts], lots)


def split_chain(
    quotes: options.Chain,
    markets: Markets,
    contracts: Mapping[str, Option],
    owners: Mapping[str, str],
) -> dict[str, options.Chain]:
    """Return the quotes of each instrument, without those after the last bar."""
    end = core.utc_index(markets.time[-1:] + markets.interval)[0]
    table = quotes.table[quotes.table["time"] < end].reset_index(drop=True)
    known = options.Chain(table, quotes.settlement, quotes.source)
    has_several = len(known.underlyings) > 1

    chains: dict[str, options.Chain] = {}
    for name, owner in owners.items():
        if owner not in chains:
            underlying = contracts[name].underlying
            chains[owner] = known.select(underlying) if has_several else known
    for owner, chain in chains.items():
        options.check_chain(contracts, owners, owner, chain)
    return chains
