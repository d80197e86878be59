"""Measures of performance and risk: streaming ones, and pure functions of arrays."""
