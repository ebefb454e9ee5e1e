"""Places for files that the tests of this wing share."""

import pytest

from chinchilla_jax.experiment import storage


@pytest.fixture(params=["local", "gs"])
def folder(request, tmp_path):
    """A folder in either kind of place."""
    if request.param == "local":
        return tmp_path
    request.getfixturevalue("gcs")
    return storage.path(f"gs://bucket/{tmp_path.name}")
