"""Validate a way of choosing parameters: walk-forward, cross-validation, re-tuning schedules."""
