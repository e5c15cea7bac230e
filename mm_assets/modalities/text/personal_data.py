"""Personal data in texts, by kind: where it is, for flags and counts, and its redaction.

A kind has a version, which rises when other texts match; a release names kinds with their versions. What has check
digits is checked by them, so that an order number is no card. Names and postal addresses are not looked for: patterns
cannot tell them from other words.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

Span = tuple[int, int]

#: Kinds and their versions, in order: where two overlap, the earlier one counts.
VERSIONS = {"email": 1, "iban": 1, "payment_card": 1, "ip_address": 1, "phone": 1}
#: What a configuration may name.
REDACTIONS = tuple(f"{kind}@{version}" for kind, version in VERSIONS.items())

EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
PHONE = re.compile(r"(?<![\w.])(?:\+|00)?\d{1,4}(?:[ ()./-]{0,2}\d{2,4}){2,5}(?!\w|\.\d)")
DATE = re.compile(r"(?:\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})")
PHONE_DIGITS = range(7, 16)
CARD = re.compile(r"(?<![\w.])[2-6](?:[ -]?[0-9]){12,18}(?![\w]|\.[0-9])")
#: First digits that card networks issue. Source: the issuer identification numbers of ISO/IEC 7812-1.
CARD_ISSUERS = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[4-8]|30|6(?:011|4[4-9]|5|2)")
IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}")
#: Characters of an account number by country. Source: SWIFT's IBAN registry (ISO 13616).
IBAN_CHARS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FO FI GL NL SD", 19: "MK SI", 20: "AT BA EE KZ XK LT LU", 21: "HR LV LI CH",
        22: "BH BG CR GE DE IE ME RS GB VA", 23: "GI IL AE IQ", 24: "AD CZ MD PK RO SA SK ES SE TN VG", 25: "PT ST LY",
        26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV", 29: "BR PS QA UA EG",
        30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip
IP_V4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])")
IP_V6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
#: ``a::b`` is more often a name in a program than an address.
MIN_V6_GROUPS = 3


def find(text: str) -> dict[str, list[Span]]:
    """Spans of characters by kind, in the order of the text; no two overlap."""
    found: dict[str, list[Span]] = {}
    taken = bytearray(len(text))
    for kind in VERSIONS:
        found[kind] = [(start, end) for start, end in _FINDERS[kind](text) if not any(taken[start:end])]
        for start, end in found[kind]:
            taken[start:end] = b"\1" * (end - start)
    return found


def redact(text: str, names: Iterable[str]) -> tuple[str, int]:
    """The text with each match of these redactions replaced by its kind in capitals (``<EMAIL>``), and how many.

    It is searched again until nothing matches: what stood beside a match can match once that is gone. Placeholders
    hold no digit and no ``@``, so this ends.
    """
    kinds = {name.partition("@")[0] for name in names}
    total = 0
    while True:
        found = find(text)
        spans = sorted((span, kind) for kind in kinds for span in found[kind])
        if not spans:
            return text, total
        total += len(spans)
        parts: list[str] = []
        place = 0
        for (start, end), kind in spans:
            parts += [text[place:start], f"<{kind.upper()}>"]
            place = end
        text = "".join([*parts, text[place:]])


def unknown_redactions(names: Sequence[str]) -> list[str]:
    """Those of the names that are not among ``REDACTIONS``, or that come twice."""
    return [name for place, name in enumerate(names) if name not in REDACTIONS or name in names[:place]]


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from (match.span() for match in EMAIL.finditer(text))


def _ibans(text: str) -> Iterator[Span]:
    """Account numbers of their country's length whose check digits are right. Source: ISO 7064, MOD 97-10."""
    for match in IBAN.finditer(text):
        length = IBAN_CHARS.get(match.group()[:2], 0)
        places = [place for place in range(*match.span()) if text[place] != " "]
        if not length or len(places) < length:
            continue
        end = places[length - 1] + 1
        if text[end : end + 1].isalnum():
            continue
        number = text[match.start() : end].replace(" ", "")
        if int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1:
            yield match.start(), end


def _payment_cards(text: str) -> Iterator[Span]:
    """Numbers of 13 to 19 digits of a known issuer whose check digit is right. Source: Luhn, ISO/IEC 7812-1."""
    for match in CARD.finditer(text):
        digits = [int(character) for character in match.group() if character.isdigit()]
        doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
        if CARD_ISSUERS.match("".join(map(str, digits))) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0:
            yield match.span()


def _ip_addresses(text: str) -> Iterator[Span]:
    """Version 4 in four decimal numbers, version 6 in three or more groups; a version number of four parts matches."""
    for pattern in (IP_V4, IP_V6):
        for match in pattern.finditer(text):
            address = match.group()
            if pattern is IP_V6 and sum(map(bool, address.split(":"))) < MIN_V6_GROUPS:
                continue
            try:
                ipaddress.ip_address(address)
            except ValueError:
                continue
            yield match.span()


def _phones(text: str) -> Iterator[Span]:
    """7 to 15 digits in groups that are not a date. Source: ITU-T E.164."""
    for match in PHONE.finditer(text):
        number = match.group()
        digits = sum(character.isdigit() for character in number)
        if digits in PHONE_DIGITS and not DATE.fullmatch(number.strip()):
            yield match.span()


_FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {
    "email": _emails,
    "iban": _ibans,
    "payment_card": _payment_cards,
    "ip_address": _ip_addresses,
    "phone": _phones,
}
