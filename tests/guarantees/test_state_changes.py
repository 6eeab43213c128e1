"""State changes: each one writes its transition and sends its event. A table has every (state, maker) of the API's shapes.

The wire reference lists the families of events (documents 30, section 9.5, and 40, section 1). It requires an event for every
transition of a direct deposit, "also automatic ones, channel SYSTEM" (40, section 2.4).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from enum import EnumType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import pytest

from cardwright.core.enums import TYPES
from cardwright.core.movement_types import CARDLESS
from cardwright.core.movements import MovementKind
from cardwright.core.transaction_types import FAMILIES, LOAD_TYPES, REFUND, REQUEST_TYPES
from cardwright.outbox.events import BATCH_MAX, Category
from cardwright.resources.account_holders.account_holder_groups import FIRST_STATUS
from cardwright.resources.account_holders.user_model import Transition, TransitionCreate
from cardwright.resources.cards.card_transitions import CardTransition, CardTransitionCreate
from cardwright.resources.catalog import ROUTES
from cardwright.resources.transfers.direct_deposits import DepositTransitionCreate, DepositTransitionDone
from tests.stress.object_graph import ObjectGraph
from tests.support.databases import chosen_databases
from tests.support.fixtures import shared_server
from tests.support.issuing import client_of, fresh, new_program, problem_of, read_of
from tests.support.register import BOXES, PATHS, Arrival, Register
from tests.support.server import Client, RunningServer
from tests.support.shop import Shop

TODAY, FRIDAY, AUTUMN = "2035-06-01T09:00:00Z", "2035-06-08T00:00:00Z", "2035-09-01T00:00:00Z"

SHOP = {"mid": "123456891", "name": "Corner Bakery", "mcc": "5462", "country_code": "USA"}

# --- Acts: each makes one change and returns the token of the changed object ---------------


class Bank(Shop):
    """A shop that creates a new object for every change."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.product("idle", card_life_cycle={})
        for kyc in ("ALWAYS", "CONDITIONAL", "NEVER"):
            self.make("accountholdergroups", token=kyc, config={"kyc_required": kyc})
        events = {(category.base, row.type) for field, category in CATEGORY_OF.items() for row in ROWS if row.field == field}
        names = [f"{base}.{type_}" for base, type_ in events] + [f"transaction.{type_}" for type_ in TYPES]
        self.register = Register(self.client, server.root_url, self.program["token"], names)

    def user(self, **fields: Any) -> str:
        """Create a user; return the token."""
        return str(self.make("users", token=fresh("user"), **fields)["token"])

    def user_to(self, *states: str) -> str:
        """Create a user and enter these states; return the token."""
        user = self.user()
        for state in states:
            self.make("usertransitions", user_token=user, status=state, channel="API", reason="Because", reason_code="01")
        return user

    def card(self, product: str = "idle", query: str = "", user: str | None = None, **fields: Any) -> str:
        """Create a card, of a new user by default; return the token."""
        body = {"user_token": user or self.user(), "card_product_token": product, **fields}
        return str(self.make(f"cards{query}", token=fresh("card"), **body)["token"])

    def card_to(self, *states: str, card: str | None = None) -> str:
        """Move a card, by default a new one, through these states; return its token."""
        card = card or self.card()
        for state in states:
            self.make("cardtransitions", card_token=card, state=state, channel="API", reason="Because", reason_code="01")
        return card

    def replaced(self) -> str:
        """Create a card and replace it at once; return its token."""
        user = self.user()
        card = self.card(user=user)
        self.card(user=user, new_pan_from_card_token=card)
        return card

    def reissued(self) -> str:
        """Create a card, reissue it and activate the reissue; return its token."""
        user = self.user()
        card = self.card(user=user)
        self.card_to("ACTIVE", card=self.card(user=user, reissue_pan_from_card_token=card))
        return card

    def shown(self) -> str:
        """Create a card and show its number; return its token."""
        card = self.card()
        self.get(f"/cards/{card}/showpan")
        return card

    def account(self, user: str | None = None, **fields: Any) -> str:
        """Create a deposit account; return its token."""
        return str(self.make("depositaccounts", token=fresh("account"), user_token=user or self.user(), **fields)["token"])

    def account_of_new_user(self) -> str:
        """Create a user in a program that gives each new user a deposit account; return the account's token."""
        read_of(self.client.request("PUT", "/sandbox/program", {"deposit_accounts": True}))
        user = self.user()
        read_of(self.client.request("PUT", "/sandbox/program", {"deposit_accounts": False}))
        return str(self.get(f"/users/{user}")["deposit_account"]["token"])

    def deposit(
        self, *states: str, kind: str = "CREDIT", day: str = FRIDAY, load: int = 100, is_active: bool = True, **fields: Any
    ) -> str:
        """Simulate a deposit of 40.00 to a new account and move it through these states; return its token."""
        user = self.user()
        account = self.account(user, allow_immediate_credit=fields.pop("immediate", False))
        if load:
            self.make("gpaorders", user_token=user, amount=load, funding_source_token="harbor_funding", currency_code="USD")
        if not is_active:
            self.make("usertransitions", user_token=user, status="SUSPENDED", reason_code="02", channel="API")
        number = self.get(f"/depositaccounts/{account}")["account_number"]
        body = {"account_number": number, "amount": 40, "type": kind, "settlement_date": day, "token": fresh("deposit"), **fields}
        deposit = str(read_of(self.simulate("directdeposits", **body))["token"])
        for state in states:
            code = {} if state == "APPLIED" else {"reason_code": "R03"}
            body = {"direct_deposit_token": deposit, "state": state, "channel": "API", "reason": "Because", **code}
            read_of(self.client.post("/directdeposits/transitions", body))
        return deposit

    def spend(self) -> None:
        """Make messages for which platform or clock create transactions: open holds, real-time fees, an auto reload."""
        self.buy(10)
        for name in ("pindebit.authorization", "refund.authorization", "original.credit.authorization"):
            self.event(name)
        self.follow("clearing", self.event("authorization.cashback", cash_back_amount=5), 10)
        self.make(
            "fees", token="fee", name="Fee", amount=1, category="REALTIME", currency_code="USD",
            fee_attributes={"transaction_type": "authorization"},
        )  # fmt: skip
        self.make("realtimefeegroups", token="fees", name="Fees", fee_tokens=["fee"])
        self.make("accountholdergroups", token="members", config={"real_time_fee_group_token": "fees"})
        card = self.card("jit", user=self.user(account_holder_group_token="members"))
        for end in ("clearing", "reversal"):
            self.follow(end, self.buy(10, card), 10)
        self.buy(10, card)
        scope = {"gpa": {"trigger_amount": 50, "reload_amount": 100}}
        order = {"funding_source_token": "harbor_funding", "currency_code": "USD"}
        self.make("autoreloads", association={"user_token": "bo"}, order_scope=scope, **order)
        self.make("gpaorders", user_token="bo", amount=60, **order)
        self.buy(20, "plain")

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Simulate an event of Simulations 2.0; return its transaction."""
        body = {"card_token": "jit", "amount": 10, "card_acceptor": SHOP, **fields}
        return dict(self.make(f"simulations/cardtransactions/{name}", **body)["transaction"])


# --- The table ----------------------------------------------------------------------------


class Row(NamedTuple):
    """A state change: the field, its new value, the type of the event, the maker, reason and code, and the act."""

    field: str
    value: str
    type: str
    maker: str
    reason: str | None
    code: str | None
    act: Callable[[Bank], str]


CARD, USER, DEPOSIT, ACCOUNT = "Card.state", "User.status", "DirectDeposit.state", "DepositAccount.state"
FULFILLMENT = "Card.fulfillment_status"

CATEGORY_OF = {
    CARD: Category.CARD, FULFILLMENT: Category.CARD, USER: Category.USER, DEPOSIT: Category.DEPOSIT,
    ACCOUNT: Category.DEPOSIT_ACCOUNT,
}  # fmt: skip
"""The state fields with transitions, and the categories of their events."""

POINTERS = {
    Category.CARD: "card_token", Category.USER: "user_token", Category.DEPOSIT: "direct_deposit_token",
    Category.DEPOSIT_ACCOUNT: "account_token",
}  # fmt: skip
"""The field of a transition that names its object."""

ROWS = [
    Row(CARD, "UNACTIVATED", "fulfillment.issued", "SYSTEM", "New card", "00", lambda bank: bank.card()),
    Row(CARD, "ACTIVE", "state.activated", "SYSTEM", "New card activated", "00", lambda bank: bank.card("plain")),
    Row(CARD, "ACTIVE", "state.activated", "API", "Because", "01", lambda bank: bank.card_to("ACTIVE")),
    Row(CARD, "ACTIVE", "state.reinstated", "API", "Because", "01", lambda bank: bank.card_to("SUSPENDED", "ACTIVE")),
    Row(CARD, "LIMITED", "state.limited", "API", "Because", "01", lambda bank: bank.card_to("ACTIVE", "LIMITED")),
    Row(CARD, "SUSPENDED", "state.suspended", "API", "Because", "01", lambda bank: bank.card_to("SUSPENDED")),
    Row(CARD, "TERMINATED", "state.terminated", "API", "Because", "01", lambda bank: bank.card_to("TERMINATED")),
    Row(CARD, "TERMINATED", "state.terminated", "SYSTEM", "Card reissued", "01", lambda bank: bank.replaced()),
    Row(CARD, "TERMINATED", "state.terminated", "SYSTEM", "Card reissued", "01", lambda bank: bank.reissued()),
    Row(FULFILLMENT, "ISSUED", "fulfillment.issued", "SYSTEM", "New card", "00", lambda bank: bank.card()),
    Row(FULFILLMENT, "DIGITALLY_PRESENTED", "fulfillment.issued", "SYSTEM", "New card", "00",
        lambda bank: bank.card(query="?show_pan=true&show_cvv_number=true")),
    Row(FULFILLMENT, "DIGITALLY_PRESENTED", "fulfillment.digitally_presented", "SYSTEM", None, None, lambda bank: bank.shown()),
    Row(USER, "ACTIVE", "active", "SYSTEM", None, "00", lambda bank: bank.user()),
    Row(USER, "ACTIVE", "active", "SYSTEM", None, "00", lambda bank: bank.user(account_holder_group_token="NEVER")),
    Row(USER, "UNVERIFIED", "unverified", "SYSTEM", None, "00", lambda bank: bank.user(account_holder_group_token="ALWAYS")),
    Row(USER, "LIMITED", "limited", "SYSTEM", None, "00", lambda bank: bank.user(account_holder_group_token="CONDITIONAL")),
    Row(USER, "SUSPENDED", "suspended", "SYSTEM", None, "00", lambda bank: bank.user(active=False)),
    Row(USER, "SUSPENDED", "suspended", "API", "Because", "01", lambda bank: bank.user_to("SUSPENDED")),
    Row(USER, "ACTIVE", "active", "API", "Because", "01", lambda bank: bank.user_to("SUSPENDED", "ACTIVE")),
    Row(USER, "LIMITED", "limited", "API", "Because", "01", lambda bank: bank.user_to("SUSPENDED", "LIMITED")),
    Row(USER, "UNVERIFIED", "unverified", "API", "Because", "01", lambda bank: bank.user_to("UNVERIFIED")),
    Row(USER, "CLOSED", "closed", "API", "Because", "01", lambda bank: bank.user_to("CLOSED")),
    Row(USER, "TERMINATED", "terminated", "API", "Because", "01", lambda bank: bank.user_to("TERMINATED")),
    Row(DEPOSIT, "PENDING", "state.pending", "SYSTEM", "Newly created", None, lambda bank: bank.deposit()),
    Row(DEPOSIT, "PENDING", "state.pending", "SYSTEM", "Newly created", None, lambda bank: bank.deposit(kind="DEBIT")),
    Row(DEPOSIT, "PENDING", "state.pending", "SYSTEM", "Newly created", None, lambda bank: bank.deposit(day=TODAY)),
    Row(DEPOSIT, "APPLIED", "state.applied", "SYSTEM", "Applied credit", None, lambda bank: bank.deposit(day=TODAY)),
    Row(DEPOSIT, "APPLIED", "state.applied", "SYSTEM", "Applied debit", None, lambda bank: bank.deposit(day=TODAY, kind="DEBIT")),
    Row(DEPOSIT, "APPLIED", "state.applied", "SYSTEM", "Applied credit", None, lambda bank: bank.deposit(immediate=True)),
    Row(DEPOSIT, "APPLIED", "state.applied", "SYSTEM", "Applied credit", None, lambda bank: bank.deposit(earlyPayEligible=True)),
    Row(DEPOSIT, "APPLIED", "state.applied", "CLOCK", "Settlement date", None, lambda bank: bank.deposit()),
    Row(DEPOSIT, "APPLIED", "state.applied", "CLOCK", "Settlement date", None, lambda bank: bank.deposit(kind="DEBIT")),
    Row(DEPOSIT, "APPLIED", "state.applied", "API", "Because", None, lambda bank: bank.deposit("APPLIED")),
    Row(DEPOSIT, "REJECTED", "state.rejected", "SYSTEM", "Returned credit", "R16", lambda bank: bank.deposit(is_active=False)),
    Row(DEPOSIT, "REJECTED", "state.rejected", "SYSTEM", "Returned debit", "R01",
        lambda bank: bank.deposit(kind="DEBIT", day=TODAY, load=0)),
    Row(DEPOSIT, "REJECTED", "state.rejected", "CLOCK", "Settlement date", "R01",
        lambda bank: bank.deposit(kind="DEBIT", load=0)),
    Row(DEPOSIT, "REJECTED", "state.rejected", "API", "Because", "R03", lambda bank: bank.deposit("REJECTED")),
    Row(DEPOSIT, "REJECTED", "state.rejected", "API", "Because", "R01",
        lambda bank: bank.deposit("APPLIED", kind="DEBIT", load=0)),
    Row(DEPOSIT, "REVERSED", "state.reversed", "API", "Because", "R03", lambda bank: bank.deposit("REVERSED")),
    Row(DEPOSIT, "REVERSED", "state.reversed", "API", "Because", "R03", lambda bank: bank.deposit("REVERSED", day=TODAY)),
    Row(DEPOSIT, "REVERSED", "state.reversed", "API", "Because", "R03", lambda bank: bank.deposit("REVERSED", kind="DEBIT")),
    Row(DEPOSIT, "REVERSED", "state.reversed", "API", "Because", "R03",
        lambda bank: bank.deposit("REVERSED", kind="DEBIT", day=TODAY)),
    Row(ACCOUNT, "ACTIVE", "active", "SYSTEM", "New account", None, lambda bank: bank.account()),
    Row(ACCOUNT, "ACTIVE", "active", "SYSTEM", "New account", None, lambda bank: bank.account_of_new_user()),
]  # fmt: skip

NEVER = {
    FULFILLMENT: {"ORDERED", "REORDERED", "REJECTED", "SHIPPED", "DELIVERED"},
}
"""Values that never occur: they need files of a card manufacturer."""

NO_REQUEST = {DEPOSIT: {"PENDING"}}
"""Values in the shape of a request that are refused: a deposit is PENDING only after its arrival."""

REQUESTS = {CARD: CardTransitionCreate, USER: TransitionCreate, DEPOSIT: DepositTransitionCreate}
"""Shapes of the requests that change a state."""

TRANSITIONS = {CardTransition, Transition, DepositTransitionDone}

NO_TRANSITION = {
    **dict.fromkeys(
        (
            "AuthControl.active", "Exemption.active", "Fee.active", "FeeGroup.active", "MccGroupAnswer.active",
            "MerchantGroup.active", "Product.active", "Reload.active", "Source.active", "VelocityControl.active",
            "Webhook.active",
        ), "the wire reference has no transition for it",
    ),
    "User.active": "it follows from the status",
    "User.state": "part of an address",
    **dict.fromkeys(("GpaOrder.state", "GpaUnload.state", "FeeRefunded.state"), "its transaction reports it"),
    **dict.fromkeys(("Backtest.state", "DeliveryShown.state", "ShadowControl.state"), "of the sandbox, not of the wire"),
}  # fmt: skip
"""State fields without transitions, with the reasons."""


POSSIBLE = (
    REQUEST_TYPES | CARDLESS | FAMILIES.keys() | {REFUND} | {kind for family in FAMILIES.values() for kind in family if kind}
)
"""The types of all transactions that the platform can create."""

TYPE_OF = {
    MovementKind.ORDER: "gpa.credit", MovementKind.UNLOAD: "gpa.debit", MovementKind.FEE_CHARGE: "fee.charge",
    MovementKind.FEE_REFUND: "fee.charge.refund", MovementKind.PEER_TRANSFER: "transfer.peer",
    MovementKind.PROGRAM_TRANSFER: "transfer.program", MovementKind.DEPOSIT: "directdeposit.credit.pending",
    MovementKind.DEPOSIT_TRANSITION: "directdeposit.credit",
}  # fmt: skip
"""One transaction type of each kind of movement."""


def shapes_of(answer: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the shapes in a route's answer."""
    if isinstance(answer, type) and issubclass(answer, msgspec.Struct):
        yield answer
    for part in get_args(answer):
        yield from shapes_of(part)


