"""Digests: canonical JSON, code, and random numbers keyed by what they are for."""
