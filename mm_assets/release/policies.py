"""The packaged curation policies: SQL expressions over one sample's signals, by name.

A sample is excluded where its expression is false. Where it is NULL, because the sample lacks the modality a signal
is about, the sample stays. ``curation.py`` evaluates them; a team adds its own by name and expression in a release.
"""

from mm_assets.errors import UsageError

#: ``default`` refuses only what no model can use: pictures of a few pixels, clips shorter than one window, no text.
_USABLE = "image_width >= 8 AND image_height >= 8 AND audio_seconds >= 0.05 AND (NOT has_text OR text_chars >= 1)"

POLICIES: dict[str, str] = {
    "default": _USABLE,
    "everything": "TRUE",
    "clean": (
        f"{_USABLE} AND contrast > 0.01 AND clipping_fraction <= 0.05 AND silence_fraction <= 0.95 "
        "AND audio_seconds <= 600"
    ),
    "private": f"{_USABLE} AND NOT has_email AND NOT has_phone AND NOT has_iban AND NOT has_payment_card "
    "AND NOT has_ip_address",
}


def policy_named(name: str) -> dict[str, str]:
    """``{name, sql}`` of a packaged policy, as a release spec pins it.

    Raises:
        UsageError: the policy is unknown.
    """
    if name not in POLICIES:
        raise UsageError(f"policy {name}: is unknown: expected one of {', '.join(sorted(POLICIES))}.")
    return {"name": name, "sql": POLICIES[name]}