def stateful_fields() -> dict[str, Any]:
    """Return the types of all fields in answers with the name of a state. A shape that extends another one has its name."""
    shapes = {shape for route in ROUTES for shape in shapes_of(route.answer)}
    type_of_field: dict[str, Any] = {}
    for shape in shapes:
        base = next((parent for parent in shape.__mro__[1:] if parent in shapes), shape)
        if shape.__name__.endswith("Transition") or shape in TRANSITIONS:
            continue
        for name, type_ in get_type_hints(shape).items():
            if name in ("state", "status", "fulfillment_status", "active"):
                type_of_field[f"{base.__name__}.{name}"] = type_
    return type_of_field


def values_of(type_: Any) -> set[str]:
    """Return the possible values of an enum or a literal type."""
    if isinstance(type_, EnumType):
        return {str(member.value) for member in type_}
    return set(get_args(type_)) if get_origin(type_) is not None else set()


def test_every_state_of_the_api_is_in_the_table() -> None:
    """Every field of an answer with the name of a state has transitions, or is listed with the reason that it has none."""
    fields = stateful_fields()
    assert fields.keys() == CATEGORY_OF.keys() | NO_TRANSITION.keys()
    assert not CATEGORY_OF.keys() & NO_TRANSITION.keys()
    assert set(CATEGORY_OF.values()) == POINTERS.keys() == set(Category) - {Category.TRANSACTION}
    assert PATHS.keys() == set(Category)


