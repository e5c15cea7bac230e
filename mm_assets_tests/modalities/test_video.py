"""Videos: judged by their container, frames at evenly spaced times, sound on the same clock, signals and damage."""

import re
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.audio.tensor import make_tensor as mel
from mm_assets.modalities.reasons import BlobRejectedError, Refusal
from mm_assets.modalities.video import augment, column, corruptions, nearness, signals, tensor
from mm_assets.modalities.video.bootstrap import make_tensors
from mm_assets.modalities.video.decode import DecodedVideo, decode
from mm_assets.modalities.video.descriptor import Descriptor, collect
from mm_assets.modalities.video.frames import pixels, times_us
from mm_assets.modalities.video.header import inspect_header
from mm_assets.modalities.video.signature import signature
from mm_assets.training.config import AugmentConfig
from mm_assets_tests.videos import picture, video

LIMITS, CONFIG = SnapshotConfig(), FeaturesConfig()
SHAPE = {"video_size": 64}
FILES = [
    ("mp4", "libx264", "aac", "mp4"),
    ("mp4", "mpeg4", "aac", "mp4"),
    ("mov", "mjpeg", "pcm_s16le", "mov"),
    ("webm", "libvpx-vp9", "libopus", "webm"),
    ("webm", "libvpx", "libopus", "webm"),
    ("matroska", "ffv1", "flac", "mkv"),
    ("avi", "mpeg4", "pcm_s16le", "avi"),
]


def refused(
    data: bytes, config: FeaturesConfig = CONFIG, time_range: tuple[int | None, int | None] | None = None
) -> str:
    with pytest.raises(BlobRejectedError) as caught:
        decode(data, config, time_range)
    return f"{caught.value.reason}: {caught.value.detail}"


def judged(data: bytes, limits: SnapshotConfig = LIMITS) -> str:
    found = inspect_header(data, limits)
    return f"{found.reason}: {found.detail}" if isinstance(found, Refusal) else found


def rows_of(made: DecodedVideo) -> np.ndarray:
    return column.read(pa.scalar(tensor.make_tensor(made, CONFIG)[0], pa.binary()), SHAPE)


