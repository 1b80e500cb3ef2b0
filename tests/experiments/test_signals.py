"""Ctrl-C is answered at once, and a second one ends at once, whatever is running."""

import signal
import subprocess
import sys
import time

import pytest

# One long call that lets threads run but none of Python's signal handlers, as a compiled program.
BUSY = """
import hashlib, signal
from experiments.signals import acknowledged

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: None)
with acknowledged("all ends"):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 1_000_000_000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_heard_within_a_long_call(number):
    command = [sys.executable, "-c", BUSY]
    piped = subprocess.PIPE
    with subprocess.Popen(command, stdout=piped, stderr=piped, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(number)
        assert process.stderr.readline() == "\n"
        name = signal.Signals(number).name
        assert process.stderr.readline() == f"{name}: all ends; once more ends at once\n"
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert time.monotonic() - began < 10
        assert process.stderr.read() == ""
