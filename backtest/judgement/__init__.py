"""One answer on a policy: better than constant leverage, timed, safe, and what it costs."""
