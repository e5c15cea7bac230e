"""The frames of an MP3: whether there is more sound than its first frame declares.

An encoder writes into the first frame how many follow, and decoders stop there: of two files one behind the other, the
second would be cut off. Frames of free bit rate say nothing of their length; counting ends at the first of them.

Source: ISO/IEC 11172-3 and 13818-3 (headers of frames); ID3v2.4; the tags of Xing, LAME and Fraunhofer.
"""

from mm_assets.modalities.reasons import Refusal

#: Bit rates of layer III in kbit/s, by index: of version 1, and of versions 2 and 2.5.
RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
#: Sampling rates of version 1; versions 2 and 2.5 have a half and a quarter of them.
SAMPLE_RATES = (44_100, 48_000, 32_000)
VERSION_1, LAYER_3 = 3, 1
#: A first frame may say that up to so many samples are padding: 12 bits at each end, and what decoders delay.
MAX_PADDING = 2 * 4096 + 2 * 1152
#: What a frame that declares others holds instead of sound, behind zeros.
INFO_TAGS = (b"Xing", b"Info", b"VBRI")
CRC_END, VBRI_PLACE = 6, 36
APE_TAG, APE_BYTES, APE_SIZE = b"APETAGEX", 32, 12
ID3_BYTES = 10
TAG_BYTES = 128


def check_mp3(data: bytes, num_frames: int) -> Refusal | None:
    """Why an MP3 that is read as ``num_frames`` samples holds more than these, if so."""
    place, counted, is_first = _behind_tags(data, 0), 0, True
    while (frame := _frame(data, place)) is not None:
        length, num_samples = frame
        if not _is_info(data, place):
            counted += num_samples
        elif not is_first:
            return Refusal("header_lies", f"mp3 has a second file behind the first, from byte {place} on")
        is_first = False
        place = _behind_tags(data, place + length)
    if counted > num_frames + MAX_PADDING:
        return Refusal("header_lies", f"mp3 is read as {num_frames} samples and has frames of {counted}")
    return None


def _is_info(data: bytes, place: int) -> bool:
    """Whether the frame says how many others there are; its tag lies where the side information of sound would end."""
    is_1, is_mono = data[place + 1] >> 3 & 3 == VERSION_1, data[place + 3] >> 6 == 3
    side = (17 if is_mono else 32) if is_1 else (9 if is_mono else 17)
    return any(
        data.startswith(INFO_TAGS, place + offset) and not any(data[place + CRC_END : place + offset])
        for offset in (4 + side, CRC_END + side, VBRI_PLACE)
    )


def _behind_tags(data: bytes, place: int) -> int:
    """Where what follows the tags at ``place`` begins."""
    while True:
        if data.startswith(b"ID3", place):
            size = 0
            for byte in data[place + 6 : place + ID3_BYTES]:
                size = size << 7 | byte & 0x7F
            place += ID3_BYTES + size
        elif data.startswith(APE_TAG, place):
            place += APE_BYTES + int.from_bytes(data[place + APE_SIZE : place + APE_SIZE + 4], "little")
        elif data.startswith(b"TAG", place):
            place += TAG_BYTES
        else:
            return place


def _frame(data: bytes, place: int) -> tuple[int, int] | None:
    """Bytes and samples of the frame of layer III at ``place``, None if there is none that says so."""
    head = int.from_bytes(data[place : place + 4], "big") if place + 4 <= len(data) else 0
    version, layer, rate, sampling = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer != LAYER_3 or rate in (0, 15) or sampling == 3:
        return None
    is_1 = version == VERSION_1
    sample_rate = SAMPLE_RATES[sampling] // (1 if is_1 else 2 if version == 2 else 4)
    num_samples = 1152 if is_1 else 576
    bit_rate = 1000 * (RATES_1 if is_1 else RATES_2)[rate]
    return num_samples // 8 * bit_rate // sample_rate + (head >> 9 & 1), num_samples
