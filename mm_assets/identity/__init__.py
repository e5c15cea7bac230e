"""What things are called by what they are: canonical JSON and digests, code digests, keyed randomness."""
