"""Refunds, reversals, credits and overdrafts: the money goes to the configured destination."""

import pytest

from tests.support.scenario import Scenario


@pytest.mark.parametrize(
    ("destination", "unload", "kept"),
    [("PROGRAM_FUNDING_SOURCE", "COMPLETION 60.00", "0.00"), ("WATERFALL", "COMPLETION 60.00", "0.00"), ("GPA", None, "60.00")],
)
def test_a_refund_after_the_bill(scenario: Scenario, destination: str, unload: str | None, kept: str) -> None:
    """A refund goes to the funding source, or stays on the account and pays a part of the next purchase."""
    ana, shoes = scenario.person("ana", jit=destination), scenario.merchant("Shoes", "5661")

    # Monday and Tuesday: bought and billed.
    pair = shoes.authorize(ana.card, "60.00")
    scenario.wait("1d")
    shoes.clear(pair, "60.00")

    # A week later: brought back.
    scenario.wait("7d")
    back = shoes.refund(pair, "60.00")
    assert (back.type, back.order, ana.available) == ("refund", unload, kept)

    # The next pair costs 75.
    assert shoes.authorize(ana.card, "75.00").order == ("PENDING 15.00" if destination == "GPA" else "PENDING 75.00")


def test_a_friend_sends_money_and_takes_it_back(scenario: Scenario) -> None:
    """An original credit stays on an account without JIT Funding, and its reversal takes it back."""
    ben = scenario.person("ben", jit=None)
    gift = ben.gets("25.00")
    assert (gift.type, gift.state, ben.available) == ("original.credit.auth_plus_capture", "COMPLETION", "25.00")
    assert gift.transaction["original_credit"] == {
        "transaction_type": "person_to_person", "funding_source": "DEBIT", "sender_name": "A friend",
    }  # fmt: skip
    undone = scenario.say("reversal", original_transaction_token=gift.token, amount="25.00")
    assert (undone.type, ben.available) == ("original.credit.auth_plus_capture.reversal", "0.00")


def test_a_credit_to_a_lost_card(scenario: Scenario) -> None:
    """An original credit to a terminated card is declined with code 1005."""
    ben = scenario.person("ben", jit=None)
    ben.loses_card()
    assert (ben.gets("25.00").code, ben.ledger) == ("1005", "0.00")


def test_the_reversal_comes_after_the_bill(scenario: Scenario) -> None:
    """A reversal after the full clearing is declined with code 1018, because no hold is left."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    visit = shop.authorize(ana.card, "50.00")
    shop.clear(visit, "50.00")
    late = shop.reverse(visit, "50.00")
    assert (late.approved, late.code, late.type) == (False, "1018", "authorization.reversal")


def test_the_bill_comes_after_the_reversal(scenario: Scenario) -> None:
    """A clearing after the reversal is approved with a new JIT load, because the money has already left."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    visit = shop.authorize(ana.card, "50.00")
    assert shop.reverse(visit, "50.00").order == "REVERSED 50.00"
    assert shop.reverse(visit, "50.00").code == "1017"
    assert shop.clear(visit, "50.00").order == "COMPLETION 50.00"


def test_a_parcel_that_is_sent_in_part(scenario: Scenario) -> None:
    """After a partial clearing, a reversal above the rest is declined, and an advice of it releases the rest."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop", "5964")
    visit = shop.authorize(ana.card, "50.00")
    shop.clear(visit, "25.00")
    assert shop.reverse(visit, "26.00").code == "1810"
    reversal = shop.reverse(visit, "26.00", is_advice=True)
    assert (reversal.approved, reversal.amount, ana.ledger) == (True, "25.00", "0.00")


def test_an_original_too_long_ago(scenario: Scenario) -> None:
    """A reversal with a window of two days does not find a purchase of four days before, and with four days it does."""
    ana, shop = scenario.person("ana"), scenario.merchant("Shop")
    visit = shop.authorize(ana.card, "50.00")
    scenario.wait("4d")
    assert shop.reverse(visit, "50.00", find_original_window_days=2).code == "1816"
    assert shop.reverse(visit, "50.00", find_original_window_days=4).approved


def test_a_bill_on_an_empty_account(scenario: Scenario) -> None:
    """A clearing above the balance is approved and makes the account negative. The next credit covers the deficit first."""
    ben, bistro = scenario.person("ben", jit=None), scenario.merchant("Bistro", "5812")
    ben.gets("40.00")
    meal = bistro.authorize(ben.card, "40.00")
    bistro.clear(meal, "46.00")
    assert (ben.ledger, ben.available) == ("-6.00", "-6.00")
    assert bistro.authorize(ben.card, "1.00").code == "1016"
    ben.gets("10.00")
    assert ben.available == "4.00"


def test_a_program_that_pays_for_its_peoples_overdrafts(scenario: Scenario) -> None:
    """With GLOBAL_OVERDRAFT_ACCOUNT, the account stops at zero and the program's overdraft account pays the rest."""
    to = {"clearing_and_settlement": {"overdraft_destination": "GLOBAL_OVERDRAFT_ACCOUNT"}}
    ben, bistro = scenario.person("ben", jit=None, **to), scenario.merchant("Bistro", "5812")
    ben.gets("40.00")
    meal = bistro.authorize(ben.card, "40.00")
    bistro.clear(meal, "46.00")
    assert ben.ledger == "0.00"
    ben.gets("10.00")
    assert ben.available == "10.00"
