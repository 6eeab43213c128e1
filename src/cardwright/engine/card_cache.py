"""Cards kept in the process: a quarter of a kilobyte each, so that a million fit beside the rest of it.

A purchase whose card is not here waits for the database once more, and costs it three rows in places that nobody else has
just been at. So as many cards as possible are kept, each as one byte string under another. What many cards have in common is
kept once and never unpacked again.
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
"""Cards kept in a process; the oldest goes first."""

CardKey = tuple[int, str]
"""Program id and card token."""


class CardEntry(NamedTuple):
    """A card as decisions see it, true while its account's revision is ``revision``."""

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
    """A user's fact without the names of its fields, which take more room than what they say."""


class _Traits(msgspec.Struct, frozen=True, array_like=True):
    """What many cards and their users have in common."""

    card_product_token: str
    state: CardState
    expiration: str
    expires_ms: int
    service_code: str
    reason_code: str | None
    status: HolderStatus
    account_holder_group_token: str


class _Kept(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A card, packed. Its traits are the number that they are kept under; the owner is None when it is the user."""

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
    """The cards of a process by key."""

    def __init__(self) -> None:
        self._packed = PackedCache[bytes](CARDS_MAX)
        self._shared: list[_Traits] = []
        self._numbers: dict[bytes, int] = {}

    def find(self, key: CardKey) -> CardEntry | None:
        """The card if it is here; it may be out of date, which only its account's revision tells."""
        packed = self._packed.get(_place(key))
        return None if packed is None else self._entry(key, _unpack(packed))

    def add(self, row: CardRow, shown_pan: str) -> CardEntry:
        """Keeps a card as it was just loaded, in place of what was known of it."""
        key, card, user = (row.program_id, row.token), _card.decode(row.card_fact), _user.decode(row.user_fact)
        assert card.last_four == shown_pan[-4:], "a card number ends with its last four digits, masked or not"
        owner = None if row.owner_fact is None else _User(**asdict(_user.decode(row.owner_fact)))
        kept = _Kept(
            row.card_id, row.holder_id, row.revision, shown_pan, _short(user.token), self._number(_traits_of(card, user)),
            user.address1, user.postal_code, owner, card.metadata, user.metadata,
        )  # fmt: skip
        # The copy has just the room that it needs; the packer's own result has what it needed on the way.
        self._packed.put(_place(key), bytes(memoryview(_pack(kept))))
        return self._entry(key, kept)

    def clear(self) -> None:
        """Forgets everything."""
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
    # One byte string is half of what a pair of a number and a text takes.
    return b"%d:%b" % (key[0], _short(key[1]))


def _short(token: str) -> bytes:
    """A token in less room: a UUID as the wire writes it as its 16 bytes after a ``u``, any other text after a ``t``."""
    if len(token) == 36 and token[8] == token[13] == token[18] == token[23] == "-" and token.islower():
        try:
            digits = bytes.fromhex(token.replace("-", ""))
        except ValueError:
            digits = b""
        # Spaces are no digits, but are passed over.
        if len(digits) == 16:
            return b"u" + digits
    return b"t" + token.encode()


def _long(short: bytes) -> str:
    """The token that ``_short`` made shorter."""
    if short.startswith(b"t"):
        return short[1:].decode()
    digits = short.hex()
    return f"{digits[2:10]}-{digits[10:14]}-{digits[14:18]}-{digits[18:22]}-{digits[22:]}"


def _traits_of(card: CardFact, user: UserFact) -> _Traits:
    return _Traits(
        card.card_product_token, card.state, card.expiration, card.expires_ms, card.service_code, card.reason_code,
        user.status, user.account_holder_group_token,
    )  # fmt: skip
