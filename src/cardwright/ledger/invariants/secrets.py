"""Search for secrets in clear text: all text and binary columns of all tables, for the secrets that the vault can open."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

import msgspec
from sqlalchemy import Connection, Table, select

from cardwright.kit.vault import Vault, VaultError
from cardwright.ledger.invariants.scan import Discrepancy, stream, texts_of
from cardwright.outbox.endpoint import SECRET_MIN, Endpoint, open_target, open_webhook, written_forms
from cardwright.storage.programs import ROWS_IN_CLEAR, find_value
from cardwright.storage.tables import cards, metadata, outbox, webhooks

AT_ONCE: Final = 100_000
"""Maximum number of secrets in memory. If the database has more, the tables are searched once for each such part."""

CODES_MAX: Final = 1_000
"""Number of security codes of three digits. When all of them occur, no further card is read."""

PIECE_BYTES: Final = 65_536
"""Size from which the texts of some rows are searched together."""

WORD_BYTES: Final = 4
"""Size of the words that a text is divided into. A secret of at least ``2 * WORD_BYTES - 1`` bytes contains a whole word of the
text, at whatever byte it begins.
"""

# "cvv_number": "123", cvv2=123, the same within a JSON text, and a text of three characters in MessagePack.
_CODE: Final = re.compile(
    rb"""(?:cvv2?|cvc2?|csc|security_code)(?:_contactless)?(?:_number)?(?:["'\\]*\s*[:=]\s*["'\\]*|\xa3)([0-9]{3})(?![0-9])""",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret with its kind, and with the row that has its envelope."""

    kind: str
    owner: str
    text: str = field(repr=False)


class _Fact(msgspec.Struct):
    """The fields of a card that its security codes depend on."""

    expiration: str
    service_code: str


def secrets_in_clear(db: Connection, vault: Vault) -> Iterator[Discrepancy]:
    """Yield place and kind of each secret in clear text, and each webhook that the vault cannot open.

    Secrets of webhooks count anywhere in a text, from ``SECRET_MIN`` characters on. A security code has only three digits, so it
    counts only as the value of a field with a name such as ``cvv_number``.
    """
    if find_value(db, ROWS_IN_CLEAR) is not None:
        yield f"meta.value {ROWS_IN_CLEAR}", "no secret in clear", "rows that the first start of a server seals"
    codes, known, has_searched = _security_codes(db, vault), _known_secrets(db, vault), False
    while (part := list(islice(known, AT_ONCE))) or not has_searched:
        yield from (item for item in part if not isinstance(item, Secret))
        # Codes are searched for in the first pass only, or a further pass would report them again.
        search = Search((item for item in part if isinstance(item, Secret)), frozenset() if has_searched else codes)
        for table in metadata.sorted_tables:
            yield from _search_table(db, table, search)
        has_searched = True


class Search:
    """Search of texts for many secrets at once. Its time grows with the texts, not with the number of secrets."""

    def __init__(self, secrets: Iterable[Secret], codes: Set[str]) -> None:
        self._codes = {code.encode() for code in codes}
        self._secrets: dict[bytes, Secret] = {}
        self._places: dict[int, set[tuple[int, int]]] = {}
        for secret in secrets:
            if len(secret.text) >= SECRET_MIN:
                for form in written_forms(secret.text):
                    self._add(form.encode(), secret)

    def _add(self, form: bytes, secret: Secret) -> None:
        """Note the last words of a secret, because many secrets begin with the same word, such as ``Bearer``."""
        self._secrets[form] = secret
        for behind in range(WORD_BYTES):
            end = len(form) - behind
            word = int.from_bytes(form[end - WORD_BYTES : end], sys.byteorder)
            self._places.setdefault(word, set()).add((len(form), behind))

    def finds_any(self, text: bytes) -> bool:
        """Return whether ``kinds_in`` may yield anything. This is a fast check of many texts at once."""
        return not self._places.keys().isdisjoint(_words(text)) or _CODE.search(text) is not None

    def kinds_in(self, text: bytes) -> Iterator[str]:
        """Yield a description of each secret in a text."""
        forms = list[bytes]()
        for number, word in enumerate(_words(text)):
            for length, behind in self._places.get(word, ()):
                end = (number + 1) * WORD_BYTES + behind
                if end >= length and (form := text[end - length : end]) in self._secrets:
                    forms.append(form)
        yield from dict.fromkeys(f"{self._secrets[form].kind} of {self._secrets[form].owner}" for form in forms)
        if any(match[1] in self._codes for match in _CODE.finditer(text)):
            yield "a security code of a card"


def _words(text: bytes) -> memoryview:
    """Return the words of a text as numbers; the last one is filled up with zeros."""
    return memoryview(text + bytes(-len(text) % WORD_BYTES)).cast("I")


def _search_table(db: Connection, table: Table, search: Search) -> Iterator[Discrepancy]:
    piece, size = list[tuple[str, bytes]](), 0
    for place, value in texts_of(db, table):
        text = value.encode() if isinstance(value, str) else value
        piece.append((place, text))
        size += len(text)
        if size >= PIECE_BYTES:
            yield from _search_piece(piece, search)
            piece, size = [], 0
    yield from _search_piece(piece, search)


def _search_piece(piece: list[tuple[str, bytes]], search: Search) -> Iterator[Discrepancy]:
    if search.finds_any(b"\0".join(text for _, text in piece)):
        for place, text in piece:
            for kind in search.kinds_in(text):
                yield place, "no secret in clear", kind


def _security_codes(db: Connection, vault: Vault) -> set[str]:
    """Return the security codes of the cards."""
    codes = set[str]()
    query = select(cards.c.program_id, cards.c.token, cards.c.pan_sealed, cards.c.fact).order_by(cards.c.id)
    for row in stream(db, query):
        try:
            fact = msgspec.json.decode(row.fact or "", type=_Fact)
            pan = vault.decrypt_pan(bytes(row.pan_sealed), str(row.program_id), row.token)
        except (VaultError, msgspec.DecodeError):
            # No answer can show the code of such a card.
            continue
        codes.add(vault.cvv(pan, fact.expiration, fact.service_code))
        codes.add(vault.cvv(pan, fact.expiration, fact.service_code, "ICVV"))
        if len(codes) == CODES_MAX:
            break
    return codes


def _known_secrets(db: Connection, vault: Vault) -> Iterator[Secret | Discrepancy]:
    """Yield the secrets of all registered webhooks, and of the webhooks that simulations named."""
    for row in stream(db, select(webhooks).order_by(webhooks.c.id)):
        yield from _secrets_of(f"webhooks.sealed {row.id}", partial(open_webhook, vault, row))
    query = select(outbox.c.id, outbox.c.target).where(outbox.c.target.is_not(None)).order_by(outbox.c.id)
    for row in stream(db, query):
        yield from _secrets_of(f"outbox.target {row.id}", partial(open_target, vault, row.target))


def _secrets_of(owner: str, open_endpoint: Callable[[], Endpoint]) -> Iterator[Secret | Discrepancy]:
    try:
        endpoint = open_endpoint()
    except VaultError as error:
        yield owner, "an envelope that the master key opens", str(error)
        return
    yield from (Secret(kind, owner, text) for kind, text in endpoint.secrets())
