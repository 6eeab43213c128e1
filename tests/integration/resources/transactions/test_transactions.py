"""Transactions over HTTP: single reads, filters, orders, pages, chains, lists of funding sources, and balances."""

import itertools
import re
from typing import Any

import pytest

from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import problem_of
from tests.support.server import RunningServer
from tests.support.shop import Shop

# The transactions of the lists. Each line has day and time, the action, and the name of the transaction; `name+` is its load
# side. A clearing has the user time of its purchase, so it is next to the purchase in the default order.
STORY = """
    01 09:00 | buy 10.10 jit      | coffee
    02 00:00 | buy 20 child       | toys
    02 23:59 | buy 30 plain       | refused
    03 09:00 | buy 40 jit         | shoes
    04 09:00 | clearing 40 shoes  | shoes cleared
    05 09:00 | buy 50 jit         | hotel
    06 09:00 | reversal 50 hotel  | hotel reversed
    07 09:00 | clearing 5 shoes refund | shoes refunded
"""

PENDING = {"coffee", "coffee+", "toys", "toys+"}
SETTLED = {"shoes cleared", "shoes cleared+", "shoes refunded", "shoes refunded+"}
CLEARED = {"shoes", "shoes+", "hotel", "hotel+", "hotel reversed", "hotel reversed+"}
DECLINED = {"refused"}
ALL = PENDING | SETTLED | CLEARED | DECLINED

NOBODY = ("business_token", "account_token", "merchant_token", "campaign_token")
"""Filters that match no transaction, because Cardwright does not have such objects."""


class Story(Shop):
    """A shop with the transactions of ``STORY``. ``names`` has the name of each transaction by its token."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.make("users", token="child", parent_token="ana", uses_parent_account=True)
        self.make("cards", token="child", user_token="child", card_product_token="jit")
        self.known: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        for line in STORY.strip().splitlines():
            when, action, name = (cell.strip() for cell in line.split("|"))
            day, hour = when.split()
            self.clock(f"2035-06-{day}T{hour}:00Z")
            self.remember(name, self.act(*action.split()))
        self.clock("2035-06-08T00:00:00Z")

    def act(self, verb: str, amount: str, which: str, *flags: str) -> dict[str, Any]:
        """Perform an action and return its transaction."""
        if verb == "buy":
            return self.buy(amount, which)
        return self.follow(verb, self.known[which], amount, **({"is_refund": True} if flags else {}))

    def remember(self, name: str, transaction: dict[str, Any]) -> None:
        """Store both sides of a transaction under its name."""
        self.known[name], self.names[transaction["token"]] = transaction, name
        order = transaction.get("gpa_order") or transaction.get("gpa_order_unload")
        if order is not None:
            self.names[order["transaction_token"]] = f"{name}+"

    def named(self, path: str = "/transactions", **query: object) -> list[str]:
        """Return the names of a list's transactions, in its order."""
        return [self.names[transaction["token"]] for transaction in self.listed(path, **query)]

    def load_token(self, name: str) -> str:
        """Return the token of a load side."""
        return next(token for token, known in self.names.items() if known == f"{name}+")


server = shared_server()
story = program_fixture(Story, scope="module")


