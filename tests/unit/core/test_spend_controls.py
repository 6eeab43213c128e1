"""Spend controls: tables of controls, and of purchases with their answers, holds and hold durations."""

from typing import Any

import msgspec
import pytest

from cardwright.core.decide import decide
from cardwright.core.decision import Decision
from cardwright.core.enums import State
from cardwright.core.explain import explain
from cardwright.core.holds import hold_expiration_days
from cardwright.core.lifecycle import advise, clear, reverse
from cardwright.core.messages import Advice, Authorization, Clearing, Details, Merchant, Reversal, VelocityCategory
from cardwright.core.snapshot import Account, Chain, Snapshot
from cardwright.core.spend_controls import (
    CountryList,
    Groups,
    Increase,
    IncreaseType,
    MccGroup,
    MerchantRule,
    Spend,
    applying,
    by_level,
    categories_of,
    expanded,
    resolved_rule,
)
from cardwright.core.velocity import Change, Control, Event, Window, keeping, recounted, resolved_control
from cardwright.kit.clock import parse_instant
from cardwright.resources.controls.scope import moment_of
from tests.unit.core.test_checks import snapshot_of, units

# Format of the tables. The first part has one control per line: `auth NAME`, `exempt NAME`, `velocity NAME`, `group NAME CODES`,
# `merchants NAME IDS` or `countries NAME CODES`, then its fields. The second part has one purchase per line. The default is 10.00
# by user u with a card of product p at merchant m9 of category 5411, at noon on Tuesday, 4 March 2025. `before` has earlier
# purchases of the user as `DAY TIME AMOUNT[@MCC]`. The answer is the code, then the hold of an approval or the name of the
# control that declined.

MERCHANT_SCOPES = (
    """
    merchants cinemas M1,M2,000123
    merchants none -
    group drinks 5812-5814,5921
    auth one      mid=M7 user=u
    auth code     mcc=7993 user=u
    auth short    mcc=763 user=u
    auth bars     mcc_group=drinks user=u
    auth films    merchant_group=cinemas user=u
    auth nobody   merchant_group=none user=u
    auth gone     mcc_group=no-such-group user=u
    """,
    """
    mid    | mcc  | answer
           |      | 0000 10
    M7     |      | 1821 one
    m7     |      | 0000 10
    M7 x   |      | 0000 10
    M77    |      | 0000 10
           | 7993 | 1821 code
           | 7994 | 0000 10
           | 0763 | 1821 short
           | 5811 | 0000 10
           | 5812 | 1821 bars
           | 5813 | 1821 bars
           | 5814 | 1821 bars
           | 5815 | 0000 10
           | 5921 | 1821 bars
           | 5920 | 0000 10
    M1     |      | 1821 films
    M2     |      | 1821 films
    000123 |      | 1821 films
    123    |      | 0000 10
    M1,M2  |      | 0000 10
    M1     | 7993 | 1821 code
    M7     | 5813 | 1821 one
    """,
)

LEVELS = (
    """
    auth everybody mcc=5933
    auth product   mcc=5944 product=p
    auth other     mcc=5945 product=q
    auth user      mcc=5946 user=u
    auth frozen    user=w
    auth closed    product=z
    """,
    """
    user | product | mcc  | answer
         |         | 5933 | 1821 everybody
    w2   | q       | 5933 | 1821 everybody
         |         | 5944 | 1821 product
    w2   | p       | 5944 | 1821 product
         | q       | 5944 | 0000 10
         | q       | 5945 | 1821 other
         |         | 5945 | 0000 10
         |         | 5946 | 1821 user
         | q       | 5946 | 1821 user
    w2   |         | 5946 | 0000 10
    w    |         | 5411 | 1821 frozen
    w    | q       | 5933 | 1821 frozen
    w2   | z       | 5411 | 1821 closed
         | z       | 5946 | 1821 user
    """,
)

