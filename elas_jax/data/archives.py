"""Lines of plain and compressed files, in bounded memory whatever the file holds."""

import gzip
import pathlib
import zlib
from collections.abc import Iterator

CHUNK_BYTES = 1 << 17  # of a file or of what it unpacks to, taken at a time
# A block of four bytes may unpack to 128 KiB: 32 MiB of memory for such a piece. A
# corrupt piece loses what was unpacked from it before.
ZSTD_CHUNK_BYTES = 1 << 10
ZSTD_MAX_WINDOW = 1 << 31  # as `zstd --long=31` writes; the library's own limit is 2^27


class BrokenFileError(Exception):
  """A file that is unreadable from some place on."""


def read_lines(
  path: pathlib.Path, longest: int
) -> Iterator[tuple[bytes | None, int, bool]]:
  """Yields (line without its newline, its bytes, whether a newline ends it).

  Of a line of more than `longest` bytes the content is None: it is never held.

  Raises:
    BrokenFileError: after the lines before the place where the file breaks off; the line
      that was begun there is not given.
  """
  started, size = [], 0  # of a line that does not end in its chunk
  for chunk in _chunks(path):
    first, *rest = chunk.split(b'\n')
    for piece in (first, *rest[:-1]) if rest else ():
      size += len(piece)
      started.append(piece)
      yield b''.join(started) if size <= longest else None, size, True
      started, size = [], 0
    piece = rest[-1] if rest else first
    size += len(piece)
    started.append(piece)
    if size > longest:
      started.clear()
  if size:
    yield b''.join(started) if size <= longest else None, size, False


def _chunks(path: pathlib.Path) -> Iterator[bytes]:
  """The unpacked bytes of a file, at most CHUNK_BYTES at a time."""
  suffix = path.suffix.lower()
  try:
    with open(path, 'rb') as file:
      if suffix in ('.gz', '.zst') and not file.peek(1):
        raise BrokenFileError('it is empty, which no archive is')
      if suffix == '.zst':
        yield from _zstd_chunks(file)
      elif suffix == '.gz':
        with gzip.GzipFile(fileobj=file) as unpacked:
          # read1, because read would drop what it already has when the file breaks off.
          while chunk := unpacked.read1(CHUNK_BYTES):
            yield chunk
      else:
        while chunk := file.read(CHUNK_BYTES):
          yield chunk
  except (OSError, EOFError, zlib.error) as error:
    raise BrokenFileError(getattr(error, 'strerror', None) or str(error)) from error


def _zstd_chunks(file) -> Iterator[bytes]:
  # Frame by frame, because zstandard's stream reader takes a truncated frame for a
  # finished one.
  import zstandard  # not loaded for other files

  frame = None
  try:
    while data := file.read(ZSTD_CHUNK_BYTES):
      while data:
        if frame is None:
          unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
          frame = unpacker.decompressobj()
        unpacked = frame.decompress(data)
        for start in range(0, len(unpacked), CHUNK_BYTES):
          yield unpacked[start : start + CHUNK_BYTES]
        data = frame.unused_data
        if frame.eof:
          frame = None
        else:
          break
  except zstandard.ZstdError as error:
    raise BrokenFileError(str(error)) from error
  if frame is not None:
    raise BrokenFileError('it ends inside a compressed frame')
