"""The account: what the trader brings, the eight steps of a bar, the ledger, and ruin.

Money moves here and nowhere else. Every function is scalar, and has a compiled twin.
"""
