"""Stage ``evaluation``: a model on fixed slices and corruptions, its calibration and retrieval."""
