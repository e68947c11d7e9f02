#!/usr/bin/env python3
"""Writes the hand-made part of corpus/ (what a fuzzer found is beside it, named found_*). Needs Pillow."""

import io, json, struct, zlib
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent / "corpus"
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(width=7, height=5, mode="RGB"):
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = bytes((x * 37 + y * 59 + b * 83) % 256 for y in range(height) for x in range(width) for b in range(bands))
    return Image.frombytes(mode, (width, height), data)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name, data, crc=None):
    crc = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def header(width, height, depth=8, colour=2, interlace=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks):
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def idat(raw):
    return chunk(b"IDAT", zlib.compress(raw))


def rows(width_bytes, height, fill=0x55):
    return (b"\0" + bytes([fill]) * width_bytes) * height


def exif(orientation, order=b"MM"):
    big = ">" if order == b"MM" else "<"
    return order + struct.pack(big + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def images():
    whole = saved(picture(), "PNG")
    yield "png_rgb", whole
    for cut in (4, 8, 20, 33, 40, 60, len(whole) - 12, len(whole) - 4):
        yield f"png_cut_{cut}", whole[:cut]
    yield "png_rgba", saved(picture(mode="RGBA"), "PNG")
    yield "png_la", saved(picture(mode="LA"), "PNG")
    yield "png_1bit", saved(picture(mode="L").convert("1"), "PNG")
    palette = picture(mode="RGB").quantize(5)
    yield "png_palette", saved(palette, "PNG")
    yield "png_palette_transparent", saved(palette, "PNG", transparency=bytes([0, 128, 255]))
    yield "png_palette_index_outside", png(header(4, 2, 8, 3), chunk(b"PLTE", bytes(6)), idat(rows(4, 2, 0xEE)))
    yield "png_palette_missing", png(header(4, 2, 8, 3), idat(rows(4, 2)))
    yield "png_palette_too_long", png(header(4, 2, 2, 3), chunk(b"PLTE", bytes(300)), idat(rows(1, 2)))
    yield "png_palette_4bit_odd", png(header(3, 3, 4, 3), chunk(b"PLTE", bytes(range(48))), idat(rows(2, 3, 0x7F)))
    yield "png_16bit_grey", png(header(3, 2, 16, 0), idat(rows(6, 2, 0x01)))
    yield "png_16bit_rgb", png(header(3, 2, 16, 2), idat(rows(18, 2, 0x81)))
    yield "png_16bit_rgba", png(header(3, 2, 16, 6), idat(rows(24, 2, 0x7E)))
    yield "png_16bit_grey_key", png(header(3, 2, 16, 0), chunk(b"tRNS", b"\x01\x01"), idat(rows(6, 2, 0x01)))
    yield "png_rgb_key", png(header(3, 2), chunk(b"tRNS", b"\0\x55" * 3), idat(rows(9, 2)))
    yield "png_interlaced", png(header(9, 9, 8, 0, 1), idat(bytes(9 * 9 + 40)))
    yield "png_zero_width", png(header(0, 2), idat(b""))
    yield "png_bad_depth", png(header(3, 2, 7, 2), idat(rows(9, 2)))
    yield "png_bad_filter", png(header(3, 2), idat(b"\x09" + bytes(9) + b"\x05" + bytes(9)))
    yield "png_bad_crc", png(header(3, 2), chunk(b"IDAT", zlib.compress(rows(9, 2)), crc=1))
    yield "png_too_little_data", png(header(30, 20), idat(rows(90, 3)))
    yield "png_too_much_data", png(header(3, 2), idat(rows(9, 200)))
    yield "png_not_zlib", png(header(3, 2), chunk(b"IDAT", b"not zlib at all"))
    yield "png_no_data", png(header(3, 2))
    yield "png_data_before_header", SIGNATURE + idat(rows(9, 2)) + header(3, 2) + chunk(b"IEND", b"")
    yield "png_two_headers", png(header(3, 2), header(300, 200), idat(rows(9, 2)))
    yield "png_palette_after_data", png(header(4, 2, 8, 3), idat(rows(4, 2)), chunk(b"PLTE", bytes(15)))
    yield "png_data_in_pieces", png(header(3, 2), *(chunk(b"IDAT", bytes([b])) for b in zlib.compress(rows(9, 2))))
    yield "png_unknown_chunks", png(header(3, 2), chunk(b"abCd", b"x" * 50), chunk(b"ABCD", b"critical"), idat(rows(9, 2)))
    yield "png_chunk_length_huge", SIGNATURE + header(3, 2) + struct.pack(">I", 0xFFFFFFFF) + b"IDATxx"
    yield "png_chunk_length_beyond_end", SIGNATURE + header(3, 2) + struct.pack(">I", 1 << 20) + b"IDATxx"
    for name, size in {"65000": (65000, 65000), "thin": (1, 20000), "edge": (16384, 16384), "max": (2**31 - 1,) * 2}.items():
        yield f"png_bomb_{name}", png(header(*size), idat(bytes(1000)))
    yield "png_bomb_16384_by_4096_of_zeros", png(header(16384, 4096), idat(bytes(4096)))
    yield "png_bomb_text", png(header(3, 2), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000), 9)), idat(rows(9, 2)))
    yield "png_bomb_profile", png(header(3, 2), chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(900_000), 9)), idat(rows(9, 2)))
    for orientation in (0, 1, 5, 6, 8, 9, 65535):
        yield f"png_exif_{orientation}", png(header(3, 2), chunk(b"eXIf", exif(orientation)), idat(rows(9, 2)))
    yield "png_exif_little_endian", png(header(3, 2), chunk(b"eXIf", exif(6, b"II")), idat(rows(9, 2)))
    yield "png_exif_broken", png(header(3, 2), chunk(b"eXIf", b"MM\0\x2a\xff\xff\xff\xff"), idat(rows(9, 2)))
    frames = [picture(), picture().rotate(180), Image.new("RGB", (7, 5), "red")]
    moving = saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=40)
    yield "apng", moving
    yield "apng_cut", moving[: len(moving) * 2 // 3]
    control = struct.pack(">II", 3, 0)

    def frame(number, width, height, x=0, y=0):
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, x, y, 1, 10, 1, 1))

    yield "apng_frame_outside", png(header(3, 2), chunk(b"acTL", control), frame(0, 3, 2), idat(rows(9, 2)), frame(1, 3, 2, 2, 2))
    yield "apng_frame_huge", png(header(3, 2), chunk(b"acTL", control), frame(0, 60000, 60000), idat(rows(9, 2)))
    yield "apng_a_million_frames", png(header(3, 2), chunk(b"acTL", struct.pack(">II", 1 << 20, 0)), frame(0, 3, 2), idat(rows(9, 2)))
    yield "apng_control_after_data", png(header(3, 2), idat(rows(9, 2)), chunk(b"acTL", control), frame(0, 3, 2))
    yield "apng_numbers_out_of_order", png(header(3, 2), chunk(b"acTL", control), frame(5, 3, 2), idat(rows(9, 2)), frame(1, 3, 2))

    photo = saved(picture(16, 16), "JPEG", quality=60, optimize=True)
    yield "jpeg", photo
    for cut in (2, 100, 300, len(photo) - 20, len(photo) - 2):
        yield f"jpeg_cut_{cut}", photo[:cut]
    yield "jpeg_grey", saved(picture(9, 9, "L"), "JPEG")
    yield "jpeg_cmyk", saved(picture(9, 9, "CMYK"), "JPEG")
    yield "jpeg_progressive", saved(picture(9, 9), "JPEG", progressive=True)
    yield "jpeg_exif", saved(picture(9, 5), "JPEG", exif=b"Exif\0\0" + exif(6))
    size = photo.index(b"\xff\xc0") + 5
    for name, value in {"bomb": b"\xff\xff\xff\xff", "zero": b"\0\0\0\0", "no_height": b"\0\0\0\x10"}.items():
        yield f"jpeg_{name}", photo[:size] + value + photo[size + 4 :]
    yield "jpeg_marker_without_end", photo[:20] + b"\xff\xe1\xff\xff" + b"x" * 30

    yield "gif", saved(picture().quantize(8), "GIF")
    moving = saved(frames[0].quantize(8), "GIF", save_all=True, append_images=[f.quantize(8) for f in frames[1:]])
    yield "gif_moving", moving
    yield "gif_moving_cut", moving[: len(moving) - 20]
    yield "gif_bomb", b"GIF89a" + b"\xff\xff\xff\xff" + moving[10:]
    yield "gif_zero", b"GIF89a" + bytes(4) + moving[10:]
    yield "gif_no_frames", moving[: moving.index(b",")] + b";"
    at = moving.index(b",")
    yield "gif_frame_outside", moving[:at] + b",\xf0\xf0\xf0\xf0\xff\xff\xff\xff" + moving[at + 9 :]

    lossless = saved(picture(), "WEBP", lossless=True)
    lossy = saved(picture(16, 16), "WEBP", quality=50)
    yield "webp_lossless", lossless
    yield "webp_lossy", lossy
    yield "webp_alpha", saved(picture(mode="RGBA"), "WEBP", quality=50)
    yield "webp_lossless_cut", lossless[: len(lossless) - 10]
    yield "webp_lossy_cut", lossy[:40]
    moving = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=40)
    yield "webp_moving", moving
    yield "webp_moving_cut", moving[: len(moving) * 2 // 3]
    at = moving.index(b"VP8X") + 12
    yield "webp_moving_bomb", moving[:at] + b"\xff\xff\xff\xff\xff\xff" + moving[at + 6 :]
    at = lossless.index(b"VP8L") + 9
    yield "webp_lossless_bomb", lossless[:at] + b"\xff\xff\xff\x0f" + lossless[at + 4 :]
    yield "webp_exif", saved(picture(), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(8))
    yield "webp_riff_length_huge", b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/"
    yield "webp_chunk_of_odd_length", lossless[:12] + b"abcd" + struct.pack("<I", 3) + b"xyz\0" + lossless[12:]

    yield "empty", b""
    yield "text", b"hello"
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='99999999' height='1'/>"
    yield "bmp", saved(picture(), "BMP")
    yield "tiff", saved(picture(), "TIFF")
    yield "ico", saved(picture(16, 16), "ICO")


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def graphs():
    empty = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    save = node("SaveImage", images=["1", 0], filename_prefix="a")
    plain = {"1": empty, "9": save}
    yield "plain", plain
    yield "all_kinds_of_nodes", {
        "1": node("LoadImage", image="a.png [output]"),
        "2": node("ImageScale", image=["1", 0], upscale_method="lanczos", width="64", height=64.9, crop=True),
        "3": node("ImageToMask", image=["2", 0], channel="red"),
        "4": node("MaskToImage", mask=["3", 0]),
        "5": node("ImageBatch", image1=["4", 0], image2=["2", 0]),
        "6": node("PreviewAny", source=["3", 0]),
        "9": node("SaveImage", images=["5", 0], filename_prefix="%width%/%date:yyyy%"),
    }
    yield "cycle_of_one", {"1": node("ImageInvert", image=["1", 0]), "9": save}
    yield "cycle_of_three", {
        "1": node("ImageInvert", image=["3", 0]), "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageInvert", image=["2", 0]), "9": save,
    }
    yield "cycle_beside_the_output", plain | {"5": node("ImageInvert", image=["6", 0]), "6": node("ImageInvert", image=["5", 0])}
    yield "chain", {str(i): node("ImageInvert", image=[str(i + 1), 0]) for i in range(40)} | {"40": empty, "s": node("SaveImage", images=["0", 0], filename_prefix="")}
    yield "diamond", {"1": empty} | {str(i): node("ImageBatch", image1=[str(i - 1), 0], image2=[str(i - 1), 0]) for i in range(2, 30)} | {"s": node("SaveImage", images=["29", 0], filename_prefix="")}
    yield "editor_format", {"nodes": [{"id": 1, "type": "EmptyImage"}], "links": [], "version": 0.4}
    yield "a_node_called_nodes", {"nodes": empty, "9": node("SaveImage", images=["nodes", 0], filename_prefix="a")}
    yield "unknown_class", plain | {"2": node("KSamplr", seed=1)}
    yield "class_without_name", {"1": {"class_type": "", "inputs": {}}}
    yield "unknown_keys", {"1": empty | {"is_changed": ["x"], "_meta": {"title": "t", "x": [1, {"y": None}]}, "zz": {"": []}}, "9": save}
    yield "meta_of_every_type", {str(i): empty | {"_meta": m} for i, m in enumerate([None, 1, "x", [], {}, True])}
    for name, link in {
        "to_nowhere": ["77", 0], "negative": ["1", -1], "far": ["1", 2**63], "float": ["1", 0.0], "number": [1, 0], "short": ["1"],
        "long": ["1", 0, 0], "none": [], "text_slot": ["1", "0"], "null": [None, None], "nested": [["1", 0], 0], "bool": ["1", True],
    }.items():
        yield f"link_{name}", {"1": empty, "9": node("SaveImage", images=link, filename_prefix="a")}
    for name, value in {
        "null": None, "true": True, "text": "8", "text_spaces": " 8 ", "text_python": "1_0", "text_hex": "0x8", "float": 8.9, "negative": -8,
        "object": {}, "wrapped": {"__value__": 8}, "wrapped_list": {"__value__": [8]}, "wrapped_twice": {"__value__": {"__value__": 8}},
        "big": 2**64 - 1, "small": -(2**63), "text_huge": "9" * 400, "text_nan": "nan", "text_infinity": "-inf", "tiny": 5e-324, "large": 1.7e308,
        "zero": -0.0, "digits": 0.1234567890123456789,
    }.items():
        yield f"value_{name}", {"1": node("EmptyImage", width=value, height=8, batch_size=1, color=0), "9": save}
    yield "value_float_input", {"1": empty, "2": node("ImageScaleBy", image=["1", 0], upscale_method="area", scale_by="1e400"), "9": node("SaveImage", images=["2", 0], filename_prefix=7)}
    yield "boolean_of_everything", {str(i): node("PrimitiveBoolean", value=v) for i, v in enumerate([0, "", "false", None, [], {}, -0.0])} | plain
    yield "list_input_and_dynamic", {"1": node("RebatchImages", images=["2", 0], batch_size=1), "2": empty, "9": save}
    yield "inputs_of_every_type", {str(i): {"class_type": "EmptyImage", "inputs": v} for i, v in enumerate([None, 1, "x", [], True])}
    yield "class_of_every_type", {str(i): {"class_type": v, "inputs": {}} for i, v in enumerate([None, 1, [], {}, True])}
    yield "nodes_of_every_type", {str(i): v for i, v in enumerate([None, 1, "x", [], True])}
    yield "missing_inputs", {"1": {"class_type": "EmptyImage"}}
    yield "no_nodes", {}
    yield "unicode_names", {"节点 1": empty, "🎞": node("SaveImage", images=["节点 1", 0], filename_prefix="猫/\u202e夜\u0000x")}
    yield "empty_names", {"": empty, " ": node("SaveImage", images=["", 0], filename_prefix="")}
    for name, path in {"parent": "../../etc/passwd", "absolute": "/etc/passwd", "annotated": "../x [temp]", "nul": "a\0b", "dots": "a/./../../b [output]", "only": "[input]"}.items():
        yield f"file_{name}", {"1": node("LoadImage", image=path), "9": save}
    yield "hidden_inputs_given", {"1": empty, "9": node("SaveImage", images=["1", 0], filename_prefix="a", prompt={"x": 1}, extra_pnginfo=[])}


