"""Which frames of a video are shown when: its packets, without decoding one, and the times that are looked at.

Time 0 is where the container begins; all times are whole microseconds.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from mm_assets.modalities.reasons import BlobRejectedError, Refusal
from mm_assets.modalities.video.container import MICROSECONDS

#: What a time range may end after the last frame: annotations are rounded.
TOLERANCE_US = 500_000
#: Between packets of sound that are heard without a pause: containers round their times.
GAP_US = 20_000

#: Start and end in microseconds; None where the video begins or ends.
TimeRange = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One packet: the time of its frame, its number in the order of decoding, whether decoding can begin with it."""

    time_us: int
    number: int
    is_key: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Packets whose frames are shown, in the order of decoding; starts and ends of sound; the end of both."""

    packets: list[Shown]
    sound: list[tuple[int, int]]
    end_us: int

    def has_sound(self, start_us: int, end_us: int) -> bool:
        """Whether there is sound in a range of time."""
        return any(first < end_us and last > start_us for first, last in self.sound)


def time_us(packet: "Packet[Any]", origin_us: int) -> int | None:
    """When the frame of a packet is shown."""
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None:
        return None
    return to_us(stamp, packet.time_base) - origin_us


def to_us(stamp: int, base: Fraction | None) -> int:
    """A time stamp in units of ``base``, of seconds without one, as microseconds."""
    return round(stamp * (base or 1) * MICROSECONDS)


def read_timeline(container: InputContainer, *, max_frames: int) -> Timeline:
    """The packets of the first stream with pictures, and the end of these or of the first sound, whichever is later.

    Raises:
        BlobRejectedError: ``too_many_frames``, or ``no_content`` where no packet says when it is shown.
    """
    stream = container.streams.video[0]
    origin = container.start_time or 0
    packets: list[Shown] = []
    sound: list[tuple[int, int]] = []
    number, end = -1, 0
    for packet in container.demux(stream, *container.streams.audio[:1]):
        is_picture = packet.stream.index == stream.index
        number += is_picture
        if number > max_frames:
            raise BlobRejectedError(Refusal("too_many_frames", f"video has more than {max_frames} frames"))
        at = time_us(packet, origin)
        if at is None or not packet.size or packet.is_discard:
            continue
        until = at + _length_us(packet, stream if is_picture else None)
        end = max(end, until)
        if is_picture:
            packets.append(Shown(time_us=at, number=number, is_key=packet.is_keyframe))
        elif sound and sound[-1][0] <= at <= sound[-1][1] + GAP_US:
            sound[-1] = sound[-1][0], max(sound[-1][1], until)
        else:
            sound.append((at, until))
    first_key = next((place for place, packet in enumerate(packets) if packet.is_key), None)
    if first_key is None:
        raise BlobRejectedError(Refusal("no_content", "video has no frame that decoding can begin with"))
    return Timeline(packets=packets[first_key:], sound=sound, end_us=end)


def _length_us(packet: "Packet[Any]", pictures: VideoStream | None) -> int:
    if packet.duration:
        return to_us(packet.duration, packet.time_base)
    return round(MICROSECONDS / pictures.average_rate) if pictures is not None and pictures.average_rate else 0


def bounds(timeline: Timeline, time_range: TimeRange | None) -> tuple[int, int]:
    """Start and end of what is looked at.

    Raises:
        BlobRejectedError: ``bad_time_range``: it is not within the video.
    """
    start, end = time_range or (None, None)
    start = 0 if start is None else start
    if start >= timeline.end_us or (end is not None and end > timeline.end_us + TOLERANCE_US):
        asked = f"{start / MICROSECONDS:g} s to " + ("the end" if end is None else f"{end / MICROSECONDS:g} s")
        detail = f"time range from {asked} is not within the video, which ends at {timeline.end_us / MICROSECONDS:g} s"
        raise BlobRejectedError(Refusal("bad_time_range", detail))
    return start, timeline.end_us if end is None else min(end, timeline.end_us)


def choose_frames(timeline: Timeline, start_us: int, end_us: int, num_frames: int) -> list[Shown]:
    """The frames that are shown in the middle of ``num_frames`` equal parts of a time range, each once, by time."""
    by_time = sorted(timeline.packets, key=lambda packet: (packet.time_us, packet.number))
    times = [packet.time_us for packet in by_time]
    middles = [start_us + (2 * part + 1) * (end_us - start_us) // (2 * num_frames) for part in range(num_frames)]
    places = {max(0, bisect_right(times, middle) - 1) for middle in middles}
    return [by_time[place] for place in sorted(places)]


def spans(timeline: Timeline, chosen: Sequence[Shown]) -> list[tuple[int, int]]:
    """First and last number of the packets that have to be decoded for the chosen frames, in order and disjoint.

    A frame needs what is decoded before it, back to a key frame that is not shown after it: a key frame in between
    belongs to later frames.
    """
    keys = [packet for packet in timeline.packets if packet.is_key]
    wanted: list[tuple[int, int]] = []
    for frame in chosen:
        before = [key.number for key in keys if key.number <= frame.number and key.time_us <= frame.time_us]
        wanted.append((max(before, default=keys[0].number), frame.number))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(wanted):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
