"""Stage ``features``: decodes every blob exactly once into tensors and signals, and embeds them."""
