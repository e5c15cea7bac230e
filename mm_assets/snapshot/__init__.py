"""Stage 1: freezes raw drops into shards of samples. Sources, drops, release specs, ceilings, dead letters."""