# --- Filters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, PENDING | SETTLED),
        ({"state": ""}, PENDING | SETTLED),
        ({"state": "PENDING"}, PENDING),
        ({"state": "COMPLETION"}, SETTLED),
        ({"state": "CLEARED"}, CLEARED),
        ({"state": "DECLINED"}, DECLINED),
        ({"state": "ERROR"}, set()),
        ({"state": "CLEARED,DECLINED"}, CLEARED | DECLINED),
        ({"state": "ALL"}, ALL),
        ({"state": "ALL", "type": "authorization"}, {"coffee", "toys", "shoes", "hotel", "refused"}),
        ({"type": "authorization"}, {"coffee", "toys"}),
        ({"type": "authorization.clearing"}, {"shoes cleared"}),
        ({"state": "ALL", "type": "authorization.reversal,refund"}, {"hotel reversed", "shoes refunded"}),
        ({"type": "gpa.credit.authorization"}, {"coffee+", "toys+", "shoes cleared+"}),
        ({"state": "ALL", "type": "gpa.credit.authorization.reversal"}, {"hotel reversed+"}),
        ({"type": "gpa.debit.authorization"}, {"shoes refunded+"}),
        ({"type": "authorization,gpa.credit.authorization", "state": "PENDING"}, PENDING),
        ({"state": "ALL", "type": "pindebit"}, set()),
        ({"state": "ALL", "card_token": "jit"}, ALL - {"toys", "toys+", "refused"}),
        ({"state": "ALL", "card_token": "child"}, {"toys", "toys+"}),
        ({"state": "ALL", "card_token": "plain"}, {"refused"}),
        ({"state": "ALL", "card_token": "nobody"}, set()),
        ({"state": "ALL", "user_token": "ana"}, ALL - {"refused"}),
        ({"state": "ALL", "user_token": "child"}, set()),
        ({"state": "ALL", "user_token": "bo"}, {"refused"}),
        ({"state": "ALL", "user_token": "nobody"}, set()),
        ({"state": "ALL", "acting_user_token": "ana"}, ALL - {"toys", "toys+", "refused"}),
        ({"state": "ALL", "acting_user_token": "child"}, {"toys", "toys+"}),
        ({"state": "ALL", "acting_user_token": "nobody"}, set()),
        ({"state": "ALL", "user_token": "ana", "card_token": "plain"}, set()),
        *(({"state": "ALL", name: "ana"}, set[str]()) for name in NOBODY),
        ({"state": " PENDING , DECLINED "}, PENDING | DECLINED),
        ({"state": "PENDING,ALL"}, ALL),
        ({"type": " authorization , refund "}, {"coffee", "toys", "shoes refunded"}),
        ({"state": "ALL", "start_date": "2035-06-02", "end_date": "2035-06-02"}, {"toys", "toys+", "refused"}),
        ({"state": "ALL", "start_date": "2035-06-01", "end_date": "2035-06-01"}, {"coffee", "coffee+"}),
        ({"state": "ALL", "end_date": "2035-06-01T09:00:00"}, {"coffee", "coffee+"}),
        ({"state": "ALL", "end_date": "2035-06-01T08:59:59.99"}, set()),
        ({"state": "ALL", "start_date": "2035-06-07T09:00:00.00"}, {"shoes refunded", "shoes refunded+"}),
        ({"state": "ALL", "start_date": "2035-06-07T09:00:01"}, set()),
        ({"state": "ALL", "start_date": "2035-06-09", "end_date": "2035-06-01"}, set()),
        ({"version": "v2", "verbose": "true", "no_such_parameter": "1"}, PENDING | SETTLED),
    ],
)
def test_a_list_has_what_was_asked_for(story: Story, query: dict[str, str], expected: set[str]) -> None:
    """A filter returns exactly the matching transactions, loads included."""
    names = story.named(**query)
    assert set(names) == expected
    assert len(names) == len(expected)


def test_the_default_window_is_thirty_days(server: RunningServer) -> None:
    """By default a list has the purchases of the last thirty days. With a start date it also has older ones."""
    shop = Shop(server)
    transaction = shop.buy(10)
    shop.clock("2035-07-01T09:00:00Z")
    assert transaction["token"] in [row["token"] for row in shop.listed(state="ALL")]
    shop.clock("2035-07-01T09:00:00.001Z")
    assert shop.listed(state="ALL") == []
    assert transaction["token"] in [row["token"] for row in shop.listed(start_date="2035-06-01", state="ALL")]


def test_the_window_is_over_what_the_list_is_sorted_by(story: Story) -> None:
    """The window applies to the time that sorts the list. A clearing has its purchase's user time and a later creation time."""
    day = {"state": "ALL", "start_date": "2035-06-04", "end_date": "2035-06-04"}
    assert story.named(**day) == []
    assert set(story.named(**day, sort_by="created_time")) == {"shoes cleared", "shoes cleared+"}


