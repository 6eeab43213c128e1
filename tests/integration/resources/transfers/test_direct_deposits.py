"""Direct deposits over HTTP on both databases: a table of deposits and their outcomes, the resources, replays, and errors."""

from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, problem_of, read_of
from tests.support.server import Reply, RunningServer
from tests.support.shop import Shop

TODAY, FRIDAY = "2035-06-01T09:00:00Z", "2035-06-08T00:00:00Z"


class Payroll(Shop):
    """A shop whose user ``bo`` has a deposit account, ``bos``."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.number = self.make("depositaccounts", token="bos", user_token="bo")["account_number"]

    def send(self, kind: str, amount: Any, day: str = FRIDAY, **fields: Any) -> dict[str, Any]:
        """Simulate a deposit through the older simulation and return it."""
        body = {"account_number": self.number, "amount": amount, "type": kind, "settlement_date": day, **fields}
        return read_of(self.simulate("directdeposits", **body))

    def move(self, deposit: str, state: str, **fields: Any) -> Reply:
        """Request a transition of a deposit and return the answer."""
        body = {"direct_deposit_token": deposit, "state": state, "channel": "API", "reason": "Because", **fields}
        return self.client.post("/directdeposits/transitions", body)

    def deposit(self, token: str) -> dict[str, Any]:
        """Return a deposit in its present state."""
        return self.get(f"/directdeposits/{token}")

    def gpa(self, user: str = "bo") -> tuple[float, float, float]:
        """Return ledger balance, available balance and pending credits."""
        gpa = self.get(f"/balances/{user}")["gpa"]
        return gpa["ledger_balance"], gpa["available_balance"], gpa["pending_credits"]

    def types(self, user: str) -> list[tuple[str, str, float]]:
        """Return type, state and impacted amount of the deposits' transactions, the oldest first."""
        rows = [row for row in self.listed(state="ALL", user_token=user, start_date="2035-06-01") if "direct_deposit" in row]
        rows.sort(key=lambda row: int(row["identifier"]))
        return [(row["type"].removeprefix("directdeposit."), row["state"], row["gpa"]["impacted_amount"]) for row in rows]


server = shared_server(chosen_databases())
bank = program_fixture(Payroll)


# A deposit of 40 to an account with 100 (``poor``: 10), and the steps after it: days pass, or a transition, or a purchase. Then
# the expected state and reason code, ledger balance, pending credits, and transactions (DONE: COMPLETION) with impacted amounts.
TABLE = """
CREDIT  tomorrow  -                 | PENDING  -    100  40 | credit.pending:PENDING
DEBIT   tomorrow  -                 | PENDING  -    100   0 | debit.pending:PENDING
CREDIT  today     -                 | APPLIED  -    140   0 | credit.pending:DONE credit:DONE+40
DEBIT   today     -                 | APPLIED  -     60   0 | debit.pending:DONE debit:DONE-40
CREDIT  early     -                 | APPLIED  -    140   0 | credit.pending:DONE credit:DONE+40
DEBIT   early     -                 | PENDING  -    100   0 | debit.pending:PENDING
CREDIT  immediate -                 | APPLIED  -    140   0 | credit.pending:DONE credit:DONE+40
DEBIT   immediate -                 | PENDING  -    100   0 | debit.pending:PENDING
CREDIT  inactive  -                 | REJECTED R16  100   0 | credit.pending:DECLINED credit.reject:DONE
DEBIT   inactive  -                 | REJECTED R16  100   0 | debit.pending:DECLINED debit.reject:DONE
DEBIT   poor      -                 | REJECTED R01   10   0 | debit.pending:DECLINED debit.reject:DONE
CREDIT  tomorrow  days              | APPLIED  -    140   0 | credit.pending:DONE credit:DONE+40
DEBIT   tomorrow  days              | APPLIED  -     60   0 | debit.pending:DONE debit:DONE-40
CREDIT  tomorrow  suspended,days    | REJECTED R16  100   0 | credit.pending:DECLINED credit.reject:DONE
DEBIT   tomorrow  spent,days        | REJECTED R01   30   0 | debit.pending:DECLINED debit.reject:DONE
CREDIT  tomorrow  APPLIED           | APPLIED  -    140   0 | credit.pending:DONE credit:DONE+40
DEBIT   tomorrow  APPLIED           | APPLIED  -     60   0 | debit.pending:DONE debit:DONE-40
DEBIT   tomorrow  spent,APPLIED     | REJECTED R01   30   0 | debit.pending:DECLINED debit.reject:DONE
CREDIT  tomorrow  APPLIED,days      | APPLIED  -    140   0 | credit.pending:DONE credit:DONE+40
CREDIT  tomorrow  REVERSED          | REVERSED R03  100   0 | credit.pending:CLEARED credit.pending.reversal:DONE
DEBIT   tomorrow  REVERSED,days     | REVERSED R03  100   0 | debit.pending:CLEARED debit.pending.reversal:DONE
CREDIT  tomorrow  REJECTED          | REJECTED R03  100   0 | credit.pending:DECLINED credit.reject:DONE
DEBIT   tomorrow  REJECTED,days     | REJECTED R03  100   0 | debit.pending:DECLINED debit.reject:DONE
CREDIT  today     REVERSED          | REVERSED R03  100   0 | credit.pending:CLEARED credit:DONE+40 credit.reversal:DONE-40
DEBIT   today     REVERSED          | REVERSED R03  100   0 | debit.pending:CLEARED debit:DONE-40 debit.reversal:DONE+40
CREDIT  today     bigspend,REVERSED | REVERSED R03  -20   0 | credit.pending:CLEARED credit:DONE+40 credit.reversal:DONE-40
"""

