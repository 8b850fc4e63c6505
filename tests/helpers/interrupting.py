"""Send a signal to this process as soon as a command has got somewhere."""

import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel.cli import main


@contextmanager
def interrupt_when(condition: Callable[[], bool], sent: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Inside, a thread sends `sent` when `condition` holds and somebody waits for it; it gives up at the end."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if signal.getsignal(sent) is not signal.SIG_DFL and condition():
                os.kill(os.getpid(), sent)
                return
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def rows_in(table: Path, number: int) -> Callable[[], bool]:
    """Whether a table has `number` lines."""
    return lambda: table.exists() and len(table.read_text().splitlines()) >= number


def go_on(said: str) -> int:
    """Run the command line that an interrupted command has printed in its last line."""
    words = shlex.split(re.search("go on with: worldmodel (.*)\n$", said)[1])
    return main(words)
