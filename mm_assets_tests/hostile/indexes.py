"""Damaged and hostile indexes: lines, CSV, TSV and Parquet."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets_tests.drops.raw_data import jsonl, png

GOOD = {"id": "good", "text": "hello", "image": "a.png"}


def lines() -> dict[str, bytes]:
    """``index.jsonl`` with a hostile row, beside a good one where there can be one."""

    def beside(*rows: Any) -> bytes:
        return jsonl(GOOD, *rows)

    def raw(row: bytes) -> bytes:
        return jsonl(GOOD) + row + b"\n" + jsonl({"id": "last", "text": "last"})

    return {
        "good.jsonl": beside({"id": 7, "text": "x", "size": 3}),
        "empty.jsonl": b"",
        "blank_lines.jsonl": b"\n \n\t\n",
        "row_not_json.jsonl": raw(b"{broken"),
        "row_list.jsonl": raw(b'["id", "a"]'),
        "row_null.jsonl": raw(b"null"),
        "row_not_utf8.jsonl": raw(b'{"id": "q", "text": "\xff"}'),
        "row_nul.jsonl": raw(b"\0\0\0"),
        "row_too_long.jsonl": raw(b'{"id": "q", "text": "' + b"x" * (4 << 20) + b'"}'),
        "row_name_twice.jsonl": raw(b'{"id": "q", "id": "r", "text": "x"}'),
        "row_nested.jsonl": raw(b'{"id": "q", "text": "x", "m": ' + b"[" * 70 + b"]" * 70 + b"}"),
        "row_nested_100000.jsonl": raw(b'{"id": "q", "m": ' + b"[" * 100_000),
        "row_number_of_5000_digits.jsonl": raw(b'{"id": "q", "text": "x", "n": ' + b"9" * 5000 + b"}"),
        "row_metadata_too_large.jsonl": beside({"id": "q", "text": "x", "m": "y" * (300 << 10)}),
        "id_missing.jsonl": beside({"text": "x"}),
        "id_null.jsonl": beside({"id": None, "text": "x"}),
        "id_empty.jsonl": beside({"id": "", "text": "x"}),
        "id_true.jsonl": beside({"id": True, "text": "x"}),
        "id_float.jsonl": beside({"id": 1.5, "text": "x"}),
        "id_object.jsonl": beside({"id": {"a": 1}, "text": "x"}),
        "id_surrogate.jsonl": raw(b'{"id": "\\ud800", "text": "x"}'),
        "id_control.jsonl": beside({"id": "a\x00b", "text": "x"}),
        "id_too_long.jsonl": beside({"id": "k" * 513, "text": "x"}),
        "id_twice.jsonl": beside({"id": "good", "text": "x"}),
        "id_number_and_text.jsonl": beside({"id": 7, "text": "x"}, {"id": "7", "text": "y"}),
        "text_number.jsonl": beside({"id": "q", "text": 3}),
        "text_empty.jsonl": beside({"id": "q", "text": ""}),
        "text_surrogate.jsonl": raw(b'{"id": "q", "text": "\\ud800"}'),
        "text_too_large.jsonl": beside({"id": "q", "text": "x" * ((1 << 20) + 1)}),
        "image_missing.jsonl": beside({"id": "q", "image": "gone.png"}),
        "image_parent.jsonl": beside({"id": "q", "image": "../../etc/passwd.png"}),
        "image_absolute.jsonl": beside({"id": "q", "image": "/etc/passwd"}),
        "image_index.jsonl": beside({"id": "q", "image": "index.jsonl"}),
        "image_nul.jsonl": beside({"id": "q", "image": "a\0.png"}),
        "image_http.jsonl": beside({"id": "q", "image": "http://127.0.0.1/a.png"}),
        "image_file_uri.jsonl": beside({"id": "q", "image": "file:///etc/passwd"}),
        "image_number.jsonl": beside({"id": "q", "image": 3}),
        "image_folder.jsonl": beside({"id": "q", "image": "."}),
        "audio_is_a_picture.jsonl": beside({"id": "q", "audio": "a.png"}),
        "texts.jsonl": beside({"id": "q", "text": ["a", "b"], "image": ["a.png", None, "a.png"]}),
        "texts_of_numbers.jsonl": beside({"id": "q", "text": [1, 2]}),
        "texts_nested.jsonl": beside({"id": "q", "text": [["a"]]}),
        "texts_257.jsonl": beside({"id": "q", "text": ["a"] * 257}),
        "images_and_a_stranger.jsonl": beside({"id": "q", "image": ["a.png", "../a.png"]}),
        "content.jsonl": jsonl({"id": "q", "content": [{"text": "a"}, {"image": "a.png"}]}),
        "content_empty.jsonl": jsonl({"id": "q", "content": [{"text": "a"}]}, {"id": "r", "content": []}),
        "content_of_two.jsonl": jsonl(
            {"id": "q", "content": [{"text": "a"}]}, {"id": "r", "content": [{"text": "a", "image": "a.png"}]}
        ),
        "content_of_nothing.jsonl": jsonl(
            {"id": "q", "content": [{"text": "a"}]}, {"id": "r", "content": [{}, None, 3]}
        ),
        "nothing.jsonl": beside({"id": "q", "label": "cat"}),
        "label_misspelt.jsonl": beside({"id": "q", "text": "x", "lable": "cat"}),
        "label_too_long.jsonl": beside({"id": "q", "text": "x", "label": "y" * 1025}),
        "byte_order_mark.jsonl": b"\xef\xbb\xbf" + jsonl(GOOD),
        "utf16.jsonl": json.dumps(GOOD).encode("utf-16"),
        "without_last_line_break.jsonl": jsonl(GOOD).rstrip(b"\n"),
        "carriage_returns.jsonl": jsonl(GOOD).replace(b"\n", b"\r\n"),
        "html.jsonl": b"<!doctype html>\n<title>404</title>\n",
    }


def tables() -> dict[str, bytes]:
    """CSV and TSV."""
    head = b"id,text,label\n"
    return {
        "good.csv": head + b'a,"x, ""y""\nz",cat\n',
        "empty.csv": b"",
        "header_alone.csv": head,
        "without_header.csv": b"a,hello\nb,world\n",
        "header_not_utf8.csv": b"id,caf\xe9\na,b\n",
        "header_repeats.csv": b"id,text,text\na,b,c\n",
        "header_misspelt.csv": b"id,text,lable\na,b,c\n",
        "header_empty_name.csv": b"id,text,\na,b,c\n",
        "quote_open.csv": head + b'a,"x,cat\nb,y,cat\n',
        "quote_inside.csv": head + b'a,x"y"z,cat\nb,"x"y,cat\n',
        "row_short.csv": head + b"a,x\nb,y,cat\n",
        "row_long.csv": head + b"a,x,cat,more\nb,y,cat\n",
        "row_not_utf8.csv": head + b"a,\xff,cat\nb,y,cat\n",
        "row_nul.csv": head + b"a,x\0y,cat\nb,y,cat\n",
        "row_too_long.csv": head + b"a," + b"x" * (5 << 20) + b",cat\n",
        "id_empty.csv": head + b",x,cat\nb,y,cat\n",
        "id_twice.csv": head + b"a,x,cat\na,y,cat\n",
        "semicolons.csv": b"id;text;label\na;x;cat\n",
        "carriage_returns_alone.csv": head.replace(b"\n", b"\r") + b"a,x,cat\r",
        "utf16.csv": "id,text\na,b\n".encode("utf-16"),
        "byte_order_mark.csv": b"\xef\xbb\xbf" + head + b"a,x,cat\n",
        "path_parent.csv": b"id,image\na,../../x.png\nb,a.png\n",
        "html.csv": b"<!doctype html>\n<title>404</title>\n",
        "good.tsv": b'id\ttext\na\tx "y\n',
        "row_short.tsv": b"id\ttext\na\nb\ty\n",
        "row_nul.tsv": b"id\ttext\na\tx\0y\nb\ty\n",
        "empty.tsv": b"",
        "row_not_utf8.tsv": b"id\ttext\na\t\xfe\nb\ty\n",
    }


def written(columns: dict[str, Any], schema: pa.Schema | None = None, **options: Any) -> bytes:
    """A table as pyarrow writes it."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), file, **options)
    return file.getvalue()


