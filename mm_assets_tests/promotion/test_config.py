"""The thresholds file is read strictly: a mistake is named with its file, line and key."""

from pathlib import Path

import pytest

from mm_assets.errors import SettingsError
from mm_assets.promotion.config import Thresholds, read_thresholds
from mm_assets.settings import read_settings


@pytest.fixture
def packaged() -> str:
    return read_settings({}).config_file("promotion.yaml").read_text(encoding="utf-8")


def test_the_packaged_file_is_valid_and_survives_a_recipe(thresholds: Thresholds) -> None:
    assert thresholds.overall.min_balanced_accuracy == 0.35
    assert Thresholds.model_validate(thresholds.to_json()) == thresholds


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
            "line {line}: key calibration.max_ece is unusable: .* less than or equal to 1",
        ),
        ("  max_ece: 0.2", "  max_ece: low", "line {line}: key calibration.max_ece is unusable: .* got 'low'"),
        ("  max_ece: 0.2", "  max_ece: yes", "line {line}: key calibration.max_ece is unusable: .* got True"),
        ("promote_to: production", "promote_to: prod", "key promote_to is unusable: .* got 'prod'"),
        ("image_jpeg,", "image_jpg,", "line {line}: key corruptions.names is unusable: .*image_jpg is no corruption"),
        ("[modalities, language]", "[modality]", "line {line}: key slices.names.0 is unusable"),
        ("schema: mm.thresholds/1", "schema: mm.thresholds/2", "line {line}: key schema is unusable"),
        ("retrieval:\n", "retrieval: 3\n", "is not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, packaged: str, old: str, new: str, message: str) -> None:
    assert packaged.count(old) == 1
    path = tmp_path / "promotion.yaml"
    path.write_text(packaged.replace(old, new), encoding="utf-8")
    line = packaged[: packaged.index(old)].count("\n") + 1
    place = message.replace("{line}", str(line)).replace("{next}", str(line + 1))
    with pytest.raises(SettingsError, match=f"{path}: .*{place}"):
        read_thresholds(path)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "promotion.yaml"
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="key the file is unusable"):
        read_thresholds(path)
