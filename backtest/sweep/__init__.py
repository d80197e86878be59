"""Many sets of parameters over one market: what varies, how sets are scored, and ``sweep``.

``lanes/`` scores 64 sets side by side; ``cluster/`` spreads them over Dask workers.
"""
