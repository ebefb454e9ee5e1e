import subprocess
import sys

# In a process of one thread: the suite's has those of JAX.
PROGRAM = """
import os, sys, time
from pathlib import Path
from chinchilla_jax.scaling import beside
import matplotlib.figure
from chinchilla_jax.scaling.report import drawing

first, how, out = os.getpid(), sys.argv[1], Path(sys.argv[2])
if how != "as it is":
    assert beside._may_fork()
if how == "alone":
    beside._may_fork = lambda: False
drawing.CAPTIONS = dict.fromkeys("abcd", "Caption. More.")

def drawer(name):
    def draw():
        if how == "lost" and os.getpid() != first:
            os._exit(9)
        if name == "c":
            return "nothing to draw"
        if name == "b" and how == "wrong":
            raise ValueError("b cannot be drawn")
        if how == "both" and os.getpid() == first:  # the copy has its turn
            while not any(p.read_text() == "False" for p in out.glob("*.process")):
                time.sleep(0.01)
        figure = matplotlib.figure.Figure()
        figure.add_subplot().plot([1, 2, 3])
        (out / f"{name}.{os.getpid()}").write_text(str(os.getpid() == first))
        os.rename(out / f"{name}.{os.getpid()}", out / f"{name}.process")
        return figure
    return draw

drawn = drawing.draw(out, {name: drawer(name) for name in "abcd"})
print(list(drawn), drawn["c"].reason if hasattr(drawn["c"], "reason") else drawn["c"])
"""


def _draw(how, out):
    out.mkdir()
    command = [sys.executable, "-c", PROGRAM, how, str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_two_processes_draw_what_one_draws(tmp_path):
    ways = ("alone", "both", "lost", "wrong")
    ran = {how: _draw(how, tmp_path / how) for how in ways}
    assert ran["alone"].stdout == ran["both"].stdout == ran["lost"].stdout
    assert "['a', 'b', 'c', 'd']" in ran["both"].stdout
    assert not any(ran[how].stderr for how in ("alone", "both", "lost"))
    for how in ("alone", "both", "lost"):
        drawn = [(tmp_path / how / f"{name}.process").read_text() for name in "abd"]
        assert set(drawn) == ({"True", "False"} if how == "both" else {"True"})
        for name in ("a.png", "b.svg", "d.png"):
            file = tmp_path / how / name
            assert file.read_bytes() == (tmp_path / "alone" / name).read_bytes()
        assert not (tmp_path / how / "c.png").exists()
    # An error of the second process is the error of the first, once.
    assert ran["wrong"].returncode == 1
    assert ran["wrong"].stderr.count("ValueError: b cannot be drawn") == 1