RAW_GRAPHS = {
    "nan": b'{"1":{"class_type":"EmptyImage","inputs":{"width":NaN,"height":-Infinity}}}',
    "number_too_large": b'{"1":{"class_type":"EmptyImage","inputs":{"width":1e999}}}',
    "integer_beyond_64_bits": b'{"1":{"class_type":"EmptyImage","inputs":{"width":123456789012345678901234567890}}}',
    "duplicate_keys": b'{"1":{"class_type":"A","class_type":"EmptyImage","inputs":{},"inputs":{"width":1,"width":2}},"1":{"class_type":"SaveImage","inputs":{}}}',
    "nested_200_lists": b'{"1":{"class_type":"EmptyImage","inputs":{"width":' + b"[" * 200 + b"]" * 200 + b"}}}",
    "nested_100_objects": b'{"1":{"class_type":"EmptyImage","inputs":{"width":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}}}",
    "lone_surrogate": b'{"\\ud800":{"class_type":"EmptyImage","inputs":{}}}',
    "surrogate_pair": b'{"\\ud83c\\udf9e":{"class_type":"PreviewAny","inputs":{"source":"\\u0000\\uffff"}}}',
    "not_utf8": b'{"\xff\xfe":{"class_type":"EmptyImage","inputs":{}}}',
    "byte_order_mark": b'\xef\xbb\xbf{"1":{"class_type":"EmptyImage","inputs":{}}}',
    "two_values": b"{}{}",
    "broken_off": b'{"1":{"class_type":"EmptyIma',
    "text": b'"graph"',
    "list": b"[]",
    "null": b"null",
    "nothing": b"",
}


def main():
    for folder, items in (("decode_image", images()), ("parse_graph", graphs())):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
        for name, content in items:
            if not isinstance(content, bytes):
                content = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            assert len(content) < 4096, (name, len(content))
            (HERE / folder / name).write_bytes(content)
    for name, content in RAW_GRAPHS.items():
        (HERE / "parse_graph" / f"raw_{name}").write_bytes(content)


main()
