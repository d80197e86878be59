"""Files and frames to aligned arrays, with every defect reported at once.

Read in this order: ``assemble`` (the door), ``tables`` and ``times`` (frames to arrays), ``checks``
and ``settlements`` (the rules), ``align`` (mark and funding beside the bars), ``folder``,
``layouts`` and ``files`` (paths to frames), ``reshape`` (cuts and longer bars), ``synthetic`` (the
sample). Nothing here imports more of the package than its errors and units.
"""
