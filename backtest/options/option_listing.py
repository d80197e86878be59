"""The options among several markets: which are listed, and what values them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from backtest import core
from backtest.core import DataError, ParameterError, did_you_mean, parse_duration
from backtest.core.code_names import pd
from backtest.market import Market, find_coin
from backtest.options.chain import Chain
from backtest.options.surfaces import Surfaces, hash_frame
from backtest.venue import Option


class OptionListing(NamedTuple):
    """The listed contracts of a panel by name, and what values them by instrument.

    ``quote_age`` (0: one bar) and ``max_age`` are in ns.
    """

    options: dict[str, Option]
    underlyings: dict[str, str]
    surfaces: dict[str, Surfaces]
    chains: dict[str, Chain]
    quote_age: int
    max_age: int
    quantities: pd.DataFrame | None = None

    def keep(self, names: Collection[str]) -> OptionListing:
        """Return the listing of some instruments: their options, and what values these."""
        owned = [name for name, owner in self.underlyings.items() if owner in names]
        quantities = self.quantities
        if quantities is not None:
            quantities = quantities[[name for name in quantities.columns if name in owned]]
        return self._replace(
            options=pick_names(self.options, owned),
            underlyings=pick_names(self.underlyings, owned),
            surfaces=pick_names(self.surfaces, names),
            chains=pick_names(self.chains, names),
            quantities=quantities,
        )

    def describe(self) -> dict[str, Any]:
        """Return the facts of the listing for a manifest; it names data by their hashes."""
        facts: dict[str, Any] = {
            "contracts": {name: option.to_dict() for name, option in self.options.items()},
            "underlyings": self.underlyings,
            "surfaces": {name: fits.content_hash for name, fits in self.surfaces.items()},
            "chains": {name: hash_frame(chain.table) for name, chain in self.chains.items()},
            "quote_age": self.quote_age,
            "max_age": self.max_age,
        }
        if self.quantities is not None:
            facts["quantities"] = hash_frame(self.quantities.reset_index())
        return facts


def pick_names(by_name: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the part of a mapping whose keys are among some names."""
    return {name: value for name, value in by_name.items() if name in names}


def read_listing(
    listed: Mapping[str, Any],
    surfaces: object,
    chains: object,
    quote_age: Any,
    max_age: Any,
) -> tuple[dict[str, Any], OptionListing]:
    """Return the markets among what is listed by name, and the listing of the options.

    ``quote_age`` and ``max_age`` are durations as the user gives them. Raises ParameterError or
    DataError if an option, a surface or a chain does not fit the others. Markets are not checked
    here: beside something that is no market the listing is empty, and bt.Markets refuses it.
    """
    options: dict[str, Option] = {}
    markets: dict[str, Any] = {}
    for name, value in listed.items():
        if isinstance(value, Option):
            options[name] = value
        else:
            markets[name] = value

    if options and not markets:
        raise ParameterError(
            f"an option needs the market of its underlying, got only {next(iter(options))!r}; "
            'give both, as {"BTC": market, "BTC-26JUN26-60000-P": option}'
        )
    has_markets = all(isinstance(market, Market) for market in markets.values())
    if not markets or not has_markets:
        return markets, OptionListing({}, {}, {}, {}, quote_age=0, max_age=0)

    first_open = min(market.start for market in markets.values())
    check_contracts(options, start=first_open)
    underlyings = {}
    for name, option in options.items():
        what = f"option {name!r}"
        underlyings[name] = find_underlying(str(option.underlying), markets, what)
    listing = OptionListing(
        options=options,
        underlyings=underlyings,
        surfaces=read_by_name("surfaces", surfaces, Surfaces, markets),
        chains=read_by_name("chains", chains, Chain, markets),
        quote_age=0 if quote_age is None else parse_duration(quote_age, "quote_age"),
        max_age=parse_duration(max_age, "max_age"),
    )

    check_surfaces(listing)
    if quote_age is not None and not listing.chains:
        raise ParameterError("quote_age is of quotes, got no chains")
    for owner, chain in listing.chains.items():
        check_chain(options, underlyings, owner, chain)
    return markets, listing


