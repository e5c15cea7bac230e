"""What a decision is made from: the evaluation, what it judged, the rules in force, and the model in production."""

from mm_assets.promotion.config import THRESHOLDS_FILE, parse_thresholds
from mm_assets.promotion.decide import CHAMPION, PREDICTIONS, WEIGHTS
from mm_assets.promotion.registry import read_production
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.store.manifest import Input, NamedDigest, read_manifest
from mm_assets.store.objects import Store


def resolve_promotion(context: InputContext) -> Resolved:
    """What a decision would be made from now. The rules' whole content is in it, so the decision explains itself.

    Raises:
        ObjectMissingError: an input does not exist.
        GateError: an input did not pass its check, or is about another model or release.
        SettingsError: the rules are unusable.
    """
    thresholds = parse_thresholds(context.rules.read(THRESHOLDS_FILE), THRESHOLDS_FILE)
    return Resolved(params={"thresholds": thresholds.to_json()}, inputs=(*context.all_upstream(), *_champion(context)))


def resolve_registration(context: InputContext) -> Resolved:
    """What the registry would be moved by: the decision.

    Raises:
        ObjectMissingError: there is no decision. GateError: it did not pass its check, or is out of date.
    """
    return Resolved(params={}, inputs=context.all_upstream())


def _champion(context: InputContext) -> tuple[Input, ...]:
    """The model in production and its evaluation, unless there is none.

    A release that moved the registry by its own decision is compared with what it was compared with then: otherwise
    every promoted model would at once be out of date, and compared with itself.
    """
    own = context.peek("promotion")
    if own is not None and _has_moved_registry(context, own.manifest):
        return tuple(entry for entry in read_manifest(context.store, own.manifest).inputs if entry.role == CHAMPION)
    record = read_production(context.store)
    if record is None:
        return ()
    decision = read_manifest(context.store, record.decision)
    return tuple(
        _champion_input(context.store, decision.input(asset), name)
        for asset, name in (("model", WEIGHTS), ("evaluation", PREDICTIONS))
    )


def _has_moved_registry(context: InputContext, promotion: str) -> bool:
    production = read_production(context.store)
    if production is not None and production.decision == promotion:
        return True
    registration = context.peek("registration")
    if registration is None:
        return False
    manifest = read_manifest(context.store, registration.manifest)
    return manifest.input("promotion").manifest == promotion and bool(manifest.stats.get("moved"))


def _champion_input(store: Store, entry: Input, name: str) -> Input:
    digest = read_manifest(store, entry.manifest).output(name).digest
    return entry.model_copy(update={"outputs": [NamedDigest(name=name, digest=digest)], "role": CHAMPION})
