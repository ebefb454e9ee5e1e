"""Files that grow by whole lines, on a file system and in an object store."""

from chinchilla_jax.experiment import lines, storage
from chinchilla_jax.experiment.lines import LineFile


def test_lines_are_all_there_after_a_flush_and_after_another_begins(folder):
    file = LineFile(folder / "lines")
    file.append("1\n")
    file.append("2\n")
    file.flush()
    another = LineFile(folder / "lines")
    another.append("3\n")
    another.flush()
    assert storage.read_text(folder / "lines") == "1\n2\n3\n"


def test_lines_of_an_object_are_written_at_intervals(gcs, monkeypatch):
    file = LineFile(storage.path("gs://bucket/lines/file"))
    file.append("1\n")
    assert "lines/file" not in gcs.objects
    monkeypatch.setattr(lines, "REWRITE_SECONDS", 0.0)
    file.append("2\n")
    assert gcs.objects["lines/file"][0] == b"1\n2\n"
