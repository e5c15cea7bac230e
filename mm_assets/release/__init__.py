"""Stage ``release``: the freeze of a dataset with duplicates, curation, splits, drift and a record."""