@pytest.mark.parametrize(("container", "codec", "sound", "expected"), FILES)
def test_frames_are_those_shown_at_evenly_spaced_times(container: str, codec: str, sound: str, expected: str) -> None:
    data = video(container, codec, sound=sound)
    assert inspect_header(data, LIMITS) == expected
    made = decode(data, CONFIG)
    # The middles of eight parts of two seconds are 125, 375, ... ms; frames last 40 ms.
    assert made.times_us == (120_000, 360_000, 600_000, 840_000, 1_120_000, 1_360_000, 1_600_000, 1_840_000)
    assert (made.num_frames, made.fps, made.width, made.height) == (50, 25.0, 64, 48)
    # Matroska rounds the times of its sound to milliseconds.
    assert made.seconds == pytest.approx(2.0, abs=0.001)
    for time, frame in zip(made.times_us, made.frames, strict=True):
        wanted = picture(time // 40_000, 50, (64, 48))
        assert np.abs(np.asarray(frame.rgb).astype(int) - wanted).mean() < 12
    assert decode(data, CONFIG).digest == made.digest


@pytest.mark.parametrize(("container", "codec", "sound", "expected"), FILES)
def test_a_segment_has_the_frames_and_the_sound_of_its_time(
    container: str, codec: str, sound: str, expected: str
) -> None:
    del expected
    data = video(container, codec, sound=sound)
    whole, part = decode(data, CONFIG), decode(data, CONFIG, (1_000_000, 1_600_000))
    assert part.seconds == 0.6
    assert part.num_frames == 15
    assert part.times_us[0] == 0
    assert np.array_equal(
        np.asarray(part.frames[-1].rgb), np.asarray(decode(data, replace(CONFIG, video_frames=50)).frames[39].rgb)
    )
    assert whole.audio is not None
    assert part.audio is not None
    # The same clock: sample 0 is heard when the time range begins, to the millisecond of Matroska's times.
    rate, length = part.audio.sample_rate, len(part.audio.mono)
    assert length == round(0.6 * rate)
    shifts = range(-rate // 1000, rate // 1000 + 1) if container in ("webm", "matroska") else range(1)
    errors = [np.abs(part.audio.mono - whole.audio.mono[rate + at : rate + at + length]).max() for at in shifts]
    assert min(errors) < 0.02
    assert part.audio_start_us == 0


def test_sound_that_begins_later_than_the_pictures_has_silence_before_it() -> None:
    made = decode(video("mov", "mpeg4", sound="pcm_s16le", sound_from_s=0.5), CONFIG)
    assert made.audio is not None
    assert made.audio_start_us == 500_000
    assert not made.audio.mono[:24_000].any()
    assert np.abs(made.audio.mono[24_000:30_000]).max() > 0.01
    # The spectrogram is on the clock of the frames too: 100 of its frames a second.
    assert mel(made.audio, CONFIG)[1] == 200


def test_a_segment_reaches_only_what_its_video_has() -> None:
    data = video()
    assert refused(data, time_range=(0, 5_000_000)) == (
        "bad_time_range: time range from 0 s to 5 s is not within the video, which ends at 2 s"
    )
    assert refused(data, time_range=(3_000_000, None)).startswith("bad_time_range: time range from 3 s to the end")
    # Annotations are rounded.
    assert decode(data, CONFIG, (1_500_000, 2_300_000)).seconds == 0.5


def test_sound_behind_the_last_picture_belongs_to_the_video() -> None:
    data = video("mov", "mpeg4", sound="pcm_s16le", seconds=1.0, sound_seconds=3.0)
    made, late = decode(data, CONFIG), decode(data, CONFIG, (2_000_000, 3_000_000))
    assert (made.seconds, made.num_frames) == (3.0, 25)
    assert made.audio is not None
    assert late.audio is not None
    assert made.audio.seconds == 3.0
    assert np.array_equal(late.audio.mono, made.audio.mono[96_000:])
    assert np.abs(late.audio.mono).max() > 0.2
    # The last picture stays.
    assert late.times_us == (0,)
    assert np.array_equal(np.asarray(late.frames[0].rgb), np.asarray(made.frames[-1].rgb))
    assert refused(data, time_range=(3_000_000, None)).startswith("bad_time_range")


def test_a_video_of_few_frames_gives_each_once() -> None:
    made = decode(video(seconds=0.12), CONFIG)
    assert made.times_us == (0, 40_000, 80_000)
    assert tensor.make_tensor(made, CONFIG)[1] == 3


def shown_by(*matrix: float) -> bytes:
    """A video with a display matrix: where its columns run to, and its rows."""
    data = bytearray(video(size=(64, 32), seconds=0.2))
    # The matrix of the track's header, 16.16 and 2.30 numbers.
    place = data.index(b"tkhd") + 4 + 40
    right, down, left, up = (round(number * (1 << 16)) for number in matrix)
    data[place : place + 36] = struct.pack(">9i", right, down, 0, left, up, 0, 0, 0, 1 << 30)
    return bytes(data)


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
        (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0),
    ],
)  # fmt: skip
def test_frames_are_upright_and_as_in_the_mirror_where_their_video_is(matrix: tuple[int, int, int, int]) -> None:
    plain = np.asarray(decode(shown_by(1, 0, 0, 1), CONFIG).frames[0].rgb)
    shown = np.asarray(decode(shown_by(*matrix), CONFIG).frames[0].rgb)
    # Pixel (p, q) is shown at (a p + c q, b p + d q), moved to begin at 0.
    a, b, c, d = matrix
    q, p = np.mgrid[: plain.shape[0], : plain.shape[1]]
    x, y = a * p + c * q, b * p + d * q
    expected = np.zeros_like(shown)
    expected[y - y.min(), x - x.min()] = plain
    assert np.array_equal(shown, expected)