TIMES = (
    """
    auth hour   mcc=1001 user=u from=2025-03-04T10:00:00Z to=2025-03-04T11:00:00Z
    auth east   mcc=1002 user=u from=2025-03-04T10:00:00+02:00 to=2025-03-04T11:00:00+02:00
    auth west   mcc=1003 user=u from=2025-03-03T23:30:00.000-0500
    auth day    mcc=1004 user=u from=2025-03-05
    auth until  mcc=1005 user=u to=2025-03-04T12:00:00.500Z
    auth rfc    mcc=1006 user=u from=Tue,_04_Mar_2025_12:00:00_GMT
    auth naive  mcc=1007 user=u from=2025-03-04T12:00:01
    """,
    """
    when                | mcc  | answer
    2025-03-04 09:59:59 | 1001 | 0000 10
    2025-03-04 10:00:00 | 1001 | 1821 hour
    2025-03-04 10:59:59 | 1001 | 1821 hour
    2025-03-04 10:59:59.999 | 1001 | 1821 hour
    2025-03-04 11:00:00 | 1001 | 0000 10
    2025-03-04 07:59:59 | 1002 | 0000 10
    2025-03-04 08:00:00 | 1002 | 1821 east
    2025-03-04 08:59:59 | 1002 | 1821 east
    2025-03-04 09:00:00 | 1002 | 0000 10
    2025-03-04 10:00:00 | 1002 | 0000 10
    2025-03-04 04:29:59 | 1003 | 0000 10
    2025-03-04 04:30:00 | 1003 | 1821 west
    2099-12-31 23:59:59 | 1003 | 1821 west
    2025-03-04 23:59:59 | 1004 | 0000 10
    2025-03-05 00:00:00 | 1004 | 1821 day
    2000-01-01 00:00:00 | 1005 | 1818
    2025-03-04 12:00:00.499 | 1005 | 1821 until
    2025-03-04 12:00:00.500 | 1005 | 0000 10
    2025-03-04 11:59:59 | 1006 | 0000 10
    2025-03-04 12:00:00 | 1006 | 1821 rfc
    2025-03-04 12:00:00 | 1007 | 0000 10
    2025-03-04 12:00:01 | 1007 | 1821 naive
    """,
)

EXEMPTIONS = (
    """
    merchants friends F1,F2
    auth all        product=p
    auth mine       mcc=5411 user=w
    exempt one      mid=M1
    exempt friends  merchant_group=friends user=u
    exempt product  mid=M3 product=p
    exempt later    mid=M4 from=2025-03-04T12:00:01Z to=2025-03-04T12:00:03Z
    exempt elsewho  mid=M5 user=w
    velocity day    limit=100 mid=M1
    """,
    """
    when                | user | product | mid | amount | answer
                        |      |         |     |        | 1821 all
                        |      |         | M1  |        | 0000 10
                        |      |         | M1  | 100    | 0000 100
                        |      |         | M1  | 100.01 | 1834 day
                        | w    |         | M1  |        | 0000 10
                        | w    |         | M9  |        | 1821 mine
                        | w    | q       | M9  |        | 1821 mine
                        | w    | q       | M1  |        | 0000 10
                        |      |         | F1  |        | 0000 10
                        |      |         | F2  |        | 0000 10
                        | w2   |         | F2  |        | 1821 all
                        |      |         | M3  |        | 0000 10
                        | w    | q       | M3  |        | 1821 mine
                        |      |         | M4  |        | 1821 all
    2025-03-04 12:00:01 |      |         | M4  |        | 0000 10
    2025-03-04 12:00:02 |      |         | M4  |        | 0000 10
    2025-03-04 12:00:03 |      |         | M4  |        | 1821 all
                        |      |         | M5  |        | 1821 all
                        | w    |         | M5  |        | 0000 10
                        |      | q       | M9  |        | 0000 10
    """,
)

HOLDS = (
    """
    group pumps   5542           hold=AMOUNT:25 days=2
    group fuel    5541-5542      hold=PERCENT:10
    group odd     5543           hold=PERCENT:12.5
    group table   5812           hold=PERCENT:20 days=10
    group upto    3501-3838      hold=UP_TO_LIMIT:200 days=30
    group nothing 5999           days=3
    group zero    5998           hold=AMOUNT:0
    velocity week limit=100 window=WEEK user=w
    """,
    """
    user | product | mcc  | amount | flow | money | answer         | days
         |         | 5542 | 1      |      |       | 0000 26        | 2
         |         | 5542 | 300    |      |       | 0000 330       | 2
         |         | 5541 | 50     |      |       | 0000 55        | 7
         |         | 5541 | 0.04   |      |       | 0000 0.04      | 7
         |         | 5541 | 0.05   |      |       | 0000 0.06      | 7
         |         | 5543 | 1.00   |      |       | 0000 1.13      | 7
         |         | 5812 | 80     |      |       | 0000 96        | 10
         |         | 3600 | 50     |      |       | 0000 200       | 30
         |         | 3501 | 200    |      |       | 0000 200       | 30
         |         | 3838 | 250    |      |       | 0000 250       | 30
         |         | 3500 | 50     |      |       | 0000 50        | 7
         |         | 5999 | 10     |      |       | 0000 10        | 3
         |         | 5998 | 10     |      |       | 0000 10        | 7
         |         | 5411 | 10     |      |       | 0000 10        | 7
         |         | 5542 | 0      |      |       | 1830 0         | 2
         |         | 5542 | 10     | w    |       | 0000 10        | 2
         | free    | 5542 | 10     |      |       | 0000 10        | 7
    w    |         | 5542 | 75     |      |       | 0000 100       | 2
    w    |         | 5542 | 75.01  |      |       | 1834 week      | 2
    w    |         | 5542 | 90.91  |      |       | 1834 week      | 2
         | none    | 5542 | 75     |      | 100   | 0000 100       | 2
         | none    | 5542 | 75     |      | 99    | 1016           | 2
         | none    | 5411 | 75     |      | 50    | 0002 50        | 7
    """,
)

