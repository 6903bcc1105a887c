"""Colours, bits, transparency and EXIF of photos: what is read from their files, and what files keep."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from tifffile import imwrite

from tests.colour_profiles import ADOBE_RGB, DISPLAY_P3, black_profile, in_srgb, rgb_profile
from workbench.images import save_image
from workbench.photo_file import read_photo

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (12, 20, 4)).astype(np.uint16)
ADOBE = rgb_profile("Adobe RGB (1998)", ADOBE_RGB, 563 / 256)
TIFF_16_BITS, TIFF_12_BITS = (struct.pack("<HHII", 258, 3, 1, bits) for bits in (16, 12))  # BitsPerSample
TURNED = 6  # EXIF orientation: the first row is the right-hand side


def png16(levels: np.ndarray, **chunks: bytes) -> bytes:
    """A PNG file of ``levels`` (H, W, 1 to 4), big-endian and not filtered."""
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, (0, 4, 2, 6)[levels.shape[2] - 1], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(rows), "IEND": b""}
    body = (kind.encode() + data for kind, data in parts.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in body
    )


# Colours


def test_colours_are_converted_to_srgb(tmp_path):
    gamma = 563 / 256  # profiles write multiples of 1/256
    Image.fromarray(RGB).save(tmp_path / "a.png", icc_profile=rgb_profile("Display P3", DISPLAY_P3, gamma))
    photo = read_photo(tmp_path / "a.png")
    assert photo.remark == "converted from Display P3"
    expected = in_srgb(RGB, DISPLAY_P3, gamma)
    assert np.abs(photo.levels - expected).max() < 1
    assert np.abs(RGB - expected).max() > 50
    assert np.array_equal(read_photo(tmp_path / "a.png", to_srgb=False).levels, RGB)


@pytest.mark.parametrize("profile", [b"no profile", ADOBE[:200], black_profile("ink")], ids=["text", "cut", "CMYK"])
def test_a_broken_profile_is_ignored_and_said(tmp_path, profile):
    Image.fromarray(RGB).save(tmp_path / "a.png", icc_profile=profile)
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.levels, RGB)
    assert photo.remark == "its broken colour profile ignored"


def test_cmyk_is_converted_by_its_profile_if_it_has_one(tmp_path):
    """Cyan is invisible to this profile; half of its black is L* = 50, of luminance 0.184: level 119."""
    for ink, expected in (((255, 0, 0, 0), 255), ((0, 0, 0, 128), 119)):
        Image.new("CMYK", (4, 4), ink).save(tmp_path / "a.tif", icc_profile=black_profile("black ink"))
        photo = read_photo(tmp_path / "a.tif")
        assert photo.remark == "converted from black ink"
        assert np.abs(photo.levels.astype(int) - expected).max() <= 1
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    photo = read_photo(tmp_path / "a.tif")
    assert photo.remark == "CMYK converted to RGB"
    assert photo.levels[0, 0].tolist() == [0, 255, 255]


def test_alpha_stays_where_a_profile_is_converted(tmp_path):
    picture = Image.fromarray(RGB)
    picture.putalpha(Image.fromarray(np.tile(np.uint8([0, 99, 255, 255]), (12, 5))))
    picture.save(tmp_path / "a.png", icc_profile=ADOBE)
    picture.save(tmp_path / "b.png")
    converted, plain = (read_photo(tmp_path / name).levels for name in ("a.png", "b.png"))
    expected = in_srgb(plain[..., :3], ADOBE_RGB, 563 / 256)
    assert np.abs(converted[..., :3] - expected)[plain[..., 3] > 0].max() < 1
    assert np.array_equal(converted[..., 3:], plain[..., 3:])


def test_grey_pictures_stay_grey_whatever_their_profile_whose_name_is_cut_to_a_short_line(tmp_path):
    grey, name = np.repeat(RGB[..., :1], 3, axis=2), "a\n\x1b[31m" + 99 * "b"
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=rgb_profile(name, DISPLAY_P3, 1.8))
    photo = read_photo(tmp_path / "a.png")
    assert photo.remark == "converted from a[31m" + 55 * "b"
    assert not np.array_equal(photo.levels, grey)
    assert np.array_equal(photo.levels, np.repeat(photo.levels[..., :1], 3, axis=2))


# Bits


@pytest.mark.parametrize("channels", [1, 4])
def test_all_sixteen_bits_of_png(tmp_path, channels):
    levels = DEEP[..., :channels]
    (tmp_path / "a.png").write_bytes(png16(levels))
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.levels, levels if channels > 1 else np.repeat(levels, 3, axis=2))
    assert photo.remark == ("16 bits a channel, alpha kept" if channels == 4 else "16 bits a channel")
    expected = torch.from_numpy(levels[..., :3].astype(np.float64) / 65535).permute(2, 0, 1)[None]
    torch.testing.assert_close(photo.image.double(), expected.expand(1, 3, 12, 20), rtol=0, atol=1e-7)
    flat = read_photo(tmp_path / "a.png", flat=True)
    assert "16 bits rounded to 8" in flat.remark
    if channels < 4:
        assert np.array_equal(flat.levels, np.broadcast_to(np.round(levels / 257), (12, 20, 3)))


def test_all_sixteen_bits_of_tiff(tmp_path):
    for options in ({"byteorder": ">"}, {"compression": "zlib", "predictor": True}, {"rowsperstrip": 5}):
        for levels, kind in ((DEEP[..., :1], "minisblack"), (DEEP[..., :3], "rgb")):
            imwrite(tmp_path / "a.tif", levels.squeeze(), photometric=kind, **options)
            assert np.array_equal(read_photo(tmp_path / "a.tif").levels, np.broadcast_to(levels, (12, 20, 3)))


def test_sixteen_bits_that_pillow_does_not_read_are_said(tmp_path):
    imwrite(tmp_path / "a.tif", DEEP[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match=r"a.tif: .*16 bits in separate planes"):
        read_photo(tmp_path / "a.tif")
    imwrite(tmp_path / "a.tif", DEEP[..., 0], photometric="miniswhite")
    with pytest.raises(ValueError, match=r"a.tif: .*16 bits .* with 0 for white"):
        read_photo(tmp_path / "a.tif")
    imwrite(tmp_path / "a.tif", DEEP[..., 0], photometric="minisblack")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes().replace(TIFF_16_BITS, TIFF_12_BITS))
    with pytest.raises(ValueError, match=r"a.tif: .*12 bits"):
        read_photo(tmp_path / "a.tif")
    for levels in (DEEP[..., 0].astype(np.uint32) << 16, DEEP[..., 0].astype(np.int16)):
        imwrite(tmp_path / "a.tif", levels, photometric="minisblack")
        with pytest.raises(ValueError, match=r"a.tif: .*signed or 32-bit integers"):
            read_photo(tmp_path / "a.tif")
    for most, remark in ((65535, "8 of its 16 bits read"), (255, "")):
        (tmp_path / "a.ppm").write_bytes(b"P6 1 1 %d " % most + (b"\1\0" * 3 if remark else b"\1" * 3))
        assert read_photo(tmp_path / "a.ppm").remark == remark
    (tmp_path / "a.png").write_bytes(png16(DEEP[..., :2]))
    assert read_photo(tmp_path / "a.png").remark == "8 of its 16 bits read, alpha kept"
    (tmp_path / "a.png").write_bytes(png16(DEEP[..., :1], tRNS=b"\0\1"))
    assert read_photo(tmp_path / "a.png").remark == "its transparent colour ignored, 16 bits a channel"


def test_sixteen_bits_are_written(tmp_path):
    image = torch.from_numpy(DEEP[..., :3].astype(np.float32) / 65535).permute(2, 0, 1)[None]
    save_image(image, tmp_path / "a.png", bits=16)
    with Image.open(tmp_path / "a.png") as file:
        file.verify()  # all checksums
    assert np.array_equal(read_photo(tmp_path / "a.png").levels, DEEP[..., :3])
    with pytest.raises(ValueError, match="8 or 16 bits a channel, got 12"):
        save_image(image[:, :1], tmp_path / "a.png", bits=12)


# Transparency


def test_alpha_is_kept_and_what_it_hides_is_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = (10, 200, 30, 51)
    rgba[1] = (255, 0, 0, 0)  # hidden
    Image.fromarray(rgba).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.remark == "alpha kept"
    assert photo.levels[0].tolist() == 3 * [[10, 200, 30, 51]]
    assert photo.levels[1].tolist() == 3 * [[255, 255, 255, 0]]
    assert torch.equal(photo.alpha, torch.tensor([[0.2], [0.0]]).expand(1, 1, 2, 3))
    save_image(photo.image, tmp_path / "b.png", alpha=photo.alpha)
    assert np.array_equal(read_photo(tmp_path / "b.png").levels, photo.levels)
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    opaque = read_photo(tmp_path / "a.png")
    assert (opaque.alpha, opaque.remark) == (None, "")


@pytest.mark.parametrize("deep", [False, True])
def test_hidden_colours_do_not_bleed_into_a_smaller_picture(tmp_path, deep):
    """Green, half of which is seen, half hides red."""
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, :] = (255, 0, 0, 0)
    rgba[:, :7] = (0, 255, 0, 255)
    if deep:
        (tmp_path / "a.png").write_bytes(png16(rgba.astype(np.uint16) * 257))
    else:
        Image.fromarray(rgba).save(tmp_path / "a.png")
    levels = read_photo(tmp_path / "a.png", size=8).levels
    largest = np.iinfo(levels.dtype).max
    assert levels[0, -1].tolist() == [largest, largest, largest, 0]
    assert (levels[..., 1] == largest).all()  # red would have none of it


# EXIF


def camera() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = TURNED
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.XResolution] = 72.0
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2001:02:03 04:05:06",
        ExifTags.Base.ColorSpace: 65535,
        ExifTags.Base.ExifImageWidth: 20,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif


@pytest.mark.parametrize(("kind", "bits"), [("png", 16), ("jpg", 8), ("webp", 8), ("tif", 8)])
def test_exif_is_kept_and_the_orientation_applied_once(tmp_path, kind, bits):
    smooth = np.repeat(np.repeat(RGB[:2, :3], 8, axis=0), 8, axis=1)
    Image.fromarray(smooth).save(tmp_path / f"a.{kind}", exif=camera().tobytes(), quality=100)
    photo = read_photo(tmp_path / f"a.{kind}")
    assert photo.levels.shape == (24, 16, 3)
    assert np.abs(photo.levels.astype(int) - np.rot90(smooth, -1)).mean() < 8
    save_image(photo.image, tmp_path / "b.png", bits=bits, exif=photo.exif)
    with Image.open(tmp_path / "b.png") as file:
        exif = file.getexif()
        assert file.size == (16, 24)
    kept = {ExifTags.Base.Orientation: 1, ExifTags.Base.Make: "a camera"}
    assert {tag: value for tag, value in exif.items() if tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)} == kept
    taken = {ExifTags.Base.DateTimeOriginal: "2001:02:03 04:05:06", ExifTags.Base.ColorSpace: 1}
    assert exif.get_ifd(ExifTags.IFD.Exif) == taken
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}
    assert np.array_equal(read_photo(tmp_path / "b.png", flat=True).levels, photo.levels)
    assert read_photo(tmp_path / "b.png", flat=True).exif == b""


def test_sixteen_bits_are_turned_too(tmp_path):
    (tmp_path / "a.png").write_bytes(png16(DEEP[..., :3], eXIf=camera().tobytes().removeprefix(b"Exif\0\0")))
    imwrite(tmp_path / "a.tif", DEEP[..., :3], photometric="rgb", extratags=[(274, "H", 1, TURNED, True)])
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_photo(tmp_path / name).levels, np.rot90(DEEP[..., :3], -1))


@pytest.mark.parametrize("damage", [b"no EXIF", b"MM\0*\0\0\0\x08\0\x05\x01"])
def test_damaged_exif_does_not_lose_the_picture(tmp_path, damage):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=b"Exif\0\0" + damage)
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.levels, RGB)
    assert (photo.exif, photo.remark) == (b"", "its EXIF is damaged")


def test_frames_are_counted(tmp_path: Path):
    others = [Image.fromarray(255 - RGB), Image.fromarray(RGB // 2)]
    for name, options in (("a.webp", {"lossless": True}), ("a.tif", {}), ("a.mpo", {})):
        Image.fromarray(RGB).save(tmp_path / name, save_all=True, append_images=others, **options)
        photo = read_photo(tmp_path / name)
        assert photo.remark == "the first of 3 frames"
        assert np.array_equal(photo.levels, RGB) or name == "a.mpo"  # JPEG