SPENT = {"spent": 70, "bigspend": 120}


class Row:
    """A row in progress. Its user is in the program that all rows share."""

    def __init__(self, bank: Payroll, line: str, number: int) -> None:
        (self.kind, self.situation, steps), self.expected, self.rows = (part.split() for part in line.split("|"))
        self.bank, self.user, self.deposit = bank, f"user{number}", f"deposit{number}"
        self.steps = [] if steps == "-" else steps.split(",")
        bank.make("users", token=self.user)
        bank.make("cards", token=f"{self.user}s_card", user_token=self.user, card_product_token="plain")
        account = bank.make("depositaccounts", user_token=self.user, allow_immediate_credit=self.situation == "immediate")
        self.number = account["account_number"]

    def arrives(self) -> None:
        """Load the account and simulate the deposit."""
        load = 10 if self.situation == "poor" else 100
        self.bank.make("gpaorders", user_token=self.user, amount=load, funding_source_token="harbor_funding", currency_code="USD")
        if self.situation == "inactive":
            self.happens("suspended")
        early = {"earlyPayEligible": True} if self.situation == "early" else {}
        day = TODAY if self.situation in ("today", "poor") else FRIDAY
        sent = self.bank.send(self.kind, 40, day, token=self.deposit, account_number=self.number, **early)
        assert sent == self.bank.deposit(self.deposit)

    def happens(self, step: str) -> None:
        """Perform a step of the line other than ``days``."""
        if step == "suspended":
            self.bank.make("usertransitions", user_token=self.user, status="SUSPENDED", reason_code="02", channel="API")
        elif step in SPENT:
            self.bank.follow("clearing", self.bank.buy(SPENT[step], f"{self.user}s_card"), SPENT[step])
        else:
            code = {} if step == "APPLIED" else {"reason_code": "R03"}
            done = read_of(self.bank.move(self.deposit, step, **code))
            assert done["state"] == self.bank.deposit(self.deposit)["state"]

    def outcome(self) -> tuple[list[str], list[str]]:
        """Return the actual values of the columns of the line."""
        now, (ledger, _, pending) = self.bank.deposit(self.deposit), self.bank.gpa(self.user)
        done = {"COMPLETION": "DONE"}
        transactions = [
            f"{name}:{done.get(state, state)}" + (f"{impact:+g}" if impact else "")
            for name, state, impact in self.bank.types(self.user)
        ]
        return [now["state"], now.get("state_reason_code", "-"), f"{ledger:g}", f"{pending:g}"], transactions


def test_what_becomes_of_deposits(bank: Payroll) -> None:
    """Deposit, balances and transactions have the values of their row, and do not change within a year after the last step."""
    rows = [Row(bank, line, number) for number, line in enumerate(TABLE.strip().splitlines())]
    for row in rows:
        row.arrives()
        for step in row.steps:
            if step != "days":
                row.happens(step)
    wrong = [(row.kind, row.situation, row.steps, row.outcome()) for row in rows
             if "days" not in row.steps and row.outcome() != (row.expected, row.rows)]  # fmt: skip
    assert wrong == []
    bank.clock(FRIDAY)
    wrong = [(row.kind, row.situation, row.steps, row.outcome()) for row in rows
             if row.expected[0] != "PENDING" and row.outcome() != (row.expected, row.rows)]  # fmt: skip
    assert wrong == []
    before = [row.outcome() for row in rows]
    bank.clock("2036-06-01T00:00:00Z")
    assert [row.outcome() for row in rows] == before