def test_frames_that_are_turned_otherwise_are_refused() -> None:
    assert refused(shown_by(0.7071, 0.7071, -0.7071, 0.7071)).startswith(
        "unsupported_format: video is shown turned by the matrix 0.7071"
    )
    zeros = decode(shown_by(0, 0, 0, 0), CONFIG)
    assert zeros.digest == decode(shown_by(1, 0, 0, 1), CONFIG).digest


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_video_pixels": 1000}, "too_many_pixels: "),
        ({"max_video_seconds": 1.5}, "too_many_seconds: mp4 declares 2.0 s; 1.5 s are allowed"),
        ({"max_video_frames": 20}, "too_many_frames: mp4 declares 50 frames; 20 are allowed"),
        ({"max_video_frames": 2}, "too_many_frames: mp4 declares 50 samples in a track; 40 are allowed"),
    ],
)
def test_ceilings_are_judged_by_the_header(limits: dict[str, float], expected: str) -> None:
    data = video()
    assert judged(data, replace(LIMITS, **limits)).startswith(expected)
    assert refused(data, replace(CONFIG, **limits)).startswith(expected)


def test_a_container_without_a_duration_is_counted() -> None:
    data = video("webm", "libvpx")
    assert refused(data, replace(CONFIG, max_video_frames=20)) == "too_many_frames: video has more than 20 frames"


def patched(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    place = data.index(name) + 4 + offset
    return data[:place] + value + data[place + len(value) :]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"not a video at all", "unsupported_format: video is neither MP4, QuickTime, WebM, Matroska nor AVI"),
        (b"#EXTM3U\nhttp://example.com/a.ts\n", "unsupported_format"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "unsupported_format"),
        (video()[:-200], "truncated: mp4 box"),
        (video("webm", "libvpx")[:-200], "truncated: matroska segment ends"),
        (video("avi", "mpeg4")[:-200], "truncated: avi ends"),
        (video() + b"zzzz\n\n\n\n", "truncated: mp4 box 0a0a0a0a ends at byte "),
        (video("webm", "libvpx")[:37], "truncated: matroska element 18 ends at byte 38; the file has 37"),
        (patched(video(), b"stsz", 8, b"\xff\xff\xff\xff"), "too_many_frames: mp4 declares 4294967295 samples"),
        (patched(video(), b"url ", 0, bytes(4)), "external_reference: mp4 has media in another file"),
        (b"\x1a\x45\xdf\xa3\x80", "unsupported_format"),
        (b"\0\0\0\x18ftypisom" + bytes(12), "bad_header: mp4 header cannot be read"),
    ],
)
def test_what_is_no_sound_video_is_refused_before_it_is_decoded(data: bytes, expected: str) -> None:
    assert judged(data).startswith(expected)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(b"moov", data)
    return data


FTYP = box(b"ftyp", b"isom" + bytes(4))
HEADER_OF_WEBM = b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (FTYP + box(b"dref", bytes(8) + struct.pack(">I4s", 100, b"url ")), "truncated: mp4 data reference url  ends"),
        (FTYP + nested(1500), "header_lies: mp4 box moov is nested deeper than 16 boxes"),
        (FTYP + box(b"free", b"") * 10_100, "too_many_boxes: mp4 has more than 10080 boxes, which 10 frames may have"),
        (
            HEADER_OF_WEBM + b"\x18\x53\x80\x67\xff" + b"\xec\x80" * 10_100,
            "too_many_boxes: matroska has more than 10080 elements, which 10 frames may have",
        ),
        (HEADER_OF_WEBM + b"\x18\x53\x80\x67\xff\x12\x54\xc3\x67\xff", "header_lies: matroska element 1254c367"),
        (HEADER_OF_WEBM + b"\x18\x53\x80\x67\x80\x05nonsense", "header_lies: matroska has no element at byte 17"),
    ],
)
def test_a_structure_that_cannot_be_is_refused(data: bytes, expected: str) -> None:
    assert judged(data, replace(LIMITS, max_video_frames=10)).startswith(expected)