@pytest.mark.parametrize("field", CATEGORY_OF)
def test_every_value_of_a_state_has_a_row(field: str) -> None:
    """Every value of a state has a row, and every value that a request can set has a row with the maker API."""
    rows = [row for row in ROWS if row.field == field]
    values = values_of(stateful_fields()[field])
    assert {row.value for row in rows} | NEVER.get(field, set()) == values
    assert not {row.value for row in rows} & NEVER.get(field, set())
    if field in REQUESTS:
        requestable = values_of(get_type_hints(REQUESTS[field])[field.partition(".")[2]])
        assert {row.value for row in rows if row.maker == "API"} == requestable - NO_REQUEST.get(field, set())


def test_every_first_status_and_type_has_a_row() -> None:
    """Every first status of users and every type of card transitions has a row."""
    made_by_us = {row.value for row in ROWS if (row.field, row.maker) == (USER, "SYSTEM")}
    assert {str(status) for status in FIRST_STATUS.values()} <= made_by_us
    types = get_args(get_type_hints(CardTransition)["type"])
    assert {row.type for row in ROWS if CATEGORY_OF[row.field] is Category.CARD} == set(types)


# --- Outcome --------------------------------------------------------------------------------

server = shared_server(chosen_databases())


class Outcome(NamedTuple):
    """The program after all acts: the token of each row's object, and the arrivals in the box for all events."""

    bank: Bank
    tokens: list[str]
    arrivals: list[Arrival]

    def about(self, number: int) -> list[dict[str, Any]]:
        """Return the received transitions of a row's object, the newest first."""
        category, token = CATEGORY_OF[ROWS[number].field], self.tokens[number]
        elements = (arrival.element for arrival in self.arrivals if arrival.category is category)
        return [element for element in elements if element[POINTERS[category]] == token]


