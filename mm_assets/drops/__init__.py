"""A delivery of raw data: its record, source and checks, and one reader per format."""
