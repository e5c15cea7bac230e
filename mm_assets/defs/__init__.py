"""Dagster wiring and nothing else: a loop or a formula here belongs below."""
