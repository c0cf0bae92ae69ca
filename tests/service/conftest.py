"""Servers in this process wait longer for clients than the product does: tests run beside other work."""

import pytest

from unveil.service.transport import unread_body


@pytest.fixture(autouse=True)
def _patient_with_clients_that_still_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds for the rest of a body that has been answered are few on a busy machine."""
    monkeypatch.setattr(unread_body, "_SECONDS", 60.0)
