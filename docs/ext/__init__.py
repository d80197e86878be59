"""Generators of the documentation site: run blocks, and pages made from the code."""
