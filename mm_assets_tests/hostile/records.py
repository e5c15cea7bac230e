"""Damaged and hostile ``drop.json``, ``source.yaml`` and policy files."""

import json
from typing import Any

from mm_assets.drops.source import source_template
from mm_assets.identity.canonical import digest_bytes
from mm_assets_tests.drops.raw_data import tar_bytes

TAR = tar_bytes([("x.txt", b"x")])
ENTRY = {"key": "a.tar", "size_bytes": len(TAR), "sha256": digest_bytes(TAR).removeprefix("sha256:")}
DROP: dict[str, Any] = {
    "schema": "mm.drop/1", "source": "s", "drop": "d", "captured_from": None, "captured_to": None,
    "format": "webdataset", "objects": [ENTRY], "annotation": {},
}  # fmt: skip


def drops() -> dict[str, bytes]:
    """``drop.json`` beside ``a.tar``."""

    def with_(**values: Any) -> bytes:
        return json.dumps({**DROP, **values}).encode()

    def object_with(**values: Any) -> bytes:
        return with_(objects=[{**ENTRY, **values}])

    return {
        "good.drop.json": with_(),
        "empty.drop.json": b"",
        "not_json.drop.json": b"schema: mm.drop/1",
        "list.drop.json": b"[]",
        "not_utf8.drop.json": b'{"schema": "\xff"}',
        "nested.drop.json": b'{"annotation": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "nested_annotation.drop.json": with_(annotation={"a": json.loads("[" * 150 + "]" * 150)}),
        "schema_other.drop.json": with_(schema="mm.drop/2"),
        "field_missing.drop.json": json.dumps({name: DROP[name] for name in DROP if name != "format"}).encode(),
        "field_unknown.drop.json": with_(owner="me"),
        "source_other_name.drop.json": with_(source="../s"),
        "drop_capital.drop.json": with_(drop="D"),
        "time_nonsense.drop.json": with_(captured_from="soon"),
        "time_number.drop.json": with_(captured_from=2026),
        "format_unknown.drop.json": with_(format="zip"),
        "index_missing.drop.json": with_(format="index"),
        "objects_none.drop.json": with_(objects=[]),
        "objects_twice.drop.json": with_(objects=[ENTRY, ENTRY]),
        "key_parent.drop.json": object_with(key="../a.tar"),
        "key_absolute.drop.json": object_with(key="/etc/passwd"),
        "key_description.drop.json": object_with(key="drop.json"),
        "key_and_uri.drop.json": object_with(uri="s3://b/a.tar"),
        "key_gone.drop.json": object_with(key="gone.tar"),
        "uri_file.drop.json": with_(objects=[{**ENTRY, "key": None, "uri": "file:///etc/passwd"}]),
        "digest_other.drop.json": object_with(sha256="0" * 64),
        "digest_capital.drop.json": object_with(sha256="A" * 64),
        "size_smaller.drop.json": object_with(size_bytes=10),
        "size_larger.drop.json": object_with(size_bytes=len(TAR) + 1),
        "size_negative.drop.json": object_with(size_bytes=-1),
        "size_text.drop.json": object_with(size_bytes="10"),
        "size_2_70.drop.json": object_with(size_bytes=1 << 70),
    }


def sources() -> dict[str, bytes]:
    """``source.yaml`` beside a good drop."""
    good = source_template("s").decode()

    def with_(old: str, new: str) -> bytes:
        assert old in good
        return good.replace(old, new, 1).encode()

    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    return {
        "good.source.yaml": good.encode(),
        "empty.source.yaml": b"",
        "list.source.yaml": b"- a\n- b\n",
        "text.source.yaml": b"hello",
        "not_utf8.source.yaml": b"schema: \xff\n",
        "utf16.source.yaml": good.encode("utf-16"),
        "tab.source.yaml": b"schema:\tx\n\tsource: y\n",
        "bracket_open.source.yaml": with_("owner: not declared", "owner: [a"),
        "tag.source.yaml": with_("owner: not declared", "owner: !!python/object/apply:os.system [true]"),
        "alias_bomb.source.yaml": bomb.encode(),
        "alias_of_itself.source.yaml": b"a: &a [*a]\n",
        "alias_unknown.source.yaml": b"a: *b\n",
        "nested.source.yaml": b"a: " + b"[" * 700 + b"]" * 700,
        "key_twice.source.yaml": with_("owner: not declared", "owner: a\nowner: b"),
        "key_list.source.yaml": b"? [a, b]\n: c\n",
        "two_documents.source.yaml": good.encode() + b"---\n" + good.encode(),
        "control_character.source.yaml": b"schema: a\x07b\n",
        "field_missing.source.yaml": with_("licence: not declared\n", ""),
        "field_unknown.source.yaml": with_("licence:", "license:"),
        "owner_number.source.yaml": with_("owner: not declared", "owner: 3"),
        "approval_unknown.source.yaml": with_("status: pending", "status: maybe"),
        "source_other.source.yaml": with_('source: "s"', 'source: "t"'),
        "consent_unknown.source.yaml": with_("consent: not declared", "consent: perhaps"),
        "date_impossible.source.yaml": with_("retention: not declared", "retention: 2026-13-45"),
        "number_of_5000_digits.source.yaml": with_("owner: not declared", "owner: " + "9" * 5000),
        "sexagesimal.source.yaml": with_("owner: not declared", "owner: 190:20:30"),
        "merge_key.source.yaml": with_("owner: not declared", "<<: 3"),
    }


def policies() -> dict[str, bytes]:
    """Policy files."""
    return {
        "good.yaml": b"schema: mm.policy/1\nname: good\nexclude:\n  dark: brightness < 0.1\n",
        "empty.yaml": b"",
        "list.yaml": b"- a\n",
        "not_utf8.yaml": b"\xff",
        "schema_other.yaml": b"schema: mm.policy/2\nname: x\nexclude: {}\n",
        "name_missing.yaml": b"schema: mm.policy/1\nexclude: {}\n",
        "name_number.yaml": b"schema: mm.policy/1\nname: 3\nexclude: {}\n",
        "name_capital.yaml": b"schema: mm.policy/1\nname: Good\nexclude: {}\n",
        "exclude_missing.yaml": b"schema: mm.policy/1\nname: x\n",
        "exclude_list.yaml": b"schema: mm.policy/1\nname: x\nexclude: [a]\n",
        "reason_number.yaml": b"schema: mm.policy/1\nname: x\nexclude: {3: a < 1}\n",
        "reason_with_comma.yaml": b"schema: mm.policy/1\nname: x\nexclude: {'a,b': a < 1}\n",
        "expression_number.yaml": b"schema: mm.policy/1\nname: x\nexclude: {a: 3}\n",
        "expression_empty.yaml": b"schema: mm.policy/1\nname: x\nexclude: {a: ' '}\n",
        "field_unknown.yaml": b"schema: mm.policy/1\nname: x\nexclude: {}\nkeep: a\n",
        "key_null.yaml": b"schema: mm.policy/1\nname: x\nexclude: {}\n~: a\n",
        "reasons_many.yaml": b"schema: mm.policy/1\nname: x\nexclude: {"
        + ", ".join(f"r{n}: a < {n}" for n in range(60)).encode()
        + b"}\n",
        "good.sql": b"brightness > 0.1",
        "empty.sql": b" \n",
        "not_utf8.sql": b"\xff",
        "Name.sql": b"true",
    }