def test_resources_are_read(bank: Payroll) -> None:
    """Every place shows the same deposit account. Deposits and transitions are read by token, user and state."""
    account = bank.get("/depositaccounts/bos")
    assert (account["state"], account["type"], len(account["account_number"])) == ("ACTIVE", "DEPOSIT_ACCOUNT", 14)
    shown = {name: account[name] for name in ("token", "account_number", "routing_number", "allow_immediate_credit")}
    assert bank.get("/users/bo")["deposit_account"] == bank.get("/directdeposits/accounts/bo") == shown
    assert "deposit_account" not in bank.get("/users/ana")
    assert {(user["token"], "deposit_account" in user) for user in bank.listed("/users")} == {("ana", False), ("bo", False)}
    assert bank.get(f"/depositaccounts/account/{bank.number}/user") == account == bank.listed("/depositaccounts/user/bo")[0]

    paid = bank.send("CREDIT", 12.5, token="pay", company_name="Harbor Works", individual_name="Bo")
    assert {name: paid[name] for name in ("company_name", "individual_name", "amount", "user_token")} == {
        "company_name": "Harbor Works", "individual_name": "Bo", "amount": 12.5, "user_token": "bo",
    }  # fmt: skip
    bill = made_by(
        bank.client.post(
            "/simulations/directdeposits/debit", {"account_number": bank.number, "amount": 1, "settlement_date": FRIDAY}
        )
    )
    assert (bill["type"], bill["state"], bill["direct_deposit_account_token"]) == ("DEBIT", "PENDING", "bos")
    bank.clock(FRIDAY)
    assert bank.gpa() == (11.5, 11.5, 0)
    assert len(bank.listed("/directdeposits", user_token="bo")) == len(bank.listed("/directdeposits")) == 2
    assert bank.listed("/directdeposits", user_token="ana") == []
    assert bank.listed("/directdeposits", direct_deposit_state="PENDING") == []
    assert {row["token"] for row in bank.listed("/directdeposits", direct_deposit_state="APPLIED")} == {"pay", bill["token"]}
    change, arrival = bank.listed("/directdeposits/transitions", direct_deposit_token="pay")
    assert (change["type"], change["state"], change["channel"]) == ("state.applied", "APPLIED", "SYSTEM")
    assert (arrival["type"], arrival["state"], arrival["channel"]) == ("state.pending", "PENDING", "SYSTEM")
    assert bank.listed("/directdeposits/transitions", states="PENDING", direct_deposit_token="pay") == [arrival]
    assert bank.get(f"/directdeposits/transitions/{change['token']}") == change
    assert bank.get(f"/transactions/{change['transaction_token']}")["direct_deposit"] == bank.deposit("pay")
    assert bank.listed("/directdeposits/transitions", states="REVERSED,REJECTED") == []
    assert len(bank.listed("/directdeposits/transitions", states="APPLIED, REVERSED", user_token="bo")) == 2


def test_every_user_of_a_program_with_deposit_accounts_has_one(bank: Payroll) -> None:
    """With ``deposit_accounts`` a new user, its replay and its GET show a deposit account, which accepts deposits."""
    read_of(bank.client.request("PUT", "/sandbox/program", {"deposit_accounts": True}))
    made = bank.make("users", token="cy")
    assert bank.client.post("/users", {"token": "cy"}).json == made == bank.get("/users/cy")
    body = {"account_number": made["deposit_account"]["account_number"], "amount": 5, "settlement_date": TODAY}
    assert made_by(bank.client.post("/simulations/directdeposits/credit", body))["state"] == "APPLIED"
    assert bank.money("cy") == (5, 5)


def test_a_repeat_moves_nothing_twice(bank: Payroll) -> None:
    """The same token and body replay the first answer, and another body is a conflict. Both resources have separate tokens."""
    body = {"account_number": bank.number, "amount": 7, "type": "CREDIT", "settlement_date": FRIDAY, "token": "once"}
    first = bank.simulate("directdeposits", **body)
    assert bank.simulate("directdeposits", **body).text == first.text
    assert problem_of(bank.simulate("directdeposits", **{**body, "amount": 8})) == (409, "409002")
    done = bank.move("once", "APPLIED", token="once")
    assert bank.move("once", "APPLIED", token="once").text == done.text
    assert problem_of(bank.move("once", "APPLIED", token="once", reason="Other")) == (409, "409002")
    assert problem_of(bank.move("once", "APPLIED")) == (400, "400023")
    assert bank.gpa() == (7, 7, 0)


