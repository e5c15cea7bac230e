"""What the commands of ``mm`` do: a module per family, each function from parsed arguments to an ``Outcome``."""
