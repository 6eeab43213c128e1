"""Configuration revisions: a batch decides with one revision of its program, and the decision's record names that revision.

Each case commits a change just before one of the statements with which a batch reads its configuration. The explanation from
history must agree with the decision, whether or not the purchase sees the change. The next purchase sees it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest
from sqlalchemy import event

from cardwright.core.transaction_row import token_of
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.id_blocks import IdSource
from cardwright.kit.clock import ProgramClock
from cardwright.resources.account_holders import account_holder_groups
from cardwright.resources.analysis.decisions import get_decision
from cardwright.resources.common.call import Call
from cardwright.resources.controls import (
    accepted_countries,
    auth_controls,
    exempt_mids,
    mcc_groups,
    merchant_groups,
    velocity_controls,
)
from cardwright.resources.funding import funding_sources
from cardwright.resources.programs import card_products
from cardwright.storage.programs import get_program
from cardwright.storage.reset import reset_program
from tests.support.databases import migrate_address
from tests.support.in_process_platform import InProcessPlatform, card_request
from tests.support.instants import NOON
from tests.support.postgres import TestPostgres

STATEMENTS_MAX = 60
"""More statements than any batch executes."""

ACTIONS: dict[str, tuple[Callable[[Call, Any], Any], type[msgspec.Struct]]] = {
    "create auth": (auth_controls.create_auth_control, auth_controls.AuthControlCreate),
    "update auth": (auth_controls.update_auth_control, auth_controls.AuthControlUpdate),
    "create velocity": (velocity_controls.create_control, velocity_controls.VelocityCreate),
    "update velocity": (velocity_controls.update_control, velocity_controls.VelocityUpdate),
    "create exemption": (exempt_mids.create_exemption, exempt_mids.ExemptionCreate),
    "update exemption": (exempt_mids.update_exemption, exempt_mids.ExemptionUpdate),
    "create merchants": (merchant_groups.create_merchant_group, merchant_groups.MerchantGroupCreate),
    "update merchants": (merchant_groups.update_merchant_group, merchant_groups.MerchantGroupUpdate),
    "create mccs": (mcc_groups.create_mcc_group, mcc_groups.MccGroupCreate),
    "update mccs": (mcc_groups.update_mcc_group, mcc_groups.MccGroupUpdate),
    "create countries": (accepted_countries.create_countries, accepted_countries.CountriesCreate),
    "update countries": (accepted_countries.update_countries, accepted_countries.CountriesUpdate),
    "create holders": (account_holder_groups.create_holder_group, account_holder_groups.HolderGroupCreate),
    "update holders": (account_holder_groups.update_holder_group, account_holder_groups.HolderGroupUpdate),
    "update product": (card_products.update_product, card_products.ProductUpdate),
    "update source": (funding_sources.update_source, funding_sources.SourceUpdate),
}

DAY = {"velocity_window": "DAY", "currency_code": "USD", "amount_limit": 1}


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Case(NamedTuple):
    """A change during the decision of a purchase: the state before, the change, and the response codes without and with it.

    ``controls`` belong to the product, ``mcc`` to the merchant, and ``user`` has fields of the user.
    """

    before: tuple[tuple[str, dict[str, Any]], ...]
    change: tuple[str, dict[str, Any]]
    codes: tuple[str, str]
    controls: Mapping[str, Any] = NOTHING
    mcc: str = "5411"
    user: Mapping[str, Any] = NOTHING


def mine(**body: Any) -> dict[str, Any]:
    """Return the body of a control of the buyer. The name of the round replaces ``$`` in its tokens."""
    return {"name": "n", "token": "of-$", "association": {"user_token": "u-$"}, **body}


CASES: dict[str, Case] = {
    "a control of the user's": Case((), ("create auth", mine()), ("0000", "1821")),
    "a control of the user's, off": Case((("create auth", mine()),), ("update auth", {"active": False}), ("1821", "0000")),
    "a limit of the user's": Case((), ("create velocity", mine(**DAY)), ("0000", "1834")),
    "a limit of the user's, lowered": Case(
        (("create velocity", mine(**{**DAY, "amount_limit": 99})),), ("update velocity", {"amount_limit": 1}), ("0000", "1834")
    ),
    "an exemption of the user's": Case((("create auth", mine()),), ("create exemption", mine(mid="m1")), ("1821", "0000")),
    "an exemption of the user's, off": Case(
        (("create auth", mine()), ("create exemption", mine(mid="m1"))), ("update exemption", {"active": False}),
        ("0000", "1821"),
    ),
    "a group of merchants": Case(
        (("create merchants", {"token": "of-$", "name": "n", "mids": ["m1"]}),
         ("create auth", mine(merchant_scope={"merchant_group_token": "of-$"}))),
        ("update merchants", {"mids": ["m2"]}), ("1821", "0000"),
    ),
    "a group of categories": Case(
        (("create mccs", {"token": "of-$", "name": "n", "mccs": ["5411"]}),
         ("create auth", mine(merchant_scope={"mcc_group": "of-$"}))),
        ("update mccs", {"mccs": ["5812"]}), ("1821", "0000"),
    ),
    "a product": Case((), ("update product", {"active": False}), ("0000", "1818")),
    "a product's control": Case(
        (), ("create auth", mine(association={"card_product_token": "of-$"})), ("0000", "1821")
    ),
    "a product's limit": Case(
        (), ("create velocity", mine(**DAY, association={"card_product_token": "of-$"})), ("0000", "1834")
    ),
    "a control of everybody": Case(
        (), ("create auth", mine(association={}, merchant_scope={"mcc": "5999"})), ("0000", "1821"), {}, "5999"
    ),
    "a funding source": Case((), ("update source", {"active": False}), ("0000", "1016")),
    "a list of countries": Case(
        (("create countries", {"token": "of-$", "name": "n", "is_whitelist": True, "country_codes": ["840"]}),),
        ("update countries", {"country_codes": ["124"]}), ("0000", "1864"), {"accepted_countries_token": "of-$"},
    ),
    "a product's exempt merchants": Case(
        (("create merchants", {"token": "of-$", "name": "n", "mids": ["m1"]}),), ("update merchants", {"mids": ["m2"]}),
        ("0000", "1956"), {"quasi_cash_exempt_merchant_group_token": "of-$"}, "6051",
    ),
    "a group of holders": Case(
        (("create holders", {"token": "of-$", "name": "n", "config": {
            "kyc_required": "CONDITIONAL", "pre_kyc_controls": {"international_enabled": True}}}),),
        ("update holders", {"config": {"pre_kyc_controls": {"international_enabled": False}}}), ("0000", "1864"),
        {"accepted_countries_token": "decline_ofac_countries"}, "5411", {"account_holder_group_token": "of-$"},
    ),
}  # fmt: skip


class Counter:
    """An open worker of the engine that decides purchases."""

    def __init__(self, platform: InProcessPlatform) -> None:
        self.platform, self.ids, self.runner = platform, IdSource(), asyncio.Runner()
        self.ids.refill(platform.store.next_ids())
        self.worker = self.runner.run(platform.store.open_worker())

    def close(self) -> None:
        """Close the worker and the platform."""
        self.runner.run(self.worker.close())
        self.runner.run(self.platform.store.close())
        self.runner.close()
        self.platform.close()

    def empty(self) -> None:
        """Reset the program, so that it has only one buyer."""
        with self.platform.database.write() as db:
            reset_program(db, self.platform.program_id, ProgramClock(0, NOON))
        self.platform.cache.clear()
        make_ready(self.platform, CASES["a product"], "other")

    def bought(self, case: Case, name: str) -> CardResult:
        """Return the outcome of a purchase of 5.00. It is made in Canada if the case sets fields of the user."""
        request: CardRequest = card_request(self.platform, f"c-{name}", 500, seed=1)
        country = "CAN" if case.user else "USA"
        merchant = msgspec.structs.replace(request.message.details.merchant, mcc=case.mcc, country=country)
        details = msgspec.structs.replace(request.message.details, merchant=merchant)
        request = request._replace(message=msgspec.structs.replace(request.message, details=details))
        return self.runner.run(self._bought(request))

    async def _bought(self, request: CardRequest) -> CardResult:
        loaded_request = await self.platform.addressed(request)
        (result,) = await run_batch(self.worker, self.platform.cache, self.ids, lambda: NOON, [loaded_request])
        assert isinstance(result, CardResult), result
        return result


@pytest.fixture(scope="module")
def counter(postgres: TestPostgres) -> Iterator[Counter]:
    """A program on PostgreSQL. On SQLite nothing can change while a batch runs."""
    address = postgres.new_database(migrate_address)
    counter = Counter(InProcessPlatform(address))
    yield counter
    counter.close()
    postgres.drop_database(address)


def named(template: Any, name: str) -> Any:
    """Return the template with each dollar sign replaced by the name of the round."""
    if isinstance(template, Mapping):
        return {key: named(value, name) for key, value in template.items()}
    return template.replace("$", name) if isinstance(template, str) else template


def act(platform: InProcessPlatform, action: str, body: dict[str, Any], name: str) -> None:
    """Execute the action of a request and commit it."""
    done, shape = ACTIONS[action]
    with platform.database.write() as db:
        call = Call(platform.app, db, get_program(db, platform.program_id), NOON, {"token": f"of-{name}"})
        done(call, msgspec.convert(named(body, name), shape))


def make_ready(platform: InProcessPlatform, case: Case, name: str) -> None:
    """Create a user with a card and a card product, and the objects that the case needs."""
    controls = named(case.controls, name)
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": f"of-{name}"}}
    # Create groups before the product and user that name them, and controls after the product and user that they name.
    groups = [step for step in case.before if "association" not in step[1]]
    for action, body in groups:
        act(platform, action, body, name)
    platform.make("fundingsources/program", name="Bank", token=f"of-{name}")
    platform.make(
        "cardproducts", name="p", token=f"of-{name}", start_date="2025-01-01",
        config={"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": jit, "transaction_controls": controls},
    )  # fmt: skip
    platform.make("users", token=f"u-{name}", **named(case.user, name))
    platform.make("cards", token=f"c-{name}", user_token=f"u-{name}", card_product_token=f"of-{name}")
    for action, body in case.before:
        if (action, body) not in groups:
            act(platform, action, body, name)


def explained(platform: InProcessPlatform, outcome: CardResult) -> dict[str, Any]:
    """Return the explanation in the record of a decision."""
    with platform.database.read() as db:
        call = Call(platform.app, db, get_program(db, platform.program_id), NOON, {"token": token_of(outcome.row)})
        return get_decision(call)


def changing_before(
    platform: InProcessPlatform, number: int, change: Callable[[], None], then: Callable[[], Any]
) -> tuple[Any, bool]:
    """Call ``then``, and ``change`` just before its statement ``number``, counted from 0. Also return whether it was reached."""
    statement_count = 0

    def listen(*_: Any) -> None:
        nonlocal statement_count
        statement_count += 1
        if statement_count == number + 1:
            change()

    event.listen(platform.database.engine, "before_cursor_execute", listen)
    try:
        return then(), statement_count > number
    finally:
        event.remove(platform.database.engine, "before_cursor_execute", listen)


@pytest.mark.parametrize("is_known", [False, True], ids=["the program is read", "the program is known"])
@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen_whole_or_not_at_all(counter: Counter, name: str, is_known: bool) -> None:
    """Decision and explanation agree if a change is committed before any statement of a batch, with or without cache."""
    platform, case, met = counter.platform, CASES[name], set[str]()
    counter.empty()
    for number in range(STATEMENTS_MAX):
        this = str(number)
        make_ready(platform, case, this)
        if is_known:
            # A purchase by another user at this revision caches the program, but nothing of this buyer.
            counter.bought(CASES["a product"], "other")
        else:
            platform.cache.clear()
        change, buy = partial(act, platform, *case.change, this), partial(counter.bought, case, this)
        outcome, was_reached = changing_before(platform, number, change, buy)
        if not was_reached:
            break
        code, decision = f"{outcome.row.code:04d}", explained(platform, outcome)
        met.add(code)
        assert decision["replay_agrees"], (number, code, outcome.row.program_revision, decision["checks"])
        assert f"{counter.bought(case, this).row.code:04d}" == case.codes[1]
        if name == "a control of everybody":
            act(platform, "update auth", {"active": False}, this)
    assert 1 < number < STATEMENTS_MAX, "a change must precede each statement of the batch"
    assert met == set(case.codes), "some purchases must precede the change, and some must follow it"
