"""What decides the bytes of features and embeddings: the configuration's sections ``features`` and ``encoder``.

Every field is identity: it enters the fingerprint. Where a stage runs is never configured here.
"""

from dataclasses import dataclass

#: The parameter of embeddings that holds the code digest of an encoder of towers; absent for the bootstrap encoder.
TOWERS_CODE = "towers_code"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig:
    """How blobs become tensors, and how large a blob may become before it is a dead letter.

    Ceilings are checked against headers before anything is decoded, and again while decoding, because headers lie.

    Attributes:
        image_size: Height and width of the square image tensor, pixels.
        max_text_tokens: Length at which a token sequence (BOS and EOS included) is cut.
        sample_rate: Rate audio is resampled to, Hz.
        num_mels: Mel bands per frame.
        window_ms: Length of a spectrogram window.
        hop_ms: Distance between two windows; 10 ms give 100 frames per second.
        max_audio_seconds: Length at which the log-mel tensor is cut; signals are about the whole clip.
        max_image_pixels: Width times height of a picture; decoding takes about 9 bytes for each.
        max_decoded_bytes: Size of one decoded clip (float32, all channels).
        max_decoded_seconds: Duration of one decoded clip.
        video_frames: Frames of a clip, at most: those that are shown in the middle of as many equal parts of it.
        video_size: Height and width of each frame's square, pixels.
        max_video_pixels: Width times height of a frame.
        max_video_seconds: Duration of a video.
        max_video_frames: Frames of a video.
        max_text_bytes: UTF-8 bytes of one text.
        min_language_confidence: A language guess below it is left out.
        redactions: Kinds of personal data, each with the version of its patterns (``email@1``), that a placeholder
            replaces in texts before they become tokens. The snapshot keeps the text as it was delivered, and signals
            are measured on that.
    """

    image_size: int = 64
    max_text_tokens: int = 128
    sample_rate: int = 16_000
    num_mels: int = 40
    window_ms: int = 25
    hop_ms: int = 10
    max_audio_seconds: float = 4.0
    max_image_pixels: int = 64_000_000
    max_decoded_bytes: int = 256 << 20
    max_decoded_seconds: float = 600.0
    video_frames: int = 8
    video_size: int = 64
    max_video_pixels: int = 16_000_000
    max_video_seconds: float = 3600.0
    max_video_frames: int = 250_000
    max_text_bytes: int = 1 << 20
    min_language_confidence: float = 0.2
    redactions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """How the pinned encoder is applied, and what is derived from its embeddings.

    Attributes:
        dim: Length of an embedding; a newly built bootstrap encoder has it, and a pinned one must.
        neighbours: Size of the neighbourhoods that coherence compares.
        reference_rows: Rows of the shard among which neighbours are looked for, so that cost stays linear.
    """

    dim: int = 64
    neighbours: int = 10
    reference_rows: int = 1024
