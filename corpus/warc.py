"""WARC files -> records and pages: Common Crawl's extracted text (.wet) and fetched pages (.warc)."""
from collections.abc import Iterator
from pathlib import Path

from corpus import files, pages

SKIPPED = "skipped: "  # begins the problem of a record that is no document; it is counted, not rejected


def read_records(path: str | Path) -> Iterator[tuple[dict, bytes, int, int, str | None]]:
    """Yield (headers, content, number from 1, byte offset, problem) of every WARC record.

    A record is header lines, a blank line, and as many bytes as its Content-Length says. One above MAX_LINE is passed
    over.
    """
    number, offset, f = 0, 0, files.open_bytes(path)
    try:
        while line := f.readline(1 << 16):
            if not line.strip():
                continue
            number, offset = number + 1, f.tell() - len(line)
            if not line.startswith(b"WARC/"):
                raise EOFError(f"record {number} does not begin with WARC/")
            headers = read_headers(f, number)
            length = headers.get("content-length", "")
            if not length.isdecimal() or len(length) > 15:
                raise EOFError(f"record {number} claims a length of {headers.get('content-length')!r} bytes")
            size, problem, raw = int(length), None, b""
            if size > files.MAX_LINE:
                problem = f"record longer than {files.MAX_LINE >> 20} MiB"
                skip(f, size, number)
            else:
                raw = f.read(size)
                if len(raw) < size:
                    raise EOFError(f"record {number} is cut: {len(raw)} of {size} bytes")
            yield headers, raw, number, offset, problem
    except files.DAMAGE as e:
        yield {"warc-type": ""}, b"", number, offset, f"unreadable from here on: {e}"
    finally:
        f.close()


def read_headers(f, number):
    headers, size = {"warc-type": ""}, 0
    while (line := f.readline(1 << 16)).strip():
        size += len(line)
        if size > 1 << 20:
            raise EOFError(f"record {number} has more than 1 MiB of headers")
        name, _, value = line.decode("utf-8", "replace").partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


def skip(f, size, number):
    left = size
    while left:
        block = f.read(min(left, 1 << 20))
        if not block:
            raise EOFError(f"record {number} is cut: {size - left} of {size} bytes")
        left -= len(block)


def read_wet(path: str | Path) -> Iterator[tuple[str, str, int, int, str | None]]:
    """Yield (text, url, number, offset, problem) of every record; those that hold no text are skipped by type."""
    for headers, raw, number, offset, problem in read_records(path):
        text = None
        if not problem and headers["warc-type"] != "conversion":
            problem = f"{SKIPPED}record of type {headers['warc-type'] or 'none'}"
        elif not problem:
            text, problem = files.decode(raw)
        yield text or "", headers.get("warc-target-uri", ""), number, offset, problem


def read_pages(path: str | Path) -> Iterator[tuple[str, str, int, int, str | None]]:
    """Yield (main text, url, number, offset, problem) of every record: trafilatura leaves out menus and notices.

    Records that are no pages are skipped by type.
    """
    try:
        import trafilatura
    except ImportError:
        raise ValueError(f"{path}: reading pages needs packages: pip install trafilatura lxml_html_clean; "
                         "or take the .wet file") from None
    for headers, raw, number, offset, problem in read_records(path):
        text = ""
        if not problem:
            page, problem = find_page(headers, raw)
            if page is not None:
                text = trafilatura.extract(page, deduplicate=False) or ""
                problem = None if text else "no text: no main text was found in the page"
        yield text, headers.get("warc-target-uri", ""), number, offset, problem


def find_page(headers: dict[str, str], raw: bytes) -> tuple[str | bytes | None, str | None]:
    """(the markup of a page, None) or (None, why there is none) of a record.

    Markup is bytes when nothing says how to decode it.
    """
    if headers["warc-type"] != "response":
        return None, f"{SKIPPED}record of type {headers['warc-type'] or 'none'}"
    http_headers, body = pages.split_response(raw)
    media = pages.media_type(http_headers) or headers.get("warc-identified-payload-type", "").lower()
    if media not in pages.PAGES:
        return None, f"{SKIPPED}page of type {media or 'none'}"
    try:
        body = pages.decode_body(http_headers, body)
    except ValueError as e:
        return None, f"page: {e}"
    page = pages.decode_page(http_headers, body)
    return (body if page is None else page), None
