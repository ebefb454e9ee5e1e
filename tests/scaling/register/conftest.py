import pytest

from tests.scaling.register.known import grid_in


@pytest.fixture(scope="session")
def grid(tmp_path_factory):
    """fits.json of a grid that is trained and evaluated; not to be changed."""
    return grid_in(tmp_path_factory.mktemp("grid"))
