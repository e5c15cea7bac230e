"""Near duplicates in releases: one split, an original by lineage, the same answer in any order, a check of its own."""

import numpy as np
import pyarrow as pa

from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.table import MODALITIES
from mm_assets.modalities.text.signature import signature
from mm_assets.store.tables import read_parquet, write_parquet
from mm_assets_tests.release.drawings import picture

SENTENCE = "the old station beside the river was closed in the winter of that year"


def shaded(sample, key, seed, *, shade=0, **values):
    """A sample without sound whose picture is nearly that of others with the same seed."""
    return sample(key, audio=None, image_signature=picture(seed, shade=shade), **values)


def written(sample, key, text, **values):
    """A sample that is a text and nothing else."""
    values = {"image": None, "audio": None, "text": text, "text_chars": len(text)} | values
    return sample(key, text_signature=signature(text), **values)


def test_nearly_equal_pictures_share_a_split(world, sample):
    rows = [shaded(sample, f"k{n:03d}", n % 40, shade=n // 40 * 2) for n in range(120)]
    committed = world.release(rows)
    frozen = world.rows(committed)
    for number in range(40):
        assert len({frozen[f"k{number + 40 * copy:03d}"]["split"] for copy in range(3)}) == 1
    assert all(committed.manifest.stats["splits"].values())
    findings = world.findings(committed.manifest)
    assert findings["no_near_leakage"].passed
    assert "compared: text" in findings["no_near_leakage"].detail


def test_a_typo_in_a_text_that_is_all_a_sample_has_keeps_it_in_the_split(world, sample):
    rows = [written(sample, f"k{n:02d}", f"{n} red balloons over {n}{n} houses") for n in range(20)]
    rows += [written(sample, f"t{n:02d}", f"{n} red baloons over {n}{n} houses") for n in range(20)]
    frozen = world.rows(world.release(rows))
    assert all(row["selected"] for row in frozen.values())
    assert all(frozen[f"k{n:02d}"]["split"] == frozen[f"t{n:02d}"]["split"] for n in range(20))


def test_short_texts_beside_different_pictures_are_not_linked(world, sample):
    rows = [
        sample(f"k{n:02d}", text="a cat", text_chars=5, text_signature=signature("a cat"), label=None)
        for n in range(60)
    ]
    assert all(world.release(rows).manifest.stats["splits"].values())


def test_long_texts_with_one_other_word_share_a_split(world, sample):
    rows = [sample(f"k{n:02d}") for n in range(30)]
    for key, text in (("a", SENTENCE), ("b", SENTENCE.replace("winter", "summer"))):
        rows.append(sample(key, text=text, text_chars=len(text), text_signature=signature(text)))
    frozen = world.rows(world.release(rows))
    assert frozen["a"]["split"] == frozen["b"]["split"]


def test_a_child_never_evicts_what_its_parent_selected(world, sample):
    # Shades 0 and 30 are not near to each other; 15 is near to both and comes with the child, under the first name.
    ends = [shaded(sample, "m", 1, text="t"), shaded(sample, "n", 1, shade=30, text="t")]
    parent = world.release(ends + [sample(f"p{n}") for n in range(10)])
    before = world.rows(parent)
    assert before["m"]["selected"]
    assert before["n"]["selected"]
    child = world.release([shaded(sample, "a", 1, shade=15, text="t", drop="d2")], release="r2", parent=parent)
    after = world.rows(child)
    assert {key: (after[key]["selected"], after[key]["split"]) for key in before} == {
        key: (row["selected"], row["split"]) for key, row in before.items()
    }
    assert not after["a"]["selected"]
    assert world.findings(child.manifest)["no_near_leakage"].passed


def test_being_left_out_does_not_follow_a_chain(world, sample):
    rows = [shaded(sample, key, 1, shade=shade, text="t") for key, shade in (("a", 0), ("b", 15), ("c", 30))]
    frozen = world.rows(world.release(rows))
    assert [frozen[key]["duplicate_of"] for key in "abc"] == [None, "zoo/d1/a", None]
    assert len({row["split"] for row in frozen.values()}) == 1


def test_a_copy_of_a_near_duplicate_names_the_sample_that_stays(world, sample):
    rows = [
        shaded(sample, key, 1, shade=shade, text="t", image=f"{shade}") for key, shade in (("a", 0), ("b", 2), ("c", 2))
    ]
    frozen = world.rows(world.release(rows))
    assert [frozen[key]["duplicate_of"] for key in "abc"] == [None, "zoo/d1/a", "zoo/d1/a"]


def test_the_decisions_depend_on_no_order_and_no_shards(world, sample):
    rows = [shaded(sample, f"k{n:02d}", n % 4, shade=n // 4 * 2, text=f"{n % 2}") for n in range(12)]
    names = ("split", "selected", "reasons", "duplicate_of")

    def decided(given, count):
        frozen = world.rows(world.release(given, num_shards=count))
        return {key: [row[name] for name in names] for key, row in frozen.items()}

    assert decided([rows[place] for place in (7, 2, 11, 0, 5, 9, 3, 10, 1, 8, 6, 4)], 3) == decided(rows, 1)


def test_a_near_pair_on_both_sides_of_a_split_fails_with_the_ids(world, sample):
    rows = [shaded(sample, f"k{n:02d}", n % 20, shade=n // 20 * 2) for n in range(40)]
    release = world.release(rows)
    output = release.manifest.output("samples.parquet")
    table = read_parquet(world.store.fetch(output.digest, world.folder))
    changed = table.to_pylist()
    changed[0]["split"] = "val" if changed[0]["split"] != "val" else "test"
    path = write_parquet(pa.Table.from_pylist(changed, schema=table.schema), world.folder / "forged")
    digest = world.store.put_file(path)
    outputs = [o.model_copy(update={"digest": digest}) if o == output else o for o in release.manifest.outputs]
    finding = world.findings(release.manifest.model_copy(update={"outputs": outputs}))["no_near_leakage"]
    assert not finding.passed
    assert finding.failing_ids == ("zoo/d1/k00", "zoo/d1/k20")


def test_equal_sounds_without_a_signature_leave_a_near_duplicate_one(world, sample):
    tone, other = {"text": "t", "audio": "tone"}, {"text": "t", "audio": "another tone"}
    rows = [
        sample("a", image_signature=picture(1), **tone),
        sample("b", image_signature=picture(1, shade=2), **tone),
        sample("c", image_signature=picture(1, shade=2), **other),
        sample("d", image="image a", image_signature=picture(1), **other),
    ]
    frozen = world.rows(world.release(rows))
    assert [frozen[key]["duplicate_of"] for key in "abcd"] == [None, "zoo/d1/a", None, "zoo/d1/c"]
    assert frozen["b"]["reasons"] == "near_duplicate"


def test_several_sounds_of_which_one_has_no_signature_are_equal_by_their_digests(world, sample):
    clip = bytes(np.tile(np.arange(12, dtype=np.int8) * 8, 16))
    parts = [{"modality": "audio", "digest": digest_bytes(name), "length": 100} for name in (b"clip", b"tone")]

    def both(key, audio):
        return sample(
            key, text="t", audio=audio, image=None, audio_signature=clip, parts=[part | {"key": key} for part in parts]
        )

    frozen = world.rows(world.release([both("a", "one"), both("b", "other")]))
    assert [frozen[key]["duplicate_of"] for key in "ab"] == [None, None]


def test_a_long_chain_is_one_group_and_keeps_a_sample_of_every_neighbourhood(world, sample):
    chain = [shaded(sample, f"k{n:02d}", 1, shade=3 * n, text="t") for n in range(50)]
    committed = world.release([*chain, *(sample(f"p{n}") for n in range(50))])
    frozen = world.rows(committed)
    kept = [n for n in range(50) if frozen[f"k{n:02d}"]["selected"]]
    nearness = MODALITIES["image"].aspect("nearness")
    values = nearness.parse(np.frombuffer(b"".join(row["image_signature"] for row in chain), np.uint8).reshape(50, -1))

    def near(one, other):
        return bool(nearness.are_near(values[[one]], values[[other]])[0])

    assert 3 < len(kept) < 20
    assert not any(near(one, other) for one in kept for other in kept if one != other)
    for n in range(50):
        original = frozen[f"k{n:02d}"]["duplicate_of"]
        assert n in kept if original is None else near(n, int(original[-2:]))
    assert len({frozen[f"k{n:02d}"]["split"] for n in range(50)}) == 1
    groups = world.document(committed, "record.json")["leakage_groups"]
    assert groups == {
        "num_groups": 51,
        "num_several": 1,
        "largest": len(kept),
        "largest_share": round(len(kept) / (50 + len(kept)), 6),
        "largest_id": "zoo/d1/k00",
        "limit": 0.1,
    }
    finding = world.findings(committed.manifest)["largest_group"]
    assert finding.passed
    assert finding.detail.startswith(f"WARNING: {len(kept)} of {50 + len(kept)} selected samples")
