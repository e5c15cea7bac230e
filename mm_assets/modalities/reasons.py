"""Why data is refused: every reason there is, the same word wherever it is found.

Dead letters of all stages are grouped by these words; which modality is concerned is in a column of its own.
"""

import logging
from dataclasses import dataclass

logger = logging.getLogger(__name__)

REASONS = {
    "ambiguous_modality": "A sample has two blobs of one modality at one place.",
    "bad_header": "The format is known, but its header cannot be read.",
    "bad_id": "The id is empty, too long, or holds characters that cannot be seen.",
    "bad_metadata": "The description of a sample cannot be used.",
    "bad_row": "A row of the index cannot be used.",
    "bad_time_range": "The time range of a sample is no range of its video.",
    "duplicate_id": "Another sample has this id already.",
    "empty_file": "The blob has no bytes.",
    "external_reference": "The content lies in another file, which is not read.",
    "header_lies": "The header contradicts itself or the bytes that follow it.",
    "metadata_too_deep": "The description of a sample is nested deeper than allowed.",
    "metadata_too_large": "The further columns of a sample are larger than allowed.",
    "missing_file": "A row names a file that the drop does not hold.",
    "no_content": "The header declares content of length zero.",
    "no_extension": "A member has no extension that says what it is.",
    "no_modality": "A sample holds no blob.",
    "not_a_file": "A member is a link, a device or a sparse file.",
    "not_finite": "The decoded values hold NaN or infinity.",
    "text_not_utf8": "The bytes are not valid UTF-8.",
    "too_large": "A blob, or all blobs of a sample, have more bytes than allowed.",
    "too_many_boxes": "The container has more boxes or elements than its frames may have.",
    "too_many_decoded_bytes": "The header declares more decoded bytes than allowed.",
    "too_many_frames": "The video has more frames than allowed.",
    "too_many_parts": "The sample has more parts than allowed.",
    "too_many_pixels": "The header declares more pixels than allowed.",
    "too_many_seconds": "The header declares more seconds than allowed.",
    "too_many_streams": "The container has more streams than allowed.",
    "truncated": "The blob ends before what its header declares.",
    "undecodable": "The decoder refuses the content.",
    "unexpected_error": "Reading the blob failed in a way that is a fault of the reader, not of the blob.",
    "unsafe_path": "A name leaves its folder or tar.",
    "unsupported_format": "The bytes have none of the supported formats.",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is refused: one of ``REASONS`` and a sentence about the case."""

    reason: str
    detail: str

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"reason {self.reason}: is unknown: list it in modalities/reasons.py.")


class BlobRejectedError(ValueError):
    """A blob that cannot become a tensor; it turns its sample into a dead letter and never leaves a stage."""

    def __init__(self, refusal: Refusal):
        super().__init__(refusal.reason, refusal.detail)
        self.reason = refusal.reason
        self.detail = refusal.detail


def unexpected(what: str, error: Exception) -> Refusal:
    """The refusal of a blob on which a reader failed as it never should: its sample is lost, and no other.

    It counts as a dead letter under the budget like any other; the traceback is logged, for whoever mends the reader.
    """
    logger.error("%s: reading it failed", what, exc_info=error)
    return Refusal("unexpected_error", f"{type(error).__name__} while it was read; the log has the traceback")
