"""The only module Dagster loads."""

from mm_assets.defs.build import build_definitions

defs = build_definitions()
