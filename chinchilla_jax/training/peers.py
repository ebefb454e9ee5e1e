"""The other processes of a job: what they leave for each other, and whether they are there."""

import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from chinchilla_jax.experiment.errors import UserError

EXIT_PEER_LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command continues

_PREFIX = "chinchilla_jax/"
_last_words = b""  # printed when C++ aborts the process


@dataclass(frozen=True)
class Group:
    """The processes of a job that have met, and the texts that they leave for each other."""

    client: Any  # of JAX's coordination service: a key-value store
    process_id: int
    num_processes: int
    timeout: float

    def put(self, key: str, value: Any, again: bool = False) -> None:
        """Leaves a value, of JSON, under a key that has none, or may have one, `again`."""
        self.client.key_value_set(_PREFIX + key, json.dumps(value), allow_overwrite=again)

    def get(self, key: str) -> Any:
        """The value that another process puts there, however long it takes: the watch ends us if
        that one is lost."""
        while True:
            try:
                return json.loads(self.client.blocking_key_value_get(_PREFIX + key, 60_000))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def look(self, key: str) -> Any:
        """The value that is there now.

        Raises:
          RuntimeError: there is none.
        """
        return json.loads(self.client.key_value_try_get(_PREFIX + key))

    def below(self, key: str) -> dict[str, Any]:
        """The values that are there now by what their keys have after `key/`."""
        entries = self.client.key_value_dir_get(f"{_PREFIX}{key}/")
        return {name.rpartition("/")[2]: json.loads(value) for name, value in entries}

    def delete(self, key: str) -> None:
        self.client.key_value_delete(_PREFIX + key)


class Watch:
    """The thread in every process that sends signs of life and looks for those of the others.

    Process 0 judges; the others look at its verdict, and at its own signs.
    """

    def __init__(self, group: Group, stopped: threading.Event, trouble: Callable[[], str]) -> None:
        self._group = group
        self._trouble = trouble  # why this process cannot go on
        self._stopped = stopped
        self._pause = min(1.0, group.timeout / 10)
        self._heard: dict[int, tuple[int, float]] = {}  # beat and when it was new
        self._troubled: dict[int, float] = {}  # since when
        self._hosts: dict[int, str] = {}

    def run(self) -> None:
        for number in itertools.count():
            if self._stopped.wait(self._pause):
                return
            try:
                self._beat(number)
            except RuntimeError:  # the service is gone: JAX aborts the process, see _last_words
                continue

    def _beat(self, number: int) -> None:
        group = self._group
        group.put(
            f"life/{group.process_id}", [number, socket.gethostname(), self._trouble()], again=True
        )
        if group.process_id == 0:
            lives = {int(number): life for number, life in group.below("life").items()}
            if verdict := self._judge(lives, range(group.num_processes)):
                group.put("end", verdict)
                time.sleep(3 * self._pause)  # the store ends with us: let the others read it
                _end(verdict)
        else:
            with contextlib.suppress(RuntimeError):  # there is none yet
                _end(group.look("end"))
            if verdict := self._judge({0: group.look("life/0")}, range(1)):
                _end(verdict)

    def _judge(self, lives: dict[int, Any], numbers: range) -> str:
        """Why the job must end; empty while all is well."""
        now, timeout = time.monotonic(), self._group.timeout
        for i in numbers:
            beat, host, trouble = lives.get(i, (-1, "", ""))
            self._hosts[i] = host
            if self._heard.get(i, (None, 0))[0] != beat:
                self._heard[i] = (beat, now)
            if not trouble:
                self._troubled.pop(i, None)
            self._troubled.setdefault(i, now) if trouble else None
        for i in numbers:
            if now - self._heard[i][1] > timeout:
                return (
                    f"process {i} ({self._hosts[i] or 'unknown host'}) has given no sign of life "
                    f"for {timeout:g} seconds; the same command continues the run"
                )
        for i, since in self._troubled.items():
            if now - since > timeout:
                return f"process {i} ({self._hosts[i]}): {lives[i][2]}"
        return ""


def _end(verdict: str) -> NoReturn:
    """Ends this process, whatever its threads wait for."""
    print(f"error: {verdict}", file=sys.stderr, flush=True)
    os._exit(EXIT_PEER_LOST)


def await_coordinator(address: str, process_id: int, timeout: float) -> None:
    """JAX's client aborts the process when it cannot connect; this says it in a line."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {process_id} cannot reach process 0 at {address} for {timeout:g} "
                    f"seconds: {error.strerror or error}"
                ) from None
        time.sleep(0.2)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    """JAX's C++ aborts the process when the coordination service is gone, from a thread of its
    own and with a stack of its calls: the last line, and the status, are ours."""
    os.write(2, _last_words)
    os._exit(EXIT_PEER_LOST)


def install_last_words(text: str) -> None:
    global _last_words
    _last_words = f"error: {text}\n".encode()
    ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
