"""What a partition is checked by: suites, expectations, and the records of their outcome."""
