import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.image.bands import histogram, luma_bands
from mm_assets.modalities.image.decode import DecodedImage, decode
from mm_assets.modalities.image.scale import fitted
from mm_assets.modalities.image.signals import measure, sharpness
from mm_assets.modalities.image.tensor import make_tensor, square
from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets_tests.modalities.icc_profiles import ink, linear_grey, swapped_primaries

CONFIG = FeaturesConfig()
ORIENTATION = 0x0112
TURN = Image.Transpose
#: EXIF orientation -> how a stored picture is made of the upright one. Source: Exif 3.0, tag 274.
UNDO = {
    2: (TURN.FLIP_LEFT_RIGHT,),
    3: (TURN.ROTATE_180,),
    4: (TURN.FLIP_TOP_BOTTOM,),
    5: (TURN.TRANSPOSE,),
    6: (TURN.ROTATE_90,),
    7: (TURN.TRANSVERSE,),
    8: (TURN.ROTATE_270,),
}


def _pixels(image) -> np.ndarray:
    return np.asarray(image.rgb)


def _digest(image) -> object:
    return measure(image, CONFIG)["image_pixels_digest"]


def _png_header(width: int, height: int) -> bytes:
    return _png(width, height, zlib.compress(b"\0" * 1000))


def _png(width: int, height: int, data: bytes, *, depth: int = 8, colour_type: int = 2) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = (body, b"IDAT" + data, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_transparency_is_laid_over_white(to_picture):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    pixels = _pixels(decode(to_picture(image), CONFIG))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_transparent_palette_entry_becomes_white(to_picture):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((2, 2), 0)
    pixels = _pixels(decode(to_picture(image, transparency=0), CONFIG))
    assert pixels[2, 2].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == [200, 0, 0]


def test_sixteen_bit_grey_keeps_its_upper_byte(to_picture):
    values = np.array([[0, 255, 256], [32768, 65535, 300]], np.uint16)
    pixels = _pixels(decode(to_picture(Image.fromarray(values)), CONFIG))
    assert pixels[:, :, 0].tolist() == [[0, 0, 1], [128, 255, 1]]


def test_cmyk_jpeg_is_decoded_to_rgb(to_picture):
    data = to_picture(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = _pixels(decode(data, CONFIG))[8, 8].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


def test_exif_orientation_turns_the_pixels_upright(to_picture):
    image = Image.new("RGB", (20, 10), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 10, 10))  # black on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    decoded = decode(to_picture(image, "JPEG", exif=exif, quality=95), CONFIG)
    assert (decoded.width, decoded.height) == (10, 20)
    assert _pixels(decoded)[2, 5, 0] < 20  # the left half is now on top


def test_truncated_png_names_the_reason(make_blocks, to_picture):
    data = to_picture(make_blocks(1))
    with pytest.raises(BlobRejectedError) as caught:
        decode(data[: len(data) // 2], CONFIG)
    assert caught.value.reason == "truncated"
    assert "0x" not in caught.value.detail


def test_bytes_that_are_no_picture_name_no_address():
    with pytest.raises(BlobRejectedError) as caught:
        decode(b"GIF89a" + b"\0" * 50, CONFIG)
    assert (caught.value.reason, caught.value.detail) == (
        "unsupported_format",
        "image is neither PNG, JPEG nor WebP",
    )


@pytest.mark.parametrize("side", [8_001, 12_000, 30_000])
def test_picture_with_too_many_pixels_is_refused_by_its_header(side):
    with pytest.raises(BlobRejectedError, match=f"{side} x {side}") as caught:
        decode(_png_header(side, side), CONFIG)
    assert caught.value.reason == "too_many_pixels"


def test_tensor_keeps_the_aspect_on_white(to_picture):
    decoded = decode(to_picture(Image.new("RGB", (100, 50), (0, 0, 255))), CONFIG)
    tensor = np.frombuffer(make_tensor(decoded, CONFIG)[0], np.uint8).reshape(64, 64, 3)
    assert tensor[32, 32].tolist() == [0, 0, 255]
    assert (tensor[:15] == 255).all()
    assert (tensor[49:] == 255).all()


def test_lossless_containers_share_all_signals(make_blocks, to_picture):
    picture = make_blocks(3)
    png, webp = (
        decode(to_picture(picture), CONFIG),
        decode(to_picture(picture, "WEBP", lossless=True), CONFIG),
    )
    assert measure(png, CONFIG) == measure(webp, CONFIG)


def test_blur_lowers_sharpness(make_blocks):
    luma = np.asarray(make_blocks(5).convert("L")).astype(np.int64)
    smooth = (luma + np.roll(luma, 1, 0) + np.roll(luma, 1, 1) + np.roll(luma, (1, 1), (0, 1))) // 4
    assert sharpness(smooth[None, 2:, 2:]) < sharpness(luma[None, 2:, 2:])


def test_signals_of_a_flat_grey_picture_are_exact(to_picture):
    row = measure(decode(to_picture(Image.new("RGB", (40, 30), (51, 51, 51))), CONFIG), CONFIG)
    assert (row["brightness"], row["contrast"], row["sharpness"]) == (0.2, 0.0, 0.0)
    assert (row["image_width"], row["image_height"]) == (40, 30)


def _jpeg(width: int, height: int, **options) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).resize((width, height)).save(file, "JPEG", **options)
    return file.getvalue()


def _declared(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    place = 2
    while data[place + 1] not in (0xC0, 0xC2):
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 16), (300, 200)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_progressive_picture_of_one_colour_is_honest(mode, size, grey):
    file = io.BytesIO()
    Image.new(mode, size, grey if mode == "L" else (grey, grey, grey)).save(file, "JPEG", progressive=True)
    assert decode(file.getvalue(), CONFIG)


JPEGS = [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1}]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("size", [(200, 400), (200, 100), (400, 200), (100, 200), (216, 200), (200, 216)])
def test_a_jpeg_with_another_size_than_its_header_declares_is_refused(options, size):
    data = _jpeg(200, 200, **options)
    with pytest.raises(BlobRejectedError, match="its data hold: ") as caught:
        decode(_declared(data, *size), CONFIG)
    assert caught.value.reason == "header_lies"
    assert ("more" if size[0] * size[1] > 40_000 else "fewer") in caught.value.detail


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("size", [(1, 1), (7, 100), (8, 8), (33, 17), (640, 48)])
def test_an_honest_jpeg_decodes_as_pillow_decodes_it(options, size):
    data = _jpeg(*size, **options)
    with Image.open(io.BytesIO(data)) as expected:
        assert _pixels(decode(data, CONFIG)).tolist() == np.asarray(expected.convert("RGB")).tolist()


@pytest.mark.parametrize("color", ["white", "black", (7, 8, 9)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_an_honest_jpeg_of_one_color_is_no_lie(color, mode):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).convert(mode).save(file, "JPEG", progressive=mode == "RGB")
    assert decode(file.getvalue(), CONFIG).width == 64


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_each_exif_orientation_of_each_format_shows_the_same_upright_picture(kind, orientation, to_picture):
    upright = Image.new("RGB", (32, 16), (255, 255, 255))
    upright.paste((0, 0, 0), (0, 0, 16, 8))  # black in the upper left
    stored = upright
    for step in UNDO.get(orientation, ()):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    decoded = decode(to_picture(stored, kind, exif=exif, quality=95), CONFIG)
    assert (decoded.width, decoded.height) == (32, 16)
    assert _pixels(decoded)[2, 4].max() < 40
    assert min(_pixels(decoded)[13, 4].min(), _pixels(decoded)[2, 28].min()) > 215


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_colours_of_a_profile_become_srgb(kind, to_picture):
    image = Image.new("RGB", (300, 600), (200, 100, 0))  # Three strips.
    decoded = decode(to_picture(image, kind, icc_profile=swapped_primaries(), lossless=True), CONFIG)
    assert np.abs(_pixels(decoded).astype(int) - (0, 100, 200)).max() <= 1


def test_a_profile_that_is_srgb_changes_no_pixel(make_blocks, to_picture):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, with_profile = to_picture(make_blocks(4)), to_picture(make_blocks(4), icc_profile=profile)
    assert _digest(decode(plain, CONFIG)) == _digest(decode(with_profile, CONFIG))


def test_transparency_is_laid_over_white_after_the_colours_are_converted(to_picture):
    image = Image.new("RGBA", (2, 1), (200, 100, 0, 128))
    image.putpixel((1, 0), (200, 100, 0, 0))
    pixels = _pixels(decode(to_picture(image, icc_profile=swapped_primaries()), CONFIG))
    assert np.abs(pixels[0, 0].astype(int) - (127, 177, 227)).max() <= 1
    assert pixels[0, 1].tolist() == [255, 255, 255]


def test_a_palette_is_converted_by_its_profile(to_picture):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 0])
    pixels = _pixels(decode(to_picture(image, icc_profile=swapped_primaries()), CONFIG))
    assert np.abs(pixels[0, 0].astype(int) - (0, 100, 200)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_converts_grey_of_every_depth(mode, to_picture):
    value = {"L": 55, "LA": (55, 255), "I;16": 55 << 8}[mode]
    image = Image.new(mode, (4, 4), value)
    # Of 255 levels of light, 55 are sRGB's 128.
    expected = round(255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055))
    pixels = _pixels(decode(to_picture(image, icc_profile=linear_grey()), CONFIG))
    assert np.abs(pixels[0, 0].astype(int) - expected).max() <= 1


