"""Stage ``training``, first half: the exact batch plan, the loader that follows it, and collate."""
