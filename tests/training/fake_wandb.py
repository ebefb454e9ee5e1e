"""What `training.sinks` calls of wandb (0.31), without the package or its server.

An offline run is a file in a folder of its own, which begins at step 0 whatever is beside it, and a
kill takes all that its process has not written yet. A run on a server goes on behind its last step,
where it is allowed to. A step that is not later than the last is dropped.
"""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

LOST = 5  # steps of a killed run that had not reached the server


class Error(Exception):
    pass


def module(offline):
    """The stand-in, and {(project, id): [(step, row)]} of what its server has."""
    server, folders, opened = {}, itertools.count(), []

    def init(*, project, group, name, id, resume, reinit, dir, config, settings):
        assert resume == "allow" and reinit == "create_new", "another run, or the same one twice"
        assert json.loads(json.dumps(config)) == config and group and name
        assert settings == {"silent": True, "console": "off"}
        for killed in opened:
            killed.lose()
        opened.clear()
        if offline:
            folder = Path(dir) / "wandb" / f"offline-run-{next(folders)}-{id}"
            folder.mkdir(parents=True)
            run = _Run([], folder / f"run-{id}.wandb", 0)
        else:
            run = _Run(server.setdefault((project, id), []), None, LOST)
        opened.append(run)
        return run

    made = SimpleNamespace(init=init, Settings=dict, errors=SimpleNamespace(Error=Error))
    return made, server


class _Run:
    def __init__(self, history, file, lost):
        self._history, self._file, self._lost = history, file, lost
        self.starting_step = history[-1][0] + 1 if history else 0
        self._step, self.summary = self.starting_step - 1, {}
        if file:
            file.write_text("")

    def log(self, row, step):
        if step > self._step:
            self._step = step
            self._history.append((step, row))

    def lose(self):
        """The end by a kill."""
        if self._lost:
            del self._history[-self._lost :]

    def finish(self, exit_code):
        self._lost = 0
        if self._file:
            content = [[*self._history], self.summary, exit_code]
            self._file.write_text(json.dumps(content))
