"""Everyday purchases: coffee, fuel, groceries, cash and a tip."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.issuing import client_of
from tests.support.scenario import Scenario


def test_a_coffee_on_a_jit_card(scenario: Scenario) -> None:
    """The JIT load of an authorization puts the amount on the empty account, and the clearing takes it."""
    ana, cafe = scenario.person("ana"), scenario.merchant("Corner Coffee", "5814")

    # Monday, nine o'clock: Ana taps her card.
    coffee = cafe.authorize(ana.card, "4.75")
    assert (coffee.approved, coffee.order, ana.ledger, ana.available) == (True, "PENDING 4.75", "4.75", "0.00")

    # Tuesday: the café sends its bill.
    scenario.wait("1d")
    bill = cafe.clear(coffee, "4.75")
    assert (bill.type, bill.order, ana.ledger) == ("authorization.clearing", "COMPLETION 4.75", "0.00")
    assert coffee.state == "CLEARED"


def test_a_tip_makes_the_bill_larger_than_the_hold(scenario: Scenario) -> None:
    """A clearing above the hold loads the difference, and the account is empty afterwards."""
    ana, bistro = scenario.person("ana"), scenario.merchant("Bistro", "5812")

    # Monday evening: the meal is 40, the tip is written on the slip.
    meal = bistro.authorize(ana.card, "40.00")
    assert ana.held == "40.00"

    # Wednesday: 46 arrive.
    scenario.wait("2d")
    assert bistro.clear(meal, "46.00").order == "COMPLETION 46.00"
    assert (ana.ledger, meal.state) == ("0.00", "CLEARED")


def test_a_fuel_pump_asks_for_more_than_it_takes(scenario: Scenario) -> None:
    """A clearing below the hold leaves the rest of the hold until the merchant reverses it."""
    ben, pump = scenario.person("ben", jit=None), scenario.merchant("Pump 4", "5542")
    ben.gets("120.00")

    # Monday morning: the pump requests a hold of 100, because the final amount is unknown.
    visit = pump.authorize(ben.card, "100.00")
    assert ben.available == "20.00"

    # Monday evening: the bill is 37.20; the rest is still held.
    pump.clear(visit, "37.20")
    assert (ben.ledger, ben.held, visit.state) == ("82.80", "62.80", "PENDING")

    # A minute later the pump reverses the rest.
    assert pump.reverse(visit, "62.80").state == "CLEARED"
    assert (ben.available, ben.held) == ("82.80", "0.00")


def test_a_pump_that_debits_gives_the_rest_back_at_once(scenario: Scenario) -> None:
    """The completion of a PIN debit pre-authorization releases the rest of the hold."""
    ben, pump = scenario.person("ben", jit=None), scenario.merchant("Pump 7", "5542")
    ben.gets("120.00")

    # Ben inserts the card: 100 are held.
    visit = pump.debit(ben.card, "100.00", is_pre_auth=True)
    assert (visit.type, ben.available) == ("pindebit.authorization", "20.00")

    # Two minutes later the tank is full.
    bill = pump.completes(visit, "37.20")
    assert bill.type == "pindebit.authorization.clearing"
    assert bill.transaction["amount_to_be_released"] == 62.8
    assert (ben.ledger, ben.held, visit.state) == ("82.80", "0.00", "CLEARED")


def test_groceries_by_pin_debit_are_paid_at_once(scenario: Scenario) -> None:
    """A PIN debit settles at once without a hold, and its reversal returns the JIT load to the funding source."""
    ana, grocer = scenario.person("ana"), scenario.merchant("Grocer")

    # Monday: 18.20 and 20 in notes.
    visit = grocer.debit(ana.card, "18.20", cash_back_amount="20.00")
    assert (visit.type, visit.amount, visit.order) == ("pindebit.cashback", "38.20", "COMPLETION 38.20")
    assert (visit.state, ana.ledger, ana.held) == ("COMPLETION", "0.00", "0.00")

    # The amount was wrong: the grocer reverses all of it.
    undone = grocer.reverse(visit, "38.20")
    assert (undone.type, undone.order, ana.ledger) == ("pindebit.reversal", "REVERSED 38.20", "0.00")
    assert grocer.reverse(visit, "38.20").code == "1017"


def test_cash_back_at_a_till_that_clears_later(scenario: Scenario) -> None:
    """The hold and its clearing include the cash back, and both have a separate transaction type."""
    ana, grocer = scenario.person("ana"), scenario.merchant("Grocer")

    # Monday: 10 of goods, 20 in notes.
    visit = grocer.authorize(ana.card, "10.00", cash_back_amount="20.00")
    assert (visit.type, visit.amount, ana.held) == ("authorization.cashback", "30.00", "30.00")

    # Tuesday.
    scenario.wait("1d")
    assert grocer.clear(visit, "30.00").type == "authorization.clearing.cashback"
    assert ana.ledger == "0.00"


def test_a_cash_machine_counts_out_all_or_nothing(scenario: Scenario) -> None:
    """A cash machine shows the balance, and a withdrawal with a wrong PIN or without enough funds is declined, never partial."""
    ben, machine = scenario.person("ben", jit=None), scenario.merchant("Machine 12", "6011")
    ben.gets("80.00")

    # Saturday night: the balance.
    scenario.until("2035-06-09T22:00:00Z")
    shown = machine.shows_balance(ben.card)
    assert (shown.type, shown.state, shown.transaction["gpa"]["available_balance"]) == ("pindebit.balanceinquiry", "CLEARED", 80)
    assert "impacted_amount" not in shown.transaction["gpa"]

    # A wrong PIN, then more than the balance, then less.
    assert machine.hands_out(ben.card, "60.00", pin="1234").code == "1809"
    assert machine.hands_out(ben.card, "100.00").code == "1016"
    cash = machine.hands_out(ben.card, "60.00", account_type="checking")
    assert (cash.type, cash.state, cash.transaction["from_account"]) == ("pindebit.atm.withdrawal", "COMPLETION", "checking")
    assert ben.available == "20.00"


def test_a_card_that_may_not_take_cash(scenario: Scenario) -> None:
    """A product without cash machines declines withdrawals and cash back, and approves purchases."""
    ana = scenario.person("ana", poi={"atm": False, "ecommerce": True})
    machine, grocer = scenario.merchant("Machine 3", "6011"), scenario.merchant("Grocer")
    assert machine.hands_out(ana.card, "20.00").code == "1955"
    assert grocer.debit(ana.card, "5.00", cash_back_amount="10.00").code == "1955"
    assert grocer.debit(ana.card, "5.00").approved


def test_a_till_that_takes_what_is_there(scenario: Scenario) -> None:
    """With 20.00 available, a terminal with partial approvals gets 20.00 of 50.00, and another one is declined."""
    ben = scenario.person("ben", jit=None)
    grocer, kiosk = scenario.merchant("Grocer"), scenario.merchant("Kiosk", partial_approval_capable=False)
    ben.gets("20.00")
    assert kiosk.authorize(ben.card, "50.00").code == "1016"
    part = grocer.authorize(ben.card, "50.00")
    assert (part.code, part.amount, ben.available) == ("0002", "20.00", "0.00")


def test_two_purchases_race_for_the_last_ten(scenario: Scenario) -> None:
    """Of ten concurrent purchases with funds for one, exactly one is approved."""
    ben, shop = scenario.person("ben", jit=None), scenario.merchant("Shop", partial_approval_capable=False)
    ben.gets("10.00")

    def buy(_: int) -> str:
        with client_of(scenario.server, scenario.program) as client:
            body = {"card_token": ben.card, "amount": "10.00", "mid": shop.mid, "card_acceptor": shop.acceptor}
            return str(client.post("/simulate/authorization", body).json["transaction"]["response"]["code"])

    with ThreadPoolExecutor(4) as people:
        assert sorted(people.map(buy, range(10))) == ["0000"] + ["1016"] * 9
    assert ben.held == "10.00"


def test_the_same_message_twice(scenario: Scenario) -> None:
    """A replay with the same token gets the first answer and creates no second transaction."""
    ana, cafe = scenario.person("ana"), scenario.merchant("Corner Coffee", "5814")
    once = cafe.debit(ana.card, "4.75", transaction_options={"transaction_token": "morning-coffee"})
    again = cafe.debit(ana.card, "4.75", transaction_options={"transaction_token": "morning-coffee"})
    assert again.transaction == once.transaction
    assert len(scenario.get("/transactions", type="pindebit")["data"]) == 1
