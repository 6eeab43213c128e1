"""Card numbers and barcodes: random draws of unique values, and the digest by which a card number is found."""

from dataclasses import dataclass

from sqlalchemy import exists, select

from cardwright.core.pan import BARCODE_LENGTH, account_numbers, barcode_from, mask, pan_from
from cardwright.core.problems import bad_field
from cardwright.resources.common.call import Call
from cardwright.storage.tables import cards, pans

# --- Rules: pure ---------------------------------------------------------------------

DRAWS_MAX = 100
"""The maximum number of draws for one unique value."""


@dataclass(frozen=True, slots=True)
class Number:
    """A clear card number with the digest by which it is found. Its ``repr`` masks the number."""

    pan: str
    digest: bytes

    def __repr__(self) -> str:
        return f"Number({mask(self.pan)})"


# --- Queries: this resource's SQL ----------------------------------------------------


def is_taken_pan(call: Call, digest: bytes) -> bool:
    """Return True if a card number was ever issued."""
    return bool(call.db.scalar(select(exists().where(pans.c.digest == digest))))


def is_taken_barcode(call: Call, barcode: str) -> bool:
    """Return True if a card of the program has this barcode."""
    return bool(call.db.scalar(select(exists().where(cards.c.program_id == call.program.id, cards.c.barcode == barcode))))


# --- Actions: what a caller can do with it -------------------------------------------


def number_of(call: Call, pan: str) -> Number:
    """Return a card number with its digest."""
    return Number(pan, call.app.vault.pan_digest(pan, str(call.program.id)))


def draw_number(call: Call, prefix: str, length: int) -> Number:
    """Draw a card number under a product's prefix that was never issued, and record it as issued.

    Raises a problem if no draw of 100 is unused.
    """
    room = account_numbers(prefix, length)
    for _ in range(DRAWS_MAX):
        number = number_of(call, pan_from(prefix, call.app.ids.below(room), length))
        if not is_taken_pan(call, number.digest):
            call.db.execute(pans.insert().values(digest=number.digest, program_id=call.program.id))
            return number
    raise bad_field("card_product_token", "names a product that has no card number left")


def draw_barcode(call: Call) -> str:
    """Draw a barcode that no card of the program has."""
    for _ in range(DRAWS_MAX):
        barcode = barcode_from(call.app.ids.below(10**BARCODE_LENGTH))
        if not is_taken_barcode(call, barcode):
            return barcode
    raise AssertionError("10^20 barcodes cannot be used up")
