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
        kept = {k: each for k, each in self.options.items() if self.underlyings[k] in names}
        frame = self.quantities
        return self._replace(
            options=kept,
            underlyings={k: self.underlyings[k] for k in kept},
            surfaces={k: each for k, each in self.surfaces.items() if k in names},
            chains={k: each for k, each in self.chains.items() if k in names},
            quantities=None if frame is None else frame[[k for k in frame.columns if k in kept]],
        )

    def describe(self) -> dict[str, Any]:
        frame = self.quantities
        return {
            "contracts": {name: each.to_dict() for name, each in self.options.items()},
            "underlyings": self.underlyings,
            "surfaces": {name: each.content_hash for name, each in self.surfaces.items()},
            "chains": {name: hash_frame(each.table) for name, each in self.chains.items()},
            "quote_age": self.quote_age,
            "max_age": self.max_age,
            **({} if frame is None else {"quantities": hash_frame(frame.reset_index())}),
        }


def read_listing(
    given: Mapping[str, Any], surfaces: object, chains: object, quote_age: Any, max_age: Any
) -> tuple[dict[str, Any], OptionListing]:
    options = {name: each for name, each in given.items() if isinstance(each, Option)}
    markets = {name: each for name, each in given.items() if name not in options}
    if not markets or not all(isinstance(each, Market) for each in markets.values()):
        if options and not markets:
            raise ParameterError(
                f"an option needs the market of its underlying, got only {next(iter(options))!r}; "
                'give both, as {"BTC": market, "BTC-26JUN26-60000-P": option}'
            )
        return markets, OptionListing({}, {}, {}, {}, 0, 0)  # what else is wrong is said later
    start, first = min(each.start for each in markets.values()), dict[tuple[object, ...], str]()
    for name, each in options.items():
        if not isinstance(name, str) or not name.strip() or name != name.strip():
            raise ParameterError(
                f"the name of an option must be text without spaces around it, got {name!r}"
            )
        terms = (each.underlying, each.kind, each.strike, each.expiry, each.settlement, each.size)
        other = first.setdefault(terms, name)
        if other != name:
            raise ParameterError(
                f"a contract must be listed once, got it as {other!r} and as {name!r}"
            )
        if find_expiry(each) <= start:
            raise ParameterError(
                f"an option must expire after the first bar, {core.format_time(start)}, got "
                f"{name!r}, which expires at {each.expiry}"
            )
    underlyings = {
        name: find_underlying(str(each.underlying), markets, f"option {name!r}")
        for name, each in options.items()
    }
    listing = OptionListing(
        options=options,
        underlyings=underlyings,
        surfaces=read_by_name("surfaces", surfaces, Surfaces, markets),
        chains=read_by_name("chains", chains, Chain, markets),
        quote_age=0 if quote_age is None else parse_duration(quote_age, "quote_age"),
        max_age=parse_duration(max_age, "max_age"),
    )
    for name, owner in underlyings.items():
        if owner not in listing.surfaces:
            raise ParameterError(
                f"surfaces must include {owner!r}, the underlying of {name!r}, got none; "
                f"give surfaces={{{owner!r}: bt.Surfaces.load('chains/', underlying='BTC')}}"
            )
    if quote_age is not None and not listing.chains:
        raise ParameterError("quote_age is of quotes, got no chains")
    for owner, chain in listing.chains.items():
        check_chain(options, underlyings, owner, chain)
    return markets, listing


def refuse_options(markets: Any, what: str) -> None:
    listed = [*getattr(markets, "options", ())]
    if listed:
        raise ParameterError(f"{what} cannot hold options, got {', '.join(map(repr, listed))}")


def find_expiry(option: Option) -> int:
    return core.to_nanoseconds(str(option.expiry), "expiry")


def find_underlying(named: str, markets: Mapping[str, Market], what: str) -> str:
    if named in markets:
        return named
    found = [
        name
        for name, market in markets.items()
        if named in {find_coin(name), find_coin(market.instrument), market.instrument} - {""}
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(markets)
    if found:
        raise ParameterError(
            f"{what} must have one instrument of {named!r}, got {' and '.join(found)}; give one of "
            "them as the underlying"
        )
    raise ParameterError(
        f"{what} must be of an instrument of the markets, {names}, got {named!r}"
        f"{did_you_mean(named, [*markets])}"
    )


def read_by_name(
    argument: str, given: Any, kind: type, markets: Mapping[str, Market]
) -> dict[str, Any]:
    found = {} if given is None else given
    if not isinstance(found, Mapping) or not all(isinstance(x, kind) for x in found.values()):
        raise ParameterError(
            f"{argument} must be a mapping of instruments to bt.{kind.__name__}, got "
            f"{core.repr_plain(given)}"
        )
    core.check_names(f"{argument}: the market", found, [*markets], noun="instrument")
    return dict(found)


def check_chain(
    options: Mapping[str, Option], underlyings: Mapping[str, str], owner: str, chain: Chain
) -> None:
    for name, each in options.items():
        if underlyings[name] != owner:
            continue
        if each.settlement != chain.settlement:
            raise DataError(
                f"a chain must settle as its options, in {each.settlement}, got prices in "
                f"{chain.settlement} for {name!r}"
            )
        if len(chain.underlyings) > 1 and each.underlying not in chain.underlyings:
            raise DataError(
                f"a chain must have one underlying, or the one of its options, "
                f"{each.underlying!r}, got {', '.join(chain.underlyings)}; give "
                "chain.select(underlying=...)"
            )
