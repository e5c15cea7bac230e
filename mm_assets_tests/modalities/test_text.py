import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets.modalities.text.decode import decode
from mm_assets.modalities.text.language import guess_language
from mm_assets.modalities.text.minhash import NUM_HASHES, minhash
from mm_assets.modalities.text.signals import has_email, has_phone, has_url, measure, normalise
from mm_assets.modalities.text.tokenizer import token_ids

CONFIG = FeaturesConfig()
SENTENCE = "the quick brown fox jumps over the lazy dog and runs into the dark forest behind the old house"


def _share(left: str, right: str) -> float:
    pairs = [(left[i : i + 8], right[i : i + 8]) for i in range(0, 8 * NUM_HASHES, 8)]
    return sum(a == b for a, b in pairs) / NUM_HASHES


def test_text_that_is_not_utf8_names_the_byte():
    with pytest.raises(BlobRejectedError, match="byte 3") as caught:
        decode(b"caf\xe9 au lait", CONFIG)
    assert caught.value.reason == "text_not_utf8"


def test_byte_order_mark_is_dropped():
    assert decode(b"\xef\xbb\xbfhello", CONFIG) == "hello"


def test_tokens_are_bytes_between_begin_and_end():
    assert token_ids("aé", 128) == [1, 97 + 4, 0xC3 + 4, 0xA9 + 4, 2]


def test_cut_text_has_no_end_token():
    assert token_ids("abcdef", 4) == [1, 101, 102, 103]


@pytest.mark.property
@given(st.text())
def test_tokens_give_the_text_back(text):
    tokens = token_ids(text, 10_000)
    assert bytes(token - 4 for token in tokens[1:-1]).decode() == text


@pytest.mark.property
@given(st.text())
def test_normalising_twice_changes_only_what_once_did_not_fold(text):
    spaced = "  " + text.replace(" ", "   ") + "\n"
    assert normalise(spaced) == normalise(text)


def test_minhash_measures_overlap():
    original = minhash(SENTENCE)
    assert minhash(SENTENCE) == original
    assert len(original) == 128
    assert _share(original, minhash(SENTENCE.replace("dark", "deep"))) > 0.5
    assert _share(original, minhash("completely different words about oceans, rivers and quiet lakes")) < 0.2
    assert minhash("") is None
    assert minhash("ab") != minhash("abc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a smiling face with the sun behind it", "en"),
        ("das Gesicht mit der schwarzen Sonnenbrille", "de"),
        ("le visage avec les yeux en forme de cœur", "fr"),
        ("la bandera de los niños con dos corazones", "es"),
        ("笑っている顔", "ja"),
        ("웃는 얼굴", "ko"),
        ("嘿嘿", "zh"),
        ("улыбающееся лицо", "ru"),
        ("وجه مبتسم", "ar"),
        ("چهره گریان", "fa"),
    ],
)
def test_language_of_a_plain_phrase_is_guessed(text, expected):
    assert guess_language(text, 0.2)[0] == expected


@pytest.mark.parametrize("text", ["", "12345", "😀", "xq"])
def test_too_little_evidence_gives_no_language(text):
    assert guess_language(text, 0.2) == (None, None)


@pytest.mark.parametrize("text", ["call +49 30 1234567", "(030) 123-4567", "tel. 555 123 4567."])
def test_phone_numbers_are_flagged(text):
    assert has_phone(text)


@pytest.mark.parametrize("text", ["on 2026-11-21", "21.11.2026", "room 101", "1,000,000 people", "version 1.2.3"])
def test_dates_and_counts_are_no_phone_numbers(text):
    assert not has_phone(text)


def test_addresses_are_flagged():
    assert has_email("write to jane.doe+x@mail.example.org now")
    assert not has_email("me @ home")
    assert has_url("see https://example.org/x and more")
    assert not has_url("see example")


def test_text_signals_share_a_digest_across_forms():
    upper, lower = measure("Hello  World", FeaturesConfig()), measure("hello world", FeaturesConfig())
    assert upper["text_digest"] == lower["text_digest"]
    assert (upper["text_chars"], upper["text_bytes"]) == (12, 12)
