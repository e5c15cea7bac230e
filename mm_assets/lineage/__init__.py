"""Where a sample or a model comes from, why a sample is selected or not, and whether the store is sound."""
