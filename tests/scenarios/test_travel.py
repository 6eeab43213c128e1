"""Travel: increments and advice of a hotel, an airline with four clearings, a rented car, and late clearings."""

from tests.support.scenario import Scenario


def test_a_hotel_that_grows_and_settles(scenario: Scenario) -> None:
    """Each increment is a separate transaction that adds to one hold and one order, and one clearing covers all of them."""
    ana, hotel = scenario.person("ana"), scenario.merchant("Hotel", "7011")

    # Monday: two nights.
    stay = hotel.authorize(ana.card, "200.00")
    # Wednesday: two more, then the minibar.
    scenario.wait("2d")
    nights = hotel.grow(stay, "150.00")
    minibar = hotel.grow(nights, "30.00")
    assert (nights.type, nights.order, ana.held) == ("authorization.incremental", "PENDING 150.00", "380.00")

    # Saturday: the clearing names the last increment.
    scenario.wait("3d")
    bill = hotel.clear(minibar, "380.00")
    assert (ana.ledger, stay.state, nights.state, minibar.state) == ("0.00", "CLEARED", "CLEARED", "CLEARED")
    assert bill.transaction["preceding_related_transaction_token"] == stay.token
    assert bill.transaction["incremental_authorization_transaction_tokens"] == [nights.token, minibar.token]
    assert bill.transaction["gpa_order"]["token"] == stay.transaction["gpa_order"]["token"]


def test_a_guest_who_cannot_pay_for_more_nights(scenario: Scenario) -> None:
    """A declined increment leaves the hold unchanged."""
    ben, hotel = scenario.person("ben", jit=None), scenario.merchant("Hotel", "7011", partial_approval_capable=False)
    ben.gets("250.00")
    stay = hotel.authorize(ben.card, "200.00")
    increment = hotel.grow(stay, "100.00")
    assert (increment.approved, increment.code, ben.held) == (False, "1016", "200.00")
    assert hotel.grow(stay, "50.00").approved
    assert (ben.held, ben.available) == ("250.00", "0.00")


def test_a_guest_who_leaves_early(scenario: Scenario) -> None:
    """An advice lowers the hold, and a clearing that names the advice clears it."""
    ana, hotel = scenario.person("ana"), scenario.merchant("Hotel", "7011")
    stay = hotel.authorize(ana.card, "300.00")

    # Tuesday: one night instead of three.
    scenario.wait("1d")
    lower = hotel.lower(stay, "100.00")
    assert (lower.type, lower.order, ana.held) == ("authorization.advice", "PENDING 200.00", "100.00")

    hotel.clear(lower, "100.00")
    assert (ana.ledger, stay.state) == ("0.00", "CLEARED")
    assert sorted(stay.family) == ["authorization.advice", "authorization.clearing"]


def test_an_airline_clears_four_times(scenario: Scenario) -> None:
    """Each of four clearings reduces the hold, and the last one closes it."""
    ana, airline = scenario.person("ana"), scenario.merchant("Airline", "4511")
    trip = airline.authorize(ana.card, "800.00")
    for left in ("600.00", "400.00", "200.00"):
        scenario.wait("1d")
        assert airline.clear(trip, "200.00").order == "COMPLETION 200.00"
        assert (ana.held, trip.state) == (left, "PENDING")
    scenario.wait("1d")
    airline.clear(trip, "200.00")
    assert (ana.ledger, trip.state) == ("0.00", "CLEARED")


def test_a_fifth_bill_of_a_trip_of_four(scenario: Scenario) -> None:
    """A clearing after the hold is fully cleared is approved with a new JIT load."""
    ana, airline = scenario.person("ana"), scenario.merchant("Airline", "4511")
    trip = airline.authorize(ana.card, "100.00")
    airline.clear(trip, "100.00")
    late = airline.clear(trip, "35.00")
    assert (late.approved, late.order, ana.ledger) == (True, "COMPLETION 35.00", "0.00")


def test_a_rented_car_is_held_for_thirty_days(scenario: Scenario) -> None:
    """A pre-authorization can set a hold duration of 30 days instead of a week."""
    ana, rental = scenario.person("ana"), scenario.merchant("Rental", "7512")
    car = rental.authorize(ana.card, "500.00", is_pre_auth=True, transaction_options={"pre_auth_time_limit": "30"})
    assert car.transaction["is_preauthorization"] is True

    # The hold is open after two weeks and until 09:00 on 4 July.
    scenario.wait("14d")
    assert ana.held == "500.00"
    scenario.until("2035-07-04T08:59:59Z")
    assert ana.held == "500.00"
    scenario.until("2035-07-04T09:00:00Z")
    assert (ana.held, car.state) == ("0.00", "CLEARED")


def test_an_offline_sale_on_the_plane(scenario: Scenario) -> None:
    """A forced clearing needs no authorization and takes card and merchant from any earlier transaction."""
    ana, airline = scenario.person("ana"), scenario.merchant("Airline", "4511")
    ticket = airline.debit(ana.card, "90.00")
    sandwich = airline.clear(ticket, "7.70", force_post=True)
    assert (sandwich.type, sandwich.order, ana.ledger) == ("authorization.clearing", "COMPLETION 7.70", "0.00")
    assert "preceding_related_transaction_token" not in sandwich.transaction


def test_a_bill_that_names_nothing_known(scenario: Scenario) -> None:
    """An unknown, declined or unsuitable original gets 404, and the balances stay unchanged."""
    ben, shop = scenario.person("ben", jit=None), scenario.merchant("Shop", partial_approval_capable=False)
    ben.gets("10.00")
    declined, paid = shop.authorize(ben.card, "11.00"), shop.debit(ben.card, "4.00")
    unknown = {"original_transaction_token": "no-such-token", "amount": 1}
    replies = [scenario.try_to(path, **unknown) for path in ("clearing", "reversal", "authorization/advice", "financial/advice")]
    for original, path in (
        (declined, "clearing"), (declined, "reversal"), (paid, "clearing"), (paid, "authorization/advice"),
        (paid, "financial/advice"),
    ):  # fmt: skip
        replies.append(scenario.try_to(path, original_transaction_token=original.token, amount=1))
    assert {(reply.status, reply.json["error_message"]) for reply in replies} == {(404, "Original transaction not found")}
    assert (ben.ledger, ben.held) == ("6.00", "0.00")
