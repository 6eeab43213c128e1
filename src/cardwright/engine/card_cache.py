"""Card cache: up to a million cards in the process, about 0.25 KB each.

A purchase with an uncached card needs one more round trip and three rows that are rarely in the database's cache. So the cache
is large. Each card is one byte string with a byte string as key. Traits that many cards share are stored once, unpacked.
"""

from typing import NamedTuple

import msgspec
from msgspec.structs import asdict

from cardwright.core.enums import CardState, HolderStatus
from cardwright.core.render import CardFragments, fragments_of
from cardwright.core.snapshot import CardFact, UserFact
from cardwright.engine.packed_cache import PackedCache
from cardwright.storage.engine.store import CardRow

CARDS_MAX = 1_000_000
"""Maximum number of cards that a process caches. The oldest card is evicted first."""

CardKey = tuple[int, str]
"""Program id and card token."""


class CardEntry(NamedTuple):
    """A card for decisions, valid while its account has the revision ``revision``."""

    key: CardKey
    card_id: int
    holder_id: int
    revision: int
    card: CardFact
    user: UserFact
    owner: UserFact
    fragments: CardFragments
    shown_pan: str


class _User(UserFact, frozen=True, kw_only=True, array_like=True):
    """A user's fact, packed without field names, which would take more space than the values."""


class _Traits(msgspec.Struct, frozen=True, array_like=True):
    """The properties that many cards and their users share."""

    card_product_token: str
    state: CardState
    expiration: str
    expires_ms: int
    service_code: str
    reason_code: str | None
    status: HolderStatus
    account_holder_group_token: str


class _Kept(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A packed card. ``traits`` is the number of its shared traits. ``owner`` is None if the user is the owner."""

    card_id: int
    holder_id: int
    revision: int
    shown_pan: str
    user_token: bytes
    traits: int
    address1: str | None = None
    postal_code: str | None = None
    owner: _User | None = None
    card_metadata: dict[str, str] = {}
    user_metadata: dict[str, str] = {}


_card = msgspec.json.Decoder(CardFact)
_user = msgspec.json.Decoder(UserFact)
_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.Decoder(_Kept).decode


class Cards:
    """The cached cards of a process by key."""

    def __init__(self) -> None:
        self._packed = PackedCache[bytes](CARDS_MAX)
        self._shared: list[_Traits] = []
        self._numbers: dict[bytes, int] = {}

    def find(self, key: CardKey) -> CardEntry | None:
        """Return the cached card, or None. It is out of date if its account has another revision."""
        packed = self._packed.get(_place(key))
        return None if packed is None else self._entry(key, _unpack(packed))

    def add(self, row: CardRow, shown_pan: str) -> CardEntry:
        """Cache a loaded card in place of an earlier version, and return its entry."""
        key, card, user = (row.program_id, row.token), _card.decode(row.card_fact), _user.decode(row.user_fact)
        assert card.last_four == shown_pan[-4:], "a card number ends with its last four digits, masked or not"
        owner = None if row.owner_fact is None else _User(**asdict(_user.decode(row.owner_fact)))
        kept = _Kept(
            row.card_id, row.holder_id, row.revision, shown_pan, _short(user.token), self._number(_traits_of(card, user)),
            user.address1, user.postal_code, owner, card.metadata, user.metadata,
        )  # fmt: skip
        # The copy has the exact size; the packer's result may have a larger buffer.
        self._packed.put(_place(key), bytes(memoryview(_pack(kept))))
        return self._entry(key, kept)

    def clear(self) -> None:
        """Drop all cards."""
        self._packed.clear()
        self._shared.clear()
        self._numbers.clear()

    def _number(self, traits: _Traits) -> int:
        number = self._numbers.setdefault(_pack(traits), len(self._shared))
        if number == len(self._shared):
            self._shared.append(traits)
        return number

    def _entry(self, key: CardKey, kept: _Kept) -> CardEntry:
        traits = self._shared[kept.traits]
        user_token = _long(kept.user_token)
        card = CardFact(
            token=key[1], user_token=user_token, card_product_token=traits.card_product_token, state=traits.state,
            last_four=kept.shown_pan[-4:], expiration=traits.expiration, expires_ms=traits.expires_ms,
            service_code=traits.service_code, reason_code=traits.reason_code, metadata=kept.card_metadata,
        )  # fmt: skip
        user = UserFact(
            token=user_token, status=traits.status, address1=kept.address1, postal_code=kept.postal_code,
            account_holder_group_token=traits.account_holder_group_token, metadata=kept.user_metadata,
        )  # fmt: skip
        owner = kept.owner or user
        fragments = fragments_of(card, user, owner)
        return CardEntry(key, kept.card_id, kept.holder_id, kept.revision, card, user, owner, fragments, kept.shown_pan)


def _place(key: CardKey) -> bytes:
    # One byte string takes half the memory of a pair of a number and a string.
    return b"%d:%b" % (key[0], _short(key[1]))


def _short(token: str) -> bytes:
    """Return a short form of a token: ``u`` and 16 bytes for a lower-case UUID, else ``t`` and the text."""
    if len(token) == 36 and token[8] == token[13] == token[18] == token[23] == "-" and token.islower():
        try:
            digits = bytes.fromhex(token.replace("-", ""))
        except ValueError:
            digits = b""
        # ``fromhex`` ignores spaces, so check the length.
        if len(digits) == 16:
            return b"u" + digits
    return b"t" + token.encode()


def _long(short: bytes) -> str:
    """Return the token of a short form from ``_short``."""
    if short.startswith(b"t"):
        return short[1:].decode()
    digits = short.hex()
    return f"{digits[2:10]}-{digits[10:14]}-{digits[14:18]}-{digits[18:22]}-{digits[22:]}"


def _traits_of(card: CardFact, user: UserFact) -> _Traits:
    return _Traits(
        card.card_product_token, card.state, card.expiration, card.expires_ms, card.service_code, card.reason_code,
        user.status, user.account_holder_group_token,
    )  # fmt: skip
