"""Pictures as people and attackers send them: the right pixels, or an ImageError that says what is wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from lensmith.core.errors import ImageError
from lensmith.core.images import ImageLimits, open_picture, orientation, upright

ORIENTATION = ExifTags.Base.Orientation
ASCII, SHORT = 2, 3
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width_px: int, height_px: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def noise(width_px: int = 40, height_px: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats_come_back_bit_for_bit(kind, tmp_path):
    path = tmp_path / "picture.bin"
    path.write_bytes(encode(noise(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    picture = open_picture(path)
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(noise()))
    assert picture.tobytes() == open_picture(str(path)).tobytes() == open_picture(path.read_bytes()).tobytes()


def test_jpeg_is_close():
    picture = open_picture(encode(Image.new("RGB", (16, 16), (200, 30, 60)), "JPEG", quality=95))
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 60)).max() <= 3


# --- files that cannot be read ------------------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        open_picture(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="Is a directory"):
        open_picture(tmp_path)
    with pytest.raises(ImageError, match="cannot read"):
        open_picture("nul\0byte.png")


def test_empty_file(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png is empty"):
        open_picture(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="the picture is empty"):
        open_picture(b"")


def test_text_named_png(tmp_path):
    path = tmp_path / "page.png"
    path.write_text("<html>not a picture</html>")
    with pytest.raises(ImageError) as caught:
        open_picture(path)
    assert "is not a picture" in str(caught.value)
    assert "<html>" in str(caught.value)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_file(kind, kept):
    whole = encode(noise(200, 200), kind)
    with pytest.raises(ImageError):
        open_picture(whole[: int(len(whole) * kept)])


def test_damaged_pixels_of_a_png():
    whole = bytearray(encode(noise()))
    whole[len(whole) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        open_picture(bytes(whole))


def test_postscript_is_not_interpreted():
    with pytest.raises(ImageError, match="is not a picture"):
        open_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(30_000, 30_000), (9_000, 9_000), (12_000, 9_000), (40_000, 1), (1, 40_000)])
def test_decompression_bomb_is_refused_by_its_header(size, monkeypatch):
    def decoded(*_: object) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(ImageError, match="too large"):
        open_picture(png_header(*size))


def test_a_file_beyond_the_byte_limit_is_not_read_whole(tmp_path):
    with pytest.raises(ImageError, match="too large"):
        open_picture("/dev/zero", ImageLimits(max_bytes=1000))
    with pytest.raises(ImageError, match="at most 10 bytes"):
        open_picture(encode(noise()), ImageLimits(max_bytes=10))


def test_limits_are_inclusive():
    data = encode(noise(40, 30))
    assert open_picture(data, ImageLimits(max_bytes=len(data), max_pixels=1200, max_side_px=40)).size == (40, 30)
    with pytest.raises(ImageError, match="40 x 30 = 1,200 pixels"):
        open_picture(data, ImageLimits(max_pixels=1199))
    with pytest.raises(ImageError, match="39 on each side"):
        open_picture(data, ImageLimits(max_side_px=39))


@pytest.mark.filterwarnings("ignore")  # Pillow also warns about what it then refuses
@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.integers(0, 200))
@settings(max_examples=300)
def test_damaged_bytes_give_a_picture_or_an_image_error(junk, kind, position):
    whole = encode(Image.new("RGB", (8, 8), RED), kind)
    for data in (junk, whole[:position] + junk + whole[position + len(junk) :]):
        try:
            assert open_picture(data, ImageLimits(max_pixels=1 << 16)).mode == "RGB"
        except ImageError:
            continue


# --- pictures of unusual kinds ------------------------------------------------------------------------------------


def test_cmyk_jpeg():
    inks = {(0, 0, 0, 0): WHITE, (0, 255, 255, 0): RED, (0, 0, 0, 255): BLACK, (255, 255, 0, 0): BLUE}
    for ink, colour in inks.items():
        picture = open_picture(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100))
        assert np.abs(np.asarray(picture).astype(int) - colour).max() <= 3, ink


def test_sixteen_bit_grey_keeps_its_upper_byte():
    grey = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    picture = open_picture(encode(Image.fromarray(grey)))
    assert np.asarray(picture)[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_sixteen_bit_colour_keeps_its_upper_byte():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixel = struct.pack(">HHH", 65535, 32768, 255)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"\0" + pixel)) + chunk(b"IEND", b"")
    assert open_picture(data).getpixel((0, 0)) == (255, 128, 0)


def test_thirty_two_bits_a_channel_are_refused():
    with pytest.raises(ImageError, match="32 bits"):
        open_picture(encode(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_grey_and_black_and_white():
    assert open_picture(encode(Image.new("L", (2, 2), 77))).getpixel((1, 1)) == (77, 77, 77)
    assert open_picture(encode(Image.new("1", (2, 2), 1))).getpixel((1, 1)) == WHITE


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    picture = open_picture(encode(image))
    assert [picture.getpixel((0, 0)), picture.getpixel((1, 0))] == [RED, GREEN]


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert open_picture(data).getpixel((0, 0)) == RED


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(kind):
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    picture = open_picture(encode(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert [picture.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (127, 127, 127)]


def test_a_transparent_colour_of_a_palette_or_grey_picture_is_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    picture = open_picture(encode(palette, transparency=0))
    assert [picture.getpixel((0, 0)), picture.getpixel((1, 0))] == [WHITE, GREEN]
    assert open_picture(encode(Image.new("L", (1, 1), 9), transparency=9)).getpixel((0, 0)) == WHITE
    assert open_picture(encode(Image.new("LA", (1, 1), (9, 0)))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(
    ("turn", "size", "corner"),
    # Where the red left half of a 4 x 2 picture goes: the colour of the top left pixel and the turned size.
    [(1, (4, 2), RED), (3, (4, 2), BLUE), (6, (2, 4), RED), (8, (2, 4), BLUE)],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_rotation_is_applied_and_dropped(turn, size, corner, kind):
    image = Image.new("RGB", (4, 2), BLUE)
    image.paste(RED, (0, 0, 2, 2))
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    picture = open_picture(encode(image, kind, exif=exif))
    assert picture.size == size
    assert picture.getpixel((0, 0)) == corner
    assert not picture.getexif()
    assert not picture.info


def with_orientation(turn: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return encode(noise(), kind, exif=exif)


def exif_with(*tags: tuple[int, int, bytes]) -> bytes:
    """Metadata with short values as they stand, whatever their type: (tag, type, up to four bytes)."""
    entries = [struct.pack("<HHI4s", tag, kind, 1, value) for tag, kind, value in sorted(tags)]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_rotation_is_that_of_pillow(turn, kind):
    data = with_orientation(turn, kind)
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(open_picture(data), theirs)
    np.testing.assert_array_equal(upright(Image.open(io.BytesIO(data))).convert("RGB"), theirs)


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(), "PNG", exif=b"Exif\0\0nonsense"),
        encode(noise(), "WEBP", lossless=True, exif=b"nonsense"),
        with_orientation(0),
        with_orientation(9),
        encode(noise(), "PNG", exif=exif_with((ORIENTATION, ASCII, b"6"))),
    ],
    ids=["png", "webp", "0", "9", "text"],
)
def test_metadata_that_make_no_sense_cost_no_picture(data):
    np.testing.assert_array_equal(open_picture(data), noise())
    assert orientation(Image.open(io.BytesIO(data))) == 1


def test_other_tags_of_a_wrong_type_cost_no_rotation():
    exif = exif_with((ORIENTATION, SHORT, b"\6"), (ExifTags.Base.ImageWidth, ASCII, b"9"))
    data = encode(noise(), "JPEG", exif=exif)
    with pytest.raises((TypeError, struct.error)):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert open_picture(data).size == (30, 40)
