"""Parquet files -> rows, one at a time, so that a small file cannot expand to more than memory holds."""
from collections.abc import Iterator
from pathlib import Path

from corpus import files

MAX_CHUNK = 2 << 30  # bytes of one column in one row group


def read_parquet(path: str | Path) -> Iterator[tuple[int, dict | None, str | None]]:
    """Yield (number from 1, row, problem) of every row; row is None when there is a problem.

    A problem that begins with "unreadable" ends the file; a row with a value above MAX_LINE is skipped.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs a package: pip install pyarrow") from None
    try:
        schema = pq.read_schema(path)
        # strings stay in the dictionary of their column: a value that is repeated a million times is held once
        strings = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
        table = pq.ParquetFile(path, read_dictionary=strings)
        check_chunks(table.metadata)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as e:
        yield 1, None, f"unreadable from here on: not a parquet file ({e})"
        return
    number, batches = 0, table.iter_batches(batch_size=256)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            columns = dict(zip(batch.schema.names, batch.columns))
            for i in range(batch.num_rows):
                row = {name: column[i].as_py() for name, column in columns.items()}
                number += 1
                if any(isinstance(v, (str, bytes)) and len(v) > files.MAX_LINE for v in row.values()):
                    yield number, None, f"row longer than {files.MAX_LINE >> 20} MiB"
                else:
                    yield number, row, None
        except (OSError, ValueError, pa.ArrowException) as e:  # a ValueError: text that is not UTF-8
            yield number + 1, None, f"unreadable from here on: {e}"
            return


def check_chunks(metadata):
    """ValueError when a column of a row group is too large to be decompressed at once."""
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(group.num_columns):
            size = group.column(j).total_uncompressed_size
            if size > MAX_CHUNK:
                raise ValueError(f"column {group.column(j).path_in_schema} of row group {i} expands to "
                                 f"{size / 2 ** 30:.1f} GiB, at most {MAX_CHUNK >> 30} are read; "
                                 "rewrite the file with smaller row groups")
