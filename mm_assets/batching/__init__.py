"""Stage 3, first half: the exact batch plan, the loader that follows it, and the collate both are checked by."""