def test_a_list_can_begin_at_an_identifier(story: Story) -> None:
    """``start_identifier`` leaves out smaller identifiers. A load side has a separate identifier."""
    everything = story.listed(state="ALL")
    assert len(everything) == len(ALL)
    for first in everything:
        expected = {other["token"] for other in everything if int(other["identifier"]) >= int(first["identifier"])}
        assert {row["token"] for row in story.listed(state="ALL", start_identifier=first["identifier"])} == expected


# --- Order and pages ---------------------------------------------------------------------


@pytest.mark.parametrize("minus", ["", "-"])
@pytest.mark.parametrize(
    ("sort_by", "key"),
    [
        ("user_transaction_time", "user_transaction_time"),
        ("userTransactionTime", "user_transaction_time"),
        ("created_time", "created_time"),
        ("createdTime", "created_time"),
        ("last_modified_time", "created_time"),
        ("lastModifiedTime", "created_time"),
    ],
)
def test_a_list_is_in_order(story: Story, minus: str, sort_by: str, key: str) -> None:
    """A list is sorted by time, then by identifier. A minus reverses the whole order."""
    rows = story.listed(state="ALL", sort_by=minus + sort_by)
    assert len(rows) == len(ALL)
    assert rows == sorted(rows, key=lambda row: (row[key], int(row["identifier"])), reverse=bool(minus))


def test_the_newest_purchase_comes_first(story: Story) -> None:
    """The default order is the user time, newest first, so a clearing is next to its purchase."""
    by_user, by_creation = story.named(state="ALL", type="authorization,authorization.clearing"), "shoes cleared"
    assert by_user == ["hotel", "shoes cleared", "shoes", "refused", "toys", "coffee"]
    created = story.named(state="ALL", type="authorization,authorization.clearing", sort_by="-created_time")
    assert created.index(by_creation) == created.index("hotel") + 1 == 1


def test_pages_have_no_gaps(story: Story) -> None:
    """Successive pages of any size form the whole list. Each page has its indexes and ``is_more``."""
    whole = story.named(state="ALL")
    for count in (1, 2, 5, len(whole)):
        pages = list[str]()
        for start in itertools.count(0, count):
            page = story.get("/transactions", state="ALL", count=count, start_index=start)
            pages += [story.names[row["token"]] for row in page["data"]]
            size = len(page["data"])
            assert (page["count"], page["start_index"], page["end_index"]) == (size, start, start + size - 1)
            assert page["is_more"] is (len(pages) < len(whole))
            if not page["is_more"]:
                break
        assert pages == whole


def test_a_page_has_ten(story: Story) -> None:
    """A page has ten transactions by default."""
    page = story.get("/transactions", state="ALL")
    assert (page["count"], page["end_index"], page["is_more"]) == (10, 9, True)


def test_an_empty_list(story: Story) -> None:
    """The request for a list without entries gets 200 with an empty page."""
    empty = {"count": 0, "start_index": 0, "end_index": 0, "is_more": False, "data": []}
    assert story.get("/transactions", card_token="nobody") == empty


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"count": 0}, 400), ({"count": 101}, 413), ({"count": "ten"}, 400), ({"start_index": -1}, 400),
        ({"start_index": "x"}, 400), ({"sort_by": "amount"}, 400), ({"sort_by": "--created_time"}, 400),
        ({"state": "ALL,OPEN"}, 400), ({"version": "v3"}, 400), ({"verbose": "x"}, 400),
        ({"state": "OPEN"}, 400), ({"state": "PENDING,OPEN"}, 400), ({"type": "purchase"}, 400),
        ({"type": "authorization,purchase"}, 400), ({"start_date": "yesterday"}, 400), ({"end_date": "2035-13-01"}, 400),
        ({"start_date": "1950-01-01"}, 400), ({"start_date": "2035-W23-1"}, 400), ({"start_identifier": "x"}, 400),
        ({"end_date": "2035-06-01T25:00:00"}, 400),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/transactions", "/transactions/{one}/related", "/transactions/fundingsource/harbor_funding"])