WINDOWS = (
    """
    velocity day   limit=100 uses=3 window=DAY user=u
    velocity week  limit=100 window=WEEK user=w
    velocity month limit=100 window=MONTH user=x
    velocity once  limit=50 window=TRANSACTION user=y
    velocity life  limit=100 window=LIFETIME user=z since=2025-03-04T10:00:00Z
    """,
    """
    user | when                | before                                       | amount | answer
         | 2025-03-04 23:59:59 | 2025-03-04 00:00:00 90                       | 10     | 0000 10
         | 2025-03-04 23:59:59 | 2025-03-04 00:00:00 90                       | 10.01  | 1834 day
         | 2025-03-04 23:59:59.999 | 2025-03-04 00:00:00 90                   | 10.01  | 1834 day
         | 2025-03-05 00:00:00 | 2025-03-04 23:59:59 90                       | 100    | 0000 100
         | 2025-03-04 00:00:00 | 2025-03-03 23:59:59 90                       | 100    | 0000 100
         | 2025-03-04 12:00:00 | 2025-03-04 01:00:00 1, 2025-03-04 02:00:00 1 | 1      | 0000 1
         | 2025-03-04 12:00:00 | 2025-03-04 01:00:00 1, 2025-03-04 02:00:00 1, 2025-03-04 02:00:01 1 | 1 | 1817 day
         | 2025-03-05 00:00:00 | 2025-03-04 01:00:00 1, 2025-03-04 02:00:00 1, 2025-03-04 23:59:59 1 | 1 | 0000 1
    w    | 2025-03-08 23:59:59 | 2025-03-02 00:00:00 100                      | 1      | 1834 week
    w    | 2025-03-08 23:59:59 | 2025-03-01 23:59:59 100                      | 1      | 0000 1
    w    | 2025-03-09 00:00:00 | 2025-03-08 23:59:59 100                      | 100    | 0000 100
    x    | 2025-03-31 23:59:59 | 2025-03-01 00:00:00 100                      | 1      | 1834 month
    x    | 2025-03-31 23:59:59 | 2025-02-28 23:59:59 100                      | 1      | 0000 1
    x    | 2025-04-01 00:00:00 | 2025-03-31 23:59:59 100                      | 100    | 0000 100
    x    | 2024-02-29 23:59:59 | 2024-02-01 00:00:00 100                      | 1      | 1834 month
    x    | 2026-01-01 00:00:00 | 2025-12-31 23:59:59 100                      | 1      | 0000 1
    y    | 2025-03-04 12:00:00 | 2025-03-04 11:00:00 50                       | 50     | 0000 50
    y    | 2025-03-04 12:00:00 |                                              | 50.01  | 1834 once
    z    | 2031-03-04 12:00:00 | 2025-03-04 09:59:59 100                      | 100    | 0000 100
    z    | 2031-03-04 12:00:00 | 2025-03-04 10:00:00 100                      | 1      | 1834 life
    """,
)

