"""Fees: definitions of flat amounts and percentages that an account can be charged."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from cardwright.core.money import exponent_of
from cardwright.core.problems import CURRENCY_UNSUPPORTED, FEE_NOT_FOUND, Problem
from cardwright.kit.clock import iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version, without_nulls
from cardwright.resources.common.fields import CurrencyCode, Text255, Token, parse_amount
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.tables import fees

# --- Shapes: what travels on the wire ------------------------------------------------

FeeName = Annotated[str, Meta(min_length=1, max_length=50)]
FeeTags = Annotated[str, Meta(min_length=1, max_length=255)]


class Category(StrEnum):
    """The category of a fee.

    A STANDALONE fee is charged on demand or with a movement. A REALTIME fee is charged with a card transaction, through a
    real-time fee group.
    """

    STANDALONE = "STANDALONE"
    REALTIME = "REALTIME"

    @classmethod
    def _missing_(cls, value: object) -> "Category | None":
        """Return REALTIME for ``REAL_TIME``, the second spelling in the documentation, and None for other values."""
        return cls.REALTIME if value == "REAL_TIME" else None


class FeeKind(StrEnum):
    """The kind of a fee: a flat amount, or a percentage of the amount that it is charged with."""

    FLAT = "FLAT"
    PERCENTAGE = "PERCENTAGE"


class FeeAttributes(Shape, frozen=True, kw_only=True):
    """The transactions that a real-time fee applies to.

    Only ``transaction_type`` has an effect. The other fields are stored as sent.
    """

    region: Text255 | UnsetType | None = UNSET
    status: Text255 | UnsetType | None = UNSET
    transaction_type: Text255 | UnsetType | None = UNSET
    reason: Text255 | UnsetType | None = UNSET


class FeeCreate(Shape, frozen=True, kw_only=True):
    """A new fee."""

    name: FeeName
    amount: Decimal
    currency_code: CurrencyCode
    token: Token | None = None
    active: bool | None = True
    category: Category | None = Category.STANDALONE
    type: FeeKind | None = FeeKind.FLAT
    fee_attributes: FeeAttributes | None = None
    memo: Text255 | None = None
    tags: FeeTags | None = None


class FeeUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a fee. Absent fields stay unchanged. Earlier charges of the fee keep their amounts."""

    name: FeeName | None = None
    amount: Decimal | None = None
    currency_code: CurrencyCode | None = None
    token: Token | None = None
    active: bool | None = None
    category: Category | None = None
    type: FeeKind | None = None
    fee_attributes: FeeAttributes | None = None
    memo: Text255 | None = None
    tags: FeeTags | None = None


class Fee(Shape, frozen=True, kw_only=True):
    """A fee."""

    token: str
    name: str
    amount: Decimal
    active: bool = True
    category: Category = Category.STANDALONE
    type: FeeKind = FeeKind.FLAT
    currency_code: str
    fee_attributes: FeeAttributes | UnsetType = UNSET
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    created_time: str
    last_modified_time: str


# --- Rules: pure ---------------------------------------------------------------------


def present_fields(body: FeeCreate | FeeUpdate) -> dict[str, Any]:
    """Return the fields of a request that are present. Null counts as absent, and so does null within ``fee_attributes``."""
    fields = crud.changes_of(body)
    if body.fee_attributes is not None:
        fields["fee_attributes"] = without_nulls(body.fee_attributes)
    return fields


def checked(fee: Fee) -> Fee:
    """Return the fee. Raises a problem that names the field if it is invalid.

    A percentage has at most two decimals, like an amount in USD.
    """
    if exponent_of(fee.currency_code) is None:
        raise Problem(CURRENCY_UNSUPPORTED, f"currency_code {fee.currency_code}")
    parse_amount("amount", fee.amount, fee.currency_code if fee.type is FeeKind.FLAT else "USD")
    return fee


# --- Queries: this resource's SQL ----------------------------------------------------


def tell_decisions(call: Call, fee_id: int, doc: str, *categories: Category) -> None:
    """Record the fee for decisions if it is, or was before the change, a real-time fee."""
    if Category.REALTIME in categories:
        record_version(call, history.Kind.FEE, fee_id, doc, active=True)


# --- Actions: what a caller can do with it -------------------------------------------


def create_fee(call: Call, body: FeeCreate) -> str:
    """Create a fee."""
    if (replay := crud.find_replay(call, fees, body)) is not None:
        return replay
    now = iso(call.now)
    token = body.token or call.app.ids.token()
    fee = checked(Fee(**present_fields(body), token=token, created_time=now, last_modified_time=now))
    fee_id, doc = crud.insert(call, fees, body, fee)
    tell_decisions(call, fee_id, doc, fee.category)
    return doc


def get_fee(call: Call) -> str:
    """Return a fee."""
    return str(crud.get_row(call, fees, FEE_NOT_FOUND).doc)


def list_fees(call: Call) -> records.Listing:
    """List fees."""
    return crud.list_resources(call, fees)


def update_fee(call: Call, body: FeeUpdate) -> str:
    """Change a fee.

    A change of a real-time fee applies to later purchases only.
    """
    row = crud.lock_row(call, fees, FEE_NOT_FOUND)
    crud.check_same_token(call, body)
    before = msgspec.json.decode(row.doc, type=Fee)
    after = checked(structs.replace(before, **present_fields(body)))
    doc, changed = crud.update(call, fees, row, before, after)
    if changed:
        tell_decisions(call, row.id, doc, before.category, after.category)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Fees"

routes = [
    post("/fees", FeeCreate, create_fee, Fee),
    get("/fees", list_fees, Fee, paging=Paging(count=100, sort_by="-createdTime")),
    get("/fees/{token}", get_fee, Fee, fields=False),
    put("/fees/{token}", FeeUpdate, update_fee, Fee),
]
