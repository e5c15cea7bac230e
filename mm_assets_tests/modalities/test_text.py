import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities import caption
from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets.modalities.text.decode import decode
from mm_assets.modalities.text.language import guess_language
from mm_assets.modalities.text.personal_data import REDACTIONS, VERSIONS, find, redact
from mm_assets.modalities.text.repetition import repetition
from mm_assets.modalities.text.signals import has_url, measure, normalise
from mm_assets.modalities.text.signature import signature
from mm_assets.modalities.text.signature_format import SIZE
from mm_assets.modalities.text.tokenizer import token_ids

CONFIG = FeaturesConfig()
SENTENCE = "the quick brown fox jumps over the lazy dog and runs into the dark forest behind the old house"


def found_in(text: str) -> set[str]:
    return {kind for kind, spans in find(text).items() if spans}


def _share(left: bytes | None, right: bytes | None) -> float:
    assert left
    assert right
    return sum(one == other for one, other in zip(left, right, strict=True)) / len(left)


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
    original = signature(SENTENCE)
    assert signature(SENTENCE) == original
    assert len(original or b"") == SIZE
    assert _share(original, signature(SENTENCE.replace("dark", "deep"))) > 0.5
    assert _share(original, signature("completely different words about oceans, rivers and quiet lakes")) < 0.2
    assert signature("") is None
    assert signature("ab") != signature("abc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a smiling face with the sun behind it", "en"),
        ("das Gesicht mit der schwarzen Sonnenbrille", "de"),
        ("le visage avec les yeux en forme de cœur", "fr"),
        ("la bandera de los niños con dos corazones", "es"),
        ("笑っている顔", "ja"),
        ("웃는 얼굴", "ko"),
        ("今天天气很好，我们一起去公园散步。", "zh"),
        ("улыбающееся лицо", "ru"),
        ("وجه مبتسم", "ar"),
        ("چهره گریان", "fa"),
        ("Jeg kan godt lide at bo her ved havet", "da"),
        ("Ово је кућа мога оца на крају улице", "sr"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy", "cs"),
        ("two lines\nof one English text", "en"),
    ],
)
def test_language_of_a_plain_phrase_is_guessed(text, expected):
    language, confidence = guess_language(text, CONFIG.min_language_confidence)
    assert language == expected
    assert CONFIG.min_language_confidence <= confidence <= 1
    assert guess_language(text, confidence + 0.001) == (None, None)


@pytest.mark.property
@given(st.text(max_size=300))
def test_any_text_has_a_guess_with_a_confidence_or_none(text):
    language, confidence = guess_language(text, 0.0)
    assert (language is None) == (confidence is None)
    assert confidence is None or 0 <= confidence <= 1
    assert guess_language(text, 0.0) == (language, confidence)


@pytest.mark.parametrize("text", ["", "12345", "😀", "xq"])
def test_too_little_evidence_gives_no_language(text):
    assert guess_language(text, 0.2) == (None, None)


@pytest.mark.parametrize("text", ["call +49 30 1234567", "(030) 123-4567", "tel. 555 123 4567."])
def test_phone_numbers_are_flagged(text):
    assert found_in(text) == {"phone"}


@pytest.mark.parametrize("text", ["on 2026-11-21", "21.11.2026", "room 101", "1,000,000 people", "version 1.2.3"])
def test_dates_and_counts_are_no_phone_numbers(text):
    assert found_in(text) == set()


def test_addresses_are_flagged():
    assert found_in("write to jane.doe+x@mail.example.org now") == {"email"}
    assert found_in("me @ home") == set()
    assert has_url("see https://example.org/x and more")
    assert not has_url("see example")


