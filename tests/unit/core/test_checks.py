"""Checks of a purchase: tables of differences from an ordinary purchase, with the answer of each."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.core.checks import CHECKS, address_verdict
from cardwright.core.decide import decide
from cardwright.core.decision import Decision
from cardwright.core.enums import CardState, HolderStatus, State
from cardwright.core.messages import (
    Advice,
    Authorization,
    Clearing,
    Details,
    Fee,
    Merchant,
    Message,
    Refund,
    Reversal,
    VelocityCategory,
)
from cardwright.core.responses import ADDRESS_VERDICTS, REASON_OF, Reason
from cardwright.core.snapshot import (
    Account,
    AddressCheck,
    AddressChecks,
    CardFact,
    Chain,
    Fulfillment,
    JitFunding,
    OtherPoi,
    Poi,
    ProductConfig,
    ProductFact,
    ProgramFunding,
    Snapshot,
    SourceFact,
    TransactionControls,
    UserFact,
)
from cardwright.core.spend_controls import MerchantRule, PreKyc, Spend
from cardwright.core.velocity import Control, Window, resolved_control
from cardwright.kit.clock import parse_instant
from tests.support.instants import NOON

# Format of the tables. Each column is a property of a purchase. An empty cell has the value of an ordinary purchase: 10.00 at a
# grocery in the USA, an active card of an active user, a product with default configuration, an active funding source.
#
#   card      state, after a slash the reason code of its last transition; `expires` is in milliseconds from now
#   product   `off`, `from DAY`, `to DAY`; today is 2026-01-01 unless `now` has another time
#   poi       ecommerce, atm, no-other, needs-card, needs-holder
#   newcomer  a user before KYC: `plain`, `free` of pre-KYC limits, or `cash` for a withdrawal; abroad: the card's home country
#   blocked   an authorization control that applies `everywhere`
#   rules     leaves of transaction_controls: see RULES and `exempt=MID,MID`
#   present   card_present in the message; `3ds` is a security level sent by a shop
#   street, zip   as typed; on file are "12 Main Street" and "94-501 ab", or with `address` only one of them, or `none`
#   source    active, inactive, none; `money` is the ledger balance less holds, in whole units
#   limits    of one velocity control: `amount=10`, `count=0`
#   answer    the response code; of an approval the approved amount and its JIT load, in whole units

CARD_AND_HOLDER = """
    card           | expires | typed | rules            | holder     | owner      | answer
                   |         |       |                  |            |            | 0000 10 10
    UNACTIVATED    |         |       |                  |            |            | 1901
    SUSPENDED      |         |       |                  |            |            | 1003
    SUSPENDED      |         |       | ignore-suspended |            |            | 0000 10 10
    LIMITED        |         |       | ignore-suspended |            |            | 1003
    UNACTIVATED    |         |       | ignore-suspended |            |            | 1901
    TERMINATED     |         |       | ignore-suspended |            |            | 1806
    TERMINATED/01  |         |       |                  |            |            | 1806
    TERMINATED/10  |         |       |                  |            |            | 1005
    TERMINATED/23  |         |       |                  |            |            | 1004
    TERMINATED/06  |         |       |                  |            |            | 1002
    TERMINATED/08  |         |       |                  |            |            | 1002
    SUSPENDED/23   |         |       |                  |            |            | 1003
                   | +1      |       |                  |            |            | 0000 10 10
                   | 0       |       |                  |            |            | 1001
                   | -1      |       |                  |            |            | 1001
                   |         | right |                  |            |            | 0000 10 10
                   |         | wrong |                  |            |            | 1001
                   |         |       |                  | LIMITED    |            | 0000 10 10
                   |         |       |                  | UNVERIFIED |            | 1813
                   |         |       |                  | SUSPENDED  |            | 1813
                   |         |       |                  | CLOSED     |            | 1813
                   |         |       |                  | TERMINATED |            | 1813
                   |         |       |                  |            | SUSPENDED  | 1813
                   |         |       |                  |            | LIMITED    | 0000 10 10
                   |         |       |                  | SUSPENDED  | CLOSED     | 1813
