"""Files and frames to aligned arrays, with every defect reported at once.

Read in this order: ``assemble`` (the door), ``parts``, ``tables`` and ``times`` (frames to arrays),
``checks`` and ``settlements`` (the rules), ``repairs`` (by choice), ``align`` (mark and funding
beside the bars); ``folder``, ``layouts`` and ``files`` (paths to frames, with ``packed``,
``texts``, ``lists`` and ``arrow``), ``vendors`` (their names for columns), ``trades`` (to bars);
``reshape`` (cuts and longer bars), ``synthetic`` (the sample); ``findings``, ``inspection``,
``verdicts`` and ``quality`` (the report on data, whether or not they load). Nothing here imports
more of the package than its errors and units.
"""
