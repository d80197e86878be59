"""The account with several positions: what it owns, the steps of its bar, its ledger.

The rules of one position are those of :mod:`backtest.account`; the requirement of all cross
positions together is in :mod:`backtest.venue`. Every function is scalar, and has a compiled twin:
one kernel for any number of instruments and any kind of account.
"""