@pytest.fixture(scope="module")
def outcome(server: RunningServer) -> Iterator[Outcome]:
    """Run the acts of all rows in one program, move the clock to all due dates, and yield the outcome."""
    bank = Bank(server)
    tokens = [row.act(bank) for row in ROWS]
    bank.spend()
    for day in (FRIDAY, AUTUMN):
        bank.clock(day)
    yield Outcome(bank, tokens, bank.register.arrivals("everything"))
    bank.client.close()


def matches(row: Row, element: dict[str, Any]) -> bool:
    """Return True if a transition is that of a row."""
    channel = "API" if row.maker == "API" else "SYSTEM"
    expected = (row.value, row.type, channel, row.reason, row.code)
    actual = (element[row.field.partition(".")[2]], Arrival(CATEGORY_OF[row.field], element).type, element["channel"])
    return (*actual, element.get("reason"), element.get("reason_code")) == expected


def test_every_change_sends_one_event(outcome: Outcome) -> None:
    """Each change is reported once, in its category, with type, state, channel, reason and code of its row."""
    wrong = [
        (row[:-1], outcome.about(number))
        for number, row in enumerate(ROWS)
        if sum(matches(row, element) for element in outcome.about(number)) != 1
    ]
    assert wrong == []


def transitions_of_everything(bank: Bank) -> Counter[tuple[Category, str]]:
    """Return all transitions in the lists, without those of the shop's users, which are older than the webhooks."""
    users = [user for user in pages(bank.client, "/users") if user["token"] not in ("ana", "bo")]
    lists = {
        Category.USER: [f"/usertransitions/user/{user['token']}" for user in users],
        Category.CARD: [
            f"/cardtransitions/card/{card['token']}"
            for user in users
            for card in pages(bank.client, f"/cards/user/{user['token']}")
        ],
        Category.DEPOSIT: ["/directdeposits/transitions"],
        Category.DEPOSIT_ACCOUNT: [f"/depositaccounts/{user['token']}/transitions" for user in users],
    }
    return Counter(
        (category, str(transition["token"]))
        for category, paths in lists.items()
        for path in paths
        for transition in pages(bank.client, path)
    )


