"""Settlement report: days, lines and pages, compared with a naive sum over the journal."""

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cardwright.ledger.settlement import NOTHING, Day, DayTotals
from cardwright.storage.tables import JOURNAL_ACCOUNTS
from tests.support.fixtures import shared_server
from tests.support.server import RunningServer
from tests.support.shop import JIT, Shop

REPORT, LINES = "/sandbox/reports/settlement", "/sandbox/reports/settlement/lines"

NAMED = {"program_funding": "net_drawn", "held": "on_hold", "settlement": "settled"}
ZERO = {NAMED.get(account, account): 0 for account in JOURNAL_ACCOUNTS}

SOURCE, ACCOUNT = "harbor_funding", None


class Till(Shop):
    """A shop with a second card product, which has another funding source and keeps refunds on the account."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.make("fundingsources/program", token="second", name="Second")
        kept = {**JIT, "funding_source_token": "second", "refunds_destination": "GPA"}
        self.product("keeper", jit_funding={"program_funding_source": kept})
        self.make("cards", token="keeper", user_token="bo", card_product_token="keeper")

    def day(self, date: str, source: str | None = SOURCE) -> dict[str, Any]:
        """Return a source's day. Raises AssertionError if the report does not tie."""
        report = self.get(REPORT, date=date)
        assert report["check"] == {"ties": True, "differences": []}
        quiet = {"opening": ZERO, "closing": ZERO}
        return next((row for row in report["sources"] if row["funding_source_token"] == source), quiet)

    def lines(self, date: str, **query: object) -> list[tuple[str, float, float]]:
        """Return kind, amount and running total of a day's lines."""
        rows = self.get(LINES, date=date, **query)["data"]
        return [(row["kind"], row["amount"], row["net_drawn"]) for row in rows]


server = shared_server()


def figures(day: dict[str, Any], *names: str) -> tuple[float, ...]:
    return tuple(day[name] for name in names)


def test_a_week_of_settlement(server: RunningServer) -> None:
    """Money is loaded on the day of a purchase and captured on the day of its clearing. A day opens as the last one closed."""
    till = Till(server)
    # Friday: two purchases, one of them partly reversed.
    coffee, hotel = till.buy(10), till.buy(250)
    till.follow("reversal", hotel, 100)
    friday = till.day("2035-06-01")
    assert figures(friday, "jit_load", "jit_load_reversal", "capture", "refund_unload", "entries") == (260, 100, 0, 0, 3)
    assert friday["opening"] == ZERO
    assert figures(friday["closing"], "net_drawn", "on_hold", "settled", "available") == (160, 160, 0, 0)
    assert till.get(REPORT)["is_over"] is False
    # Saturday: the coffee is cleared with a tip, and the clearing loads the tip.
    till.clock("2035-06-02T10:00:00Z")
    cleared = till.follow("clearing", coffee, 12)
    assert cleared["settlement_date"] == "2035-06-02T00:00:00Z"
    saturday = till.day("2035-06-02")
    assert saturday["opening"] == friday["closing"]
    assert figures(saturday, "jit_load", "capture") == (2, 12)
    assert figures(saturday["closing"], "net_drawn", "on_hold", "settled") == (162, 150, 12)
    assert till.lines("2035-06-02") == [("JIT_LOAD", 2, 162), ("CAPTURE", 12, 162)]
    # Monday: the hotel purchase is cleared and partly refunded, and the refund returns to the source.
    till.clock("2035-06-04T10:00:00Z")
    till.follow("clearing", hotel, 150)
    till.follow("clearing", hotel, 30, is_refund=True)
    monday = till.day("2035-06-04")
    assert figures(monday, "jit_load", "capture", "refund_unload", "refund_kept") == (0, 150, 30, 0)
    assert figures(monday["closing"], "net_drawn", "on_hold", "settled", "available") == (132, 0, 132, 0)
    assert till.lines("2035-06-04") == [("CAPTURE", 150, 162), ("REFUND_UNLOAD", 30, 132)]
    # Sunday has no entries, and past days are unchanged.
    sunday = till.day("2035-06-03")
    assert sunday["opening"] == sunday["closing"] == saturday["closing"] == monday["opening"]
    assert sunday["entries"] == 0
    assert till.day("2035-06-01") == friday


