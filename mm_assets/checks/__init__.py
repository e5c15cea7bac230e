"""What a partition is checked by: suites, expectations, the rules in force, and outcomes."""
