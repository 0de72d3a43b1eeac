"""Tries a kernel image: starts a container and talks to the runner in it as the agent does.

usage: check.py IMAGE (needs pyzmq and the docker command)
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import zmq

# Seconds that any single answer may take; the first one includes the start of Python.
PATIENCE = 30
# The account that the kernel is asked to run as.
UID = 1234


def docker(*args):
    return subprocess.run(["docker", *args], check=True, capture_output=True, text=True).stdout.strip()


class Kernel:
    """A container of the image, and the two sockets to the runner in it."""

    def __init__(self, image, scratch):
        self.id = docker(
            "run", "--detach", "--tty", "--interactive", "--stop-signal", "SIGINT",
            "--env", f"LOCAL_USER_ID={UID}", "--volume", f"{scratch}:/home/work",
            "--publish", "127.0.0.1::2000", "--publish", "127.0.0.1::2001", image,
        )  # fmt: skip

    def connect(self):
        self.sink = self.connect_to(zmq.PUSH, 2000)
        self.source = self.connect_to(zmq.PULL, 2001)

    def connect_to(self, kind, port):
        address = docker("port", self.id, f"{port}/tcp").splitlines()[0]
        socket = zmq.Context.instance().socket(kind)
        socket.linger = 0
        socket.connect(f"tcp://{address}")
        return socket

    def remove(self):
        docker("rm", "--force", "--volumes", self.id)

    def tell(self, kind, text=""):
        self.sink.send_multipart([kind.encode(), text.encode()])

    def hear(self, last):
        """All records up to the first of the kind `last`."""
        records = []
        deadline = time.monotonic() + PATIENCE
        while not records or records[-1][0] != last:
            left = deadline - time.monotonic()
            if left <= 0 or not self.source.poll(left * 1000):
                raise AssertionError(f"no {last} within {PATIENCE} s, only {records}; log:\n{docker('logs', self.id)}")
            kind, data = self.source.recv_multipart()
            records.append((kind.decode(), data.decode()))
        return records

    def ask(self, kind, text, last):
        self.tell(kind, text)
        return self.hear(last)


def text_of(records, kind):
    return "".join(data for found, data in records if found == kind)


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")
    print(f"         ok: {what}", flush=True)


def try_all(kernel):
    finished = ("finished", '{"exitCode": 0}')

    # With nothing running yet, the runner says so in its log, which comes as stderr.
    records = kernel.ask("interrupt", "", "stderr")
    expect("the runner's log", text_of(records, "stderr"), "python-kernel: No user code is running!\n")

    records = kernel.ask("code", "print('hello')", "finished")
    expect("a cell", (text_of(records, "stdout"), records[-1]), ("hello\n", finished))

    records = kernel.ask("code", "1 / 0", "finished")
    expect("an exception", "ZeroDivisionError" in text_of(records, "stderr"), True)

    records = kernel.ask("code", "print('hi', input('name? '))", "waiting-input")
    expect("a prompt", text_of(records, "stdout"), "name? ")
    records = kernel.ask("input", "Ada", "finished")
    expect("input", text_of(records, "stdout"), "hi Ada\n")

    kernel.ask("code", "apple_one = apple_two = 1", "finished")
    records = kernel.ask("complete", json.dumps({"line": "apple_"}), "completion")
    expect("completion", sorted(json.loads(records[-1][1])), ["apple_one", "apple_two"])

    kernel.ask("code", "class Html:\n    def _repr_html_(self): return '<b>x</b>'\n", "finished")
    records = kernel.ask("code", "display(Html())", "finished")
    expect("html", text_of(records, "html"), "<b>x</b>")

    kernel.tell("code", "import time\nprint('on')\nwhile True: time.sleep(0.05)")
    kernel.hear("stdout")
    records = kernel.ask("interrupt", "", "finished")
    expect("interrupt", "Interrupted!" in text_of(records, "stderr"), True)

    program = "import os, sys; print(os.getuid(), os.environ['GREETING']); sys.exit(3)"
    kernel.tell("build", f'echo "{program}" > main.py')
    records = kernel.ask("exec", "python main.py", "finished")
    expect(
        "batch",
        (text_of(records, "stdout"), text_of(records, "stderr"), records[-1][1]),
        (f"{UID} hello\n", "", '{"exitCode": 3}'),
    )


def main():
    with tempfile.TemporaryDirectory() as scratch:
        os.chown(scratch, UID, UID)
        os.mkdir(f"{scratch}/.config")
        with open(f"{scratch}/.config/environ.txt", "w") as file:
            file.write("GREETING=hello\n")
        kernel = Kernel(sys.argv[1], scratch)
        try:
            kernel.connect()
            try_all(kernel)
        except AssertionError as error:
            sys.exit(f"         failed: {error}")
        finally:
            kernel.remove()


if __name__ == "__main__":
    main()
