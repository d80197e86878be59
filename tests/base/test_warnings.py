"""Warnings stand at the line of the caller, and each line says the same once."""

import warnings

import pytest

import backtest as bt
from backtest.core import errors
from backtest.strategies import VolTarget
from tests.kit import flat, make_market, make_venue

CLOSES = [100.0 + k % 7 for k in range(300)]


@pytest.fixture
def shown(monkeypatch):
    """What is shown under the filters of Python itself; nothing was said before."""
    texts: list[str] = []

    def show(message, *_):
        texts.append(str(message))

    monkeypatch.setattr(errors, "TOLD", set())
    monkeypatch.setattr(errors, "SHOW", show)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        monkeypatch.setattr(warnings, "showwarning", show)
        yield texts


def test_a_loop_of_runs_warns_once(shown):
    """Each run observes a policy under a filter of its own, after which Python forgets."""
    market = make_market([flat(close) for close in CLOSES])
    test = bt.Backtest(market, venue=make_venue(), account=bt.Account())
    for target in (0.2, 0.3, 0.4):
        test.run(VolTarget(target=target))
    assert [text.partition(":")[0] for text in shown] == ["the market has no mark prices"]


def test_another_text_and_another_line_warn_again(shown):
    for text in ("one", "two", "one"):
        errors.warn_caller(text)
    errors.warn_caller("one")
    assert shown == ["one", "two", "one"]


def test_filters_are_followed(shown):
    warnings.filterwarnings("always", message="of")
    warnings.filterwarnings("ignore", message="on")
    warnings.filterwarnings("ignore", module="elsewhere")
    warnings.filterwarnings("error", category=bt.NoFillWarning)
    for text in ("of", "on", "once", "else"):
        for _ in range(2):
            errors.warn_caller(text)
    assert shown == ["of", "of", "else"]

    with pytest.raises(bt.NoFillWarning):
        errors.warn_caller("of", bt.NoFillWarning)


def test_what_is_collected_is_not_counted_as_said(shown, monkeypatch):
    """A search collects what its runs say, and says it at its end, at the same line of the user."""
    collected = []
    for is_collecting in (True, False):
        with warnings.catch_warnings():  # after which Python forgets what was said
            if is_collecting:
                monkeypatch.setattr(
                    warnings, "showwarning", lambda *of: collected.append(str(of[0]))
                )
            errors.warn_caller("a lag")

    assert collected == ["a lag"]
    assert shown == ["a lag"]
