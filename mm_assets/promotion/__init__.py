"""Stage ``promotion``: gates over the evaluation, the decision, the registry and its registration."""
