"""Card products: the rules that all cards of a product share, from points of interaction to funding."""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from cardwright.core.expiry import expiration_of
from cardwright.core.pan import account_numbers, is_bin
from cardwright.core.problems import FUNDING_SOURCE_UNKNOWN, PRODUCT_NOT_FOUND, Problem, bad_field
from cardwright.kit.canonical import beyond
from cardwright.kit.clock import Instant, iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import check_group
from cardwright.resources.common.fields import Day, Token, parse_date
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.resources.programs.card_product_config import Branch, ProductConfig
from cardwright.storage import history, records
from cardwright.storage.tables import accepted_countries, card_products, funding_sources, merchant_groups

# --- Shapes: what travels on the wire ------------------------------------------------

ProductName = Annotated[str, Meta(min_length=1, max_length=40)]


class ProductCreate(Shape, frozen=True, kw_only=True):
    """A new card product. Absent fields of ``config`` get the server's defaults."""

    name: ProductName
    start_date: Day
    end_date: Day | None = None
    active: bool | None = True
    config: ProductConfig | None = ProductConfig()
    token: Token | None = None


class ProductUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a card product. Absent fields stay unchanged, and so do absent fields inside ``config``."""

    name: ProductName | None = None
    active: bool | None = None
    start_date: str | None = None
    end_date: str | None = None
    config: ProductConfig | None = None
    token: Token | None = None


class Product(Shape, frozen=True, kw_only=True):
    """A card product with its complete ``config``. ``active`` is informative and does not control the creation of cards."""

    token: str
    name: str
    active: bool
    start_date: str
    end_date: str | UnsetType = UNSET
    config: ProductConfig
    created_time: str
    last_modified_time: str


# --- Rules: pure ---------------------------------------------------------------------

DEFAULTS = msgspec.convert(
    {
        "poi": {
            "other": {
                "allow": True, "card_presence_required": False, "cardholder_presence_required": False,
                "track1_discretionary_data": "000000", "track2_discretionary_data": "00000",
            },
            "ecommerce": False, "atm": False,
        },
        "transaction_controls": {
            "accepted_countries_token": "accept_us_only", "always_require_pin": False, "always_require_icc": False,
            "allow_gpa_auth": True, "require_card_not_present_card_security_code": False,
            "allow_mcc_group_authorization_controls": True, "allow_first_pin_set_via_financial_transaction": False,
            "ignore_card_suspended_state": False, "allow_chip_fallback": True, "allow_network_load": False,
            "allow_network_load_card_activation": False, "allow_quasi_cash": False, "enable_partial_auth_approval": True,
            "address_verification": {
                "av_messages": {
                    "validate": True, "decline_on_address_number_mismatch": False, "decline_on_postal_code_mismatch": True,
                },
                "auth_messages": {
                    "validate": True, "decline_on_address_number_mismatch": False, "decline_on_postal_code_mismatch": False,
                },
            },
            "strong_customer_authentication_limits": {}, "quasi_cash_exempt_mids": "", "enable_credit_service": False,
        },
        "selective_auth": {"sa_mode": 1, "enable_regex_search_chain": False, "dmd_location_sensitivity": 0},
        "special": {"merchant_on_boarding": False},
        "card_life_cycle": {
            "activate_upon_issue": False, "expiration_offset": {"unit": "YEARS", "value": 4}, "card_service_code": 101,
            "update_expiration_upon_activation": False,
        },
        "clearing_and_settlement": {"overdraft_destination": "GPA"},
        "jit_funding": {
            "paymentcard_funding_source": {"enabled": False, "refunds_destination": ""},
            "programgateway_funding_source": {
                "enabled": False, "funding_source_token": "", "refunds_destination": "", "always_fund": True,
            },
            "program_funding_source": {"enabled": False, "funding_source_token": "", "refunds_destination": ""},
        },
        "digital_wallet_tokenization": {
            "provisioning_controls": {
                "manual_entry": {"enabled": False, "address_verification": {"validate": True}},
                "wallet_provider_card_on_file": {"enabled": False, "address_verification": {"validate": True}},
                "in_app_provisioning": {"enabled": False, "address_verification": {"validate": True}},
            },
            "card_art_id": "",
        },
        "fulfillment": {
            "payment_instrument": "PHYSICAL_MSR", "package_id": "0", "all_zero_card_security_code": False, "bulk_ship": False,
            "pan_length": "16", "fulfillment_provider": "PERFECTPLASTIC", "allow_card_creation": True,
            "uppercase_name_lines": True, "enable_offline_pin": False,
        },
    },
    ProductConfig,
)  # fmt: skip
"""The values that the reference's sandbox fills in.

