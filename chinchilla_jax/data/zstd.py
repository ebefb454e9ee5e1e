"""Zstandard frames of long windows, as `zstd --long=31` writes them, which pyarrow refuses.

Arrow keeps to windows of 128 MiB (2^27); the optional package `zstandard` reads up to 2 GiB.
"""

import importlib.util
import io
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment.errors import UserError

TOO_LONG = "too much memory"  # of what Arrow says of such a frame
_MOST = 1 << 31  # bytes of a window
_BLOCK = 1 << 14  # compressed bytes fed at once: what comes out may be much more


def long_windows(file: Path) -> io.RawIOBase:
    """The decompressed bytes of `file`, its frames one after another.

    Raises:
      UserError: the package zstandard is not installed.
    """
    if importlib.util.find_spec("zstandard") is None:
        raise UserError(
            f"data.path: {file} was compressed with a window of over 128 MiB (zstd --long): "
            "pip install 'chinchilla_jax[zstd]' reads it, or compress it anew by "
            f"zstd -dc --long=31 {file.name} | zstd"
        )
    return _LongWindows(file)


class _LongWindows(io.RawIOBase):
    """A stream; the package's own does not tell a file that was cut off."""

    def __init__(self, file: Path) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=_MOST)
        self._file = file.open("rb")
        self._frame: Any = None  # the one that is being read
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not (block := self._file.read(_BLOCK)):
                if self._frame is not None:
                    raise EOFError("the file is cut off")
                return 0
            self._ready = memoryview(self._decompressed(block))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _decompressed(self, block: bytes) -> bytes:
        parts = []
        while block:
            self._frame = self._frame or self._context.decompressobj()
            try:
                parts.append(self._frame.decompress(block))
            except self._error as error:
                raise OSError(str(error)) from None
            block = b""
            if self._frame.eof:
                block, self._frame = self._frame.unused_data, None
        return b"".join(parts)