"""

PRODUCT_DATES = """
    product         | now                     | answer
    off             |                         | 1818
    from 2026-01-01 | 2026-01-01T00:00:00.000 | 0000 10 10
    from 2026-01-02 | 2026-01-01T23:59:59.999 | 1818
    from 2026-01-02 | 2026-01-02T00:00:00.000 | 0000 10 10
    to 2026-01-01   | 2026-01-01T23:59:59.999 | 0000 10 10
    to 2026-01-01   | 2026-01-02T00:00:00.000 | 1818
    to 2025-12-31   |                         | 1818
"""

WAYS_OF_PAYING = """
    poi               | present | 3ds | cash | rules       | mcc  | mid | answer
                      |         |     |      |             |      |     | 0000 10 10
                      | yes     |     |      |             |      |     | 0000 10 10
                      | no      |     |      |             |      |     | 1954
                      |         | 05  |      |             |      |     | 1954
                      | yes     | 05  |      |             |      |     | 1954
    ecommerce         | no      |     |      |             |      |     | 0000 10 10
    ecommerce         |         | 05  |      |             |      |     | 0000 10 10
    ecommerce no-other | no     |     |      |             |      |     | 0000 10 10
    ecommerce no-other |        |     |      |             |      |     | 1956
    no-other          | yes     |     |      |             |      |     | 1956
    needs-card        | yes     |     |      |             |      |     | 0000 10 10
    needs-card        |         |     |      |             |      |     | 1954
    needs-holder      |         |     |      |             |      |     | 1954
    ecommerce needs-card | no   |     |      |             |      |     | 0000 10 10
                      |         |     | 5    |             |      |     | 1955
    atm               |         |     | 5    |             |      |     | 0000 15 15
    no-other          |         |     | 5    |             |      |     | 1955
    atm no-other      |         |     | 5    |             |      |     | 1956
                      |         |     |      |             | 7995 |     | 1956
                      |         |     |      |             | 6051 | m1  | 1956
                      |         |     |      | quasi-cash  | 7995 |     | 0000 10 10
                      |         |     |      | exempt=m0,m1 | 7995 | m1 | 0000 10 10
                      |         |     |      | exempt=m0,m1 | 7995 | m  | 1956
                      |         |     |      | exempt=m0,m1 | 7994 | m  | 0000 10 10
"""

COUNTRIES = """
    rules   | country       | answer
            | USA           | 0000 10 10
            | GBR           | 0000 10 10
            | PRK           | 1864
    us-only | USA           | 0000 10 10
    us-only | US            | 0000 10 10
    us-only | us            | 0000 10 10
    us-only | 840           | 0000 10 10
    us-only | United States of America | 0000 10 10
    us-only | United States | 0000 10 10
    us-only | GBR           | 1864
    us-only | United Kingdom | 1864
    us-only | Atlantis      | 1864
            | GBR           | 0000 10 10
            | CUB           | 1864
            | CU            | 1864
            | Cuba          | 1864
            | IRN           | 1864
            | 408           | 1864
            | SYR           | 1864
            | Iran          | 1864
            | North Korea   | 1864
            | Syria         | 1864
"""

CODES = """
    poi       | rules       | present | 3ds | cvv   | pin   | answer
              |             |         |     | right |       | 0000 10 10
              |             |         |     | wrong |       | 1952
    ecommerce |             | no      |     |       |       | 0000 10 10
    ecommerce | require-cvv | no      |     |       |       | 1952
    ecommerce | require-cvv |         | 02  |       |       | 1952
    ecommerce | require-cvv | no      |     | right |       | 0000 10 10
    ecommerce | require-cvv | yes     |     |       |       | 0000 10 10
    ecommerce | require-cvv |         |     |       |       | 0000 10 10
    ecommerce | require-cvv | yes     |     | wrong |       | 1952
              |             |         |     |       | right | 0000 10 10
              |             |         |     |       | wrong | 1809
              | require-pin |         |     |       | right | 0000 10 10
              | require-pin |         |     |       | wrong | 1809
              | require-pin |         |     |       |       | 1956
              | require-icc | yes     |     |       | right | 1956
