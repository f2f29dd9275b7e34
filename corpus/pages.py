"""The body of an HTTP response as it was stored in a WARC file -> the text of its page."""
import re
import zlib

from corpus import files

PAGES = ("text/html", "application/xhtml+xml")
MAX_WINDOW = 64 << 20  # bytes of memory for a page in zstd; HTTP allows 8 MiB (RFC 9659)
CHUNK = re.compile(rb"\s*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
META = re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)""", re.I)


def split_response(raw: bytes) -> tuple[dict[str, str], bytes]:
    """(headers by their name in lower case, body); the values of a header that occurs twice are joined by commas."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator:
        head, _, body = raw.partition(b"\n\n")
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").splitlines()[1:]:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return headers, body


def media_type(headers: dict[str, str]) -> str:
    """The content type without its parameters, in lower case; "" when none is named."""
    return headers.get("content-type", "").partition(";")[0].partition(",")[0].strip().lower()


def decode_body(headers: dict[str, str], body: bytes) -> bytes:
    """Undo the transfer encoding, then the content encodings in reverse order; ValueError names one that cannot be
    undone.

    Crawlers store bodies as they came or already decoded, with the headers unchanged: what does not look encoded is
    left.
    """
    for encoding in split_list(headers.get("transfer-encoding", ""))[::-1]:
        body = join_chunks(body) if encoding == "chunked" else decompress(encoding, body)
    for encoding in split_list(headers.get("content-encoding", ""))[::-1]:
        body = decompress(encoding, body)
    return body


def split_list(value: str) -> list[str]:
    return [part for part in (part.strip().lower() for part in value.split(",")) if part not in ("", "identity")]


def join_chunks(body: bytes) -> bytes:
    """The content of a chunked body; a body that is not chunked, or is cut within a chunk, as far as it goes."""
    match, parts = CHUNK.match(body), []
    if not match:
        return body
    while match:
        size = int(match[1], 16)
        if not size:
            break
        begin = match.end()
        parts.append(body[begin:begin + size])
        match = CHUNK.match(body, begin + size)
    return b"".join(parts)


def decompress(encoding: str, body: bytes) -> bytes:
    if encoding in ("gzip", "x-gzip"):
        return inflate(body, 31) if body.startswith(b"\x1f\x8b") else body
    if encoding in ("deflate", "x-deflate"):  # zlib's header is often missing
        has_header = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        if not has_header and body.lstrip()[:1] == b"<":
            return body
        return inflate(body, 15 if has_header else -15)
    if encoding in ("br", "zstd"):
        if body.lstrip()[:1] == b"<":
            return body
        return (inflate_brotli if encoding == "br" else inflate_zstd)(body)
    raise ValueError(f"encoding {encoding!r} is not known")


def inflate(body, window):
    decompressor = zlib.decompressobj(window)
    try:
        out = decompressor.decompress(body, files.MAX_LINE)
    except zlib.error as e:
        raise ValueError(f"damaged compression ({e})") from None
    if decompressor.unconsumed_tail:
        raise too_long()
    return out


def inflate_brotli(body):
    try:
        import brotli
    except ImportError:
        raise ValueError("encoding br needs a package: pip install brotli") from None
    decompressor, out, size, is_done = brotli.Decompressor(), [], 0, False
    try:
        while not is_done:
            out.append(decompressor.process(body, output_buffer_limit=1 << 20))
            body, size = b"", size + len(out[-1])
            if size > files.MAX_LINE:
                raise too_long()
            is_done = decompressor.is_finished() or decompressor.can_accept_more_data()  # or the body is cut
    except brotli.error as e:
        raise ValueError(f"damaged compression ({e})") from None
    except TypeError:  # without a limit, 400 bytes can become 256 MiB
        raise ValueError("encoding br needs brotli 1.2 or later: pip install -U brotli") from None
    return b"".join(out)


def inflate_zstd(body):
    try:
        import zstandard
    except ImportError:
        raise ValueError("encoding zstd needs a package: pip install zstandard") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    try:
        if zstandard.frame_content_size(body) > files.MAX_LINE:
            raise too_long()
        out = decompressor.stream_reader(body, read_across_frames=True).read(files.MAX_LINE + 1)
    except zstandard.ZstdError as e:
        raise ValueError(f"damaged compression ({e})") from None
    if len(out) > files.MAX_LINE:
        raise too_long()
    return out


def too_long():
    return ValueError(f"a page of more than {files.MAX_LINE >> 20} MiB")


def decode_page(headers: dict[str, str], body: bytes) -> str | None:
    """The markup of a page as text, by what names its charset: byte order mark, HTTP header, <meta>, XML declaration.

    As in a browser, the first one counts; it is passed over only when the bytes contradict it and a later one fits.
    UTF-8 when nothing is named and the bytes are valid; else None.
    """
    for bom, codec in files.BOMS:
        if body.startswith(bom):
            return body[len(bom):].decode(codec, "replace")
    codecs = []
    in_header = re.search(r"charset\s*=\s*[\"']?\s*([\w.:-]+)", headers.get("content-type", ""), re.I)
    in_meta, in_xml = META.search(body[:4096]), files.XML_ENCODING.match(body[:1024])
    for match in (in_header, in_meta, in_xml):
        if match:
            label = match[1] if isinstance(match[1], str) else match[1].decode("ascii", "replace")
            found = files.find_codec(label)
            if found and match is not in_header and found.startswith("utf-16"):
                found = "utf-8"  # the declaration itself was readable as ASCII
            if found:
                codecs.append(found)
    for codec in [*codecs, "utf-8"]:
        try:
            return body.decode(codec)
        except UnicodeDecodeError:
            continue
    return body.decode(codecs[0], "replace") if codecs else None
