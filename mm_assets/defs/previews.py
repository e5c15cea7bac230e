"""Pictures for the UI, where people would rather look than read; each stage draws its own."""

from collections.abc import Callable

from mm_assets.evaluation.preview import preview as evaluation_preview
from mm_assets.features.preview import preview as features_preview
from mm_assets.promotion.preview import preview as promotion_preview
from mm_assets.release.preview import preview as release_preview
from mm_assets.snapshot.preview import preview as snapshot_preview
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.training.preview import preview as model_preview

PREVIEWS: dict[str, Callable[[Store, Manifest], str]] = {
    "snapshot": snapshot_preview,
    "features": features_preview,
    "dataset_release": release_preview,
    "model": model_preview,
    "evaluation": evaluation_preview,
    "promotion": promotion_preview,
}


def preview_of(store: Store, manifest: Manifest) -> str | None:
    """Markdown about a partition, or None for an asset that draws nothing."""
    draw = PREVIEWS.get(manifest.asset)
    return None if draw is None else draw(store, manifest)
