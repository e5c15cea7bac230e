"""Laws of a manifest's bytes: one form, whatever the order in which it is built, and every value is in it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.store.manifest import Input, Manifest, NamedDigest, Output, Partition, content_digest, parse_manifest

pytestmark = pytest.mark.property

DIGESTS = st.binary(max_size=4).map(digest_bytes)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
#: Beyond these JSON has floats that read back as integers, which have no canonical form.
LARGEST = 2**53 - 1
NUMBERS = st.integers(-LARGEST, LARGEST) | st.floats(-LARGEST, LARGEST)
#: Without nulls, which a manifest leaves out.
VALUES = st.recursive(
    st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
OUTPUTS = st.lists(
    st.builds(
        Output, name=TEXTS, digest=DIGESTS, size_bytes=st.integers(0, 2**50), media_type=TEXTS,
        num_rows=st.none() | st.integers(0, 2**50),
    ),
    max_size=4, unique_by=lambda output: output.name,
)  # fmt: skip
INPUTS = st.lists(
    st.builds(
        Input, asset=TEXTS, partition=st.dictionaries(TEXTS, TEXTS, max_size=2), manifest=DIGESTS,
        outputs=st.lists(st.builds(NamedDigest, name=TEXTS, digest=DIGESTS), max_size=2), role=st.none() | TEXTS,
    ),
    max_size=3,
)  # fmt: skip


@st.composite
def manifests(draw):
    outputs = draw(OUTPUTS)
    return Manifest(
        schema="mm.manifest/2", asset=draw(TEXTS),
        partition=Partition(release=draw(TEXTS), shard=draw(st.none() | TEXTS)),
        fingerprint=draw(DIGESTS), content=content_digest(outputs), code=draw(DIGESTS), params=draw(OBJECTS),
        environment=draw(OBJECTS), inputs=draw(INPUTS), outputs=outputs, stats=draw(OBJECTS),
    )  # fmt: skip


def reversed_names(value):
    """Equal JSON whose objects name their entries in the opposite order."""
    if isinstance(value, dict):
        return {name: reversed_names(value[name]) for name in reversed(list(value))}
    return [reversed_names(item) for item in value] if isinstance(value, list) else value


@given(manifests())
@settings(deadline=None, max_examples=60)
def test_a_manifest_is_read_back_as_it_was_and_has_one_form(manifest):
    data = manifest.encode()
    read = parse_manifest(data, "here")
    assert read.encode() == data
    assert read == Manifest.model_validate(json.loads(data))
    assert canonical_json(json.loads(data)) == data
    assert parse_manifest(json.dumps(reversed_names(json.loads(data)), indent=3).encode(), "here").encode() == data


@given(manifests(), st.sampled_from(["asset", "params", "environment", "stats", "fingerprint", "code"]), OBJECTS, TEXTS)
@settings(deadline=None, max_examples=60)
def test_another_value_of_any_field_has_other_bytes(manifest, field, values, text):
    value = values if field in ("params", "environment", "stats") else text
    changed = manifest.model_copy(update={field: value})
    same = canonical_json(getattr(manifest, field)) == canonical_json(value)
    assert (changed.encode() == manifest.encode()) == same


@given(OUTPUTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_content_depends_on_names_and_digests_alone(outputs, random):
    shuffled = [output.model_copy(update={"size_bytes": 7, "num_rows": None}) for output in outputs]
    random.shuffle(shuffled)
    assert content_digest(shuffled) == content_digest(outputs)
    for place, output in enumerate(outputs):
        for change in ({"name": output.name + "x"}, {"digest": digest_bytes(output.digest.encode())}):
            changed = [*outputs[:place], output.model_copy(update=change), *outputs[place + 1 :]]
            assert content_digest(changed) != content_digest(outputs)


@given(manifests(), DIGESTS)
@settings(deadline=None, max_examples=30)
def test_a_manifest_that_states_another_content_is_refused(manifest, content):
    if content != manifest.content:
        with pytest.raises(ObjectCorruptError, match=f"states another content .* got {content}"):
            parse_manifest(manifest.model_copy(update={"content": content}).encode(), "here")
