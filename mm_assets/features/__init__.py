"""Stage 2: decodes every blob exactly once into tensors and quality signals, and embeds them."""
