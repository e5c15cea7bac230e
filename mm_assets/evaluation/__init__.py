"""Stage 4: measures a model on fixed slices and corruptions, its calibration and retrieval."""
