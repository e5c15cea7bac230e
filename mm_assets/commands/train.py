"""``mm train``: a model from a training spec alone."""

import argparse
from pathlib import Path

from rich.console import Console

from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.operations.train_spec import train_spec
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store


def train(args: argparse.Namespace, console: Console) -> Outcome:
    """Trains what a spec says; ok unless the store knows the same action's model and other files came out."""
    settings = read_settings()
    output = Path(args.output)
    trained = train_spec(open_store(settings), settings, Path(args.spec), output)
    rows = [(name, short_digest(digest)) for name, digest in sorted(trained.outputs.items())]
    print_table(console, f"Model in {output}", ("file", "digest"), rows, left=2)
    sentence = {
        None: "The store knows no model of this spec and code to compare it with.",
        True: "The same files as those that the store knows of this spec and code.",
        False: "Other files than those that the store knows of this spec and code.",
    }[trained.is_reproduced]
    console.print(sentence, style="red" if trained.is_reproduced is False else None, markup=False)
    result = {
        "fingerprint": trained.fingerprint,
        "outputs": dict(trained.outputs),
        "weights": trained.outputs["weights.safetensors"],
        "reproduced": trained.is_reproduced,
        "output": str(output),
    }
    return Outcome(result=result, ok=trained.is_reproduced is not False)