def test_text_signals_share_a_digest_across_forms():
    upper, lower = measure("Hello  World", FeaturesConfig()), measure("hello world", FeaturesConfig())
    assert upper["text_digest"] == lower["text_digest"]
    assert (upper["text_chars"], upper["text_bytes"]) == (12, 12)


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        # The examples of the registry and of the networks.
        ("to DE89 3704 0044 0532 0130 00 BY FRIDAY", "iban", "DE89 3704 0044 0532 0130 00"),
        ("GB29NWBK60161331926819.", "iban", "GB29NWBK60161331926819"),
        ("NO9386011117947", "iban", "NO9386011117947"),
        ("card 4111 1111 1111 1111, please", "payment_card", "4111 1111 1111 1111"),
        ("378282246310005", "payment_card", "378282246310005"),
        ("5555-5555-5555-4444", "payment_card", "5555-5555-5555-4444"),
        ("from 192.168.0.17: refused", "ip_address", "192.168.0.17"),
        ("at 2001:db8::ff00:42:8329 today", "ip_address", "2001:db8::ff00:42:8329"),
        ("(jane@example.org)", "email", "jane@example.org"),
        ("ring +49 30 1234567!", "phone", "+49 30 1234567"),
    ],
)
def test_personal_data_is_found_where_it_is_and_as_one_kind(text, kind, match):
    spans = {name: [text[start:end] for start, end in found] for name, found in find(text).items() if found}
    assert spans == {kind: [match]}


@pytest.mark.parametrize(
    "text",
    [
        "DE88 3704 0044 0532 0130 00",  # Wrong check digits,
        "DE893704004405320130001",  # one digit too many,
        "4111 1111 1111 1112",  # wrong check digit,
        "9111 1111 1111 1111",  # no network issues it.
        "version 1.2.3 of 256.1.1.1 and 1.2.3.4.5",
        "at 12:30:45, std::string, a::b, 10:20",
        "@home, a@b, 2026-11-21, 1,000,000",
    ],
)
def test_numbers_with_wrong_check_digits_and_names_of_programs_are_nothing(text):
    assert found_in(text) - {"phone"} == set()


def test_signals_flag_every_kind_and_hold_no_part_of_the_text():
    text = "jane@example.org 4111111111111111 GB29NWBK60161331926819 10.0.0.1 +49 30 1234567"
    row = measure(text, CONFIG)
    assert [row[f"has_{kind}"] for kind in VERSIONS] == [True] * len(VERSIONS)
    assert row["num_redacted"] == 0
    assert not any(part in str(row) for part in text.split() if len(part) > 3)
    assert measure(text, replace(CONFIG, redactions=REDACTIONS))["num_redacted"] == len(VERSIONS)


def test_redaction_replaces_the_named_kinds_alone():
    text = "mail a@b.org or c@d.org, ring +49 30 1234567"
    assert redact(text, ["email@1"]) == ("mail <EMAIL> or <EMAIL>, ring +49 30 1234567", 2)
    assert redact(text, ["phone@1", "email@1"]) == ("mail <EMAIL> or <EMAIL>, ring <PHONE>", 3)
    assert redact("nothing here", REDACTIONS) == ("nothing here", 0)


@pytest.mark.property
@given(st.text("a1.@: -+()DEGB4/x", max_size=60), st.sets(st.sampled_from(REDACTIONS), min_size=1))
def test_what_is_redacted_holds_no_match_any_more(text, names):
    redacted, count = redact(text, names)
    assert not found_in(redacted) & {name.partition("@")[0] for name in names}
    assert (count == 0) == (redacted == text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three", None),
        ("one two three four", 0.0),
        ("a b c d a b c d", 0.2),  # Five runs of four, the last one is the first again.
        ("buy now " * 10, 1 - 2 / 17),
        ("\u8c22\u8c22\u4f60" * 4, 1 - 3 / 9),  # Letters count as words where no spaces are written.
    ],
)
def test_repetition_is_the_share_of_runs_that_came_before(text, expected):
    assert repetition(normalise(text)) == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_a_caption_that_no_one_can_have_read_aloud_shows_in_its_rate():
    assert caption.measure({"text_chars": 30, "audio_seconds": 2.0}) == {"caption_chars_per_second": 15.0}
    assert caption.measure({"text_chars": 30}) == {"caption_chars_per_second": None}
    assert caption.measure({"audio_seconds": 1.0}) == {"caption_chars_per_second": None}


@pytest.mark.parametrize("attack", ["1" * 50_000, "1 " * 25_000, "a@" * 25_000, "a" * 50_000 + "@", "0:" * 25_000,
                                    "AB12 " * 10_000, "1." * 25_000, "4 " * 25_000, "+1 (" * 12_000,
                                    "a@b.cc 1234567 " * 3_000])  # fmt: skip
def test_no_text_makes_the_search_slow(attack):
    started = time.process_time()
    redact(attack, REDACTIONS)
    assert time.process_time() - started < 2.0
