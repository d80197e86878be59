"""The best and the worst order of prices inside ambiguous bars."""