FLAGS = (
    """
    group drinks 5812-5814
    velocity drinks     limit=30 mcc_group=drinks user=u
    velocity no-cash    limit=30 user=w include_withdrawals=false
    velocity only-cash  limit=30 user=x include_purchases=false
    velocity no-money   limit=30 user=y
    velocity credits    limit=30 user=z include_credits=true include_transfers=false
    """,
    """
    user | mcc  | flow | before                     | amount | answer
         | 5813 |      |                            | 30     | 0000 30
         | 5411 |      |                            | 500    | 0000 500
         | 5813 |      |                            | 30.01  | 1834 drinks
         | 5814 |      | 2025-03-04 09:00:00 20@5812 | 11    | 1834 drinks
         | 5814 |      | 2025-03-04 09:00:00 20@5411 | 30    | 0000 30
    w    |      | w    |                            | 500    | 0000 500
    w    |      |      | 2025-03-04 09:00:00 20     | 11     | 1834 no-cash
    w    |      | w    | 2025-03-04 09:00:00 30     | 11     | 0000 11
    x    |      |      |                            | 500    | 0000 500
    x    |      | w    |                            | 30.01  | 1834 only-cash
    y    |      | c    |                            | 500    | 0000 500
    y    |      | t    |                            | 31     | 1834 no-money
    z    |      | c    |                            | 31     | 1834 credits
    z    |      | t    |                            | 31     | 0000 31
    """,
)

COUNTRIES = (
    """
    countries america 124,840 only
    countries embargo 643,112
    """,
    """
    list    | country        | answer
    america | USA            | 0000 10
    america | CAN            | 0000 10
    america | Canada         | 0000 10
    america | 124            | 0000 10
    america | MEX            | 1864
    america | Atlantis       | 1864
    embargo | USA            | 0000 10
    embargo | Russia         | 1864
    embargo | BY             | 1864
    embargo | Atlantis       | 0000 10
    missing | USA            | 1864
    """,
)

TABLES = {
    "merchant scopes": MERCHANT_SCOPES, "levels": LEVELS, "times": TIMES, "exemptions": EXEMPTIONS, "holds": HOLDS,
    "windows": WINDOWS, "flags": FLAGS, "countries": COUNTRIES,
}  # fmt: skip


class Rules:
    """The controls of a table."""

    def __init__(self, text: str) -> None:
        lines = [line.split() for line in text.strip().splitlines()]
        by_kind = {kind: [line[1:] for line in lines if line[0] == kind] for kind in ("group", "merchants", "countries")}
        mids = {name: frozenset(ids.split(",")) - {"-"} for name, ids in by_kind["merchants"]}
        self.groups = Groups({name: group_of(name, codes, words) for name, codes, *words in by_kind["group"]}, mids)
        self.countries = {
            name: CountryList(token=name, name=name, is_whitelist="only" in words, country_codes=frozenset(codes.split(",")))
            for name, codes, *words in by_kind["countries"]
        }
        controls = [(number, *line) for number, line in enumerate(lines)]
        self.auth, self.exempt = (
            by_level(
                resolved_rule(rule_of(number, name, fields_of(words)), self.groups)
                for number, kind, name, *words in controls
                if kind == of
            )
            for of in ("auth", "exempt")
        )
        self.velocity = by_level(
            resolved_control(velocity_of(number, name, fields_of(words)), self.groups)
            for number, kind, name, *words in controls
            if kind == "velocity"
        )

    def snapshot(self, row: dict[str, str]) -> Snapshot:
        """Return the snapshot of a purchase."""
        now, user, product = time_of(row), row.get("user") or "u", row.get("product") or "p"
        plain = snapshot_of({"source": "none", "money": row["money"]} if product == "none" else {}, now)
        rules = msgspec.structs.replace(
            plain.product.config.transaction_controls,
            allow_mcc_group_authorization_controls=product != "free",
            accepted_countries_token=row.get("list") or "decline_ofac_countries",
        )  # fmt: skip
        config = msgspec.structs.replace(plain.product.config, transaction_controls=rules)
        controls = applying(self.velocity, user, product)
        usages = {control.key: recounted(control, changes_of(row), now) for control in keeping(controls)}
        return msgspec.structs.replace(
            plain,
            product=msgspec.structs.replace(plain.product, config=config),
            user=msgspec.structs.replace(plain.user, token=user),
            owner=msgspec.structs.replace(plain.owner, token=user),
            account=Account(plain.account.balances, usages),
            velocity_limits=controls,
            spend=Spend(
                merchant_blocks=applying(self.auth, user, product),
                exemptions=applying(self.exempt, user, product),
                categories=categories_of(row.get("mcc") or "5411", self.groups.mccs.values()),
                countries=self.countries.get(row.get("list", "")),
            ),
        )


def fields_of(words: list[str]) -> dict[str, str]:
    """Return words of the form ``key=value`` as a dictionary."""
    return dict(word.split("=", 1) for word in words)