"""

# Rules that begin with `av-` apply to account verifications, and those that begin with `auth-` to purchases.
ADDRESSES = """
    amount | street         | zip    | address | rules                | verdict | answer
           |                |        |         | auth-street auth-zip |         | 0000 10 10
           | 12 Main Street | 94501AB |        | auth-street auth-zip | 0000    | 0000 10 10
           | 12 main st.    | 94501 AB |       | auth-street auth-zip | 0000    | 0000 10 10
           | 12 Main Street | 10000  |         |                      | 0001    | 0000 10 10
           | 12 Main Street | 10000  |         | auth-street          | 0001    | 0000 10 10
           | 12 Main Street | 10000  |         | auth-zip             | 0001    | 1953
           | 12 Main Street |        |         | auth-street auth-zip | 0002    | 0000 10 10
           | 21 Main Street | 94501AB |        |                      | 0100    | 0000 10 10
           | 21 Main Street | 94501AB |        | auth-zip             | 0100    | 0000 10 10
           | 21 Main Street | 94501AB |        | auth-street          | 0100    | 1953
           | 21 Main Street | 10000  |         |                      | 0101    | 0000 10 10
           | 21 Main Street | 10000  |         | auth-street          | 0101    | 1953
           | 21 Main Street | 10000  |         | auth-zip             | 0101    | 1953
           | 21 Main Street |        |         | auth-zip             | 0102    | 0000 10 10
           | 21 Main Street |        |         | auth-street          | 0102    | 1953
           |                | 94501AB |        | auth-street auth-zip | 0200    | 0000 10 10
           |                | 10000  |         |                      | 0201    | 0000 10 10
           |                | 10000  |         | auth-street          | 0201    | 0000 10 10
           |                | 10000  |         | auth-zip             | 0201    | 1953
           | 12 Main Street | 94501AB | none   | auth-street auth-zip | 0303    | 0000 10 10
           | 12 Main Street |        | none    | auth-street auth-zip | 0302    | 0000 10 10
           |                | 94501AB | none   | auth-street auth-zip | 0203    | 0000 10 10
           | 12 Main Street | 94501AB | street | auth-street auth-zip | 0003    | 0000 10 10
           | 21 Main Street | 94501AB | street | auth-zip            | 0103    | 0000 10 10
           | 21 Main Street | 94501AB | street | auth-street         | 0103    | 1953
           | 12 Main Street | 94501AB | zip   | auth-street auth-zip | 0300    | 0000 10 10
           | 12 Main Street | 10000  | zip     | auth-street          | 0301    | 0000 10 10
           | 12 Main Street | 10000  | zip     | auth-zip             | 0301    | 1953
           | 21 Main Street | 10000  |         | auth-off auth-street auth-zip | 0303 | 0000 10 10
           | 21 Main Street | 10000  |         | av-street av-zip     | 0101    | 0000 10 10
    0      | 21 Main Street | 10000  |         | auth-street auth-zip | 0101    | 1830 0 0
    0      | 21 Main Street | 10000  |         | av-street            | 0101    | 1953
    0      | 12 Main Street | 10000  |         | av-zip               | 0001    | 1953
    0      | 12 Main Street | 94501AB |        | av-street av-zip     | 0000    | 1830 0 0
    0      | 21 Main Street | 10000  |         | av-off av-street av-zip | 0303 | 1830 0 0
    0      |                |        |         | av-street av-zip     |         | 1830 0 0
    0      | 12 Main Street | 94501AB | none   | av-street av-zip     | 0303    | 1830 0 0
