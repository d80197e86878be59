"""Policies: the base class, its parameters and memory, combinators, and located errors.

A policy reads closed bars and a read-only view of its account, and returns a leverage.
"""
