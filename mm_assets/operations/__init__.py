"""What people start outside of Dagster's own processes: runs of a release, adoption, status, the terminal."""
