"""``mm verify``: re-hashes everything that refs, open releases and the registry reach, and checks the registry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mm_assets.checks.rules import find_rules_problems, read_rules_record
from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.promotion.chain import read_history
from mm_assets.promotion.history import check_registration, find_registry_problems
from mm_assets.promotion.reachable import Target, object_target, walk_objects
from mm_assets.promotion.record import STATES
from mm_assets.releases.encoders import FOLDER as ENCODERS
from mm_assets.releases.encoders import EncoderEntry, read_encoder_entry
from mm_assets.releases.evaluation_sets import FOLDER as EVALUATION_SETS
from mm_assets.releases.evaluation_sets import EvaluationSet, read_evaluation_set
from mm_assets.releases.policies import FOLDER as POLICIES
from mm_assets.releases.policies import PolicyEntry, read_policy_entry
from mm_assets.releases.spec import list_releases, read_spec, spec_key
from mm_assets.store.action import find_action_problem
from mm_assets.store.manifest import read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import NOT_REFS, read_ref_key

REGISTRATIONS = "refs/registration/"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """Keys checked and the ones that are wrong, sorted; ``reasons`` has a sentence for each of these."""

    objects: int
    corrupt: tuple[str, ...]
    missing: tuple[str, ...]
    reasons: dict[str, str]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is corrupt or missing."""
        return not self.corrupt and not self.missing


def verify_store(store: Store, on_object: Callable[[], None] = lambda: None) -> VerifyReport:
    """Re-hashes every manifest that a ref, an open release or the registry names, and all that it makes reachable.

    Reachable are inputs and outputs, the raw objects of drops, every version of a policy, every encoder that was added
    and every evaluation set that was named. Of the registry, every head, numbered entry and record is checked, and that
    each record is what its decision says.

    Args:
        store: The store to read.
        on_object: Called after each object, for a progress bar.
    """
    corrupt: dict[str, str] = {}
    missing: dict[str, str] = {}
    roots = _registry_roots(store)
    for key, read in _entries(store):
        try:
            roots.append(read())
        except ObjectCorruptError as error:
            corrupt[key] = str(error)
        except ObjectMissingError as error:
            missing[key] = str(error)
    for release in list_releases(store):
        try:
            roots += _spec_roots(store, release)
            for key, problem in find_rules_problems(store, release):
                (missing if store.read_key(key) is None else corrupt)[key] = f"{store.uri(key)}: {problem}"
        except ObjectCorruptError as error:
            corrupt[spec_key(release)] = str(error)
        except ObjectMissingError as error:
            missing[spec_key(release)] = str(error)
    walk = walk_objects(store, roots, on_object)
    for problem in find_registry_problems(store):
        (missing if problem.is_missing else corrupt)[problem.key] = problem.detail
    corrupt |= _undone_registrations(store)
    corrupt |= walk.corrupt
    missing |= walk.missing
    return VerifyReport(
        objects=walk.num_objects,
        corrupt=tuple(sorted(corrupt)),
        missing=tuple(sorted(missing)),
        reasons={**corrupt, **missing},
    )


def _ref_root(store: Store, key: str) -> Target:
    """The manifest that a ref names, which must be the manifest of that very partition and content.

    Raises:
        ObjectCorruptError: the ref is something else, or names a manifest of something else.
        ObjectMissingError: the ref is gone.
    """
    ref = read_ref_key(store, key)
    root = object_target(ref.manifest, is_input=True)
    try:
        manifest = read_manifest(store, ref.manifest)
    except (ObjectCorruptError, ObjectMissingError):
        # The walk over all objects reports the manifest itself.
        return root
    named = (ref.asset, ref.partition, ref.content, ref.fingerprint)
    if named != (manifest.asset, manifest.partition, manifest.content, manifest.fingerprint):
        raise ObjectCorruptError(f"{store.uri(key)}: names a manifest of something else. Run its partition again.")
    problem = find_action_problem(store, manifest.fingerprint, manifest.outputs)
    if problem is not None:
        raise ObjectCorruptError(f"{store.uri(key)}: {problem}. Run its partition again with `--force`.")
    return root


def _undone_registrations(store: Store) -> dict[str, str]:
    """Registrations that the registry no longer holds, by the key of their ref: it was wiped, or put back."""
    undone: dict[str, str] = {}
    for info in store.list_keys(REGISTRATIONS):
        try:
            manifest = read_manifest(store, read_ref_key(store, info.key).manifest)
            finding = check_registration(store, manifest)
        except (ObjectCorruptError, ObjectMissingError):
            # The walk over all objects reports what cannot be read.
            continue
        if not finding.passed:
            undone[info.key] = f"{store.uri(info.key)}: {finding.detail}. Run its release again."
    return undone


def _spec_roots(store: Store, release: str) -> Iterator[Target]:
    """What an open release pins: drops with their raw objects, sources, the release it is built on, rules, encoder."""
    spec = read_spec(store, release)
    digests = [digest for pin in spec.drops for digest in (pin.digest, pin.source_digest)]
    digests += [pin.digest for pin in (spec.parent, spec.data_of, *spec.evaluation_sets) if pin is not None]
    digests += [*([spec.policy["digest"]] if "digest" in spec.policy else [])]
    digests += [*spec.rules.values(), *([spec.encoder["digest"]] if "digest" in spec.encoder else [])]
    replaced = read_rules_record(store, release)
    if replaced is not None:
        digests += [*replaced.rules.values(), *([replaced.previous] if replaced.previous else [])]
    return (object_target(digest, is_input=True) for digest in digests)


def _entries(store: Store) -> Iterator[tuple[str, Callable[[], Target]]]:
    """Every key that names an object, and how that is read: refs, versions of policies, encoders, evaluation sets."""
    for info in store.list_keys("refs/"):
        if not info.key.startswith(NOT_REFS):
            yield info.key, partial(_ref_root, store, info.key)
    readers: dict[str, Callable[[Store, str], PolicyEntry | EncoderEntry | EvaluationSet]] = {
        POLICIES: read_policy_entry,
        ENCODERS: read_encoder_entry,
        EVALUATION_SETS: read_evaluation_set,
    }
    for folder, read in readers.items():
        for info in store.list_keys(folder):
            yield info.key, lambda read=read, key=info.key: object_target(read(store, key).digest, is_input=True)


def _registry_roots(store: Store) -> list[Target]:
    """What the registry names now and, as far as it can be read, everything it named before."""
    roots: list[Target] = []
    for state in STATES:
        try:
            for record in read_history(store, state):
                named = (record.model, record.dataset_release, record.decision)
                roots += [object_target(digest, is_input=True) for digest in named]
        except (ObjectMissingError, ObjectCorruptError):
            # The history ends here; ``find_registry_problems`` reports why.
            continue
    return roots