"""

MONEY = """
    source   | money | rules      | terminal  | amount | cash | poi | fee | limits    | answer
    active   |       |            |           |        |      |     |     |           | 0000 10 10
    inactive |       |            |           |        |      |     |     |           | 1016 refused
    inactive | 4     |            |           |        |      |     |     |           | 1016 refused
    inactive | 10    |            |           |        |      |     |     |           | 0000 10 0
    inactive |       |            |           | 0      |      |     |     |           | 1830 0 0
    active   | 4     |            |           |        |      |     |     |           | 0000 10 6
    active   | 4     | no-gpa     |           |        |      |     |     |           | 0000 10 10
    active   | 10    |            |           |        |      |     |     |           | 0000 10 0
    active   | -5    |            |           |        |      |     |     |           | 0000 10 10
    active   |       |            | incapable |        |      |     |     |           | 0000 10 10
    active   |       |            |           |        | 5    | atm |     |           | 0000 15 15
    active   |       |            |           |        |      |     | D2  |           | 0000 12 12
    active   |       |            |           |        |      |     | C2  |           | 0000 10 10
    active   |       |            |           | 0      |      |     | D2  |           | 0000 2 2
    none     | 10    |            |           |        |      |     |     |           | 0000 10 0
    none     | 4     |            |           |        |      |     |     |           | 0002 4 0
    none     | 4     | no-partial |           |        |      |     |     |           | 1016
    none     | 4     |            | incapable |        |      |     |     |           | 1016
    none     | 10    | no-gpa     |           |        |      |     |     |           | 1016
    none     |       |            |           |        |      |     |     |           | 1016
    none     | -5    |            |           |        |      |     |     |           | 1016
    none     |       |            |           | 0      |      |     |     |           | 1830 0 0
    none     | 15    |            |           | 20     | 20   | atm |     |           | 0002 15 0
    none     | 20    |            |           | 20     | 20   | atm |     |           | 0002 20 0
    none     | 39.99 |            |           | 20     | 20   | atm |     |           | 0002 20 0
    none     | 40    |            |           | 20     | 20   | atm |     |           | 0000 40 0
    none     | 15    |            |           | 0      | 20   | atm |     |           | 1016
    none     | 15    | no-partial |           | 10     | 20   | atm |     |           | 1016
    none     | 15    |            | incapable | 10     | 20   | atm |     |           | 1016
    none     | 15    |            |           | 10     | 20   | atm | D2  |           | 0002 12 0
    none     | 4     |            |           | 10     |      |     | D2  |           | 0002 4 0
    none     | 2.01  |            |           | 10     |      |     | D2  |           | 0002 2.01 0
    none     | 2     |            |           | 10     |      |     | D2  |           | 1016
    none     | 2     |            |           | 0      | 20   | atm | D2  |           | 1016
    none     | 1     |            |           | 0      |      |     | D2  |           | 1016
    inactive | 15    |            |           | 20     | 20   | atm |     |           | 1016 refused
    active   |       |            |           |        |      |     |     | amount=10 | 0000 10 10
    active   |       |            |           | 10.01  |      |     |     | amount=10 | 1834
    active   |       |            |           |        |      |     |     | count=0   | 1817
    inactive |       |            |           |        |      |     |     | count=0   | 1817
    active   |       |            |           | 0      |      |     |     | count=0   | 1830 0 0
    active   |       |            |           | 1e10   |      |     |     |           | 1016
    inactive |       |            |           | 1e10   |      |     |     |           | 1016
    none     | 4     |            |           | 1e10   |      |     |     |           | 1016
    active   |       |            |           | 1e10   |      |     |     | amount=10 | 1834
    active   |       |            |           | 9999999999 | 1 | atm |     |           | 1016
    active   |       |            |           | 9999999999 |   |     | D1  |           | 1016
    active   | 9999999999999980 | |          |        |      |     |     |           | 0000 10 0
    active   | 9999999999999990 | |          |        |      |     |     |           | 1016
    active   | -9999999999999992 | |         |        |      |     |     |           | 1016