They differ from those in its documentation. The server sets ``bin_prefix``.
"""

GATEWAY_KIND, PROGRAM_KIND = "programgateway", "program"
JIT_SOURCES = {
    "paymentcard_funding_source": None, "programgateway_funding_source": GATEWAY_KIND, "program_funding_source": PROGRAM_KIND,
}  # fmt: skip
"""The branches of ``jit_funding``, each with the kind of funding source that it requires. Payment cards are no such sources."""

AnyBranch = TypeVar("AnyBranch", bound=Branch)


def leaf(config: Branch | None, path: str) -> Any:
    """Return the value at a dotted path, None if a part of the path is missing."""
    value: Any = config
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def default_config(bin_prefix: str) -> ProductConfig:
    """Return the configuration of a product without settings, for a server that issues under ``bin_prefix``."""
    fulfillment = leaf(DEFAULTS, "fulfillment")
    return structs.replace(DEFAULTS, fulfillment=structs.replace(fulfillment, bin_prefix=bin_prefix))


def merged(before: AnyBranch, changes: AnyBranch | None) -> AnyBranch:
    """Return the tree with the leaves that ``changes`` sets. A list is replaced as a whole."""
    fields = {} if changes is None else {name: value for name, value in structs.asdict(changes).items() if value is not None}
    return structs.replace(before, **{name: _merged_value(getattr(before, name), value) for name, value in fields.items()})


def _merged_value(before: Any, change: Any) -> Any:
    return merged(before, change) if isinstance(before, Branch) and isinstance(change, Branch) else change


def completed(config: ProductConfig) -> ProductConfig:
    """Return the tree with missing fields of ``min_offset`` taken from its offset (wire reference, "card_life_cycle")."""
    offset = leaf(config, "card_life_cycle.expiration_offset")
    if offset.min_offset is None:
        return config
    least = structs.replace(
        offset.min_offset, unit=offset.min_offset.unit or offset.unit,
        value=offset.value if offset.min_offset.value is None else offset.min_offset.value,
    )  # fmt: skip
    life_cycle = structs.replace(config.card_life_cycle, expiration_offset=structs.replace(offset, min_offset=least))  # type: ignore[type-var]
    return structs.replace(config, card_life_cycle=life_cycle)


def check_config(config: ProductConfig | None) -> None:
    """Raise a problem that names the field if a request is invalid for any product."""
    offset = "card_life_cycle.expiration_offset"
    for present, absent in (("unit", "value"), ("value", "unit")):
        if leaf(config, f"{offset}.{present}") is not None and leaf(config, f"{offset}.{absent}") is None:
            raise bad_field(f"config.{offset}.{absent}", f"may not be null if {present} is present")
    service_code = leaf(config, "card_life_cycle.card_service_code")
    if service_code is not None and not 100 <= service_code <= 999:
        raise bad_field("config.card_life_cycle.card_service_code", "must have three digits")
    for index, prefix in enumerate(leaf(config, "fulfillment.bin_prefixes") or ()):
        if not is_bin(prefix.bin_prefix):
            raise bad_field(f"config.fulfillment.bin_prefixes[{index}].bin_prefix", "must have 6 to 14 digits")


def check_life_time(config: ProductConfig, now: Instant) -> None:
    """Raise a problem if the lifetime of cards is less than 1, or ends after the year 9999."""
    offset = leaf(config, "card_life_cycle.expiration_offset")
    least = offset.min_offset
    for name, value in (("value", offset.value), ("min_offset.value", least.value if least else 1)):
        if value < 1:
            raise bad_field(f"config.card_life_cycle.expiration_offset.{name}", "must be at least 1")
    try:
        expiration_of(now, offset.unit, offset.value, least.unit if least else None, least.value if least else None)
    except ValueError:
        raise bad_field("config.card_life_cycle.expiration_offset.value", "reaches beyond the year 9999") from None


def check_fulfillment(config: ProductConfig) -> None:
    """Raise a problem if prefix and length allow no card number, or if a personalized card has no first line."""
    prefix, length = leaf(config, "fulfillment.bin_prefix"), leaf(config, "fulfillment.pan_length")
    if not is_bin(prefix):
        raise bad_field("config.fulfillment.bin_prefix", "must have 6 to 14 digits")
    if not (len(length) == 2 and length.isascii() and length.isdigit()):
        raise bad_field("config.fulfillment.pan_length", "must be the number of digits, such as 16")
    try:
        account_numbers(prefix, int(length))
    except ValueError as error:
        raise bad_field("config.fulfillment.pan_length", f"is invalid: {error}") from None
    plastic = "fulfillment.card_personalization"
    if leaf(config, plastic) is not None and leaf(config, f"{plastic}.text.name_line_1") is None:
        raise bad_field(f"config.{plastic}.text.name_line_1", "may not be null")


def check_dates(start_date: str, end_date: str | UnsetType) -> None:
    """Raise a problem if the end date is before the start date. ISO dates sort as text."""
    if end_date is not UNSET and end_date < start_date:
        raise bad_field("end_date", "may not be before start_date")


def enabled_source(config: ProductConfig) -> str | None:
    """Return the enabled branch of ``jit_funding``, None without one. Raises a problem if more than one is enabled."""
    enabled = [name for name in JIT_SOURCES if leaf(config, f"jit_funding.{name}.enabled")]
    if len(enabled) > 1:
        raise bad_field("config.jit_funding", f"may have at most one enabled source, not {', '.join(enabled)}")
    return enabled[0] if enabled else None


# --- Queries: this resource's SQL ----------------------------------------------------


def record_product_version(call: Call, product_id: int, doc: str) -> None:
    """Increase the program's revision and save the product's state in its history.

    The new revision invalidates the caches of all processes. The history contains the state of the product at each revision.
    """
    revision = history.raise_program_revision(call.db, call.program.id)
    history.save_version(call.db, call.program.id, history.Kind.CARD_PRODUCT, product_id, revision, call.now, doc)


# --- Actions: what a caller can do with it -------------------------------------------


def check_funding(call: Call, config: ProductConfig) -> None:
    """Raise a problem if the product's funding source is missing, unknown or of another kind.

    An inactive source is accepted: each purchase is then declined until the source is active again.
    """
    name = enabled_source(config)
    if name is None or JIT_SOURCES[name] is None:
        return
    path = f"jit_funding.{name}.funding_source_token"
    token = leaf(config, path)
    if not token:
        raise bad_field(f"config.{path}", "may not be null if the source is enabled")
    source = records.find(call.db, funding_sources, call.program.id, token)
    if source is None or source.kind != JIT_SOURCES[name]:
        raise Problem(FUNDING_SOURCE_UNKNOWN, f"config.{path} {token}")


def check_lists(call: Call, config: ProductConfig | None) -> None:
    """Raise a problem for an unknown list of countries or merchant group, because an unknown one would restrict nothing."""
    country_list, exempt = (
        leaf(config, f"transaction_controls.{name}")
        for name in ("accepted_countries_token", "quasi_cash_exempt_merchant_group_token")
    )
    if country_list is not None and records.find(call.db, accepted_countries, call.program.id, country_list) is None:
        raise bad_field("config.transaction_controls.accepted_countries_token", "is not the token of a list of countries")
    check_group(call, merchant_groups, "config.transaction_controls.quasi_cash_exempt_merchant_group_token", exempt)


def create_product(call: Call, body: ProductCreate) -> str:
    """Create a card product."""
    check_config(body.config)
    defaults = default_config(call.app.bin_prefix)
    config = completed(merged(defaults, body.config))
    compared = structs.replace(body, config=beyond(config, defaults))
    start_date = parse_date("start_date", body.start_date)
    end_date = UNSET if body.end_date is None else parse_date("end_date", body.end_date)
    check_dates(start_date, end_date)
    check_life_time(config, call.now)
    check_fulfillment(config)
    enabled_source(config)
    if (replay := crud.find_replay(call, card_products, compared)) is not None:
        return replay
    check_funding(call, config)
    check_lists(call, body.config)
    product = Product(
        token=body.token or call.app.ids.token(),
        name=body.name,
        active=body.active is not False,
        start_date=start_date,
        end_date=end_date,
        config=config,
        created_time=iso(call.now),
        last_modified_time=iso(call.now),
    )
    product_id, doc = crud.insert(call, card_products, compared, product)
    record_product_version(call, product_id, doc)
    return doc


def get_product(call: Call) -> str:
    """Return a card product."""
    return str(crud.get_row(call, card_products, PRODUCT_NOT_FOUND).doc)


def list_products(call: Call) -> records.Listing:
    """List the program's card products."""
    return crud.list_resources(call, card_products)


