"""Return windows of direct deposits: the time after settlement in which a bank may return one, by reason code.

The windows are those of the ACH rules, because the wire's own are unknown (wire reference, "Deposit state machine").
"""

from datetime import date, timedelta

from cardwright.kit.clock import DAY_MS, Instant

REASON_CODES = (
    "R01", "R02", "R03", "R04", "R06", "R07", "R08", "R09", "R10", "R11", "R14", "R15", "R16", "R17", "R18", "R20", "R23", "R24",
    "R29",
)  # fmt: skip
"""ACH return reason codes."""

REFUSED_CREDIT = "R23"
"""The receiver refuses the credit. The code does not exist for debits."""

CALENDAR_DAYS = {"R06": 60, "R07": 60, "R10": 60, "R11": 60}
"""Codes with a window in calendar days."""

BANKING_DAYS = 2
"""The window of the other codes, in banking days."""

_EPOCH = date(1970, 1, 1)
_MONDAY, _THURSDAY, _SATURDAY, _SUNDAY = 0, 3, 5, 6
_FIXED = ((1, 1), (6, 19), (7, 4), (11, 11), (12, 25))
_NTH = ((1, _MONDAY, 3), (2, _MONDAY, 3), (9, _MONDAY, 1), (10, _MONDAY, 2), (11, _THURSDAY, 4))


def is_banking_day(day: date) -> bool:
    """Return whether banks of the United States work: no weekend, no federal holiday. A holiday on a Sunday moves to Monday."""
    if day.weekday() >= _SATURDAY:
        return False
    before = day - timedelta(days=1)
    if (day.month, day.day) in _FIXED or (before.weekday() == _SUNDAY and (before.month, before.day) in _FIXED):
        return False
    if day.weekday() == _MONDAY and day.month == 5 and day.day > 24:
        return False
    return (day.month, day.weekday(), (day.day + 6) // 7) not in _NTH


def return_ends_ms(settles_ms: Instant, code: str) -> Instant:
    """Return the first instant at which a deposit that settled at ``settles_ms`` can no longer be returned for this reason."""
    last = min(settles_ms // DAY_MS, (date(9999, 1, 1) - _EPOCH).days)
    if code in CALENDAR_DAYS:
        return (last + CALENDAR_DAYS[code] + 1) * DAY_MS
    left = BANKING_DAYS
    while left:
        last += 1
        left -= is_banking_day(_EPOCH + timedelta(days=last))
    return (last + 1) * DAY_MS
