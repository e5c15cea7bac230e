"""The dataset card of a release: YAML front matter in Hugging Face's format, then a page for people."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from mm_assets.markdown import table
from mm_assets.release.config import SPLITS
from mm_assets.release.policies import policy_of
from mm_assets.release.title import dataset_name

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
#: Rows of a table in the card; the complete counts are in ``stats.json``.
NUM_LISTED = 30


def dataset_card(record: Mapping[str, Any], statistics: Mapping[str, Any]) -> str:
    """The document ``README.md`` of a release."""
    title = f"Dataset of {dataset_name(record)}"
    sections = [
        f"# {title}",
        _summary(record, statistics),
        "## Sources\n\n" + table(("Source", "Owner", "Licence", "Privacy class"), _sources(record)),
        "## Splits\n\n" + table(("Split", "Samples", "Labelled"), _splits(statistics)) + _groups(record),
        "## Modalities\n\n" + _counts("Modalities", statistics["modalities"]) + _parts(statistics),
        "## Languages\n\n" + _counts("Language", statistics["languages"]),
        "## Labels\n\n" + _counts("Label", statistics["labels"]),
        "## Left out\n\n" + _left_out(record, statistics),
        "## Personal data\n\n" + _personal_data(record),
    ]
    return "---\n" + _front_matter(record, statistics, title) + "---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(record: Mapping[str, Any], statistics: Mapping[str, Any], title: str) -> str:
    # Hugging Face accepts ISO 639 codes only; other languages are named in the page.
    languages = sorted(code for code in statistics["languages"] if re.fullmatch(r"[a-z]{2,3}", code))
    licences = sorted({str(source["licence"]) for source in record["sources"] if source.get("licence")})
    modalities = sorted({name for key in statistics["modalities"] for name in key.split("+") if name})
    matter: dict[str, Any] = {
        "pretty_name": title,
        "license": "other",
        "license_name": ", ".join(licences) or "unknown",
        "size_categories": [_size(int(statistics["num_selected"]))],
        "tags": ["multimodal", *modalities],
        "task_categories": ["other"],
        "configs": [{"config_name": "default", "data_files": "samples.parquet"}],
    }
    if languages:
        matter["language"] = languages
    return yaml.safe_dump(matter, sort_keys=True, allow_unicode=True)


def _size(num_samples: int) -> str:
    return next((name for limit, name in _SIZES if num_samples < limit), "1B<n<10B")


def _summary(record: Mapping[str, Any], statistics: Mapping[str, Any]) -> str:
    captured = [str(record[end] or "unknown") for end in ("captured_from", "captured_to")]
    return (
        f"{statistics['num_selected']} of {statistics['num_samples']} samples are selected, "
        f"{statistics['num_labelled']} of them labelled; {statistics['num_dead_letters']} inputs could not be read. "
        f"Captured from {captured[0]} to {captured[1]}. "
        + (f"Adds to the release with Merkle root `{record['parent']}`. " if record["parent"] else "")
        + f"Merkle root `{record['checksums']['merkle_root']}` over {record['checksums']['num_shards']} shards."
    )


def _sources(record: Mapping[str, Any]) -> list[tuple[object, ...]]:
    fields = ("source", "owner", "licence", "privacy_class")
    return [tuple(source.get(name) or "not given" for name in fields) for source in record["sources"]]


def _splits(statistics: Mapping[str, Any]) -> list[tuple[object, ...]]:
    counts = statistics["splits"]
    return [(split, counts[split]["num_samples"], counts[split]["num_labelled"]) for split in SPLITS]


def _parts(statistics: Mapping[str, Any]) -> str:
    parts = statistics.get("parts")
    if not parts:
        return ""
    rows: list[tuple[object, ...]] = [(name, count) for name, count in parts.items() if name != "num_samples" and count]
    return (
        f"\n\n{parts['num_samples']} selected samples have several parts of one modality, or declare in which order "
        "they are read; column `parts` lists them. Parts of all selected samples:\n\n"
        + table(("Modality", "Parts"), rows)
    )


def _groups(record: Mapping[str, Any]) -> str:
    groups = record["leakage_groups"]
    return (
        "\n\nWhat is equal, nearly equal or of one declared group is in one split, and so is what it connects: "
        f"{groups['num_groups']} groups, {groups['num_several']} of them of several samples, the largest of "
        f"{groups['largest']} ({groups['largest_share']:.1%})."
    )


def _counts(name: str, counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[object, ...]] = [(value or "none", count) for value, count in largest[:NUM_LISTED]]
    rest = len(largest) - NUM_LISTED
    return table((name, "Samples"), rows) + (f"\n\n{rest} more are in `stats.json`." if rest > 0 else "")


def _left_out(record: Mapping[str, Any], statistics: Mapping[str, Any]) -> str:
    policy = record["exclusion_rules"]["policy"]
    rows: list[tuple[object, ...]] = list(statistics["reasons"].items())
    left_out = [(reason, f"`{_one_line(sql)}`") for reason, sql in policy_of(policy).expressions.items()]
    return (
        f"Policy `{policy['name']}`:\n\n"
        + table(("Reason", "Left out where"), left_out)
        + "\n\n"
        + table(("Reason", "Samples"), rows)
    )


def _one_line(sql: str) -> str:
    return " ".join(sql.split())


def _personal_data(record: Mapping[str, Any]) -> str:
    redaction = record["redaction"]
    applied = ", ".join(f"`{name}`" for name in redaction["applied"])
    done = (
        f"Redacted before training: {applied}, in {redaction['num_redacted']} places."
        if applied
        else "Nothing was redacted."
    )
    rows: list[tuple[object, ...]] = list(redaction["flagged"].items())
    return f"{done} Selected texts that seem to hold:\n\n" + table(("Kind", "Samples"), rows)
