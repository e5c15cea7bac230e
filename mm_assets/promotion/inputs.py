"""What a decision is made from: the evaluation, what it judged, the rules in force, and the model in production."""

from mm_assets.errors import ObjectCorruptError
from mm_assets.promotion.chain import read_production
from mm_assets.promotion.config import THRESHOLDS_FILE, parse_thresholds
from mm_assets.promotion.decide import CHAMPION, PREDICTIONS
from mm_assets.promotion.record import registry_key
from mm_assets.promotion.registry import WEIGHTS
from mm_assets.promotion.validate import decision_problem
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.store.manifest import Input, Manifest, NamedDigest, read_manifest
from mm_assets.store.objects import Store


def resolve_promotion(context: InputContext) -> Resolved:
    """What a decision would be made from now. The rules' whole content is in it, so the decision explains itself.

    Raises:
        ObjectMissingError: an input does not exist.
        CheckError: an input did not pass its check, or is about another model or release.
        ObjectCorruptError: the registry holds what its decision does not say.
        SettingsError: the rules are unusable.
    """
    thresholds = parse_thresholds(context.rules.read(THRESHOLDS_FILE), THRESHOLDS_FILE)
    return Resolved(params={"thresholds": thresholds.to_json()}, inputs=(*context.all_upstream(), *_champion(context)))


def resolve_registration(context: InputContext) -> Resolved:
    """What the registry would be moved by: the decision.

    Raises:
        ObjectMissingError: there is no decision. CheckError: it did not pass its check, or is out of date.
    """
    return Resolved(params={}, inputs=context.all_upstream())


def _champion(context: InputContext) -> tuple[Input, ...]:
    """The model in production and its evaluation, unless there is none.

    A model that this release moved the registry to is compared with what it was compared with then: otherwise every
    promoted model would at once be out of date, and compared with itself.
    """
    weights = context.upstream("model").digest(WEIGHTS)
    production = read_production(context.store)
    known = [production.decision] if production and production.release == context.spec.release else []
    registration = context.peek("registration")
    if registration is not None:
        manifest = read_manifest(context.store, registration.manifest)
        known += [manifest.input("promotion").manifest] if "production" in str(manifest.stats.get("moved")) else []
    for decision in (read_manifest(context.store, digest) for digest in known):
        if _weights_of(context.store, decision) == weights:
            return tuple(entry for entry in decision.inputs if entry.role == CHAMPION)
    if production is None:
        return ()
    problem = decision_problem(context.store, production)
    if problem is not None:
        raise ObjectCorruptError(f"{context.store.uri(registry_key('production'))}: {problem}. Run `mm verify`.")
    decision = read_manifest(context.store, production.decision)
    return tuple(
        _champion_input(context.store, decision.input(asset), name)
        for asset, name in (("model", WEIGHTS), ("evaluation", PREDICTIONS))
    )


def _weights_of(store: Store, decision: Manifest) -> str:
    return read_manifest(store, decision.input("model").manifest).output(WEIGHTS).digest


def _champion_input(store: Store, entry: Input, name: str) -> Input:
    digest = read_manifest(store, entry.manifest).output(name).digest
    return entry.model_copy(update={"outputs": [NamedDigest(name=name, digest=digest)], "role": CHAMPION})
