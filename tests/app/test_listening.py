"""How a server ends: what it has put aside goes with it."""

import signal
import subprocess
import sys

import pytest

from pipeline.app.listening import address

WAITING = """
import signal, sys, tempfile
from pipeline.app.listening import tidy_up_on_sigterm, wait_for_interrupt
tidy_up_on_sigterm()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
with tempfile.TemporaryDirectory(dir=sys.argv[1]):
    print("ready", flush=True)
    wait_for_interrupt()
"""


@pytest.mark.parametrize(("told", "statuses"), [(signal.SIGTERM, {143}), (signal.SIGINT, {0, -signal.SIGINT})])
def test_temporary_files_go_when_it_is_told_to_end(tmp_path, told, statuses):
    server = subprocess.Popen([sys.executable, "-c", WAITING, tmp_path], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n" and list(tmp_path.iterdir())
    server.send_signal(told)
    assert server.wait(30) in statuses and not list(tmp_path.iterdir())


def test_addresses():
    assert address("127.0.0.1", 80) == "http://127.0.0.1:80" and address("::1", 80) == "http://[::1]:80"
