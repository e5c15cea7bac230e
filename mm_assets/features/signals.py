"""One sample's row of ``signals.parquet``. A signal describes; nothing here ever drops a sample."""

from mm_assets.features.audio import DecodedAudio
from mm_assets.features.audio_signals import audio_signals
from mm_assets.features.image_signals import image_signals
from mm_assets.features.images import DecodedImage
from mm_assets.features.language import guess_language
from mm_assets.features.minhash import minhash
from mm_assets.features.text import has_email, has_phone, has_url, normalise
from mm_assets.identity.canonical import digest_bytes


def signal_row(
    text: str | None, image: DecodedImage | None, audio: DecodedAudio | None, *, min_language_confidence: float
) -> dict[str, object]:
    """All columns but ``id``, ``text_tokens`` and ``audio_frames``; those of absent modalities are left out (null)."""
    row: dict[str, object] = {
        "has_text": text is not None,
        "has_image": image is not None,
        "has_audio": audio is not None,
    }
    if text is not None:
        row |= text_signals(text, min_language_confidence)
    if image is not None:
        row |= image_signals(image)
    if audio is not None:
        row |= audio_signals(audio)
    return row


def text_signals(text: str, min_language_confidence: float) -> dict[str, object]:
    """The text columns of ``signals.parquet`` for one text."""
    normalised = normalise(text)
    language, confidence = guess_language(text, min_language_confidence)
    return {
        "text_chars": len(text),
        "text_bytes": len(text.encode("utf-8")),
        "language_id": language,
        "language_confidence": confidence,
        "has_email": has_email(text),
        "has_phone": has_phone(text),
        "has_url": has_url(text),
        "text_digest": digest_bytes(normalised.encode("utf-8")),
        "text_minhash": minhash(normalised),
    }