def test_cmyk_is_converted_by_its_profile(to_picture):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 128))
    red, green, blue = _pixels(decode(to_picture(image, "JPEG", quality=95, icc_profile=ink()), CONFIG))[8, 8].tolist()
    # Half of the black ink is L* 50, which is sRGB's 119; by Pillow's formula, cyan ink would leave no red.
    assert max(abs(red - 119), abs(green - 119), abs(blue - 119)) <= 3


@pytest.mark.parametrize("profile", [b"x" * 200, linear_grey(), swapped_primaries()[:200], ink()[:140]])
def test_a_profile_that_cannot_be_used_leaves_the_pixels_as_they_are(profile, to_picture):
    pixels = _pixels(decode(to_picture(Image.new("RGB", (4, 4), (200, 100, 0)), icc_profile=profile), CONFIG))
    assert pixels[0, 0].tolist() == [200, 100, 0]


@pytest.mark.parametrize(
    ("colour_type", "samples", "expected"),
    [(2, (200, 100, 50), (200, 100, 50)), (4, (80, 0), (255,) * 3), (6, (9, 8, 7, 255), (9, 8, 7))],
)
def test_of_sixteen_bits_per_channel_the_upper_eight_are_kept(colour_type, samples, expected):
    row = b"\0" + b"".join(struct.pack(">H", value << 8 | value) for value in samples)
    pixels = _pixels(decode(_png(1, 1, zlib.compress(row), depth=16, colour_type=colour_type), CONFIG))
    assert tuple(pixels[0, 0]) == expected


