"""Stage ``snapshot``: freezes raw drops into shards of samples, and keeps dead letters."""
