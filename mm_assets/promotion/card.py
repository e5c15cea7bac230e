"""The model card of a decision: YAML front matter in Hugging Face's format, then a page for people.

Written for rejected models too: the card is then the explanation of the rejection.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mm_assets.evaluation.report import Report
from mm_assets.evaluation.summary import retrieval_table
from mm_assets.markdown import table
from mm_assets.promotion.decision import Decision
from mm_assets.promotion.summary import comparison_text, gate_table

SLICE_TITLES = {"modalities": "Modalities", "language": "Language", "label": "Label"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """Everything a card says.

    Attributes:
        data: What the data are called.
        report: The evaluation.
        decision: The decision.
        modalities: Those that the model has tokens for.
        training: Facts of the training run by name.
        num_selected: Samples of the dataset release.
        sources: The release record's source descriptions.
    """

    data: str
    report: Report
    decision: Decision
    modalities: Sequence[str]
    training: Mapping[str, str | int | float]
    num_selected: int
    sources: Sequence[Mapping[str, Any]]


def render_card(facts: CardFacts) -> str:
    """The document ``README.md`` of a promotion."""
    sections = [
        f"# Model of {facts.data}",
        _summary(facts),
        f"## Decision\n\n{gate_table(facts.decision.gates)}\n\n{comparison_text(facts.decision)}",
        "## Identity\n\n" + table(("What", "Digest"), _identity(facts)),
        "## Training\n\n" + table(("Fact", "Value"), _plain_facts(facts.training)),
        "## Data\n\n" + _data(facts),
        f"## Evaluation\n\n{_evaluation(facts.report)}",
        "## Use and limits\n\n" + _limits(facts),
    ]
    return "---\n" + _front_matter(facts) + "---\n\n" + "\n\n".join(sections) + "\n"


def training_facts(losses: Sequence[float], num_samples: Sequence[int]) -> dict[str, str | int | float]:
    """What a card says about a training run, from its metrics per step."""
    return {
        "num_steps": len(losses),
        "samples_consumed": sum(num_samples),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def licences_of(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """The licences of the training data, sorted."""
    return sorted({str(source["licence"]) for source in sources if source.get("licence")})


def _front_matter(facts: CardFacts) -> str:
    report = facts.report
    seen = {part for entry in report.slices if entry.slice == "modalities" for part in entry.value.split("+")}
    # Hugging Face accepts ISO 639 codes only; other languages are named in the page.
    values = (entry.value for entry in report.slices if entry.slice == "language")
    languages = sorted(value for value in values if re.fullmatch(r"[a-z]{2,3}", value))
    matter: dict[str, Any] = {
        "library_name": "mm_assets",
        "license": "other",
        "license_name": "derived from: " + (", ".join(licences_of(facts.sources)) or "unknown"),
        "tags": ["multimodal", *(name for name in facts.modalities if name in seen)],
    }
    if languages:
        matter["language"] = languages
    metrics = _headline_metrics(report)
    if metrics:
        task = {"type": "other", "name": "multimodal classification and retrieval"}
        dataset = {
            "type": "mm_assets",
            "name": f"dataset of {facts.data}",
            "split": report.split,
            "revision": facts.decision.dataset_release,
        }
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        matter["model-index"] = [{"name": f"model of {facts.data}", "results": results}]
        matter["metrics"] = sorted({metric["type"] for metric in metrics})
    # Without aliases: the same mapping used twice is written twice.
    return yaml.dump(matter, Dumper=_PlainDumper, sort_keys=True, allow_unicode=True)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _headline_metrics(report: Report) -> list[dict[str, Any]]:
    values = {
        "accuracy": report.overall.accuracy,
        "balanced_accuracy": report.overall.balanced_accuracy,
        "expected_calibration_error": report.calibration.ece_after,
    }
    values |= {f"recall_at_5_{name}": entry.recall_at_5 for name, entry in report.retrieval.items()}
    return [{"type": name, "value": value} for name, value in values.items() if value is not None]


def _summary(facts: CardFacts) -> str:
    decision = facts.decision
    if decision.decision == "promoted":
        disabled = [gate.name for gate in decision.gates if gate.outcome == "disabled"]
        outcome = f"No gate failed: it was promoted to {decision.state}."
        if disabled:
            outcome += f" Disabled: {', '.join(disabled)}; the reasons are below."
    else:
        outcome = f"It was rejected: {', '.join(gate.name for gate in decision.failed)} failed."
    return (
        f"A transformer over {', '.join(facts.modalities)}, trained on the dataset of {facts.data}. Any subset of "
        f"these modalities may be present. {outcome}"
    )


def _identity(facts: CardFacts) -> list[tuple[object, ...]]:
    decision = facts.decision
    return [
        ("weights", f"`{decision.model}`"),
        ("table of samples", f"`{decision.dataset_release}`"),
        ("evaluation report", f"`{decision.evaluation}`"),
        ("thresholds", f"`{decision.thresholds}`"),
    ]


def _plain_facts(stats: Mapping[str, Any]) -> list[tuple[object, ...]]:
    return [
        (name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else value)
        for name, value in sorted(stats.items())
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]


def _data(facts: CardFacts) -> str:
    rows: list[tuple[object, ...]] = [
        (source.get("source") or "not given", source.get("owner") or "not given", source.get("licence") or "not given")
        for source in facts.sources
    ]
    return (
        f"{facts.num_selected} samples were selected; the dataset card of the release says how they were chosen and "
        "split.\n\n" + table(("Source", "Owner", "Licence"), rows)
    )


def _evaluation(report: Report) -> str:
    parts = [
        f"{report.num_samples} samples of split {report.split}, {report.num_labelled} of them labelled, "
        f"{len(report.classes)} classes. No evaluated sample, nor one of its group, was seen in training.",
        table(("Slice", "Value", "Balanced accuracy", "Accuracy", "Labelled", "Samples"), _slice_rows(report)),
        _calibration(report),
        retrieval_table(report),
    ]
    if report.corruptions:
        header = ("Damage", "Severity", "Balanced accuracy", "Undamaged", "Labelled")
        parts.append(table(header, _corruption_rows(report)))
    return "\n\n".join(part for part in parts if part)


def _slice_rows(report: Report) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [("all", "", *_scores(report.overall), report.num_samples)]
    rows += [
        (SLICE_TITLES.get(entry.slice, entry.slice), entry.value, *_scores(entry), entry.num_samples)
        for entry in report.slices
    ]
    return rows


def _scores(entry: Any) -> tuple[object, ...]:
    return _number(entry.balanced_accuracy), _number(entry.accuracy), entry.n


def _corruption_rows(report: Report) -> list[tuple[object, ...]]:
    return [
        (
            entry.corruption,
            entry.severity,
            _number(entry.balanced_accuracy),
            _number(entry.clean_balanced_accuracy),
            entry.n,
        )
        for entry in report.corruptions
    ]


def _calibration(report: Report) -> str:
    measured = report.calibration
    if measured.ece is None:
        return ""
    text = f"Expected calibration error {_number(measured.ece)}"
    if measured.temperature is not None:
        text += f", {_number(measured.ece_after)} with temperature {_number(measured.temperature)}"
    return text + f" ({measured.n} samples, {measured.num_bins} bins)."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _limits(facts: CardFacts) -> str:
    return (
        f"It knows {len(facts.report.classes)} classes and no others; an input outside them still gets one of them. "
        "What it is given is cut or scaled to the sizes the features were made with. Slices with few "
        "samples say little. The licences of the sources above apply to what may be done with it."
    )
