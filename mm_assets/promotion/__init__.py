"""Stage 5: gates over the evaluation, the decision, the registry and the model card."""