"""

ORDER_OF_REFUSALS = (
    ("card", "UNACTIVATED", "1901"),
    ("expires", "0", "1001"),
    ("holder", "SUSPENDED", "1813"),
    ("product", "off", "1818"),
    ("cash", "5", "1955"),
    ("newcomer", "cash", "1955"),
    ("mcc", "7995", "1956"),
    ("country", "GBR", "1864"),
    ("abroad", "DEU", "1864"),
    ("pin", "wrong", "1809"),
    ("cvv", "wrong", "1952"),
    ("zip", "10000", "1953"),
    ("blocked", "everywhere", "1821"),
    ("limits", "count=0", "1817"),
    ("source", "inactive", "1016"),
)
"""One fault for each check, in the order of the checks."""

# A newcomer has not passed KYC. The pre_kyc_controls of the user's group allow neither cash nor foreign merchants.
# The card's home country is the USA, or the country in the column `abroad`.
NEWCOMERS = """
    newcomer | poi | cash | country | abroad  | blocked    | answer
    plain    |     |      |         |         |            | 0000 10 10
    plain    | atm | 5    |         |         |            | 1955
             | atm | 5    |         |         |            | 0000 15 15
    cash     |     |      |         |         |            | 1955
    plain    |     |      | GBR     |         |            | 1864
    plain    |     |      | US      |         |            | 0000 10 10
    plain    |     |      | GBR     | GBR     |            | 0000 10 10
    plain    |     |      | GBR     | United Kingdom |     | 0000 10 10
    plain    |     |      |         | GBR     |            | 1864
    free     | atm | 5    | GBR     |         |            | 0000 15 15
             |     |      | GBR     |         |            | 0000 10 10
             |     |      |         |         | everywhere | 1821
"""

TABLES = {
    "newcomers": NEWCOMERS,
    "card and holder": CARD_AND_HOLDER, "product": PRODUCT_DATES, "ways of paying": WAYS_OF_PAYING, "countries": COUNTRIES,
    "codes": CODES, "addresses": ADDRESSES, "money": MONEY,
}  # fmt: skip

RULES: dict[str, dict[str, Any]] = {
    "ignore-suspended": {"ignore_card_suspended_state": True},
    "quasi-cash": {"allow_quasi_cash": True},
    "us-only": {"accepted_countries_token": "accept_us_only"},
    "require-cvv": {"require_card_not_present_card_security_code": True},
    "require-pin": {"always_require_pin": True},
    "require-icc": {"always_require_icc": True},
    "no-gpa": {"allow_gpa_auth": False},
    "no-partial": {"enable_partial_auth_approval": False},
}

CONTROLS = TransactionControls(
    accepted_countries_token="decline_ofac_countries", always_require_pin=False, always_require_icc=False, allow_gpa_auth=True,
    require_card_not_present_card_security_code=False, ignore_card_suspended_state=False, allow_quasi_cash=False,
    enable_partial_auth_approval=True,
    address_verification=AddressChecks(
        av_messages=AddressCheck(
            validate=True, decline_on_address_number_mismatch=False, decline_on_postal_code_mismatch=False
        ),
        auth_messages=AddressCheck(
            validate=True, decline_on_address_number_mismatch=False, decline_on_postal_code_mismatch=False
        ),
    ),
)  # fmt: skip

SOURCE = SourceFact(token="bank", name="Bank", active=True, created_time="", last_modified_time="")

VERDICTS = {"": None, "right": True, "wrong": False, "yes": True, "no": False}


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a table as dictionaries by column."""
    head, *lines = ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]


def units(text: str) -> int:
    """Return the minor units of an amount in whole units."""
    return round(float(text) * 100)


def address_rule(words: list[str], which: str) -> AddressCheck:
    """Return the address rule for one kind of message: `av` or `auth`."""
    return AddressCheck(
        validate=f"{which}-off" not in words,
        decline_on_address_number_mismatch=f"{which}-street" in words,
        decline_on_postal_code_mismatch=f"{which}-zip" in words,
    )


def controls_of(text: str) -> TransactionControls:
    """Return the transaction controls of the cell `rules`."""
    words, fields = text.split(), dict[str, Any]()
    for word in words:
        if word.startswith("exempt="):
            fields["quasi_cash_exempt_mids"] = word.removeprefix("exempt=")
        elif not word.startswith(("av-", "auth-")):
            fields |= RULES[word]
    fields["address_verification"] = AddressChecks(
        av_messages=address_rule(words, "av"), auth_messages=address_rule(words, "auth")
    )
    return msgspec.structs.replace(CONTROLS, **fields)


