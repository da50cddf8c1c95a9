"""
Signals as a program at a terminal has them, however the tests themselves were started.

A script's background jobs ignore SIGINT, and what `nohup` runs ignores SIGHUP; programs that they
start inherit that, and would not heed what a test sends them. A signal that is caught is not
inherited as such: the program starts with the default. So tests catch what they would ignore.
"""

import signal
from typing import Final

# Python ignores these itself, and `subprocess` gives them back.
_PYTHONS: Final = {signal.SIGPIPE, signal.SIGXFSZ}


def catch_ignored() -> None:
    """Catch, and do nothing about, each signal that this process ignores; block none."""
    signals = signal.valid_signals() - _PYTHONS
    for number in signals:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
