"""The freeze: joins shard manifests into a dataset release with dedup, curation, splits, drift and a record."""