def product_of(row: dict[str, str]) -> ProductFact:
    """Return the card product of a row."""
    word, _, day = row.get("product", "").partition(" ")
    poi = row.get("poi", "").split()
    assert word in ("", "off", "from", "to")
    return ProductFact(
        token="p", active=word != "off", start_date=day if word == "from" else "2020-01-01",
        end_date=day if word == "to" else None,
        config=ProductConfig(
            poi=Poi(
                other=OtherPoi(
                    allow="no-other" not in poi, card_presence_required="needs-card" in poi,
                    cardholder_presence_required="needs-holder" in poi,
                ),
                ecommerce="ecommerce" in poi, atm="atm" in poi,
            ),
            transaction_controls=controls_of(row.get("rules", "")),
            jit_funding=JitFunding(program_funding_source=ProgramFunding(enabled=row.get("source") != "none")),
            fulfillment=Fulfillment(all_zero_card_security_code=False, bin_issue_country=row.get("abroad") or None),
        ),
    )  # fmt: skip


def limits_of(text: str) -> tuple[Control, ...]:
    """Return the velocity control of the cell `limits`, if it has one."""
    if not text:
        return ()
    name, _, value = text.partition("=")
    control = Control(
        id=1, token="v", name="limit", amount_limit=units(value) if name == "amount" else 10**9,
        usage_limit=int(value) if name == "count" else None, window=Window.DAY, currency="USD", since_ms=0,
    )  # fmt: skip
    return (resolved_control(control),)


def spend_of(row: dict[str, str]) -> Spend:
    """Return the merchant blocks and the pre-KYC rules of a row."""
    newcomer, blocks = row.get("newcomer", ""), bool(row.get("blocked"))
    is_new = newcomer != "" or row.get("abroad", "") != ""
    free = PreKyc(cash_access_enabled=True, international_enabled=True)
    return Spend(
        merchant_blocks=(MerchantRule(id=1, token="a", name="closed"),) if blocks else (),
        pre_kyc=(free if newcomer == "free" else PreKyc()) if is_new else None,
    )


def snapshot_of(row: dict[str, str], now: int) -> Snapshot:
    """Return the snapshot of a row."""
    state, _, reason_code = (row.get("card") or "ACTIVE").partition("/")
    source, money = row.get("source") or "active", units(row.get("money") or "0")
    has = (row.get("address") or "street zip").split()
    return Snapshot(
        currency="USD",
        card=CardFact(
            token="c", user_token="u", card_product_token="p", state=CardState(state), last_four="0001", expiration="1230",
            expires_ms=now + int(row.get("expires") or 10**9), service_code="101", reason_code=reason_code or None,
        ),
        user=UserFact(
            token="u", status=HolderStatus(row.get("holder") or "ACTIVE"), address1="12 Main Street" if "street" in has else None,
            postal_code="94-501 ab" if "zip" in has else None,
        ),
        owner=UserFact(token="o", status=HolderStatus(row.get("owner") or "ACTIVE")),
        product=product_of(row),
        source=None if source == "none" else msgspec.structs.replace(SOURCE, active=source == "active"),
        # The account always has a hold, so that ledger and available balance differ.
        account=Account({"USD": (money + 300, 300)}),
        velocity_limits=limits_of(row.get("limits", "")),
        spend=spend_of(row),
    )  # fmt: skip


def request_of(row: dict[str, str]) -> Authorization:
    """Return the purchase of a row."""
    merchant = Merchant(
        mcc=row.get("mcc") or "5411", country=row.get("country") or "USA", security_level=row.get("3ds") or None,
        partial_approval_capable=row.get("terminal") != "incapable",
    )  # fmt: skip
    fee = row.get("fee")
    details = Details(
        mid=row.get("mid") or "m9", merchant=merchant, cash_back=units(row.get("cash") or "0"),
        fees=(Fee("ACQUIRER_FEE", units(fee[1:]), fee[0]), Fee("INTERCHANGE_FEE", 7, "D")) if fee else (),
        card_present=VERDICTS[row.get("present", "")], expiration_matches=VERDICTS[row.get("typed", "")],
        velocity_category=VelocityCategory.WITHDRAWAL if row.get("newcomer") == "cash" else VelocityCategory.PURCHASE,
        security_code_matches=VERDICTS[row.get("cvv", "")], pin_matches=VERDICTS[row.get("pin", "")],
        typed_street=row.get("street") or None, typed_postal_code=row.get("zip") or None,
    )  # fmt: skip
    return Authorization(amount=units(row.get("amount") or "10"), details=details)


