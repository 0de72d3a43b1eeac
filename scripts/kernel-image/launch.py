"""Runs backend.ai-kernel-runner 1.3.0, which was written for Python 3.6, on the Python of Debian 12.

What has changed in Python since is put back in this process only, before the runner is imported. Programs
that users start in batch mode are processes of their own and see the Python of the image as it is.
"""

import asyncio
import collections
import collections.abc
import logging.handlers
import runpy
import sys
import types


def forgiving(cls):
    """The class with a `loop` argument again (gone since 3.10): there is one loop here anyway."""

    class Forgiving(cls):
        def __init__(self, *args, loop=None, **kwargs):
            super().__init__(*args, **kwargs)

    Forgiving.__name__ = cls.__name__
    return Forgiving


def display(obj):
    """Shows an object that can draw itself as HTML (a pandas DataFrame can), as the runner's display() does."""
    from ai.backend.kernel.python.types import HTMLRecord
    import builtins

    draw = getattr(obj, "_repr_html_", None)
    if draw is None:
        raise TypeError("display() takes objects that have _repr_html_()")
    builtins._sorna_emit(HTMLRecord(draw()))


def restore():
    """Puts back what the runner, janus 0.4 and namedlist 1.8 use."""
    for name in ("Event", "Lock", "Condition", "Queue"):
        setattr(asyncio, name, forgiving(getattr(asyncio, name)))

    modern_wait = asyncio.wait
    asyncio.wait = lambda fs, loop=None, **kwargs: modern_wait(fs, **kwargs)

    # namedlist looks for these where they were until 3.9.
    collections.Mapping = collections.abc.Mapping
    collections.Sequence = collections.abc.Sequence

    # Since 3.8 this formats the record, and the runner's handler then formats it a second time. It hands the
    # record to a socket in the same process, so nothing needs preparing.
    logging.handlers.QueueHandler.prepare = lambda self, record: record


def adapt():
    """Replaces the parts of the runner that need what this small image leaves out."""
    # The runner's own display imports pandas and numpy when it starts: 150 MB for one function.
    module = types.ModuleType("ai.backend.kernel.python.display")
    module.display = display
    sys.modules[module.__name__] = module

    # The libc hook for input() in batch mode is not in the image; naming it would make ld.so
    # write a complaint to the stderr of every program.
    from ai.backend.kernel import python

    python.CHILD_ENV.pop("LD_PRELOAD", None)


if __name__ == "__main__":
    restore()
    adapt()
    runpy.run_module("ai.backend.kernel", run_name="__main__", alter_sys=True)
