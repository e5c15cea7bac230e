"""One module per stage: read config, run one partition, attach metadata, return."""