def time_of(row: dict[str, str]) -> int:
    """Return the time of the decision, in milliseconds."""
    return parse_instant(row["now"]) if row.get("now") else NOON


def decided(row: dict[str, str]) -> Decision:
    """Return the decision on a row of a table."""
    now = time_of(row)
    return decide(snapshot_of(row, now), request_of(row), now)


def answer_of(decision: Decision) -> str:
    """Return the decision in the form of the column `answer`."""
    if decision.is_approved:
        return f"{decision.reason.code} {decision.amount / 100:g} {decision.moved / 100:g}"
    return f"{decision.reason.code} refused" if decision.order_refused else decision.reason.code


ROWS = [pytest.param(row, id=f"{name} {n}") for name, table in TABLES.items() for n, row in enumerate(rows_of(table), 1)]


@pytest.mark.parametrize("row", ROWS)
def test_a_purchase_is_answered_as_the_tables_say(row: dict[str, str]) -> None:
    """Each row has the answer, and the outcome of the address verification, of its columns `answer` and `verdict`."""
    assert answer_of(decided(row)) == row["answer"]
    if "verdict" in row:
        assert (address_verdict(snapshot_of(row, NOON), request_of(row)) or "") == row["verdict"]


@pytest.mark.parametrize("first", range(len(ORDER_OF_REFUSALS)))
def test_the_first_check_that_refuses_gives_the_reason(first: int) -> None:
    """A purchase with this fault and all later ones gets the answer of this fault. The test covers every place in the order."""
    row = {column: cell for column, cell, _ in ORDER_OF_REFUSALS[first:]} | {"rules": "us-only auth-zip"}
    decision = decided(row)
    assert decision.reason.code == ORDER_OF_REFUSALS[first][2]
    assert decision.order_refused is (ORDER_OF_REFUSALS[first][0] == "source")


def test_the_order_of_refusals_has_every_check() -> None:
    """The fault in each row fails exactly the check with the same number. The last two rows are for velocity limits and funds."""
    assert len(ORDER_OF_REFUSALS) == len(CHECKS) + 2
    for place, check in enumerate(CHECKS):
        column, cell, _ = ORDER_OF_REFUSALS[place]
        row = {column: cell, "rules": "us-only auth-zip"}
        refusing = [other.name for other in CHECKS if other.refusal(snapshot_of(row, NOON), request_of(row), NOON) is not None]
        assert refusing == [check.name]


def test_the_tables_have_every_reason_and_every_address_verdict() -> None:
    """Every response of an authorization and every outcome of the address verification has a row."""
    rows = [row for table in TABLES.values() for row in rows_of(table)]
    follow_ups = {Reason.PREVIOUSLY_REVERSED, Reason.PREVIOUSLY_COMPLETED, Reason.INVALID_AMOUNT, Reason.ORIGINAL_NOT_FOUND}
    assert {row["answer"].split()[0] for row in rows} == {
        reason.code for reason in set(Reason) - follow_ups - {Reason.ACCOUNT_LOAD_FAILED}
    }
    assert {row["verdict"] for row in rows if row.get("verdict")} == set(ADDRESS_VERDICTS)


def test_a_refusal_moves_nothing_and_says_what_was_asked() -> None:
    """A declined purchase leaves the account unchanged, has no legs, and shows the whole amount, cash back included."""
    row = {"source": "none", "money": "4", "terminal": "incapable", "cash": "5", "poi": "atm"}
    decision = decided(row)
    assert (decision.state, decision.impacted, decision.moved, sum(map(abs, decision.legs))) == (State.DECLINED, None, 0, 0)
    assert (decision.requested, decision.amount) == (15_00, 15_00)
    assert decision.account == snapshot_of(row, NOON).account


def test_codes_are_unique_and_four_digits() -> None:
    """Every reason has a different code, so that a stored code identifies it."""
    assert len(REASON_OF) == len(Reason)
    assert all(len(reason.code) == 4 and REASON_OF[int(reason.code)] is reason for reason in Reason)


