import pytest

from mm_assets.errors import SpecError
from mm_assets.launch.resources import DEFAULTS, Resources, Toleration, resources_for


def test_a_recipe_without_resources_gets_the_defaults() -> None:
    assert resources_for("model", {"training": {"num_steps": 3}}) == DEFAULTS["model"]
    assert resources_for("embeddings", {}) == Resources()


def test_resources_of_a_section_override_only_what_they_name() -> None:
    wanted = {"accelerators": 1, "tolerations": [{"key": "gpu"}], "launch_deadline_s": 5}
    resources = resources_for("model", {"training": {"resources": wanted}})
    assert resources.accelerators == 1
    assert resources.tolerations == (Toleration(key="gpu"),)
    assert resources.launch_deadline_s == 5
    assert resources.active_deadline_s == DEFAULTS["model"].active_deadline_s


@pytest.mark.parametrize(
    ("wanted", "named"),
    [({"memory": 1}, "memory"), ({"accelerators": "many"}, "accelerators"), ({"cpus": None}, "cpus")],
)
def test_a_misspelt_or_wrongly_typed_resource_is_named(wanted: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=f"resources of model: {named} is unusable"):
        resources_for("model", {"training": {"resources": wanted}})