def test_a_refund_can_stay_on_the_account(server: RunningServer) -> None:
    """A refund that stays on the account is a separate line of the card's source. Money without a source has a separate row."""
    till = Till(server)
    bought = till.buy(40, "keeper")
    till.follow("clearing", bought, 40)
    till.follow("clearing", bought, 15, is_refund=True)
    till.fill(20)
    second = till.day("2035-06-01", "second")
    assert figures(second, "jit_load", "capture", "refund_unload", "refund_kept") == (40, 40, 0, 15)
    assert figures(second["closing"], "net_drawn", "available", "settled") == (40, 15, 25)
    account = till.day("2035-06-01", ACCOUNT)
    assert figures(account, "jit_load", "refund_kept") == (0, 20)
    assert figures(account["closing"], "net_drawn", "available", "on_hold", "settled") == (0, 19, 1, -20)
    assert till.lines("2035-06-01", funding_source_token="second") == [
        ("JIT_LOAD", 40, 40), ("CAPTURE", 40, 40), ("REFUND_KEPT", 15, 40),
    ]  # fmt: skip


def test_the_report_is_what_the_journal_says(server: RunningServer, database: Path) -> None:
    """Opening and closing of every account on every day equal a naive sum over the journal."""
    till = Till(server)
    for number, (card, amount) in enumerate([("jit", 10), ("keeper", 20), ("jit", 30), ("keeper", 7), ("jit", 99)]):
        till.clock(f"2035-06-{number + 2:02d}T23:59:59.9Z")
        purchase = till.buy(amount, card)
        till.clock(f"2035-06-{number + 3:02d}T00:00:00Z")
        till.follow("reversal" if number == 2 else "clearing", purchase, amount)
        if number % 2:
            till.follow("clearing", purchase, 3, is_refund=True)
    till.clock("2035-06-20T00:00:00Z")
    with sqlite3.connect(database) as db:
        program = db.execute("SELECT id FROM programs WHERE token = ?", (till.program["token"],)).fetchone()[0]
        sources = db.execute("SELECT id, token FROM funding_sources WHERE program_id = ?", (program,)).fetchall()
        assert {token for _, token in sources} == {SOURCE, "second"}
        for source_id, token in sources:
            for number in (5, 1, 20, 9, 2, 6, 3, 4, 7):
                day = till.day(f"2035-06-{number:02d}", token)
                for side, before in (("opening", f"2035-06-{number:02d}"), ("closing", f"2035-06-{number + 1:02d}")):
                    for account in JOURNAL_ACCOUNTS:
                        query = f"SELECT coalesce(sum({account}), 0) FROM journal WHERE program_id = ? AND source_id = ? "
                        query += "AND booked_ms < unixepoch(?) * 1000"
                        summed = Decimal(db.execute(query, (program, source_id, before)).fetchone()[0]) / 100
                        summed = -summed if account == "program_funding" else summed
                        assert Decimal(str(day[side][NAMED.get(account, account)])) == summed, (number, side, account)


def test_lines_come_in_pages(server: RunningServer) -> None:
    """The pages of a day together have all its lines, each with its transaction and its order."""
    till = Till(server)
    bought = [till.buy(amount) for amount in (1, 2, 3)]
    till.follow("clearing", bought[0], 1)
    whole = till.get(LINES)["data"]
    assert [line["kind"] for line in whole] == ["JIT_LOAD"] * 3 + ["CAPTURE"]
    assert [row["transaction_token"] for row in whole[:3]] == [row["token"] for row in bought]
    assert [row["gpa_order_token"] for row in whole[:3]] == [row["gpa_order"]["token"] for row in bought]
    assert whole[3]["gpa_order_token"] == whole[0]["gpa_order_token"]
    pages = [till.get(LINES, count=2, start_index=start) for start in (0, 2, 4)]
    assert [row for page in pages for row in page["data"]] == whole
    assert [page["is_more"] for page in pages] == [True, False, False]


