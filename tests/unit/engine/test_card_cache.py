"""Card cache: it returns the cached facts unchanged, for any form of token and any traits."""

import msgspec
import pytest

from cardwright.core.enums import CardState, HolderStatus
from cardwright.core.snapshot import CardFact, UserFact
from cardwright.engine import card_cache as module
from cardwright.engine.card_cache import Cards
from cardwright.storage.engine.store import CardRow

UUID = "5e2b1c6a-90f3-4d7e-8a41-0c9d2b7f6e15"
TOKENS = [
    UUID,
    UUID.upper(),
    UUID.replace("-", ""),
    "12345678-1234-1234-1234-123456789012",
    "5e2b1c6a-90f3-4d7e-8a41-0c9d2b7f6e1 ",
    "5e2b1c6a-90f3-4d7e-8a41-0c9d2b7f6e1g",
    "5e2b1c6a90f3--4d7e-8a41-0c9d2b7f6e15",
    "u234567890123456",
    "t",
    "my card",
    "ключ-карты",
]
"""UUIDs, texts that resemble UUIDs, and other texts."""


def row_of(token: str, user_token: str = UUID, **fields: object) -> CardRow:
    """Return the row of a card. ``fields`` are fields of the card's or the user's fact."""
    card = CardFact(
        token=token, user_token=user_token, card_product_token="product", state=CardState.ACTIVE, last_four="4321",
        expiration="1230", expires_ms=1, service_code="101",
    )  # fmt: skip
    user = UserFact(token=user_token, status=HolderStatus.ACTIVE)
    card = msgspec.structs.replace(card, **{name: value for name, value in fields.items() if name in CardFact.__struct_fields__})
    user = msgspec.structs.replace(user, **{name: value for name, value in fields.items() if name in UserFact.__struct_fields__})
    facts = msgspec.json.encode(card).decode(), msgspec.json.encode(user).decode()
    return CardRow(7, token, 1, 2, b"sealed", None, 3, *facts, None)


def facts_of(row: CardRow) -> tuple[CardFact, UserFact]:
    return msgspec.json.decode(row.card_fact, type=CardFact), msgspec.json.decode(row.user_fact, type=UserFact)


@pytest.mark.parametrize("token", TOKENS)
def test_every_token_leads_back(token: str) -> None:
    """Tokens of the card and the user are returned unchanged, and only their program's key finds the card."""
    cards = Cards()
    for kept_token in TOKENS:
        cards.add(row_of(kept_token, user_token=kept_token), "411111______4321")
    entry = cards.find((7, token))
    assert entry is not None
    assert (entry.card.token, entry.card.user_token, entry.user.token) == (token, token, token)
    assert cards.find((8, token)) is None, "a card of another program"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"state": CardState.SUSPENDED, "reason_code": "02"},
        {"status": HolderStatus.LIMITED, "account_holder_group_token": "group"},
        {"address1": "1 Main Street", "postal_code": "94612"},
        {"metadata": {"key": "value"}},
        {"expiration": "0131", "expires_ms": 99, "service_code": "201"},
    ],
)
def test_facts_come_back_whole(fields: dict[str, object]) -> None:
    """Shared traits and individual values together give the original facts."""
    cards, row = Cards(), row_of("one", **fields)
    cards.add(row_of("another"), "4321")
    kept = cards.add(row, "4111111111114321")
    entry = cards.find((7, "one"))
    assert entry == kept
    assert entry is not None
    assert (entry.card, entry.user) == facts_of(row)
    assert (entry.card_id, entry.holder_id, entry.revision, entry.shown_pan) == (1, 2, 3, "4111111111114321")
    assert entry.owner == entry.user


def test_an_owner_of_his_own_comes_back() -> None:
    """A card that uses another holder's account keeps owner and user separate."""
    owner = UserFact(token="owner", status=HolderStatus.SUSPENDED)
    row = row_of("one")._replace(owner_fact=msgspec.json.encode(owner).decode())
    cards = Cards()
    cards.add(row, "4321")
    entry = cards.find((7, "one"))
    assert entry is not None
    assert (msgspec.structs.asdict(entry.owner), entry.user.token) == (msgspec.structs.asdict(owner), UUID)


def test_the_newest_version_replaces_the_older() -> None:
    """A card that is cached again has its newest facts."""
    cards = Cards()
    cards.add(row_of("one"), "4321")
    cards.add(row_of("one", state=CardState.TERMINATED), "4321")
    entry = cards.find((7, "one"))
    assert entry is not None
    assert entry.card.state == CardState.TERMINATED


def test_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache contains at most CARDS_MAX cards and evicts the oldest card first."""
    monkeypatch.setattr(module, "CARDS_MAX", 2)
    cards = Cards()
    for token in ("one", "two", "three"):
        cards.add(row_of(token), "4321")
    assert [cards.find((7, token)) is not None for token in ("one", "two", "three")] == [False, True, True]
