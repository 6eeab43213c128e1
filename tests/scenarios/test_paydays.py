"""Direct deposits: a wage on its settlement date, a debit without funds, and deposits sent by mistake."""

from typing import Any

from tests.support.issuing import read_of
from tests.support.scenario import Person, Scenario


class Bank:
    """A bank that sends deposits to a person's account number."""

    def __init__(self, scenario: Scenario, person: Person) -> None:
        self._scenario = scenario
        self._number = scenario.make("depositaccounts", user_token=person.name)["account_number"]

    def sends(self, kind: str, amount: str, day: str, **fields: Any) -> str:
        """Simulate a deposit; return its token."""
        body = {"account_number": self._number, "amount": amount, "type": kind, "settlement_date": day, **fields}
        return str(read_of(self._scenario.try_to("directdeposits", **body))["token"])

    def wants_back(self, deposit: str, code: str) -> str:
        """Reverse a deposit with a reason code; return its new state."""
        body = {"direct_deposit_token": deposit, "state": "REVERSED", "channel": "API", "reason": "Return", "reason_code": code}
        return str(read_of(self._scenario.client.post("/directdeposits/transitions", body))["state"])

    def state(self, deposit: str) -> str:
        """Return the state of a deposit, and its reason code if it has one."""
        resource = self._scenario.get(f"/directdeposits/{deposit}")
        return " ".join(filter(None, (resource["state"], resource.get("state_reason_code"))))

    def to_come(self, person: Person) -> str:
        """Return the pending credits of a person."""
        return self._scenario.text(self._scenario.get(f"/balances/{person.name}")["gpa"]["pending_credits"])


def test_a_wage_comes_on_friday(scenario: Scenario) -> None:
    """A credit that is reported on Monday is pending until its settlement date on Friday, and available from then on."""
    ben, shop = scenario.person("ben", jit=None), scenario.merchant("Shop")
    bank = Bank(scenario, ben)
    scenario.listens()

    # Monday: the payroll office has sent the wages.
    wage = bank.sends("CREDIT", "800.00", "2035-06-08T06:00:00Z", company_entry_description="PAYROLL")
    assert (bank.state(wage), bank.to_come(ben), ben.available) == ("PENDING", "800.00", "0.00")
    assert not shop.authorize(ben.card, "20.00").approved
    news = scenario.hears("directdeposit.credit.pending")
    assert (news["state"], news["direct_deposit"]["token"], news["polarity"]) == ("PENDING", wage, "PENDING_CREDIT")

    # Friday, a second before the settlement time, and at that time.
    scenario.until("2035-06-08T05:59:59Z")
    assert bank.state(wage) == "PENDING"
    scenario.until("2035-06-08T06:00:00Z")
    assert (bank.state(wage), bank.to_come(ben), ben.available) == ("APPLIED", "0.00", "800.00")

    news = scenario.hears("directdeposit.credit")
    assert (news["state"], news["direct_deposit"]["state"], news["gpa"]["impacted_amount"]) == ("COMPLETION", "APPLIED", 800)

    # Saturday: groceries.
    scenario.wait("1d")
    shop.clear(shop.authorize(ben.card, "20.00"), "20.00")
    assert ben.ledger == "780.00"


def test_a_bill_that_the_account_cannot_pay(scenario: Scenario) -> None:
    """A debit above the available balance is rejected with R01 on its settlement date, because a hold reserves the rest."""
    ben, hotel = scenario.person("ben", jit=None), scenario.merchant("Hotel", "7011")
    bank = Bank(scenario, ben)
    bank.sends("CREDIT", "100.00", "2035-06-04T00:00:00Z")
    bill = bank.sends("DEBIT", "60.00", "2035-06-06T12:00:00Z", company_name="City Power")
    assert ben.available == "100.00"

    # Tuesday: a hotel holds a deposit.
    scenario.wait("1d")
    room = hotel.authorize(ben.card, "50.00")

    # Wednesday: 50.00 of 100.00 are available.
    scenario.until("2035-06-06T12:00:00Z")
    assert (bank.state(bill), ben.ledger) == ("REJECTED R01", "100.00")

    # Later the hotel releases its hold, and the company sends the debit again.
    hotel.reverse(room, "50.00")
    again = bank.sends("DEBIT", "60.00", "2035-06-06T12:00:00Z")
    assert (bank.state(again), ben.ledger) == ("APPLIED", "40.00")


def test_money_sent_twice_is_taken_back(scenario: Scenario) -> None:
    """A deposit can be reversed before its settlement date and shortly after it, even if it is spent, but not days later."""
    ben, shop = scenario.person("ben", jit=None), scenario.merchant("Shop")
    bank = Bank(scenario, ben)
    wages = [bank.sends("CREDIT", "50.00", "2035-06-07T00:00:00Z") for _ in range(3)]

    # Monday: the office notices the first mistake.
    assert (bank.wants_back(wages[0], "R24"), bank.to_come(ben)) == ("REVERSED", "100.00")

    # Thursday: two wages arrive, and Ben spends most of them.
    scenario.until("2035-06-07T00:00:00Z")
    assert ben.available == "100.00"
    shop.debit(ben.card, "80.00")

    # Friday: the office notices the second mistake. The reversal makes the account negative.
    scenario.wait("1d")
    assert (bank.wants_back(wages[1], "R24"), ben.ledger) == ("REVERSED", "-30.00")

    # The next Tuesday it is too late for the third.
    scenario.until("2035-06-12T00:00:00Z")
    body = {"direct_deposit_token": wages[2], "state": "REVERSED", "channel": "API", "reason": "Return", "reason_code": "R24"}
    assert scenario.client.post("/directdeposits/transitions", body).status == 400
    assert (bank.state(wages[2]), ben.ledger) == ("APPLIED", "-30.00")
