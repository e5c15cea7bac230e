"""Who reached what: lineage of samples and models, and explanations of why a sample was kept or left out."""
