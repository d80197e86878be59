"""The basis of a report: model, rules, data, and the command that reproduces it."""