@pytest.mark.parametrize(
    ("container", "codec", "said"),
    [
        ("mp4", "libx264", "header_lies: mp4 has a second ftyp at byte"),
        ("mov", "mjpeg", "header_lies: mp4 has a second ftyp at byte"),
        ("matroska", "libx264", "header_lies: matroska has a second file behind the first, from byte"),
        ("webm", "libvpx", "header_lies: matroska has a second file behind the first, from byte"),
        ("avi", "mpeg4", "header_lies: avi has a second file behind the first, from byte"),
    ],
)
def test_two_videos_one_behind_the_other_are_refused(container: str, codec: str, said: str) -> None:
    data = video(container, codec, seconds=0.4)
    assert judged(data + data).startswith(said)


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
def test_a_matroska_file_that_was_streamed_reads_and_one_that_is_cut_off_does_not(codec: str) -> None:
    data = video("matroska", codec, sound="libopus", streamed=True)
    assert decode(data, CONFIG).num_frames == 50
    assert judged(data[: len(data) // 2]).startswith("truncated: matroska ")
    # A live stream does not even say where its clusters end.
    live = re.sub(
        rb"\x1f\x43\xb6\x75[\x10-\x1f].{3}|\x1f\x43\xb6\x75[\x40-\x7f].", _of_unknown_size, data, flags=re.DOTALL
    )
    assert live != data
    assert decode(live, CONFIG).num_frames == 50
    assert judged(live[: len(live) // 2]).startswith("truncated: matroska ")


def _of_unknown_size(cluster: "re.Match[bytes]") -> bytes:
    num_bytes = len(cluster[0]) - 4
    return cluster[0][:4] + ((1 << 7 * num_bytes + 1) - 1).to_bytes(num_bytes, "big")


def test_a_fragment_per_frame_is_no_hostile_file() -> None:
    options = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}
    data = video(seconds=60.0, size=(16, 16), gop=100, container_options=options)
    assert data.count(b"moof") == 1500
    assert judged(data) == "mp4"


def test_a_container_with_sound_alone_is_no_video() -> None:
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        track = output.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    assert judged(buffer.getvalue()) == "no_content: mp4 has no video stream"


def test_damaged_frames_are_a_dead_letter_and_nothing_worse() -> None:
    data = bytearray(video())
    place = 2 * len(data) // 5
    data[place : place + 400] = bytes(400)
    assert refused(bytes(data)).startswith("undecodable")


def test_a_later_frame_may_not_be_larger_than_allowed() -> None:
    """A file of a kilobyte would decode to gigabytes."""
    data = video("webm", "libvpx", gop=10)
    place = data.rindex(b"\x9d\x01\x2a") + 3
    data = data[:place] + struct.pack("<HH", 1600, 1600) + data[place + 4 :]
    limits = replace(CONFIG, max_video_pixels=1600 * 1600 - 1)
    assert judged(data, limits) == "webm"
    assert refused(data, limits).startswith("undecodable")


def test_any_damage_has_a_reason_or_decodes() -> None:
    rng = np.random.default_rng(0)
    whole = video(seconds=0.4, sound="aac")
    outcomes: set[str] = set()
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        try:
            outcomes.add("decoded" if decode(bytes(data), CONFIG).frames else "empty")
        except BlobRejectedError as error:
            outcomes.add(error.reason)
    assert "decoded" in outcomes
    assert "empty" not in outcomes


def test_signals_say_what_moves_and_when() -> None:
    still = signals.measure(decode(video(fps=10), replace(CONFIG, video_frames=1)), None)
    moving = signals.measure(decode(video(fps=10, sound="aac"), CONFIG), None)
    assert [name for name, _ in signals.COLUMNS] == list(moving)
    assert (still["video_motion"], still["video_has_sound"], still["video_sound_start_us"]) == (None, False, None)
    assert 0.02 < float(str(moving["video_motion"])) < 0.5
    assert moving["video_frame_times_us"][0] == 100_000  # pyright: ignore[reportIndexIssue]
    assert (moving["video_seconds"], moving["video_fps"], moving["video_num_frames"]) == (2.0, 10.0, 20)
    assert moving["video_has_sound"] is True


def test_tensors_keep_the_time_of_every_frame_and_unsound_ones_are_found() -> None:
    made = decode(video(), CONFIG)
    data, length = tensor.make_tensor(made, CONFIG)
    rows = rows_of(made)
    assert length == len(rows) == 8
    assert times_us(rows).tolist() == list(made.times_us)
    assert pixels(rows).shape == (8, 64, 64, 3)
    assert column.is_sound(pa.scalar(data, pa.binary()), SHAPE)
    assert not column.is_sound(pa.scalar(data[:-1], pa.binary()), SHAPE)
    unsound = b"\xff" * 8 + data[8:]
    assert not column.is_sound(pa.scalar(unsound, pa.binary()), SHAPE)


def test_a_copy_of_a_clip_is_near_and_another_clip_is_not() -> None:
    def parsed(data: bytes) -> np.ndarray:
        return nearness.parse(np.frombuffer(signature(decode(data, CONFIG)), np.uint8)[None])

    original = parsed(video(size=(128, 96)))
    again = parsed(video("webm", "libvpx-vp9", size=(96, 72)))
    other = parsed(video(size=(128, 96), hue=2))
    assert nearness.are_near(original, again).all()
    assert nearness.may_be_near(nearness.outlines(original), nearness.outlines(again)).all()
    assert not nearness.are_near(original, other).any()


def test_embeddings_do_not_depend_on_the_clips_beside_them() -> None:
    tensors = {name: torch.from_numpy(value) for name, value in make_tensors(16).items()}
    describe = Descriptor(tensors)
    clips = [decode(video(seconds=length), CONFIG) for length in (2.0, 0.12)]
    values = pa.array([tensor.make_tensor(clip, CONFIG)[0] for clip in clips], pa.binary())
    together = describe(*collect(values, SHAPE))
    alone = torch.cat([describe(*collect(values[row : row + 1], SHAPE)) for row in range(2)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_damage_keeps_times_and_grows_with_severity(name: str) -> None:
    rows = rows_of(decode(video(), CONFIG))
    changes: list[float] = []
    for severity in (1, 5):
        damaged = corruptions.CORRUPTIONS[name](rows, severity, np.random.default_rng(1))
        assert damaged.shape == rows.shape
        assert np.array_equal(times_us(damaged), times_us(rows))
        changes.append(float(np.abs(pixels(damaged).astype(int) - pixels(rows)).mean()))
    assert changes[1] > changes[0] > 0


def test_all_frames_of_a_clip_are_changed_alike_in_training() -> None:
    row = rows_of(decode(video(), CONFIG))[0]
    clip = np.stack([row] * 4)
    clip[:, :8] = np.arange(4, dtype="<i8")[:, None].view(np.uint8)
    # Of one frame that is shown before the first of the next clip.
    short = clip[:1].copy()
    short[:, :8] = np.array([-1], "<i8").view(np.uint8)
    rows = np.concatenate([clip, short, clip])
    changed = augment.augment(rows, AugmentConfig(), np.random.default_rng(0), [4, 1, 4])
    assert not np.array_equal(pixels(changed)[4], pixels(changed)[5])
    changed = np.concatenate([changed[:4], changed[5:]])
    first, second = pixels(changed)[:4], pixels(changed)[4:]
    assert all(np.array_equal(frame, first[0]) for frame in first)
    assert not np.array_equal(first, second)
    assert np.array_equal(times_us(changed), [0, 1, 2, 3, 0, 1, 2, 3])
