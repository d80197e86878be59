"""Files and frames to aligned arrays; every defect is reported at once.

Read in this order: ``assemble`` (frames to a market), ``parts``, ``tables`` and ``times`` (frames
to arrays), ``checks``, ``scales`` and ``settlements`` (the rules), ``repairs`` (on request),
``align`` (mark and funding with the bars), ``market_data`` (the result); ``folder``, ``choices``,
``layouts``, ``funding_files`` and ``files`` (paths to frames, with ``packed``, ``texts``, ``lists``
and ``arrow``), ``vendors`` (their column names), ``trades``, ``bar_groups`` and ``reshape`` (longer
bars and cuts), ``synthetic`` (the sample); ``findings``, ``inspection``, ``verdicts`` and
``quality`` (the quality report). Nothing here imports more of the package than its base.
"""