def group_of(name: str, codes: str, words: list[str]) -> MccGroup:
    """Return an MCC group."""
    fields = fields_of(words)
    kind, _, value = fields.get("hold", "").partition(":")
    increase = Increase(IncreaseType(kind), units(value)) if kind else None
    days = int(fields["days"]) if "days" in fields else None
    return MccGroup(token=name, name=name, mccs=tuple(codes.split(",")), increase=increase, hold_days=days)


def rule_of(number: int, name: str, fields: dict[str, str]) -> MerchantRule:
    """Return an authorization control or an exemption."""
    words = {"start_ms": "from", "end_ms": "to"}
    times = {key: moment_of(key, fields[word].replace("_", " ")) for key, word in words.items() if word in fields}
    return MerchantRule(
        id=number, token=f"token-{name}", name=name, user_token=fields.get("user"), card_product_token=fields.get("product"),
        mid=fields.get("mid"), mcc=fields["mcc"].zfill(4) if "mcc" in fields else None, mcc_group=fields.get("mcc_group"),
        merchant_group=fields.get("merchant_group"), **times,
    )  # fmt: skip


def velocity_of(number: int, name: str, fields: dict[str, str]) -> Control:
    """Return a velocity control."""
    flags: dict[str, Any] = {key: value == "true" for key, value in fields.items() if key.startswith("include_")}
    return Control(
        id=number, token=name, name=name, amount_limit=units(fields["limit"]),
        usage_limit=int(fields["uses"]) if "uses" in fields else None, window=Window(fields.get("window", "DAY")), currency="USD",
        since_ms=parse_instant(fields.get("since", "2025-01-01")), user_token=fields.get("user"),
        mid=fields.get("mid"), mcc_group=fields.get("mcc_group"), **flags,
    )  # fmt: skip


def changes_of(row: dict[str, str]) -> list[tuple[int, list[Change]]]:
    """Return the changes of usage by the purchases in the cell `before`."""
    past = []
    for text in filter(None, row.get("before", "").split(", ")):
        day, time, purchase = text.split()
        amount, _, mcc = purchase.partition("@")
        event = Event("m9", mcc or "5411", "USD", units(amount), 0, 1, True)
        time_ms = parse_instant(f"{day}T{time}")
        past.append((time_ms, [Change(time_ms, event)]))
    return past


def time_of(row: dict[str, str]) -> int:
    """Return the time of the decision, in milliseconds."""
    return parse_instant((row.get("when") or "2025-03-04 12:00:00").replace(" ", "T"))


def request_of(row: dict[str, str]) -> Authorization:
    """Return the purchase of a row."""
    merchant = Merchant(mcc=row.get("mcc") or "5411", country=row.get("country") or "USA")
    details = Details(mid=row.get("mid") or "m9", merchant=merchant, velocity_category=VelocityCategory(row.get("flow") or "p"))
    return Authorization(amount=units(row.get("amount") or "10"), details=details)


def answer_of(decision: Decision) -> str:
    """Return the decision in the form of the column `answer`."""
    if decision.is_approved:
        return f"{decision.reason.code} {decision.amount / 100:g}"
    return f"{decision.reason.code} {decision.limited_by or ''}".strip()


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a table as dictionaries by column."""
    head, *lines = ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]


ROWS = [
    pytest.param(name, row, id=f"{name} {number}")
    for name, (_, table) in TABLES.items()
    for number, row in enumerate(rows_of(table), 1)
]
RULES = {name: Rules(text) for name, (text, _) in TABLES.items()}


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_purchase_is_answered_as_the_table_says(name: str, row: dict[str, str]) -> None:
    """Code, hold, declining control and hold duration are those of the row. The explanation has the same decision."""
    snapshot, request, now = RULES[name].snapshot(row), request_of(row), time_of(row)
    decision = decide(snapshot, request, now)
    assert answer_of(decision) == row["answer"]
    if "days" in row:
        assert hold_expiration_days(snapshot) == int(row["days"])
    replay, steps = explain(snapshot, request, now)
    assert replay == decision
    refusals = [step["response"]["code"] for step in steps if step["verdict"] == "refuse"]
    assert refusals == ([] if decision.is_approved else [decision.reason.code])


def test_there_are_enough_rows() -> None:
    """There are at least 100 rows, and every table has some."""
    assert len(ROWS) >= 100
    assert {name for name, _ in (row.values for row in ROWS)} == set(TABLES)


def test_what_an_increase_asks_is_not_what_the_merchant_asked() -> None:
    """A hold increase changes amount, hold and impacted amount, but not the requested amount. The legs sum to zero."""
    decision = decide(RULES["holds"].snapshot({"mcc": "5542"}), request_of({"mcc": "5542", "amount": "1"}), time_of({}))
    assert (decision.requested, decision.amount, decision.hold_left, decision.impacted) == (100, 2600, 2600, -2600)
    assert sum(decision.legs) == 0


# The merchant requests 1.00, and the MCC group increases the hold to 26.00. `left` is the hold after one more message.
AFTER_AN_INCREASE = """
    message | amount | left
    reverse | 1      | 0
    reverse | 0.40   | 25.6
    reverse | 26     | 0
    clear   | 20     | 6
    clear   | 1      | 25
    clear   | 30     | 0
    advise  | 0.50   | 0.5