def test_money_without_a_card_has_lines_of_its_own(server: RunningServer) -> None:
    """GPA orders, unloads and program transfers have separate kinds of lines, not those of JIT loads. A line names its order."""
    till, usd = Till(server), {"currency_code": "USD"}
    till.make("fees", token="fee", name="Fee", amount=2, **usd)
    loaded = {"user_token": "bo", "funding_source_token": SOURCE, **usd}
    till.make("gpaorders", token="start", amount=100, fees=[{"token": "fee"}], **loaded)
    till.make("gpaorders/unloads", original_order_token="start", amount=30)
    till.make("programtransfers/types", token="debts", memo="Debts", program_funding_source_token=SOURCE)
    till.make("programtransfers", type_token="debts", user_token="bo", amount=5, **usd)
    coffee = till.buy(10)
    day = till.day("2035-06-01")
    assert figures(day, "gpa_load", "gpa_unload", "program_transfer") == (102, 30, 5)
    assert figures(day, "jit_load", "jit_load_reversal", "entries") == (10, 0, 4)
    assert day["closing"]["net_drawn"] == 77
    assert till.lines("2035-06-01") == [
        ("GPA_LOAD", 102, 102), ("GPA_UNLOAD", 30, 72), ("PROGRAM_TRANSFER", 5, 67), ("JIT_LOAD", 10, 77),
    ]  # fmt: skip
    orders = [line["gpa_order_token"] for line in till.get(LINES)["data"]]
    assert orders == ["start", "start", None, coffee["gpa_order"]["token"]]


def test_a_real_time_fee_is_drawn_like_its_purchase(server: RunningServer) -> None:
    """The JIT load of a fee is a JIT load of the same source. The closing balances show the earned fees."""
    till = Till(server)
    kind = {"category": "REALTIME", "fee_attributes": {"transaction_type": "authorization"}}
    till.make("fees", token="fee", name="Fee", amount=1, currency_code="USD", **kind)
    till.make("realtimefeegroups", token="fees", name="Fees", fee_tokens=["fee"])
    till.make("accountholdergroups", token="members", config={"real_time_fee_group_token": "fees"})
    till.make("users", token="cy", account_holder_group_token="members")
    till.make("cards", token="cys", user_token="cy", card_product_token="jit")
    till.follow("clearing", till.buy(10, "cys"), 10)
    till.follow("reversal", till.buy(20, "cys"), 20)
    assert till.lines("2035-06-01") == [
        ("JIT_LOAD", 10, 10), ("JIT_LOAD", 1, 11), ("CAPTURE", 10, 11),
        ("JIT_LOAD", 20, 31), ("JIT_LOAD", 1, 32), ("JIT_LOAD_REVERSAL", 20, 12), ("JIT_LOAD_REVERSAL", 1, 11),
    ]  # fmt: skip
    assert figures(till.day("2035-06-01")["closing"], "net_drawn", "on_hold", "settled", "fees") == (11, 0, 10, 1)


@pytest.mark.parametrize("path", [REPORT, LINES])
@pytest.mark.parametrize("date", ["yesterday", "2035-13-01", "2035-06", "2035-06-01T00:00:00Z", "2035-06-02", "1969-12-31"])
def test_a_bad_day_is_named(server: RunningServer, path: str, date: str) -> None:
    """An invalid date and a day that has not begun get 400 with a message that names ``date``."""
    reply = Shop(server).client.get(path, query={"date": date})
    assert (reply.status, "date" in reply.json["error_message"]) == (400, True)


def standing(*amounts: int) -> tuple[int, ...]:
    """Return balances of the accounts of the chart, the first ones with these amounts."""
    return (*amounts, *NOTHING[len(amounts) :])


def test_settlement_check_finds_differences() -> None:
    """The check of the report finds a leg without a line, a line without a leg, and accounts that do not sum to zero."""
    sound = Day(NOTHING, DayTotals(jit_load=10, entries=1), standing(-10, 0, 10))
    assert sound.differences() == {}
    assert Day(NOTHING, DayTotals(), standing(-10, 0, 10)).differences() == {"program_funding": -10}
    assert Day(NOTHING, DayTotals(capture=5), NOTHING).differences() == {"settlement": -5}
    assert Day(standing(1), DayTotals(), standing(1)).differences() == {"closing": 1}
