"""WARC files -> records and pages: Common Crawl's extracted text (.wet) and fetched pages (.warc)."""
from collections.abc import Iterator
from pathlib import Path

from corpus import files


def read_records(path: str | Path) -> Iterator[tuple[dict, bytes, int, int, str | None]]:
    """Yield (headers, content, number from 1, byte offset, problem) of every WARC record.

    A record is header lines, a blank line, and as many bytes as its Content-Length says.
    """
    number, offset, f = 0, 0, files.open_bytes(path)
    try:
        while line := f.readline(1 << 16):
            if not line.strip():
                continue
            number, offset, headers = number + 1, f.tell() - len(line), {"warc-type": ""}
            if not line.startswith(b"WARC/"):
                raise EOFError(f"record {number} does not begin with WARC/")
            while (line := f.readline(1 << 16)).strip():
                name, _, value = line.decode("utf-8", "replace").partition(":")
                headers[name.strip().lower()] = value.strip()
            length = headers.get("content-length", "")
            size = int(length) if length.isdigit() else files.MAX_LINE + 1
            if size > files.MAX_LINE:
                raise EOFError(f"record {number} claims a length of {headers.get('content-length')!r} bytes")
            raw = f.read(size)
            if len(raw) < size:
                raise EOFError(f"record {number} is cut: {len(raw)} of {size} bytes")
            yield headers, raw, number, offset, None
    except files.DAMAGE as e:
        yield {}, b"", number, offset, f"unreadable from here on: {e}"
    finally:
        f.close()


def read_wet(path: str | Path) -> Iterator[tuple[str, str, int, int, str | None]]:
    """Yield (text, url, number, offset, problem) of the records of extracted text."""
    for headers, raw, number, offset, problem in read_records(path):
        if not problem and headers["warc-type"] != "conversion":
            continue  # other kinds of records hold no text
        text = None
        if not problem:
            text, problem = files.decode(raw)
        yield text or "", headers.get("warc-target-uri", ""), number, offset, problem


def read_pages(path: str | Path) -> Iterator[tuple[str, str, int, int, str | None]]:
    """Yield (main text, url, number, offset, problem) of every HTML page: trafilatura leaves out menus and notices."""
    try:
        import trafilatura
    except ImportError:
        raise ValueError(f"{path}: reading pages needs packages: pip install trafilatura lxml_html_clean; "
                         "or take the .wet file") from None
    for headers, raw, number, offset, problem in read_records(path):
        head, _, body = raw.partition(b"\r\n\r\n")
        if not problem and not (headers["warc-type"] == "response" and b"text/html" in head.lower()):
            continue
        text = None if problem else trafilatura.extract(body, deduplicate=False)
        if not problem and not text:
            problem = "no text: no main text was found in the page"
        yield text or "", headers.get("warc-target-uri", ""), number, offset, problem
