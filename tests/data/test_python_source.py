from collections import Counter

import pytest

from chinchilla_jax.data import python_source, store
from chinchilla_jax.experiment.config import DataConfig
from chinchilla_jax.experiment.errors import UserError


@pytest.fixture(scope="module")
def collected() -> tuple[dict[str, bytes], Counter[str]]:
    skipped: Counter[str] = Counter()
    return dict(python_source.documents("required", skipped)), skipped


def test_it_holds_the_library_and_what_this_package_needs_and_no_more(collected):
    documents, _ = collected
    packages = {name.split("/")[0] for name in documents}
    assert {"python", "jax", "flax", "optax", "numpy"} <= packages
    # pytest, ruff and the like are installed beside it; nor does our own text train models.
    assert not {"pytest", "mypy", "hypothesis", "pip", "chinchilla-jax"} & packages
    assert "python/argparse.py" in documents
    assert sum(map(len, documents.values())) > 20e6


def test_every_document_is_within_the_rules_and_there_once(collected):
    documents, skipped = collected
    assert len(set(documents.values())) == len(documents)
    for name, text in documents.items():
        assert 256 <= len(text) <= 200_000, name
        text.decode()
        parts = name.split("/")
        assert not {"test", "tests", "idle_test"} & set(parts[:-1]), name
        assert not parts[-1].startswith("test_"), name
        assert b"DO NOT EDIT" not in text[:500], name
    assert min(skipped[reason] for reason in ("tests", "generated files")) > 0
    assert list(documents) == sorted(documents)


def test_the_stamp_changes_when_a_package_is_installed(tmp_path, monkeypatch):
    before = python_source.stamp("required")
    monkeypatch.syspath_prepend(tmp_path)
    assert python_source.stamp("required") == before != python_source.stamp("installed")
    (tmp_path / "new_package-1.0.dist-info").mkdir()
    assert python_source.stamp("required") != before


def test_without_an_installation_it_says_so(monkeypatch):
    monkeypatch.setattr(python_source, "ROOT", "chinchilla_nowhere")
    with pytest.raises(UserError, match="chinchilla_nowhere is not installed"):
        dict(python_source.documents("required", Counter()))


def test_all_installed_packages_hold_the_required_ones_and_more(monkeypatch):
    monkeypatch.setattr(python_source, "MAX_BYTES", 1000)  # quick: few files are so small
    required = dict(python_source.documents("required", Counter()))
    installed = dict(python_source.documents("installed", Counter()))
    packages = {name.split("/")[0] for name in installed}
    assert {"python", "jax", "flax", "pytest", "mypy", "hypothesis"} <= packages
    assert "chinchilla-jax" not in packages
    # The same rules, so every required text is there, if under another name for a copy.
    assert set(required.values()) < set(installed.values())
    assert len(set(installed.values())) == len(installed)


def test_the_corpora_of_required_and_installed_packages_never_mix(tmp_path, monkeypatch):
    """One cache, two corpora: another key, another fingerprint, and a name that tells."""
    texts = {"required": 40, "installed": 60}
    monkeypatch.setattr(
        python_source,
        "documents",
        lambda packages, skipped: (
            (f"{number}.py", f"x = {number}\n".encode() * 50) for number in range(texts[packages])
        ),
    )
    corpora = {name: store.open_corpus(DataConfig(packages=name), tmp_path) for name in texts}
    for name, count in texts.items():
        meta = corpora[name].meta
        assert meta.train.documents + meta.validation.documents == count
        assert f"({name} packages)" in store.describe(meta)
    assert len({corpus.data_fingerprint for corpus in corpora.values()}) == 2


def test_c_comes_with_python_and_its_packages_by_the_same_rules(tmp_path):
    documents = dict(python_source.documents("required", Counter(), python_source.C))
    assert {name.split("/")[0] for name in documents} >= {"python", "numpy"}
    assert "python/Python.h" in documents
    assert not [name for name in documents if name.endswith(".py")]
    assert all(256 <= len(text) <= 200_000 for text in documents.values())
    library = dict(python_source.documents("standard_library", Counter(), python_source.C))
    assert set(library) == {name for name in documents if name.startswith("python/")}
