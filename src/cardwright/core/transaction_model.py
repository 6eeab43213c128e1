"""Transaction model v2: the field names of v2, converted from model v1 (wire reference, "The transaction object").

Rendering produces model v1, which most requests need. A request for v2 converts it.
"""

from decimal import Decimal
from typing import Any

import msgspec

from cardwright.core.messages import Details

MODELS = ("v1", "v2")

_exact = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")

RENAMED = {"address": "street_address", "country": "country_code"}
"""Fields of ``card_acceptor`` with another name in v2."""

LEFT_OUT = frozenset({"poi", "network_mid"})
"""Fields of ``card_acceptor`` that v2 omits or moves to ``pos``."""

IN_POS = ("is_recurring", "is_installment")
"""Root fields of v1 that v2 moves to ``pos``."""


def as_v2(text: str, details: Details) -> str:
    """Return a rendered transaction in model v2. A load side has no merchant and is the same in both models."""
    fields: dict[str, Any] = _exact.decode(text)
    if "card_acceptor" not in fields:
        return text
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "card_acceptor":
            shown |= {
                "card_acceptor": {RENAMED.get(key, key): field for key, field in value.items() if key not in LEFT_OUT},
                "pos": _pos(fields, details),
                "transaction_metadata": {"payment_channel": "ECOMMERCE" if details.card_present is False else "OTHER"},
            }
        elif name == "currency_conversion":
            shown[name] = value["network"]
        elif name not in IN_POS:
            shown[name] = value
    return _encoder.encode(shown).decode()


def _pos(fields: dict[str, Any], details: Details) -> dict[str, Any]:
    mode = {"pan_entry_mode": details.pan_entry_mode} if details.pan_entry_mode is not None else {}
    present = {} if details.card_present is None else {
        "card_holder_presence": details.card_present, "card_presence": details.card_present,
    }  # fmt: skip
    return {
        **mode,
        **present,
        "pin_present": details.pin_matches is not None,
        "partial_approval_capable": fields["card_acceptor"]["poi"]["partial_approval_capable"] == "1",
        "purchase_amount_only": False,
        **{name: fields[name] for name in IN_POS},
    }
