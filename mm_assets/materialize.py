"""Materializing a partition: what it would be made from now, whether it is that already, making it, checking it.

Dagster (``defs``), the command line and the pods all go through a ``Workspace``; nothing else materializes anything.
``find_current`` only reads. One workspace serves one command or run: it remembers what it read.
"""

import importlib
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mm_assets.checks.rules import Rules, rules_in_force
from mm_assets.checks.validations import (
    Finding,
    Subject,
    ValidationRecord,
    add_findings,
    passed_in_first_version,
    read_validation,
    record_validation,
)
from mm_assets.errors import CheckError, ObjectCorruptError
from mm_assets.identity.canonical import Json, digest_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.pipeline import ASSETS, OPTIONAL_RULES, RULES_FILES, Asset, asset_named, check_roots, code_roots
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.scratch import scratch_folder
from mm_assets.settings import PACKAGED_CONFIG, Settings, clear_math_modes
from mm_assets.store.action import Action, Maker, adopted_makers, inputs_digest
from mm_assets.store.commit import Attempt, Committed, StageResult
from mm_assets.store.job import Job
from mm_assets.store.manifest import FIRST_SCHEMA, Manifest, Partition, read_manifest
from mm_assets.store.objects import Store, open_store
from mm_assets.store.refs import Ref, read_ref, require_ref

logger = logging.getLogger(__name__)

T = TypeVar("T")
Environment = Mapping[str, Json]
#: An asset and a release -> identity of the environment it would run in; None where only a worker could tell.
EnvironmentOf = Callable[[Asset, str], "Environment | None"]


def packaged_rules() -> dict[str, bytes]:
    """The rules files of this version, by name."""
    return {name: (PACKAGED_CONFIG / name).read_bytes() for name in RULES_FILES}


def code_of(asset: Asset) -> str:
    """Digest of the code that makes the asset's bytes, and of the libraries it makes them with."""
    source = code_digest(*code_roots(asset))
    return digest_json({"source": source, "libraries": library_versions(*asset.libraries)})


