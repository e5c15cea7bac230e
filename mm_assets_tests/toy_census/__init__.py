"""A toy stage: counts the samples of a frozen release that have each modality."""
