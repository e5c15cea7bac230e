"""The thresholds file is read strictly: a mistake is named with its file, line and key; no gate is off on the quiet."""

import pytest

from mm_assets.errors import SettingsError
from mm_assets.modalities.table import MODALITIES
from mm_assets.promotion.config import Disabled, Thresholds, parse_thresholds
from mm_assets.settings import read_settings

WHERE = "rules/promotion.yaml"


@pytest.fixture
def packaged() -> str:
    return read_settings({}).config_file("promotion.yaml").read_text(encoding="utf-8")


def test_the_packaged_file_is_valid_and_survives_json(thresholds: Thresholds) -> None:
    assert thresholds.to_json()["overall"] == {"min_balanced_accuracy": 0.35}
    assert thresholds.to_json()["production"] == {"confidence": 0.95, "min_samples": 30, "max_loss": 0.0}
    assert Thresholds.model_validate(thresholds.to_json()) == thresholds
    assert {name for row in MODALITIES.values() for name in row.corruptions} == set(thresholds.corruptions.names)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  min_balanced_accuracy: 0.35",
            "  min_ballanced_accuracy: 0.35",
            "key overall.min_balanced_accuracy is missing",
        ),
        ("  max_ece: 0.2", "  max_ece: 0.2\n  max_ecee: 0.3", "line {next}: key calibration.max_ecee is unknown"),
        ("  max_ece: 0.2", "  max_ece: 0.2\n  max_ece: 0.9", "line {next}: max_ece is given twice"),
        (
            "  max_ece: 0.2",
            "  max_ece: 20",
            "line {line}: key calibration.max_ece is unusable: .* less than 0.5, got 20",
        ),
        ("  max_ece: 0.2", "  max_ece: low", "line {line}: key calibration.max_ece is unusable: .* got 'low'"),
        ("  max_ece: 0.2", "  max_ece: yes", "line {line}: key calibration.max_ece is unusable: .* got True"),
        ("promote_to: production", "promote_to: prod", "key promote_to is unusable: .* got 'prod'"),
        (
            "image_jpeg,",
            "image_jpg,",
            "line {line}: key corruptions.names is unusable: .*image_jpg is not a",
        ),
        ("[modalities, language]", "[modality]", "line {line}: key slices.names.0 is unusable"),
        ("schema: mm.thresholds/2", "schema: mm.thresholds/3", "line {line}: key schema is unusable"),
        ("retrieval:\n", "retrieval: 3\n", "is not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(packaged: str, old: str, new: str, message: str) -> None:
    assert packaged.count(old) == 1
    line = packaged[: packaged.index(old)].count("\n") + 1
    place = message.replace("{line}", str(line)).replace("{next}", str(line + 1))
    with pytest.raises(SettingsError, match=f"{WHERE}: .*{place}"):
        parse_thresholds(packaged.replace(old, new).encode(), WHERE)


def test_a_file_that_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"{WHERE}: line 1: key the file is unusable"):
        parse_thresholds(b"- 1\n", WHERE)
    with pytest.raises(SettingsError, match="rules/promotion.yaml: is not UTF-8: byte 0"):
        parse_thresholds(b"\xff", WHERE)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("  min_balanced_accuracy: 0.35", "  min_balanced_accuracy: 0", "overall.min_balanced_accuracy"),
        ("  min_balanced_accuracy: 0.2", "  min_balanced_accuracy: -1.0", "slices.min_balanced_accuracy"),
        ("  max_ece: 0.2", "  max_ece: 1", "calibration.max_ece"),
        ("  max_ece: 0.2", "  max_ece: .nan", "calibration.max_ece"),
        ("  max_drop: 0.3", "  max_drop: 1", "corruptions.max_drop"),
        ("  max_drop: 0.3", "  max_drop: 0.99", "corruptions.max_drop"),
        ("  min_lift: 1.5", "  min_lift: 1.0", "retrieval.min_lift"),
        ("  max_loss: 0.0", "  max_loss: 1", "production.max_loss"),
        ("  confidence: 0.95", "  confidence: 0.9999999", "production.confidence"),
        ("  names: [modalities, language]", "  names: []", "slices.names"),
        ("  min_pool: 30", "  min_pool: 1000000000", "retrieval.min_pool"),
        ("[modalities, language]\n  min_count: 30", "[language]\n  min_count: 1000000000", "slices.min_count"),
        ("evidence:\n  min_samples: 30", "evidence:\n  min_samples: 0", "evidence.min_samples"),
        ("  max_ece: 0.2", "  disabled: ''", "calibration.disabled"),
        ("  max_ece: 0.2", "  disabled: true", "calibration.disabled"),
        ("  max_ece: 0.2", "  disabled:", "calibration.disabled"),
        ("calibration:\n  max_ece: 0.2", "calibration:", "calibration"),
        ("calibration:\n  max_ece: 0.2", "calibration: off", "calibration"),
    ],
)
def test_a_limit_that_no_model_could_miss_is_an_error(packaged: str, old: str, new: str, key: str) -> None:
    assert packaged.count(old) == 1
    with pytest.raises(SettingsError, match=f"{WHERE}: line [0-9]+: key {key} is unusable: .*, got "):
        parse_thresholds(packaged.replace(old, new).encode(), WHERE)


def test_a_list_of_no_corruptions_is_an_error(packaged: str) -> None:
    line = next(line for line in packaged.splitlines() if "image_jpeg" in line)
    with pytest.raises(SettingsError, match="key corruptions.names is unusable: .* at least 1 item"):
        parse_thresholds(packaged.replace(line, "  names: []").encode(), WHERE)


@pytest.mark.parametrize(
    "section", ["evidence", "overall", "slices", "calibration", "corruptions", "retrieval", "production"]
)
def test_every_section_is_required_and_can_be_disabled_with_a_reason(packaged: str, section: str) -> None:
    head, _, tail = packaged.partition(f"\n{section}:\n")
    rest = tail.partition("\n\n")[2]
    with pytest.raises(SettingsError, match=f"key {section} is missing. Set it"):
        parse_thresholds(f"{head}\n{rest}".encode(), WHERE)
    off = f"{head}\n{section}:\n  disabled: not meaningful here, see ticket 7\n\n{rest}"
    thresholds = parse_thresholds(off.encode(), WHERE)
    assert getattr(thresholds, section) == Disabled(disabled="not meaningful here, see ticket 7")
    assert Thresholds.model_validate(thresholds.to_json()) == thresholds


def test_a_disabled_section_has_no_other_key(packaged: str) -> None:
    text = packaged.replace("  max_ece: 0.2", "  max_ece: 0.2\n  disabled: because")
    with pytest.raises(SettingsError, match="key calibration.max_ece is given although its section is disabled"):
        parse_thresholds(text.encode(), WHERE)


def test_a_file_of_the_first_version_says_what_to_add(packaged: str) -> None:
    old = packaged.replace("mm.thresholds/2", "mm.thresholds/1").partition("\nproduction:")[0]
    with pytest.raises(SettingsError, match="got mm.thresholds/1. Change it and add the section `production`"):
        parse_thresholds(old.encode(), WHERE)