class Workspace:
    """Settings and store of one process, and what it has read of them.

    Args:
        settings: Where the store is and how stages run.
        store: The store; the configured one, opened on first use, unless given.
    """

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings = settings
        self._given = store
        self._specs: dict[str, ReleaseSpec] = {}
        self._rules: dict[str, Rules] = {}
        self._adopted: dict[tuple[str, str, str], list[Maker]] = {}
        self._read: dict[tuple[str, Partition] | Subject, Any] | None = None
        self._supposed: dict[tuple[str, Partition], Ref] = {}

    @cached_property
    def store(self) -> Store:
        """The configured store, or the embedded one."""
        return self._given or open_store(self.settings)

    @contextmanager
    def unchanged(self) -> Generator[None]:
        """While it lasts nothing is committed, so refs and outcomes of checks are read once."""
        self._read = {}
        try:
            yield
        finally:
            self._read = None

    @contextmanager
    def supposing(self) -> Generator[Callable[[Ref], None]]:
        """Gives a function that takes staged partitions for current: while it lasts, others are made from them."""

        def suppose(ref: Ref) -> None:
            self._supposed[ref.asset, Partition(release=ref.release, shard=ref.shard)] = ref

        try:
            yield suppose
        finally:
            self._supposed = {}

    def ref(self, name: str, partition: Partition) -> Ref | None:
        """What the partition currently is, or None if it was never materialized."""
        if (name, partition) in self._supposed:
            return self._supposed[name, partition]
        return self._once((name, partition), lambda: read_ref(self.store, name, partition).ref)

    def spec(self, release: str) -> ReleaseSpec:
        """The spec of an open release, read once: a spec never changes."""
        if release not in self._specs:
            self._specs[release] = read_spec(self.store, release)
        return self._specs[release]

    def rules(self, release: str) -> Rules:
        """The rules in force for a release, as they were when this workspace first asked."""
        if release not in self._rules:
            pinned = self.spec(release).rules
            self._rules[release] = rules_in_force(self.store, release, pinned, packaged_rules())
        return self._rules[release]

    def subject(self, ref: Ref) -> Subject:
        """What the check of the partition is about, under the rules in force for its release."""
        return self._subject(ref.asset, ref.content, ref.inputs, self.rules(ref.release))

    def _subject(self, name: str, content: str, inputs: str | None, rules: Rules) -> Subject:
        asset = asset_named(name)
        return Subject(
            asset=name,
            content=content,
            inputs=inputs,
            rules=digest_json(
                {
                    "code": code_digest(*check_roots(asset)),
                    "files": {
                        name: rules.digest(name)
                        for name in asset.rules
                        if name in rules.digests or name not in OPTIONAL_RULES
                    },
                }
            ),
        )

    def validation(self, ref: Ref) -> ValidationRecord | None:
        """The outcome of the partition's check under the rules in force, or None if it was not checked.

        What passed fails where what it depends on outside its bytes does not stand any more.
        """
        record = self._outcome(ref.asset, ref.content, ref.inputs, ref.release)
        return self._with_standing(ref, record) if record is not None and record.passed else record

    def _with_standing(self, ref: Ref, record: ValidationRecord) -> ValidationRecord:
        standing = asset_named(ref.asset).standing
        if standing is None:
            return record

        def judged() -> tuple[Finding, ...]:
            return standing(self.store, read_manifest(self.store, ref.manifest), self.rules(ref.release))

        return add_findings(record, self._once((f"standing of {ref.asset}", ref.partition), judged))

    def _outcome(self, name: str, content: str, inputs: str | None, release: str) -> ValidationRecord | None:
        """The first passed outcome of a check, or else the last one that there can be."""
        record: ValidationRecord | None = None
        for rules in self._judged_by(name, release):
            subject = self._subject(name, content, inputs, rules)
            record = self._once(subject, lambda subject=subject: read_validation(self.store, subject))
            if record is not None and record.passed:
                break
        return record

    def _judged_by(self, name: str, release: str) -> list[Rules]:
        """Rules that the asset is judged by, one after the other until it passes: those without exclusions come first.

        What passes with every sample judged needs no exclusion, so that one more makes no other check run again.
        """
        rules = self.rules(release)
        kept = {file: digest for file, digest in rules.digests.items() if file not in OPTIONAL_RULES}
        if all(file in kept for file in asset_named(name).rules if file in rules.digests):
            return [rules]
        return [Rules(digests=kept, load=rules.load), rules]

    def require_passed(self, name: str, partition: Partition) -> Ref:
        """The partition's ref, provided its check passed under the rules in force.

        Raises:
            ObjectMissingError: the partition was never materialized.
            CheckError: no check was made of what it is now, or one failed.
        """
        ref = self.ref(name, partition) or require_ref(self.store, name, partition)
        record = self.validation(ref)
        where = f"{name} {partition.path}"
        if record is None:
            raise CheckError(
                f"{where}: was not checked under the rules in force: expected a passed check of {ref.content}. "
                f"Run `mm run --release {partition.release}`, or materialize it together with its check."
            )
        if not record.passed:
            raise CheckError(
                f"{where}: failed its check: {record.failures}. Repair the data or the rules and run it again."
            )
        return ref

    def require_sound(self, name: str, partition: Partition) -> str:
        """Digest of the partition's manifest, provided it passed its check, also one of the first version.

        Raises:
            ObjectMissingError: it was never materialized. CheckError: it was not checked, or it failed.
        """
        ref = require_ref(self.store, name, partition)
        self._require_sound(read_manifest(self.store, ref.manifest), ref.manifest)
        return ref.manifest

    def resolve(self, name: str, partition: Partition, environment: Environment) -> Action:
        """What the partition would be made from now. Reads only.

        Raises:
            ObjectMissingError: the release or an input does not exist.
            CheckError: an input did not pass its check under the rules in force, or is stale.
        """
        asset = asset_named(name)
        resolved = self._resolved(asset, partition, environment)
        return Action(
            asset=name,
            code=code_of(asset),
            params=resolved.params,
            environment=resolved.environment,
            inputs=resolved.inputs,
        )

    def find_current(self, name: str, partition: Partition, environment: Environment) -> Ref | None:
        """The partition's ref if it is what it would be made into now and passed its check; moves nothing.

        Raises:
            MmError: as ``resolve``.
        """
        ref = self.ref(name, partition)
        if ref is None:
            return None
        action = self.resolve(name, partition, environment)
        if ref.fingerprint != action.fingerprint and not self._is_adopted(action, ref):
            return None
        record = self.validation(ref)
        if record is None or not record.passed or self._was_undone(ref):
            return None
        return ref

    def run(
        self,
        name: str,
        partition: Partition,
        *,
        environment: Environment,
        run_id: str | None = None,
        force: bool = False,
        before_commit: Callable[[], None] = lambda: None,
    ) -> Committed:
        """Materializes one partition in this process, without computing it where its action is known.

        ``before_commit`` is called once the result is there; what it raises, it prevents.
        """
        asset = asset_named(name)
        action = self.resolve(name, partition, environment)
        attempt = Attempt(self.store, action, partition, run_id)
        if not force and asset.is_remembered:
            known = attempt.commit_known(self._adopted_makers(action))
            if known is not None:
                return known
        with scratch_folder(name) as folder:
            logger.info("%s %s: computing", name, partition.path)
            result = self.compute(action, partition, folder)
            before_commit()
            return attempt.commit_result(result, is_remembered=asset.is_remembered)

    def find_known(
        self, name: str, partition: Partition, *, environment: Environment, run_id: str | None = None
    ) -> Committed | None:
        """Commits what the partition's action led to before, or None if it has to be computed."""
        if not asset_named(name).is_remembered:
            return None
        action = self.resolve(name, partition, environment)
        return Attempt(self.store, action, partition, run_id).commit_known(self._adopted_makers(action))

    def compute(self, action: Action, partition: Partition, workdir: Path) -> StageResult:
        """Computes an action's outputs as files in ``workdir``; commits nothing.

        Raises:
            SettingsError: a loaded library was told by the environment to compute in another way.
        """
        clear_math_modes()
        module, _, function = asset_named(action.asset).compute.partition(":")
        placement: dict[str, Any] = dict(self.spec(partition.release).configuration.get("placement", {}))
        job = Job(
            store=self.store,
            action=action,
            workdir=workdir,
            placement=placement | self.settings.given(),
        )
        return getattr(importlib.import_module(module), function)(job)

    def check(self, name: str, partition: Partition) -> ValidationRecord:
        """Checks what the partition currently is and records the outcome; later stages require it.

        What passed under the rules in force is not checked again; what failed is, and so is what others can undo.

        Raises:
            CheckError: it gathers shards of which one did not pass under the rules in force.
        """
        ref = self.ref(name, partition) or require_ref(self.store, name, partition)
        try:
            known = self._outcome(ref.asset, ref.content, ref.inputs, ref.release)
        except ObjectCorruptError as error:
            logger.warning("%s The check is made again.", error)
            known = None
        if known is not None and known.passed and asset_named(name).is_remembered:
            return self._with_standing(ref, known)
        if _gathers(asset_named(name)):
            # Its own check reads what it wrote: only its inputs' checks say whether the shards pass.
            self.resolve(name, partition, {})
        manifest = read_manifest(self.store, ref.manifest)
        first, *others = self._judged_by(name, partition.release)
        record = self._judge(ref, manifest, first)
        for rules in others:
            record = record if record.passed else self._judge(ref, manifest, rules)
        return self._with_standing(ref, record)

    def _judge(self, ref: Ref, manifest: Manifest, rules: Rules) -> ValidationRecord:
        findings = asset_named(ref.asset).validate(self.store, manifest, rules)
        return record_validation(self.store, self._subject(ref.asset, ref.content, ref.inputs, rules), findings)

    def _resolved(self, asset: Asset, partition: Partition, environment: Environment) -> Resolved:
        return asset.resolve(
            InputContext(
                store=self.store,
                spec=self.spec(partition.release),
                partition=partition,
                environment=environment,
                rules=self.rules(partition.release),
                take=self._take,
                require_sound=self._require_sound,
                peek=lambda name: self.ref(name, Partition(release=partition.release)),
                reads=asset.reads,
            )
        )

    def _take(self, name: str, partition: Partition) -> Ref:
        """The ref of an input: checked under the rules in force, and made from what its own inputs are now.

        Raises:
            ObjectMissingError: it is not materialized. CheckError: it did not pass, or it is stale.
        """
        ref = self.require_passed(name, partition)
        asset = asset_named(name)
        # What gathers all shards of a release is looked at by itself, once, and not again by each asset behind it.
        if not _gathers(asset) and inputs_digest(self._resolved(asset, partition, {}).inputs) != ref.inputs:
            raise CheckError(
                f"{name} {partition.path}: is stale: it was made from other data than its inputs hold now. "
                "Materialize it again."
            )
        return ref

    def _require_sound(self, manifest: Manifest, digest: str) -> None:
        """Refuses a manifest that did not pass its check under the rules in force for its own release.

        Raises:
            CheckError: it was not checked under them, or it failed.
        """
        where = f"{manifest.asset} {manifest.partition.path}"
        if manifest.schema_ == FIRST_SCHEMA and passed_in_first_version(self.store, manifest, digest):
            return
        record = self._outcome(
            manifest.asset, manifest.content, inputs_digest(manifest.inputs), manifest.partition.release
        )
        if record is None:
            raise CheckError(
                f"{where} ({digest}): was not checked under the rules in force for its release. "
                f"Run `mm run --release {manifest.partition.release}` first."
            )
        if not record.passed:
            raise CheckError(f"{where}: failed its check: {record.failures}. Repair it, or use another release.")

    def _was_undone(self, ref: Ref) -> bool:
        """Whether what it did to the world no longer holds; never for an asset that only computes."""
        asset = asset_named(ref.asset)
        if asset.is_remembered:
            return False
        manifest = read_manifest(self.store, ref.manifest)
        return not all(finding.passed for finding in asset.validate(self.store, manifest, self.rules(ref.release)))

    def _once(self, key: tuple[str, Partition] | Subject, read: Callable[[], T]) -> T:
        if self._read is None:
            return read()
        if key not in self._read:
            self._read[key] = read()
        return self._read[key]

    def _is_adopted(self, action: Action, ref: Ref) -> bool:
        return any(ref.fingerprint == action.fingerprint_under(maker) for maker in self._adopted_makers(action))

    def _adopted_makers(self, action: Action) -> list[Maker]:
        key = (action.asset, action.code, digest_json(dict(action.environment)))
        if key not in self._adopted:
            self._adopted[key] = adopted_makers(self.store, action.asset, action.maker)
        return self._adopted[key]


def partitions_of(spec: ReleaseSpec, asset: Asset) -> list[Partition]:
    """The partitions that a release has of an asset."""
    if not asset.is_sharded:
        return [Partition(release=spec.release)]
    return [Partition(release=spec.release, shard=shard) for shard in spec.shards()]


def _gathers(asset: Asset) -> bool:
    return not asset.is_sharded and any(ASSETS[upstream].is_sharded for upstream in asset.reads)