def update_product(call: Call, body: ProductUpdate) -> str:
    """Change a card product. The change applies immediately to the authorizations of all its cards."""
    row = crud.lock_row(call, card_products, PRODUCT_NOT_FOUND)
    crud.check_same_token(call, body)
    check_config(body.config)
    before = msgspec.json.decode(row.doc, type=Product)
    changes = crud.changes_of(body)
    changes |= {name: parse_date(name, changes[name]) for name in ("start_date", "end_date") if name in changes}
    config = completed(merged(before.config, body.config))
    after = structs.replace(before, **(changes | {"config": config}))
    check_dates(after.start_date, after.end_date)
    if leaf(config, "card_life_cycle.expiration_offset") != leaf(before.config, "card_life_cycle.expiration_offset"):
        check_life_time(config, call.now)
    check_fulfillment(config)
    check_funding(call, config)
    check_lists(call, body.config)
    doc, changed = crud.update(call, card_products, row, before, after)
    if changed:
        record_product_version(call, row.id, doc)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Card products"

routes = [
    post("/cardproducts", ProductCreate, create_product, Product),
    get("/cardproducts", list_products, Product, fields=False, paging=Paging(count_max=10, sort_by="-createdTime")),
    get("/cardproducts/{token}", get_product, Product, fields=False),
    put("/cardproducts/{token}", ProductUpdate, update_product, Product),
]
