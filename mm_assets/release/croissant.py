"""Croissant 1.1 metadata: the release's table as a dataset that other tools can load.

Only the Parquet table is named, not the shards' files: their number has no bound, and the table refers to them.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mm_assets.identity.canonical import Json
from mm_assets.modalities.table import NAMES
from mm_assets.release.title import dataset_name

_CONTEXT: dict[str, Json] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "readLines": "cr:readLines",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant_document(record: Mapping[str, Any], schema: pa.Schema, *, samples_digest: str) -> dict[str, Json]:
    """The document ``croissant.json``.

    Args:
        record: The release record.
        schema: Columns of ``samples.parquet``.
        samples_digest: Its digest.
    """
    name, root = dataset_name(record), record["checksums"]["merkle_root"]
    licences = sorted({str(source["licence"]) for source in record["sources"] if source.get("licence")})
    document: dict[str, Json] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": (
            f"Multimodal dataset of {name}: {record['coverage']['num_selected']} selected samples of "
            f"{', '.join(NAMES)} with splits, from " + ", ".join(sorted({s["source"] for s in record["sources"]})) + "."
        ),
        "version": "1.0.0",
        "citeAs": f"{name}, Merkle root {root}",
        "license": licences or ["unknown"],
        "url": f"urn:mm-assets:dataset:{root}",
        "creator": [
            {"@type": "sc:Organization", "name": name}
            for name in sorted({str(source.get("owner") or source["source"]) for source in record["sources"]})
        ],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "samples.parquet",
                "name": "samples.parquet",
                "description": "One row per sample: its split, whether and why not it is selected, and where it is.",
                "contentUrl": "samples.parquet",
                "encodingFormat": "application/x-parquet",
                "sha256": samples_digest.removeprefix("sha256:"),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "samples",
                "name": "samples",
                "description": "The samples of the release.",
                "field": [_field(field) for field in schema],
            }
        ],
    }
    published = record["captured_to"]
    return document | ({"datePublished": published} if published else {})


def _field(field: pa.Field) -> dict[str, Json]:
    if pa.types.is_list(field.type):
        return _list_field(field)
    return {
        "@type": "cr:Field",
        "@id": f"samples/{field.name}",
        "name": field.name,
        "description": f"Column {field.name}.",
        "dataType": _data_type(field.type),
        "source": {"fileObject": {"@id": "samples.parquet"}, "extract": {"column": field.name}},
    }


def _list_field(field: pa.Field) -> dict[str, Json]:
    """A column whose values are lists of structs: a sub-field per member, each with as many values as there are."""
    members: list[Json] = [
        {
            "@type": "cr:Field",
            "@id": f"samples/{field.name}/{member.name}",
            "name": f"{field.name}/{member.name}",
            "description": f"Member {member.name} of the entries of column {field.name}.",
            "dataType": _data_type(member.type),
            "isArray": True,
            "arrayShape": "-1",
            "source": {
                "fileObject": {"@id": "samples.parquet"},
                "extract": {"column": field.name},
                "transform": {"jsonPath": f"$[*].{member.name}"},
            },
        }
        for member in field.type.value_type
    ]
    return {
        "@type": "cr:Field",
        "@id": f"samples/{field.name}",
        "name": field.name,
        "description": f"Column {field.name}: a list, null where a sample has none.",
        "subField": members,
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    return "sc:Integer" if pa.types.is_integer(kind) else "sc:Text"