def transactions_of(client: Client) -> Counter[tuple[Category, str]]:
    """Return all transactions of a program, without JIT loads, which purchases contain (wire reference, 9.5)."""
    loads = {TYPES[kind] for kind in LOAD_TYPES.values()}
    moved = pages(client, "/transactions", state="ALL", start_date="2020-01-01", end_date="2036-01-01")
    return Counter((Category.TRANSACTION, str(transaction["token"])) for transaction in moved if transaction["type"] not in loads)


def pages(client: Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return the entries of all pages of a list."""
    entries: list[dict[str, Any]] = []
    while page := read_of(client.get(path, query={"count": 100, "start_index": len(entries), **query}))["data"]:
        entries += page
    return entries


def test_every_transition_and_transaction_arrives_once_in_every_box(outcome: Outcome) -> None:
    """Subscriptions to ``*``, to ``<base>.*`` and to names each get every listed transition and transaction exactly once."""
    bank = outcome.bank
    expected = transitions_of_everything(bank) + transactions_of(bank.client)
    assert set(expected.values()) == {1}
    for box in BOXES:
        assert bank.register.counts(box) == expected, box


def test_what_arrived_is_what_a_get_answers(outcome: Outcome) -> None:
    """A GET of each transition equals the object in its notification, which has at most BATCH_MAX objects.

    The webhook inbox finds the message by type and token, and the list of deliveries names the object.
    """
    bank = outcome.bank
    for arrival in outcome.arrivals:
        assert len(bank.listed("/sandbox/inbox/everything", type=arrival.type, token=arrival.token)) == 1
        answer = bank.get(PATHS[arrival.category].format(arrival.token))
        if arrival.category is Category.TRANSACTION:
            # A notification has the first state of the transaction.
            assert (answer["token"], answer["type"]) == (arrival.token, arrival.type)
        else:
            assert answer == arrival.element
    assert max(len(elements) for body in bank.register.messages("everything") for elements in body.values()) <= BATCH_MAX
    delivered = pages(bank.client, "/sandbox/deliveries", webhook_token="everything", state="DELIVERED")
    named = Counter((delivery["category"], token) for delivery in delivered for token in delivery["tokens"])
    assert named == Counter((arrival.category.base, arrival.token) for arrival in outcome.arrivals)


def test_everything_that_arrives_can_be_resent(outcome: Outcome, server: RunningServer) -> None:
    """A resend of each object posts it to a webhook without a subscription to it, and its answer is the posted body."""
    bank = outcome.bank
    url = f"{server.root_url}/sandbox/inbox/{bank.program['token']}/again"
    config = {"url": url, "basic_auth_username": "harbor", "basic_auth_password": "Harb0r-Hook-Passw0rd!"}
    bank.make("webhooks", token="again", name="again", events=["nothing.at.all"], config=config)
    for arrival in outcome.arrivals:
        reply = bank.client.post(f"/webhooks/again/{arrival.category.base}/{arrival.token}")
        assert (reply.status, list(reply.json)) == (200, [arrival.category.array]), reply.text
        (element,) = reply.json[arrival.category.array]
        if arrival.category is Category.TRANSACTION:
            assert (element["token"], element["type"]) == (arrival.token, arrival.type)
        else:
            assert element == arrival.element
    assert bank.register.counts("again") == Counter(arrival.key for arrival in outcome.arrivals)


def test_what_cannot_be_resent_is_refused(outcome: Outcome) -> None:
    """A resend with an unknown base gets 400 with the known ones. An unknown token, or one of another category, gets 404."""
    bank = outcome.bank
    samples = {arrival.category: arrival.token for arrival in outcome.arrivals}
    assert samples.keys() == set(Category)
    for base in ("chargebacktransition", "transactions", "cards", "CARDTRANSITION", "*"):
        reply = bank.client.post(f"/webhooks/everything/{base}/{samples[Category.CARD]}")
        assert problem_of(reply) == (400, "400002")
        assert all(category.base in reply.json["error_message"] for category in Category)
    for category in Category:
        for token in ("nothing", *(token for other, token in samples.items() if other is not category)):
            reply = bank.client.post(f"/webhooks/everything/{category.base}/{token}")
            assert problem_of(reply) == (404, "404013"), (category, token)
    assert problem_of(bank.client.post(f"/webhooks/none/cardtransition/{samples[Category.CARD]}")) == (404, "404012")


# --- Every type of transaction --------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(server: RunningServer) -> Iterator[tuple[Client, list[Arrival]]]:
    """Yield the client and the arrivals of a program with every example of the OpenAPI document."""
    program = new_program(server)
    with client_of(server, program) as client:
        register = Register(client, server.root_url, program["token"], ["transaction.*"])
        ObjectGraph(client, server.root_url, program["token"], "scene").make()
        yield client, register.arrivals("everything")


def test_every_transaction_of_a_scene_arrives_once(examples: tuple[Client, list[Arrival]]) -> None:
    """Each transaction of the examples of all routes arrives exactly once."""
    client, arrivals = examples
    counts = Counter(arrival.key for arrival in arrivals if arrival.category is Category.TRANSACTION)
    assert counts == transactions_of(client)
    assert set(counts.values()) == {1}


def test_every_type_of_transaction_sends_an_event(outcome: Outcome, examples: tuple[Client, list[Arrival]]) -> None:
    """Each possible type of transaction arrives, each kind of movement has a type, and only the auto reload has its fields."""
    types = {arrival.type for arrival in (*outcome.arrivals, *examples[1]) if arrival.category is Category.TRANSACTION}
    assert types == {TYPES[kind] for kind in POSSIBLE}
    assert TYPE_OF.keys() == set(MovementKind)
    assert set(TYPE_OF.values()) <= types
    reloads = [arrival.element for arrival in outcome.arrivals if "auto_reload" in arrival.element]
    assert [(reload["type"], reload["user_token"]) for reload in reloads] == [("gpa.credit", "bo")]
