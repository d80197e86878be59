"""One account on simulated paths: its policies, venues and signal, and where it begins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from backtest.account import Account
from backtest.base import FloatArray
from backtest.engine import Result, describe_venue, fits_one_position, read_venues
from backtest.policy import Policy
from backtest.risk.paths.path_set import Paths
from backtest.venue import Venue, check_no_column, list_dated, pick_cost


@dataclass(frozen=True, eq=False, kw_only=True)
class PathsAccount:
    paths: Paths
    policy: Policy | Mapping[str, Policy]
    venue: Venue | Mapping[str, Venue]
    account: Account | Result
    signal: float | Mapping[str, float] | None = None
    overlay: Policy | None = None
    compile: bool = True

    @property
    def resume(self) -> Result | None:
        return None if isinstance(self.account, Account) else self.account

    @property
    def resume_in_force(self) -> Result | None:
        if self.resume is None:
            return None
        venues = dict(zip(self.resume.names, self.venues.values(), strict=True))
        manifest = {**self.resume.manifest, "venue": describe_venue(venues)}
        return replace(self.resume, venues=venues, manifest=manifest)

    @property
    def terms(self) -> Account:
        return self.account if isinstance(self.account, Account) else self.account.account

    @functools.cached_property
    def venues(self) -> dict[str, Venue]:
        start = self.paths.calendar.time[:1]
        found = read_venues(self.venue, self.paths.markets)
        for venue in found.values():
            for name in list_dated(venue):
                check_no_column(pick_cost(venue, name), f"venue.{name}", "on simulated paths")
        return {name: each.with_table(each.in_use(start)[0]) for name, each in found.items()}

    @property
    def is_one_position(self) -> bool:
        has_tiers = any(each.fees.tiers for each in self.venues.values())
        is_one = fits_one_position(
            self.paths.markets, self.policy, self.venue, self.terms, self.overlay
        )
        is_one &= self.resume is None or self.resume.is_of_fast_loop
        return is_one and not has_tiers and not self.paths.markets.decide

    @property
    def last(self) -> FloatArray:
        """The last closes of history, of shape (n,)."""
        return np.array([each.close[-1] for each in self.paths.markets.values()])
