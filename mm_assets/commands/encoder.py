"""``mm encoder``: encoders with weights from elsewhere, kept in the store under a name."""

import argparse

from rich.console import Console

from mm_assets.features.pretrained import read_encoder
from mm_assets.features.pretrained_folder import read_folder, store_encoder
from mm_assets.identity.canonical import Json
from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.releases.encoders import RESERVED, check_encoder_name, list_encoders, name_encoder
from mm_assets.settings import current_user, read_settings
from mm_assets.store.objects import open_store


def add(args: argparse.Namespace, console: Console) -> Outcome:
    """Stores the files of a folder as an encoder, and names it."""
    check_encoder_name(args.name)
    folder = read_folder(args.folder)
    store = open_store(read_settings())
    digest, encoder = store_encoder(store, folder)
    entry = name_encoder(store, args.name, digest, by=current_user())
    kept = [file.name for file in encoder.files]
    unused = sorted({*folder.unused, *folder.paths} - {*kept})
    console.print(f"Encoder {entry.name} ({encoder.model_type}, {short_digest(digest)}) keeps {', '.join(kept)}.")
    if unused:
        console.print(f"Not used: {', '.join(unused)}.", markup=False)
    console.print(
        f"It embeds {' and '.join(encoder.modalities)} as {encoder.dim} numbers. Use it with "
        f"`mm release open --encoder {entry.name}`.",
        markup=False,
    )
    result: dict[str, Json] = {
        "name": entry.name,
        "digest": digest,
        "model_type": encoder.model_type,
        "dim": encoder.dim,
        "modalities": list(encoder.modalities),
        "expects": dict(encoder.expects),
        "files": {file.name: file.digest for file in encoder.files},
        "unused": list(unused),
    }
    return Outcome(result=result)


def list_all(args: argparse.Namespace, console: Console) -> Outcome:
    """Every encoder that a release can be opened with."""
    del args
    store = open_store(read_settings())
    encoders: list[Json] = [{"name": name} for name in RESERVED]
    rows = [(name, "", "", "") for name in RESERVED]
    for entry in list_encoders(store):
        encoder = read_encoder(store, entry.digest)
        modalities = ", ".join(encoder.modalities)
        rows.append((entry.name, encoder.model_type, modalities, short_digest(entry.digest)))
        encoders.append(
            {
                "name": entry.name,
                "digest": entry.digest,
                "model_type": encoder.model_type,
                "dim": encoder.dim,
                "modalities": list(encoder.modalities),
                "by": entry.by,
                "at": entry.at,
            }
        )
    print_table(console, "Encoders", ("name", "type", "embeds", "digest"), rows, left=4)
    return Outcome(result={"encoders": encoders})
