"""The settlement currency of instruments that share one balance: it must be one for all."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from backtest.base import Argument, Either, ParameterError, Phrase, find_coin, find_currency
from backtest.venue.trading_terms import Contract


def agree_settlement(
    contracts: Mapping[str, Contract],
    *,
    where: str,
    said: Mapping[str, Collection[str]] | None = None,
    given: str = "",
) -> str:
    """Return the currency in which all contracts settle, empty if it is unknown.

    Parameters
    ----------
    contracts : mapping of str to Contract
        By the name of the instrument.
    where : str
        For errors.
    said : mapping of str to collection of str, optional
        Other names of each instrument; what the first of them says is taken before the key.
    given : str
        The currency that the caller gives for all, empty if none. It takes the place of what the
        names of linear contracts say, and must be the one that the contracts declare, or that the
        names of inverse contracts say.

    Raises
    ------
    ParameterError
        If two settle in different currencies; or if one of several is inverse, and the currency of
        one is unknown.
    """
    found = {
        name: _find_settlement(contract, (*(said or {}).get(name, ()), name), given)
        for name, contract in contracts.items()
    }
    known = {name: currency for name, currency in found.items() if currency}
    first = next(iter(known), "")
    for name, currency in known.items():
        if currency != known[first]:
            raise _refuse_two(known[first], first, currency, name, contracts, where=where)
    inverse = next((name for name, each in contracts.items() if each.kind == "inverse"), None)
    unknown = next((name for name in contracts if name not in known), None)
    if len(contracts) > 1 and inverse is not None and unknown is not None:
        raise _refuse_unknown(unknown, inverse, where=where)
    if given and known and given != known[first]:
        raise _refuse_given(given, known[first], first, where=where)
    return known.get(first, given)


def find_pools(
    contracts: Mapping[str, Contract],
    *,
    where: str,
    said: Mapping[str, Collection[str]],
    currencies: Collection[str],
) -> dict[str, int]:
    """Return the number of the currency in which each contract settles."""
    pools: dict[str, int] = {}
    for name, contract in contracts.items():
        found = _find_settlement(contract, (*said.get(name, ()), name), "")
        if found not in currencies:
            raise _refuse_currency(name, found, currencies, where=where)
        pools[name] = [*currencies].index(found)
    return pools


def _refuse_currency(
    name: str, found: str, currencies: Collection[str], *, where: str
) -> ParameterError:
    listed = ", ".join(currencies)
    cure: str | Phrase = Phrase("add it to {}", Argument("rates", {found: "..."}))
    if not found:
        cure = Phrase("give {}", _name_field(name, [*currencies][-1]))
    return ParameterError(
        f"{name!r} must settle in a currency of the account, {listed}, got {found or 'an unknown'}",
        where=where,
        cure=cure,
    )


def check_names_agree(
    contracts: Mapping[str, Contract], said: Mapping[str, Collection[str]], *, where: str
) -> None:
    """Refuse a contract that declares another currency than the names of its market say."""
    for name, contract in contracts.items():
        is_inverse = contract.kind == "inverse"
        names = (*said.get(name, ()), name)
        found = _read_names(names, is_inverse=is_inverse)
        if is_inverse and not found:  # it settles in the coin that its name quotes
            found = next(filter(None, map(find_coin, names)), "")
        if contract.settles is not None and found not in ("", contract.settles):
            raise ParameterError(
                f"a market must be in the currency in which its venue settles, got {found} by the "
                f"name of {name!r} and {contract.settles} of its venue",
                where=where,
                cure=Phrase(
                    "choose a venue that settles in {}; to count the two as one, give {}",
                    found,
                    Argument("currency", contract.settles),
                ),
            )


def _find_settlement(contract: Contract, names: Collection[str], given: str) -> str:
    """Return the currency that a contract declares, or else the caller or its names say."""
    is_inverse = contract.kind == "inverse"
    said = _read_names(names, is_inverse=is_inverse)
    return contract.settles or (said or given if is_inverse else given or said)


def _read_names(names: Collection[str], *, is_inverse: bool) -> str:
    """Return the currency that the first name that says one says, empty if none does."""
    return next(filter(None, (find_currency(name, is_inverse=is_inverse) for name in names)), "")


def _refuse_two(
    one: str, first: str, two: str, second: str, contracts: Mapping[str, Contract], *, where: str
) -> ParameterError:
    cure: str | Phrase = Phrase(
        "give {} and {} to give each currency a pool of its own",
        Argument("currency", one),
        Argument("rates", {two: f"{two}{one}"}),
    )
    if not any(each.kind == "inverse" for each in contracts.values()):
        cure = Phrase("{}; to count the two as one, give {}", cure, _name_field(second, one))
    return ParameterError(
        f"the positions of one balance must settle in one currency, got {one} for {first!r} and "
        f"{two} for {second!r}",
        where=where,
        cure=cure,
    )


def _refuse_unknown(unknown: str, inverse: str, *, where: str) -> ParameterError:
    other = "" if unknown == inverse else f", and {inverse!r} is inverse"
    return ParameterError(
        "several positions of which one is inverse must all have a known settlement currency, got "
        f"none for {unknown!r}{other}",
        where=where,
        cure=Phrase("give {}", _name_field(unknown, "BTC")),
    )


def _refuse_given(given: str, currency: str, name: str, *, where: str) -> ParameterError:
    return ParameterError(
        f"the currency of the markets must be that in which their venues settle, got {given!r} for "
        f"the markets and {currency!r} for {name!r}",
        where=where,
        cure=Phrase("give {}, or leave it out", Argument("currency", currency)),
    )


def _name_field(name: str, currency: str) -> Either:
    """Return the field of a venue that holds the currency, in Python and in a file."""
    return Either(
        f"contract.settles: venue.override({{'contract.settles': {currency!r}}})",
        f"contract.settles: contract = {{settles = {currency!r}}} in [venue.{name}]",
    )
