"""Every test sees eight CPU devices, whatever the machine has."""

import importlib.metadata
import importlib.util
import os
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import settings
from packaging.version import Version

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs here run a few steps, and took far longer to compile: an eighth of that is left with the
# older of XLA's two code generators, as one part, and without LLVM's optimiser, also where our own
# options ask for a little of it. What they are made from, the HLO, is the same. Sweeps that tests
# start compile as people's do.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
# jaxlib 0.11.1 has the newer one only, and XLA ends a process over a flag that it does not know.
if importlib.util.find_spec("jaxlib") and (
    Version(importlib.metadata.version("jaxlib")) < Version("0.11.1")
):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
QUICK_TO_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": " ".join(FLAGS)}
os.environ |= QUICK_TO_COMPILE

# New examples at every run here; the same ones in CI, whose verdict must not depend on chance.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

try:
    import jax
except ModuleNotFoundError:  # the wings without JAX are tested without it too
    pass
else:
    jax.config.update("jax_num_cpu_devices", 8)
    # Many eager cross-device reductions dead-lock the CPU collectives otherwise.
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def pytest_configure(config):
    config.option.loadscopereorder = (
        False  # xdist's order has files of few tests last, however long
    )


def pytest_collection_modifyitems(items):
    """The longest files first, which are those that train, so that no worker waits for another."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: ("training" not in item.path.parts, -tests[item.path], item.path))


@pytest.fixture(scope="session")
def text_corpus(tmp_path_factory):
    """A small corpus of made-up sentences, built by the package's own builder."""
    from chinchilla_jax.data.store import open_corpus
    from chinchilla_jax.experiment.config import DataConfig

    folder = tmp_path_factory.mktemp("text")
    write_sentences(folder)
    data = DataConfig(builder="local_text", path=str(folder), validation_fraction=0.2)
    return open_corpus(data, tmp_path_factory.mktemp("cache"))


def write_sentences(folder, documents=200):
    """Documents that a model can learn something from, the same on every machine."""
    import numpy as np

    words = ["the", "a", "one", "model", "token", "loss", "budget", "curve", "grows", "learns"]
    random = np.random.default_rng(0)
    for number in range(documents):
        text = ". ".join(" ".join(random.choice(words, 8)) for _ in range(20))
        (folder / f"{number}.txt").write_text(f"{number}: {text}.\n")


@pytest.fixture(scope="session")
def google_storage():
    """An object store on this machine; give its `environment` to the processes that use it."""
    pytest.importorskip("gcsfs")
    from tests.gcs import GoogleStorage

    with GoogleStorage() as server:
        yield server


@pytest.fixture
def gcs(google_storage, monkeypatch):
    """The object store as it is for this process, free of faults."""
    google_storage.faults.clear()
    google_storage.requests.clear()
    monkeypatch.setattr("gcsfs.retry.random", SimpleNamespace(random=lambda: -1.0))  # its pauses
    for name, value in google_storage.environment.items():
        monkeypatch.setenv(name, value)
    return google_storage
