"""Spread sets of parameters over the workers of a Dask cluster."""

from backtest.sweep.cluster.connect import on_cluster

__all__ = ["on_cluster"]
