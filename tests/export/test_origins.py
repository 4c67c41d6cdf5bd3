"""What the files about a merge say of its sources."""

from __future__ import annotations

import pytest

from optimizer.export.origins import _date


@pytest.mark.parametrize(
    ("seconds", "day"), [("0", "1970-01-01"), ("1795430400", "2026-11-23"), ("", ""), ("today", ""), ("-1", ""), ("9" * 20, "")]
)
def test_a_date_is_written_only_where_the_environment_gives_one(monkeypatch: pytest.MonkeyPatch, seconds: str, day: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
    assert _date() == day
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert _date() == ""