def test_entropy_is_the_logarithm_of_the_number_of_equally_frequent_levels(to_picture):
    for levels, bits in ((1, 0.0), (2, 1.0), (16, 4.0), (256, 8.0)):
        steps = np.repeat(np.arange(levels, dtype=np.uint8), 256 // levels).reshape(16, 16)
        row = measure(decode(to_picture(Image.fromarray(steps)), CONFIG), CONFIG)
        assert row["image_entropy"] == bits


@pytest.mark.parametrize(("size", "ratio"), [((40, 30), 1.333333), ((30, 40), 0.75), ((1, 700), 0.001429)])
def test_aspect_is_width_by_height(size, ratio, to_picture):
    assert measure(decode(to_picture(Image.new("RGB", size)), CONFIG), CONFIG)["image_aspect"] == ratio


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 200), (72, 72), (333, 500), (512, 341), (512, 384), (640, 427), (1280, 853), (1300, 20)]
)
@pytest.mark.parametrize("side", [16, 64, 224])
def test_the_square_is_what_pillow_makes_of_the_whole_picture(size, side):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    inner = fitted(size, side)
    expected = Image.new("RGB", (side, side), (255, 255, 255))
    small = picture.resize(inner, Image.Resampling.BILINEAR, reducing_gap=2.0)
    expected.paste(small, ((side - inner[0]) // 2, (side - inner[1]) // 2))
    assert square(DecodedImage(rgb=picture), side) == expected.tobytes()


@pytest.mark.parametrize("size", [(60, 40), (512, 384), (500, 512), (900, 30), (30, 127)])
def test_luma_of_bands_is_that_of_their_rows(size):
    pixels = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    luma = luma_bands(picture)
    whole = np.asarray(picture.convert("L"))
    if size[1] <= 96:
        assert luma.tolist() == [whole.tolist()]
    else:
        starts = [band * (size[1] - 3) // 31 for band in range(32)]
        assert luma.tolist() == [whole[start : start + 3].tolist() for start in starts]
        assert (starts[0], starts[-1] + 3) == (0, size[1])
    assert histogram(luma).tolist() == np.bincount(luma.ravel(), minlength=256).tolist()


def test_sharpness_is_the_variance_of_the_laplacian():
    luma = np.random.default_rng(3).integers(0, 256, (5, 3, 40), dtype=np.uint8)
    wide = luma.astype(int)
    around = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    assert sharpness(luma) == pytest.approx((around - 4 * wide[:, 1:-1, 1:-1]).var(), rel=1e-12)


@pytest.mark.parametrize("size", [(72, 72), (512, 384), (1600, 1200)])
def test_pixels_that_another_decoder_gives_change_the_digest(size):
    rng = np.random.default_rng(4)
    pixels = rng.integers(1, 255, (size[1], size[0], 3), dtype=np.uint8)
    first = _digest(DecodedImage(rgb=Image.fromarray(pixels)))
    assert first == _digest(DecodedImage(rgb=Image.fromarray(pixels.copy())))
    for channel in range(3):
        other = pixels.copy()
        # One step in one of a thousand values of one channel.
        other[..., channel] += rng.random(size[::-1]) < 0.001 if size[0] > 100 else rng.random(size[::-1]) < 0.01
        assert _digest(DecodedImage(rgb=Image.fromarray(other))) != first
