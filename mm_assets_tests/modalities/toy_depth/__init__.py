"""Depth profiles: a toy modality, which the test copies into the package."""
