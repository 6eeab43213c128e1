"""Time: expiry of holds, cards that are terminated before the clearing, and currencies with other decimals."""

from collections.abc import Callable

import pytest

from tests.support.scenario import Scenario


def test_a_hold_that_nobody_clears(scenario: Scenario) -> None:
    """A hold expires after exactly seven days, and a notification reports the expiry."""
    scenario.listens()
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    visit = shop.authorize(ana.card, "80.00")

    # Next Monday, a second before nine.
    scenario.until("2035-06-11T08:59:59Z")
    assert (ana.held, visit.state) == ("80.00", "PENDING")

    # Nine o'clock.
    scenario.until("2035-06-11T09:00:00Z")
    assert (ana.held, ana.ledger, visit.state) == ("0.00", "0.00", "CLEARED")
    news = scenario.hears("authorization.reversal.issuerexpiration")
    assert (news["state"], news["amount"], news["gpa"]["impacted_amount"]) == ("CLEARED", 80, 80)
    assert (news["gpa_order"]["state"], news["preceding_related_transaction_token"]) == ("REVERSED", visit.token)
    assert (news["created_time"], "settlement_date" in news) == ("2035-06-11T09:00:00Z", False)


def test_the_bill_comes_after_the_hold_is_gone(scenario: Scenario) -> None:
    """After the expiry, a clearing gets a new JIT load, and a reversal is declined with code 1017."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    visit = shop.authorize(ana.card, "80.00")
    scenario.wait("8d")
    assert shop.reverse(visit, "80.00").code == "1017"
    assert shop.clear(visit, "80.00").order == "COMPLETION 80.00"
    assert (ana.ledger, len(visit.family)) == ("0.00", 3)


def test_the_rest_of_a_bill_expires(scenario: Scenario) -> None:
    """The expiry releases only the part of a hold that is not cleared."""
    ben, shop = scenario.person("ben", jit=None), scenario.merchant("Shop")
    ben.gets("100.00")
    visit = shop.authorize(ben.card, "80.00")
    shop.clear(visit, "30.00")
    scenario.wait("7d")
    assert (ben.ledger, ben.available) == ("70.00", "70.00")
    assert visit.family == ["authorization.clearing", "authorization.reversal.issuerexpiration"]


def test_a_hotel_that_grows_lives_longer(scenario: Scenario) -> None:
    """An increment extends the whole hold to a week after the increment."""
    ana, hotel = scenario.person("ana"), scenario.merchant("Hotel", "7011")
    stay = hotel.authorize(ana.card, "100.00")
    scenario.wait("5d")
    hotel.grow(stay, "50.00")
    scenario.wait("4d")
    assert ana.held == "150.00"
    scenario.wait("3d")
    assert ana.held == "0.00"


def test_hotels_hold_longer_and_pumps_more(scenario: Scenario) -> None:
    """MCC groups set the duration of a hold and its increase, and the increase expires with the rest of the hold."""
    for name, mcc, controls in (
        ("hotels", "7011", {"hold_expiration_days": 30}), ("pumps", "5542", {"hold_increase": {"type": "AMOUNT", "value": 25}}),
    ):  # fmt: skip
        scenario.make("mccgroups", token=name, name=name, mccs=[mcc], config={"authorization_controls": controls})
    ana, hotel, pump = scenario.person("ana"), scenario.merchant("Hotel", "7011"), scenario.merchant("Pump 4", "5542")
    stay = hotel.authorize(ana.card, "100.00")

    # The pump requests 1, and 26 are held. The clearing takes 20.
    fuel = pump.authorize(ana.card, "1.00")
    assert (fuel.amount, ana.held) == ("26.00", "126.00")
    pump.clear(fuel, "20.00")
    assert ana.held == "106.00"

    # The rest of the pump's hold expires after a week, and the hotel's hold after 30 days.
    scenario.wait("7d")
    assert (ana.held, fuel.state) == ("100.00", "CLEARED")
    scenario.wait("22d")
    assert ana.held == "100.00"
    scenario.wait("1d")
    assert (ana.held, stay.state) == ("0.00", "CLEARED")


def test_a_pump_that_is_forgotten(scenario: Scenario) -> None:
    """A PIN debit pre-authorization expires after its time limit, with a separate transaction type."""
    ben, pump = scenario.person("ben", jit=None), scenario.merchant("Pump 4", "5542")
    ben.gets("100.00")
    visit = pump.debit(ben.card, "75.00", is_pre_auth=True, transaction_options={"pre_auth_time_limit": "2h"})
    scenario.wait("2h")
    assert (ben.available, visit.state) == ("100.00", "CLEARED")
    assert visit.family == ["pindebit.authorization.reversal.issuerexpiration"]
    assert pump.completes(visit, "20.00").approved
    assert ben.available == "80.00"


def test_a_card_is_lost_between_purchase_and_bill(scenario: Scenario) -> None:
    """A terminated card does not prevent the clearing of an earlier purchase or the expiry of its holds."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    bought, forgotten = shop.authorize(ana.card, "20.00"), shop.authorize(ana.card, "30.00")
    ana.loses_card()
    assert shop.authorize(ana.card, "1.00").code == "1005"
    assert shop.clear(bought, "20.00").approved
    scenario.wait("7d")
    assert (ana.ledger, forgotten.state) == ("0.00", "CLEARED")


def test_years_pass_at_once(scenario: Scenario) -> None:
    """All of 30 due holds have expired when the request that advances the clock returns."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    for _ in range(30):
        shop.authorize(ana.card, "1.00")
    assert ana.held == "30.00"
    scenario.wait("400d")
    assert ana.ledger == "0.00"


@pytest.mark.parametrize(
    ("currency", "amount", "cleared", "tip", "too_fine"),
    [
        ("JPY", "1000", "1200", "200", "1.5"),
        ("KWD", "1.250", "1.375", "0.125", "0.0005"),
        ("EUR", "10.00", "12.50", "2.50", "0.001"),
    ],
)
def test_money_with_other_decimals(
    scenario_in: Callable[[str], Scenario], currency: str, amount: str, cleared: str, tip: str, too_fine: str
) -> None:
    """Purchase, clearing and refund are exact in currencies with 0, 2 and 3 decimals, and finer amounts get 400."""
    scenario = scenario_in(currency)
    ana, bistro = scenario.person("ana", jit="GPA"), scenario.merchant("Bistro", "5812")
    meal = bistro.authorize(ana.card, amount)
    assert (meal.amount, ana.held) == (amount, amount)
    assert bistro.clear(meal, cleared).amount == cleared
    bistro.refund(meal, tip)
    assert ana.available == tip
    refused = scenario.try_to("financial", card_token=ana.card, mid="m", card_acceptor={}, amount=too_fine)
    assert (refused.status, refused.json["error_code"]) == (400, "400001")
