"""``mm demo``: the main job on real sample data."""

import argparse

from rich.console import Console

from mm_assets.demo.job import run_demo
from mm_assets.operations.screen import Outcome
from mm_assets.settings import read_settings


def demo(args: argparse.Namespace, console: Console) -> Outcome:
    """Runs the main job."""
    return run_demo(console, read_settings(), release=args.release)
