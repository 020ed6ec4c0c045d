"""The fixture that starts servers."""

import pytest

pytestmark = pytest.mark.slow


def test_a_server_that_does_not_start_in_time_is_not_left_behind(start_server, monkeypatch):
    monkeypatch.setitem(start_server.__globals__, "LONG_WAIT_S", 0)
    with pytest.raises(AssertionError, match="in the server's log"):
        start_server()  # what is left of it is found by the check for leaks