"""


@pytest.mark.parametrize("row", rows_of(AFTER_AN_INCREASE), ids=lambda row: f"{row['message']} {row['amount']}")
def test_what_follows_a_raised_hold(row: dict[str, str]) -> None:
    """A reversal of the whole request releases the increase too. A smaller one and a clearing below the hold leave the rest.

    An advice sets the hold to its amount.
    """
    snapshot = msgspec.structs.replace(
        RULES["holds"].snapshot({"mcc": "5542"}), chain=Chain(State.PENDING, 100, 2600, 2600, 0, 2500)
    )
    amount, details = units(row["amount"]), Details(mid="m9")
    match row["message"]:
        case "reverse":
            decision = reverse(snapshot, Reversal(amount=amount, details=details), time_of({}))
        case "clear":
            decision = clear(snapshot, Clearing(amount=amount, details=details))
        case _:
            decision = advise(snapshot, Advice(amount=amount, details=details))
    assert decision.chain is not None
    assert decision.chain.hold_left == units(row["left"])
    assert sum(decision.legs) == 0


def test_an_ordinary_reversal_is_as_it_was() -> None:
    """Without an increase, a partial reversal leaves the rest, even if the rest equals the original request."""
    snapshot = msgspec.structs.replace(RULES["holds"].snapshot({}), chain=Chain(State.PENDING, 100, 200, 200, 0))
    decision = reverse(snapshot, Reversal(amount=100, details=Details(mid="m9")), time_of({}))
    assert decision.chain is not None
    assert decision.chain.hold_left == 100


@pytest.mark.parametrize(
    ("mccs", "size", "inside", "outside"),
    [
        (("5411",), 1, "5411", "5412"),
        (("5411-5411",), 1, "5411", "5410"),
        (("0000-9999",), 10_000, "0000", "10000"),
        (("0001-0003", "0003-0004"), 4, "0004", "0005"),
        ((), 0, None, "5411"),
    ],
)
def test_ranges_have_both_their_ends(mccs: tuple[str, ...], size: int, inside: str | None, outside: str) -> None:
    """Ranges include both ends, and codes in several ranges count once."""
    codes = expanded(mccs)
    assert len(codes) == size
    assert inside is None or inside in codes
    assert outside not in codes


def test_a_group_that_changes_is_counted_again() -> None:
    """A control's usage key changes with the codes of its MCC group and not with its limit, so usage is counted again."""

    def counted(codes: str, limit: str = "30") -> str:
        groups = Groups({"drinks": group_of("drinks", codes, [])})
        return resolved_control(velocity_of(1, "v", {"limit": limit, "mcc_group": "drinks"}), groups).key

    assert counted("5812-5814") == counted("5812-5814", "50") != counted("5812-5815")


def test_an_explanation_names_the_controls() -> None:
    """An explanation lists each control and exemption of the card with name, level and state, and the one that declined."""
    snapshot, request = RULES["exemptions"].snapshot({}), request_of({})
    _, steps = explain(snapshot, request, time_of({}))
    step = next(check for check in steps if check["check"] == "merchant_is_allowed")
    assert (step["verdict"], step["inputs"]["refused_by"]) == ("refuse", "token-all")
    assert step["inputs"]["authorization_controls"] == [
        {"token": "token-all", "name": "all", "level": "card_product", "merchant_scope": {}, "applies": True}
    ]
    assert [(exemption["name"], exemption["level"], exemption["applies"]) for exemption in step["inputs"]["exemptions"]] == [
        ("friends", "user", False), ("product", "card_product", False), ("one", "program", False), ("later", "program", False),
    ]  # fmt: skip
