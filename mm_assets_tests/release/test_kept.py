"""What a release keeps for its children: they read no shard of it again, and decide what they would from its shards."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.table import aspect
from mm_assets.modalities.text.signature import signature
from mm_assets.release import generations
from mm_assets.release.config import FreezeConfig
from mm_assets.release.freeze import compute_dataset_release
from mm_assets.release.kept import GROUPS_FILE, without_kept
from mm_assets.release.shards import read_shards
from mm_assets.store.action import Action
from mm_assets.store.job import Job
from mm_assets.store.objects import object_key
from mm_assets_tests.release.drawings import picture
from mm_assets_tests.release.lineages import near_groups
from mm_assets_tests.release.test_near import compared, shades, vectors
from mm_assets_tests.store.committing import delete

KEPT = ("key_columns.", "near_")
IMAGE, AUDIO, TEXT = (aspect(name, "nearness") for name in ("image", "audio", "text"))


def drawn(sample, generation, count):
    """Samples with equal and nearly equal pictures and texts, within a generation and across generations."""
    rows = []
    for i in range(count):
        words = digest_bytes(b"%d" % (i % 31)).removeprefix("sha256:")
        text = " ".join(words[at : at + 4] for at in range(0, 64, 4)) + " again" * generation
        rows.append(
            sample(
                f"{generation}-{i:03d}", drop=f"d{generation}", image=f"image {generation * 9 + i}",
                group=f"g{i // 5}" if i % 3 == 0 else None, label=("cat", "dog", "owl")[i % 3],
                image_signature=picture(i % 29, shade=2 * (i // 29) + generation), text=text, text_chars=len(text),
                text_signature=signature(text), sharpness=float(i % 9),
            )
        )  # fmt: skip
    return rows


def line(world, sample):
    """A release, its child and its grandchild."""
    first = world.release(drawn(sample, 0, 40))
    second = world.release(drawn(sample, 1, 12), release="r2", parent=first)
    return first, second, world.release(drawn(sample, 2, 9), release="r3", parent=second)


def from_shards(world, spec):
    """Digests of what is frozen where no ancestor kept anything, by name."""
    action = world.action(spec)
    bare = Action(
        asset=action.asset,
        code=action.code,
        params=action.params,
        environment={},
        inputs=tuple(without_kept(action.inputs)),
    )
    folder = world.folder / f"bare-{len(list(world.folder.iterdir()))}"
    folder.mkdir()
    result = compute_dataset_release(Job(store=world.store, action=bare, workdir=folder))
    return {file.name: world.store.put_file(file.path) for file in result.files}


def outputs(committed):
    return {output.name: output.digest for output in committed.manifest.outputs}


def test_a_child_is_byte_for_byte_what_is_frozen_from_all_shards(world, sample, caplog, monkeypatch):
    first, second, third = line(world, sample)
    monkeypatch.setattr(generations, "SEARCHED", 3)
    with caplog.at_level(logging.WARNING):
        again = from_shards(world, world.spec("r3", 2, parent=second))
    assert "its shards are read again" in caplog.text
    kept = {**outputs(first), **outputs(second)}
    kept = {name: digest for name, digest in kept.items() if name.startswith(KEPT) and name != GROUPS_FILE}
    assert again == {**kept, **outputs(third)}
    assert {name.split(".")[1] for name in outputs(third) if name.startswith("key_columns")} == {"2"}
    assert [found.detail for found in world.findings(third.manifest).values() if not found.passed] == []


def test_a_child_reads_no_shard_of_its_parent(world, sample):
    _, second, third = line(world, sample)
    expected = outputs(third)
    for shard in read_shards(world.store, second.manifest)[1]:
        for digest in (shard.samples, shard.signals, shard.embedding_signals):
            delete(world.store, object_key(digest))
    world.shard("r3", "0000", drawn(sample, 2, 9)[0::2])
    world.shard("r3", "0001", drawn(sample, 2, 9)[1::2])
    assert outputs(world.freeze(world.spec("r3", 2, parent=second))) == expected


def test_a_child_that_compares_other_texts_reads_the_shards(world, sample, caplog):
    first = world.release(drawn(sample, 0, 20))
    world.config = FreezeConfig(min_linked_text_chars=4)
    with caplog.at_level(logging.WARNING):
        child = world.release(drawn(sample, 1, 6), release="r2", parent=first)
    assert "kept no key columns that fit; its shards are read again" in caplog.text
    assert {name.split(".")[1] for name in outputs(child) if name.startswith("key_columns")} == {"0", "1"}
    grandchild = world.spec("r3", 1, parent=child)
    world.shard("r3", "0000", drawn(sample, 2, 4))
    assert [entry.role for entry in world.action(grandchild).inputs if entry.asset == "dataset_release"] == ["parent"]
    assert from_shards(world, grandchild) == {**outputs(child), **outputs(world.freeze(grandchild))}


def test_an_experiment_takes_what_was_kept_unless_it_compares_other_texts(world, sample):
    first = world.release(drawn(sample, 0, 12))
    child = world.release(drawn(sample, 1, 4), release="r2", parent=first)
    same = world.action(world.spec("e1", 0, data_of=child))
    assert same.fingerprint == child.manifest.fingerprint
    world.config = FreezeConfig(min_linked_text_chars=4)
    other = world.action(world.spec("e2", 0, data_of=child))
    assert list(other.inputs) == list(without_kept(same.inputs)) != list(same.inputs)


def test_signatures_that_other_code_kept_are_searched_again(world, sample, caplog, monkeypatch):
    first = world.release(drawn(sample, 0, 30))
    monkeypatch.setattr(IMAGE, "CELL", IMAGE.CELL // 2)
    with caplog.at_level(logging.WARNING):
        child = world.release(drawn(sample, 1, 8), release="r2", parent=first)
    assert "image signatures were kept by other code; all are searched again" in caplog.text
    names = outputs(child)
    assert {"near_image.0.keys.npy", "near_image.1.keys.npy"} <= names.keys()
    assert "near_text.0.keys.npy" not in names
    assert from_shards(world, world.spec("r2", 2, parent=first)).items() >= names.items()


@pytest.mark.parametrize(
    ("signatures", "nearness"),
    [
        (shades(120, of=40), IMAGE),
        (vectors(400, centres=100, noise=3), AUDIO),
        (vectors(300, centres=9, noise=5), AUDIO),
    ],
)
@pytest.mark.parametrize("added", [(100,), (30, 60), (1, 2)])
def test_generations_are_grouped_as_comparing_every_pair_groups_them(signatures, nearness, added):
    assert near_groups(signatures, nearness, added=added).tolist() == compared(signatures, nearness).tolist()


def test_an_addition_to_a_bucket_that_no_component_divides_loses_nobody():
    signatures = np.full((1000, TEXT.NUM_BYTES), 7, np.uint8)
    signatures[np.arange(1000), np.arange(1000) % TEXT.NUM_BYTES] = np.arange(1000) // TEXT.NUM_BYTES + 8
    assert not near_groups(signatures, TEXT, added=(700,)).any()


@pytest.mark.property
@given(st.permutations(range(30)), st.permutations(range(30, 60)), st.lists(st.integers(30, 59), max_size=9))
@settings(deadline=None, max_examples=5)
def test_groups_depend_on_no_order_within_a_generation(old, new, repeated):
    signatures = vectors(60, centres=20, noise=5)
    expected = near_groups(signatures, AUDIO, added=(30,))
    rows = np.array([*old, *new, *repeated])
    found = near_groups(signatures[rows], AUDIO, added=(30,))
    together = {(int(expected[one]), int(leader)) for one, leader in zip(rows, found, strict=True)}
    assert len(together) == len(np.unique(expected)) == len(np.unique(found))
