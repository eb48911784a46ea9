"""Log lines to a pipe or socket whose reader may stop reading."""

import logging
import os
import select
import socket
import stat
import time
import weakref
from contextlib import suppress
from io import FileIO, UnsupportedOperation
from typing import Final, TextIO

# A reader that is only slow gets this long. Then lines are dropped until it reads again.
PATIENCE_SECONDS: Final = 1.0
DROPPED: Final = "log lines were dropped: nobody read them"
# What a pipe with any room takes without blocking (PIPE_BUF, POSIX): a longer line is written in parts.
_AT_ONCE: Final = 4096

logger = logging.getLogger("consumer_delegation.logs")


class PatientStream:
    """Writes to a file descriptor, and drops text if there is no room for it within a second.

    A write to a full pipe blocks until somebody reads. So a journal, container runtime or shipper of logs that hangs
    stopped each thread at its next line, and with them the service. Now the text is dropped and counted, and an error
    says how much it was as soon as there is room again. Audit events are not lost with it: they are rows.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own = _own_socket_or_pipe(descriptor)
        if self._own:
            # Not at the interpreter's exit, where lines may still come.
            weakref.finalize(self, self._own.close).atexit = False
        # What is longer is written whole where that cannot block, so that other processes' lines do not come between.
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._most = None if self._own or is_file else _AT_ONCE
        self._never_waits = self._own is not None or is_file
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._is_stuck = False
        # Whether the last text was dropped after a part of it had been written.
        self._is_cut = False
        self._dropped = 0
        self._dropped_by = 0
        self._is_telling = False

    def write(self, text: str) -> None:
        """Write one line, or drop it. The caller makes sure that one thread writes at a time."""
        if self._dropped and self._dropped_by != os.getpid():
            self._dropped = 0  # a forked process does not count again what its parent has counted
        if not self._put(text.encode(errors="backslashreplace")):
            self._dropped, self._dropped_by = self._dropped + 1, os.getpid()
        elif self._dropped and not self._is_telling:
            self._tell()

    def flush(self) -> None:
        """Do nothing: each line is written at once."""

    def _tell(self) -> None:
        """Say how many lines were dropped. If there is no room for that line either, it is said again later."""
        dropped, self._is_telling = self._dropped, True
        try:
            logger.error(DROPPED, extra={"lines": dropped})
        finally:
            self._is_telling = False
        self._dropped = 0 if self._dropped == dropped else dropped

    def _put(self, data: bytes) -> bool:
        """Write all of it, or wait for room for `PATIENCE_SECONDS` and say False."""
        if self._is_cut:
            data = b"\n" + data
        if self._never_waits:
            data = self._written(data)
        until = time.monotonic() + (0.0 if self._is_stuck else PATIENCE_SECONDS) if data else 0.0
        while data:
            left = max(until - time.monotonic(), 0.0)
            if self._room.poll(left * 1000):
                before, data = data, self._written(data)
                if data is not before:
                    continue
            if not left:
                self._is_stuck = True
                return False
        self._is_stuck = False
        return True

    def _written(self, data: bytes) -> bytes:
        """Write as much as there is room for, and return the rest. Another process may have taken the room."""
        try:
            data = data[self._write_some(data[: self._most]) :]
        except BlockingIOError:
            return data
        self._is_cut = bool(data)
        return data

    def _write_some(self, data: bytes) -> int:
        """Write as much as there is room for. Raises `BlockingIOError` if there is none."""
        if isinstance(self._own, socket.socket):
            return self._own.send(data, socket.MSG_DONTWAIT)
        return os.write(self._own.fileno() if self._own else self._descriptor, data)


def _own_socket_or_pipe(descriptor: int) -> socket.socket | FileIO | None:
    """Open a socket or pipe once more, to write without waiting. None for a file, and where that is impossible.

    Whoever shares a pipe shares its flags, so a flag can only be set on an open file of our own. That takes /proc, and
    a pipe of the same user.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        return socket.socket(fileno=os.dup(descriptor))
    if stat.S_ISFIFO(kind):
        with suppress(OSError):
            return FileIO(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK), "w")
    return None


def patient(stream: TextIO) -> TextIO | PatientStream:
    """Return a stream that never waits long for its reader. One without a descriptor has no reader to wait for."""
    try:
        return PatientStream(stream.fileno())
    except (UnsupportedOperation, AttributeError):
        return stream


class PatientHandler(logging.StreamHandler[TextIO | PatientStream]):
    """A handler that never waits long for the reader of its stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(patient(stream))

    def write_line(self, line: str) -> bool:
        """Write a line that is formatted. False if the stream is none of ours, or fails: `emit` handles that."""
        if not isinstance(self.stream, PatientStream):
            return False
        with suppress(OSError, ValueError):
            self.acquire()
            try:
                self.stream.write(line + self.terminator)
            finally:
                self.release()
            return True
        return False
