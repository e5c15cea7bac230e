"""The only module Dagster loads. Math modes go first: what is loaded later would read them."""

from mm_assets.settings import clear_math_modes

clear_math_modes()

from mm_assets.defs.build import build_definitions  # noqa: E402

defs = build_definitions()