BAD = [
    ({"amount": 0}, "amount"), ({"amount": -1}, "amount"), ({"amount": "1.001"}, "amount"), ({"amount": None}, "amount"),
    ({"type": "BOTH"}, "type"), ({"type": None}, "type"), ({"settlement_date": "soon"}, "settlement_date"),
    ({"settlement_date": "1969-01-01"}, "settlement_date"), ({"settlement_date": 5}, "settlement_date"),
    ({"company_name": "x" * 17}, "company_name"), ({"individual_name": "x" * 36}, "individual_name"),
    ({"standard_entry_class_code": "PPDX"}, "standard_entry_class_code"), ({"token": "x" * 37}, "token"),
    ({"earlyPayEligible": "yes"}, "earlyPayEligible"), ({"account_number": ""}, "account_number"),
]  # fmt: skip


def test_bad_deposits_name_the_field(bank: Payroll) -> None:
    """An invalid field gets 400 with a message that names it, and nothing is written."""
    for change, field in BAD:
        body = {"account_number": bank.number, "amount": 1, "type": "CREDIT", "settlement_date": TODAY, **change}
        reply = bank.simulate("directdeposits", **body)
        assert (reply.status, field in reply.json["error_message"]) == (400, True), (change, reply.text)
    assert (bank.listed("/directdeposits"), bank.gpa()) == ([], (0, 0, 0))


def test_what_is_not_there_or_not_allowed(bank: Payroll) -> None:
    """Unknown objects, transitions that are not allowed, and a sixth deposit account are refused with their codes."""
    entry = {"account_number": "19", "amount": 1, "settlement_date": FRIDAY}
    assert problem_of(bank.simulate("directdeposits", **entry, type="CREDIT")) == (400, "400021")
    assert problem_of(bank.client.post("/simulations/directdeposits/credit", entry)) == (404, "404010")
    for path in ("depositaccounts/x", "directdeposits/x", "depositaccounts/account/1/user", "directdeposits/accounts/ana"):
        assert problem_of(bank.client.get(f"/{path}")) == (404, "404010"), path
    assert problem_of(bank.client.get("/directdeposits/transitions/x")) == (404, "404009")
    assert problem_of(bank.client.get("/directdeposits/accounts/nobody")) == (400, "400003")
    assert problem_of(bank.client.get("/directdeposits/transitions", query={"states": "LOST"})) == (400, "400002")
    assert problem_of(bank.move("x", "APPLIED")) == (400, "400022")

    bank.send("DEBIT", 1, token="bill")
    wrong: list[tuple[str, dict[str, str]]] = [
        ("PENDING", {}), ("REVERSED", {}), ("REVERSED", {"reason_code": "R23"}), ("REVERSED", {"reason_code": "R99"}),
    ]  # fmt: skip
    for state, fields in wrong:
        assert bank.move("bill", state, **fields).status == 400, (state, fields)
    assert bank.deposit("bill")["state"] == "PENDING"
    for _ in range(4):
        bank.make("depositaccounts", user_token="bo")
    assert problem_of(bank.client.post("/depositaccounts", {"user_token": "bo"})) == (422, "422005")
    assert problem_of(bank.client.post("/depositaccounts", {"user_token": "nobody"})) == (400, "400003")
    assert problem_of(bank.client.post("/depositaccounts", {})) == (400, "400014")


@pytest.mark.parametrize(
    ("code", "day", "is_late"),
    [
        ("R03", "2035-06-12T23:59:59Z", False), ("R03", "2035-06-13T00:00:00Z", True),
        ("R10", "2035-08-07T23:59:59Z", False), ("R10", "2035-08-08T00:00:00Z", True),
    ],
)  # fmt: skip
def test_a_return_has_its_time(bank: Payroll, code: str, day: str, is_late: bool) -> None:
    """A deposit can be reversed for two bank days or for sixty calendar days, depending on the reason code."""
    bank.send("CREDIT", 9, token="gift")
    bank.clock(day)
    reply = bank.move("gift", "REVERSED", reason_code=code)
    assert (reply.status, bank.gpa()[0]) == ((400, 9) if is_late else (200, 0)), reply.text