# --- For all snapshots -----------------------------------------------------------------

CELLS = {
    "card": ("", "", "", "SUSPENDED", "TERMINATED/10"), "expires": ("", "", "0"), "holder": ("", "", "SUSPENDED"),
    "product": ("", "", "off"), "poi": ("", "atm", "ecommerce"), "present": ("", "yes", "no"), "cash": ("", "", "5"),
    "mcc": ("", "7995"), "country": ("", "GBR"), "cvv": ("", "right", "wrong"), "pin": ("", "right", "wrong"),
    "rules": ("", "us-only", "no-gpa", "no-partial", "quasi-cash", "auth-zip", "require-cvv"),
    "source": ("active", "inactive", "none"), "money": ("", "4", "10", "500", "-5"), "terminal": ("", "incapable"),
    "zip": ("", "10000"), "fee": ("", "D2", "C2"), "limits": ("", "amount=10", "count=0"),
    "newcomer": ("", "", "plain", "cash"), "blocked": ("", "", "everywhere"), "amount": ("", "0", "10.01", "7"),
}  # fmt: skip

any_row = st.fixed_dictionaries({column: st.sampled_from(cells) for column, cells in CELLS.items()})
amounts = st.integers(1, 2000)


@st.composite
def any_question(draw: st.DrawFn) -> tuple[Snapshot, Message]:
    """Draw a purchase, or a follow-up of a chain in any state, with its snapshot."""
    row = draw(any_row)
    snapshot = snapshot_of(row, NOON)
    kind = draw(st.sampled_from((Authorization, Authorization, Advice, Reversal, Clearing, Refund)))
    if kind is Authorization:
        return snapshot, request_of(row)
    hold = draw(st.integers(0, 1500))
    load = draw(st.integers(0, hold)) if snapshot.source else 0
    chain = Chain(State.PENDING if hold else State.CLEARED, 1500, hold, load, draw(st.sampled_from((0, 500))))
    fields = {"is_forced": draw(st.booleans())} if kind is Clearing else {}
    return msgspec.structs.replace(snapshot, chain=chain), kind(amount=draw(amounts), details=Details(mid="m9"), **fields)


@given(any_question())
def test_a_decision_is_a_function_of_what_it_sees(question: tuple[Snapshot, Message]) -> None:
    """Two decisions on the same snapshot and message are equal, and neither input has changed."""
    snapshot, message = question
    before = msgspec.msgpack.encode((snapshot, message))
    assert decide(snapshot, message, NOON) == decide(snapshot, message, NOON)
    assert msgspec.msgpack.encode((snapshot, message)) == before


@given(any_question())
def test_what_is_booked_is_what_changes(question: tuple[Snapshot, Message]) -> None:
    """The legs sum to zero and equal the change of the account. A decline has no legs and changes no balance."""
    snapshot, message = question
    decision = decide(snapshot, message, NOON)
    (ledger, held), (ledger_after, held_after) = snapshot.account.money("USD"), decision.account.money("USD")
    legs = decision.legs
    assert sum(legs) == 0
    assert (ledger_after - ledger, held_after - held) == (legs.available + legs.held, legs.held)
    if decision.is_approved:
        # A clearing shows the load of its hold too, so `moved` may exceed the load that it draws.
        drawn = -legs.program_funding
        assert decision.moved >= drawn if isinstance(message, Clearing) else decision.moved == drawn
    else:
        assert decision.account == snapshot.account
        assert not any(legs)


@given(any_question())
def test_a_chain_never_holds_less_than_nothing(question: tuple[Snapshot, Message]) -> None:
    """Open hold and load are never negative and never increase, and the load is at most the hold."""
    snapshot, message = question
    decision = decide(snapshot, message, NOON)
    if snapshot.chain is None or decision.chain is None:
        assert decision.hold_left == (decision.amount if isinstance(message, Authorization) and decision.is_approved else 0)
        assert 0 <= decision.load_left <= decision.hold_left
        return
    assert 0 <= decision.chain.load_left <= decision.chain.hold_left <= snapshot.chain.hold_left
    assert (decision.chain.state == State.PENDING) == (decision.chain.hold_left > 0)
