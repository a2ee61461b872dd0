"""Lines of native code that must not reach the terminal."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

_lock = threading.Lock()  # two blocks at once would restore each other's file descriptor


@contextlib.contextmanager
def drop_lines(mark: bytes) -> Iterator[None]:
    """Drop the lines with `mark` that any code writes to stderr (file descriptor 2) in the block.

    All other lines appear when the block ends, so it must be short.
    """
    with _lock, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        original = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if mark not in line))