def nested_type(depth: int) -> pa.DataType:
    kind: pa.DataType = pa.string()
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def parquet() -> dict[str, bytes]:
    """Parquet files."""
    good = written({"id": ["a", "b"], "text": ["x", "y"]})
    repeated = pa.schema([("id", pa.string()), ("text", pa.string()), ("text", pa.string())])
    twice = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, schema=repeated), twice)
    middle = len(good) // 2
    return {
        "good.parquet": good,
        "empty.parquet": b"",
        "marks_alone.parquet": b"PAR1PAR1",
        "text.parquet": b"id,text\na,b\n",
        "cut.parquet": good[:-1],
        "cut_in_footer.parquet": good[:-40],
        "begins_late.parquet": good[50:],
        "encrypted.parquet": good[:-4] + b"PARE",
        "footer_length_huge.parquet": good[:-8] + b"\xff\xff\xff\x7f" + good[-4:],
        "footer_length_0.parquet": good[:-8] + b"\0\0\0\0" + good[-4:],
        "footer_zeroed.parquet": good[:-200] + bytes(192) + good[-8:],
        "pages_zeroed.parquet": good[:4] + bytes(60) + good[64:],
        "pages_ff.parquet": good[:4] + b"\xff" * 40 + good[44:],
        "middle_flipped.parquet": good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :],
        "no_rows.parquet": written({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}),
        "no_columns.parquet": written({}),
        "id_missing.parquet": written({"text": ["x"]}),
        "id_null.parquet": written({"id": ["a", None], "text": ["x", "y"]}),
        "id_float.parquet": written({"id": [1.5], "text": ["x"]}),
        "id_list.parquet": written({"id": [["a"]], "text": ["x"]}),
        "id_twice.parquet": written({"id": ["a", "a"], "text": ["x", "y"]}),
        "id_bytes.parquet": written({"id": [b"\xff\xfe"], "text": ["x"]}),
        "text_number.parquet": written({"id": ["a"], "text": [3]}),
        "text_bytes.parquet": written({"id": ["a"], "text": [b"\xff"]}),
        "image_number.parquet": written({"id": ["a"], "image": [3]}),
        "image_not_a_picture.parquet": written({"id": ["a", "b"], "image": [b"nonsense", None], "text": ["x", "y"]}),
        "image_empty_bytes.parquet": written({"id": ["a", "b"], "image": [b"", None], "text": ["x", "y"]}),
        "image_struct_of_nothing.parquet": written(
            {"id": ["a", "b"], "image": [{"bytes": None, "path": None}, None], "text": [None, "y"]},
            pa.schema(
                [
                    ("id", pa.string()),
                    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                    ("text", pa.string()),
                ]
            ),
        ),
        "image_struct_parent.parquet": written(
            {"id": ["a", "b"], "image": [{"bytes": None, "path": "../x.png"}, None], "text": ["x", "y"]},
            pa.schema(
                [
                    ("id", pa.string()),
                    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                    ("text", pa.string()),
                ]
            ),
        ),
        "texts.parquet": written({"id": ["a", "b"], "text": [["x", "y"], None], "image": [[b"z"], [png()]]}),
        "texts_nested.parquet": written({"id": ["a"], "text": [[["x"]]]}),
        "texts_not_utf8.parquet": written(
            {"id": ["a", "b"], "text": pa.array([[b"\xff"], [b"y"]], pa.list_(pa.binary())).view(pa.list_(pa.string()))}
        ),
        "label_misspelt.parquet": written({"id": ["a"], "text": ["x"], "lable": ["cat"]}),
        "columns_repeat.parquet": twice.getvalue(),
        "nested_70.parquet": written({"id": ["a"], "text": ["x"], "m": pa.array([None], nested_type(70))}),
        "row_too_large.parquet": written({"id": ["a", "b"], "text": ["x", "y"], "m": ["z" * (5 << 20), "z"]}),
        "text_not_utf8.parquet": written(
            {"id": ["a", "b"], "text": pa.array([b"\xff", b"y"], pa.binary()).view(pa.string())}
        ),
        "metadata_not_utf8.parquet": written(
            {"id": ["a", "b"], "text": ["x", "y"], "m": pa.array([b"\xff", b"m"], pa.binary()).view(pa.string())}
        ),
        "classes_nonsense.parquet": written(
            {"id": ["a"], "text": ["x"]},
            pa.schema([("id", pa.string()), ("text", pa.string())], metadata={"huggingface": b"[1, 2"}),
        ),
        "year_33658.parquet": written(
            {"id": ["a", "b"], "text": ["x", "y"], "m": pa.array([10**12, 0], pa.timestamp("s"))}
        ),
        "duration.parquet": written({"id": ["a"], "text": ["x"], "m": pa.array([1 << 62], pa.duration("us"))}),
    }


def indexes() -> dict[str, bytes]:
    """All of them, by the name of their file."""
    return lines() | tables() | parquet()