def test_a_bad_parameter_is_named(story: Story, path: str, query: dict[str, object], status: int) -> None:
    """An invalid parameter is refused with its name, in every list of transactions."""
    reply = story.client.get(path.replace("{one}", story.known["coffee"]["token"]), query=query)
    assert (reply.status, next(iter(query)) in reply.text) == (status, True), reply.text


# --- Fields ------------------------------------------------------------------------------


def test_the_fields_filter_keeps_exact_decimals(story: Story) -> None:
    """``fields`` keeps only the named fields, at every level. Amounts keep two decimals."""
    token = story.known["coffee"]["token"]
    text = story.client.get(f"/transactions/{token}", query={"fields": "token,amount,gpa,ledger_balance"}).text
    assert re.fullmatch(rf'{{"token":"{token}","gpa":{{"ledger_balance":\d+\.\d\d}},"amount":10\.10}}', text)
    listed = story.client.get("/transactions", query={"fields": "amount", "type": "authorization"})
    assert listed.text.endswith('"data":[{"amount":20.00},{"amount":10.10}]}')


# --- Single transactions -----------------------------------------------------------------


def test_a_purchase_reads_as_it_was_answered(story: Story) -> None:
    """A GET returns the transaction as the simulation answered it. Only the state of a cleared one has changed."""
    for name, transaction in story.known.items():
        read = story.get(f"/transactions/{transaction['token']}")
        assert read | {"state": transaction["state"]} == transaction
        assert read["state"] == ("CLEARED" if name in CLEARED else transaction["state"])


def test_a_load_has_the_references_fields(story: Story) -> None:
    """A load names its purchase, has the opposite impacted amount, and has neither merchant nor approval code."""
    purchase, load = story.known["coffee"], story.get(f"/transactions/{story.load_token('coffee')}")
    assert (load["type"], load["state"], load["network"], load["subnetwork"]) == (
        "gpa.credit.authorization", "PENDING", "MARQETA", "MANAGED_JIT",
    )  # fmt: skip
    assert load["preceding_related_transaction_token"] == purchase["token"]
    assert load["token"] == purchase["gpa_order"]["transaction_token"]
    assert load["gpa_order"] == purchase["gpa_order"]
    assert (load["amount"], load["gpa"]["impacted_amount"]) == (10.10, 10.10)
    assert int(load["identifier"]) == int(purchase["identifier"]) + 1
    assert {"card_acceptor", "approval_code", "request_amount", "settlement_date"} & set(load) == set()


def test_whose_a_purchase_is(story: Story) -> None:
    """For a child that shares its parent's account, the child is the acting user and the parent the user."""
    toys = story.get(f"/transactions/{story.known['toys']['token']}")
    assert (toys["user_token"], toys["acting_user_token"], toys["card_token"]) == ("ana", "child", "child")
    assert toys["gpa_order"]["user_token"] == "ana"


@pytest.mark.parametrize("path", ["/transactions/{}", "/transactions/{}/related", "/transactions/fundingsource/{}"])
def test_unknown_tokens_are_not_found(server: RunningServer, story: Story, path: str) -> None:
    """An unknown token, the load token of a purchase without a load, and a token of another program get 404."""
    foreign = Shop(server).buy(10)
    first, last = story.known["refused"]["token"][:-1], story.known["refused"]["token"][-1]
    load_of_refused = first + "0123456789abcdef"[int(last, 16) ^ 1]
    for token in ("nobody", "00000000-0000-4000-8000-000000000000", foreign["token"], load_of_refused):
        assert problem_of(story.client.get(path.format(token))) == (404, "404011")


