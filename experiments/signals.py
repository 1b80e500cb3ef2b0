"""An immediate reply to Ctrl-C and SIGTERM, even while a compiled program runs."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def acknowledged(what_follows: str) -> Iterator[None]:
    """Report the first signal on stderr, and end the process at the second one.

    Python runs signal handlers between two instructions of the main thread, which may stay in a
    compiled program for a minute. A separate thread receives signals at once. It only reports them;
    the handlers, such as those of `agents.train`, act on the first signal.

    Args:
      what_follows: what happens after the first signal, for the message.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reading, what_follows), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)


def _listen(reading: int, what_follows: str) -> None:
    heard = False
    while byte := os.read(reading, 1):
        number = byte[0]
        if number not in _ENDING:
            continue
        if heard:
            if sys.stderr.isatty():  # a progress bar hides the cursor
                os.write(2, _SHOW_CURSOR.encode())
            os._exit(128 + number)
        heard = True
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: {what_follows}; once more ends at once\n".encode())