def check_surfaces(listing: OptionListing) -> None:
    """Require surfaces of each instrument that has options."""
    for name, owner in listing.underlyings.items():
        if owner not in listing.surfaces:
            raise ParameterError(
                f"surfaces must include {owner!r}, the underlying of {name!r}, got none; "
                f"give surfaces={{{owner!r}: bt.Surfaces.load('chains/', underlying='BTC')}}"
            )


def check_contracts(options: Mapping[str, Option], start: int) -> None:
    """Require that names of options are clean, and contracts listed once and alive at a start.

    ``start`` is in ns since 1970.
    """
    name_of_terms: dict[tuple[object, ...], str] = {}
    for name, option in options.items():
        is_clean = isinstance(name, str) and name != "" and name == name.strip()
        if not is_clean:
            raise ParameterError(
                f"the name of an option must be text without spaces around it, got {name!r}"
            )
        terms = (
            option.underlying,
            option.kind,
            option.strike,
            option.expiry,
            option.settlement,
            option.size,
        )

        # Terms that are there already were listed under another name.
        first_name = name_of_terms.setdefault(terms, name)
        if first_name != name:
            raise ParameterError(
                f"a contract must be listed once, got it as {first_name!r} and as {name!r}"
            )
        if find_expiry(option) <= start:
            raise ParameterError(
                f"an option must expire after the first bar, {core.format_time(start)}, got "
                f"{name!r}, which expires at {option.expiry}"
            )


def refuse_options(markets: Any, what: str) -> None:
    """Raise ParameterError where markets list options and ``what`` cannot hold them."""
    options = [*getattr(markets, "options", ())]
    if options:
        raise ParameterError(f"{what} cannot hold options, got {', '.join(map(repr, options))}")


def find_expiry(option: Option) -> int:
    """Return when an option expires, in ns."""
    return core.to_nanoseconds(str(option.expiry), "expiry")


def find_underlying(
    named: str,
    markets: Mapping[str, Market],
    what: str,
) -> str:
    """Return the market that is named, by its name, its coin or its instrument.

    Raises ParameterError, which begins with ``what``, if none or several are.
    """
    if named in markets:
        return named

    # By another name. The coin of a market may be unknown, "", which is no name.
    matches = []
    for name, market in markets.items():
        aliases = {find_coin(name), find_coin(market.instrument), market.instrument}
        if named and named in aliases:
            matches.append(name)
    if len(matches) == 1:
        return matches[0]

    if matches:
        raise ParameterError(
            f"{what} must have one instrument of {named!r}, got {' and '.join(matches)}; give one "
            "of them as the underlying"
        )
    raise ParameterError(
        f"{what} must be of an instrument of the markets, {', '.join(markets)}, got {named!r}"
        f"{did_you_mean(named, [*markets])}"
    )


def read_by_name(
    argument: str,
    value: Any,
    kind: type,
    markets: Mapping[str, Market],
) -> dict[str, Any]:
    """Return a checked argument that maps instruments to values of a kind; empty for ``None``."""
    by_name = {} if value is None else value
    is_mapping = isinstance(by_name, Mapping)
    if not is_mapping or not all(isinstance(entry, kind) for entry in by_name.values()):
        raise ParameterError(
            f"{argument} must be a mapping of instruments to bt.{kind.__name__}, got "
            f"{core.repr_plain(value)}"
        )
    core.check_names(f"{argument}: the market", by_name, [*markets], noun="instrument")
    return dict(by_name)


def check_chain(
    options: Mapping[str, Option],
    underlyings: Mapping[str, str],
    owner: str,
    chain: Chain,
) -> None:
    """Require that the chain of an instrument settles as its options, and has their underlying."""
    for name, option in options.items():
        if underlyings[name] != owner:
            continue
        if option.settlement != chain.settlement:
            raise DataError(
                f"a chain must settle as its options, in {option.settlement}, got prices in "
                f"{chain.settlement} for {name!r}"
            )
        if len(chain.underlyings) > 1 and option.underlying not in chain.underlyings:
            raise DataError(
                f"a chain must have one underlying, or the one of its options, "
                f"{option.underlying!r}, got {', '.join(chain.underlyings)}; give "
                "chain.select(underlying=...)"
            )