# --- Chains and funding sources ----------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ("coffee", ["coffee+"]),
        ("refused", []),
        ("shoes", ["shoes cleared+", "shoes cleared", "shoes+"]),
        ("shoes cleared", ["shoes cleared+", "shoes+", "shoes"]),
        ("hotel reversed", ["hotel reversed+", "hotel+", "hotel"]),
        ("shoes refunded", ["shoes refunded+"]),
    ],
)
def test_related_transactions_are_the_rest_of_the_chain(story: Story, of: str, expected: list[str]) -> None:
    """Related transactions are all other members of the chain with their loads. A refund belongs to no purchase's chain."""
    assert story.named(f"/transactions/{story.known[of]['token']}/related") == expected


def test_a_loads_relatives_are_the_purchases(story: Story) -> None:
    """The related transactions of a load are all other members of the chain."""
    names = story.named(f"/transactions/{story.load_token('shoes')}/related")
    assert names == ["shoes cleared+", "shoes cleared", "shoes"]


def test_related_transactions_are_filtered_and_paged(story: Story) -> None:
    """Related transactions are filtered by type, state and date, and paged, like any list."""
    path = f"/transactions/{story.known['shoes']['token']}/related"
    assert story.named(path, type="authorization.clearing") == ["shoes cleared"]
    assert story.named(path, state="CLEARED") == ["shoes+"]
    page = story.get(path, count=1, start_index=1)
    assert (page["count"], page["start_index"], page["end_index"], page["is_more"]) == (1, 1, 1, True)
    assert story.named(path, end_date="2035-06-02") == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"coffee+", "toys+", "shoes cleared+", "shoes refunded+"}),
        ({"state": "ALL"}, {name for name in ALL if name.endswith("+")}),
        ({"state": "ALL", "polarity": "CREDIT"}, {"coffee+", "toys+", "shoes+", "shoes cleared+", "hotel+"}),
        ({"state": "ALL", "polarity": "DEBIT"}, {"hotel reversed+", "shoes refunded+"}),
        ({"polarity": "DEBIT"}, {"shoes refunded+"}),
        ({"type": "authorization"}, set()),
        ({"state": "ALL", "start_date": "2035-06-05", "end_date": "2035-06-05"}, {"hotel+", "hotel reversed+"}),
    ],
)
def test_what_a_source_gave_and_got(story: Story, query: dict[str, str], expected: set[str]) -> None:
    """A funding source lists its loads, by default PENDING and COMPLETION. ``polarity`` selects a direction."""
    assert set(story.named("/transactions/fundingsource/harbor_funding", **query)) == expected


def test_a_bad_polarity(story: Story) -> None:
    """An unknown ``polarity`` gets 400 with a message that names the parameter."""
    reply = story.client.get("/transactions/fundingsource/harbor_funding", query={"polarity": "UP"})
    assert (reply.status, "polarity" in reply.json["error_message"]) == (400, True)


def test_another_source_gave_nothing(story: Story) -> None:
    """A funding source without orders has an empty list."""
    story.client.post("/fundingsources/program", {"token": "other", "name": "Other"})
    assert story.named("/transactions/fundingsource/other", state="ALL") == []


# --- Balances ----------------------------------------------------------------------------


def test_balances_are_what_the_chains_left(story: Story) -> None:
    """The ledger balance includes open holds, the available balance does not. A child that shares an account has the same."""
    answer = story.get("/balances/ana")
    usd = {"currency_code": "USD", "ledger_balance": 30.1, "available_balance": 0, "credit_balance": 0, "pending_credits": 0}
    assert answer == {
        "gpa": {**usd, "balances": {"USD": usd}},
        "links": [{"rel": "msas", "method": "GET", "href": "/v3/balances/ana/msas"}],
    }
    assert story.get("/balances/child")["gpa"] == answer["gpa"]
    assert '"ledger_balance":30.10,' in story.client.get("/balances/ana").text


def test_balances_of_a_user_who_did_nothing(story: Story) -> None:
    """A new account has zero balances in the program's currency. An unknown user gets 404."""
    story.client.post("/users", {"token": "fresh"})
    assert story.money("fresh") == (0, 0)
    assert '"ledger_balance":0.00,' in story.client.get("/balances/fresh").text
    assert problem_of(story.client.get("/balances/nobody")) == (404, "404004")
