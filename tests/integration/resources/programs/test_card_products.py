"""Card products over HTTP: defaults, replays, lists, merged updates, funding, refused input, and the stored versions."""

import copy
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from cardwright.core.snapshot import ProductFact
from cardwright.resources.programs.card_product_config import Branch, ProductConfig
from cardwright.resources.programs.card_products import default_config, merged
from tests.support.fixtures import shared_server
from tests.support.issuing import client_of, fresh, made_by, new_program
from tests.support.server import Client, RunningServer

DEFAULT_CONFIG: dict[str, Any] = {
    "poi": {
        "other": {
            "allow": True,
            "card_presence_required": False,
            "cardholder_presence_required": False,
            "track1_discretionary_data": "000000",
            "track2_discretionary_data": "00000",
        },
        "ecommerce": False,
        "atm": False,
    },
    "transaction_controls": {
        "accepted_countries_token": "accept_us_only",
        "always_require_pin": False,
        "always_require_icc": False,
        "allow_gpa_auth": True,
        "require_card_not_present_card_security_code": False,
        "allow_mcc_group_authorization_controls": True,
        "allow_first_pin_set_via_financial_transaction": False,
        "ignore_card_suspended_state": False,
        "allow_chip_fallback": True,
        "allow_network_load": False,
        "allow_network_load_card_activation": False,
        "allow_quasi_cash": False,
        "enable_partial_auth_approval": True,
        "address_verification": {
            "av_messages": {
                "validate": True,
                "decline_on_address_number_mismatch": False,
                "decline_on_postal_code_mismatch": True,
            },
            "auth_messages": {
                "validate": True,
                "decline_on_address_number_mismatch": False,
                "decline_on_postal_code_mismatch": False,
            },
        },
        "strong_customer_authentication_limits": {},
        "quasi_cash_exempt_mids": "",
        "enable_credit_service": False,
    },
    "selective_auth": {"sa_mode": 1, "enable_regex_search_chain": False, "dmd_location_sensitivity": 0},
    "special": {"merchant_on_boarding": False},
    "card_life_cycle": {
        "activate_upon_issue": False,
        "expiration_offset": {"unit": "YEARS", "value": 4},
        "card_service_code": 101,
        "update_expiration_upon_activation": False,
    },
    "clearing_and_settlement": {"overdraft_destination": "GPA"},
    "jit_funding": {
        "paymentcard_funding_source": {"enabled": False, "refunds_destination": ""},
        "programgateway_funding_source": {
            "enabled": False,
            "funding_source_token": "",
            "refunds_destination": "",
            "always_fund": True,
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
        "payment_instrument": "PHYSICAL_MSR",
        "package_id": "0",
        "all_zero_card_security_code": False,
        "bin_prefix": "111111",
        "bulk_ship": False,
        "pan_length": "16",
        "fulfillment_provider": "PERFECTPLASTIC",
        "allow_card_creation": True,
        "uppercase_name_lines": True,
        "enable_offline_pin": False,
    },
}

# Every leaf that a client can set. All but two `enabled` flags have a value other than the default.
FULL_CONFIG: dict[str, Any] = {
    "poi": {
        "other": {
            "allow": False,
            "card_presence_required": True,
            "cardholder_presence_required": True,
            "track1_discretionary_data": "111",
            "track2_discretionary_data": "222",
            "use_static_pin": True,
        },
        "ecommerce": True,
        "atm": True,
    },
    "transaction_controls": {
        "accepted_countries_token": "decline_ofac_countries",
        "always_require_pin": True,
        "always_require_icc": True,
        "allow_gpa_auth": False,
        "require_card_not_present_card_security_code": True,
        "allow_mcc_group_authorization_controls": False,
        "allow_first_pin_set_via_financial_transaction": True,
        "ignore_card_suspended_state": True,
        "allow_chip_fallback": False,
        "allow_network_load": True,
        "allow_network_load_card_activation": True,
        "allow_quasi_cash": True,
        "enable_partial_auth_approval": False,
        "address_verification": {
            "av_messages": {
                "validate": False,
                "decline_on_address_number_mismatch": True,
                "decline_on_postal_code_mismatch": False,
            },
            "auth_messages": {
                "validate": False,
                "decline_on_address_number_mismatch": True,
                "decline_on_postal_code_mismatch": True,
            },
        },
        "strong_customer_authentication_limits": {},
        "quasi_cash_exempt_mids": "100200,100201",
        "enable_credit_service": True,
        "quasi_cash_exempt_merchant_group_token": "friendly_casinos",
        "notification_language": "ita",
        "enable_cardholder_verification_biometric_in_payload": True,
    },
    "selective_auth": {"sa_mode": 2, "enable_regex_search_chain": True, "dmd_location_sensitivity": 4},
    "special": {"merchant_on_boarding": True},
    "card_life_cycle": {
        "activate_upon_issue": True,
        "expiration_offset": {"unit": "MONTHS", "value": 18, "min_offset": {"unit": "DAYS", "value": 90}},
        "card_service_code": 221,
        "update_expiration_upon_activation": True,
        "reloadability": "NON_RELOADABLE",
    },
    "clearing_and_settlement": {"overdraft_destination": "MSA"},
    "jit_funding": {
        "paymentcard_funding_source": {"enabled": True, "refunds_destination": "GATEWAY"},
        "programgateway_funding_source": {
            "enabled": False,
            "funding_source_token": "a_gateway",
            "refunds_destination": "GPA",
            "always_fund": False,
        },
        "program_funding_source": {"enabled": False, "funding_source_token": "a_source", "refunds_destination": "WATERFALL"},
    },
    "digital_wallet_tokenization": {
        "provisioning_controls": {
            "manual_entry": {"enabled": True, "address_verification": {"validate": False}},
            "wallet_provider_card_on_file": {"enabled": True, "address_verification": {"validate": False}},
            "in_app_provisioning": {"enabled": True, "address_verification": {"validate": False}},
            "web_push_provisioning": {
                "wpp_apple_partner_id": "partner",
                "wpp_apple_card_template_id": "template",
                "wpp_google_piaid": "piaid",
            },
            "force_yellow_path_for_card_product": True,
            "enable_discretionary_data_during_tar": True,
            "dwt_use_card_status_during_auth": True,
            "dwt_verify_atc_during_auth": True,
            "dwt_tar_avs_decline_on_address_number_mismatch": True,
            "dwt_tar_avs_decline_on_postal_code_mismatch": True,
        },
        "card_art_id": "art",
    },
    "fulfillment": {
        "payment_instrument": "VIRTUAL_PAN",
        "package_id": "7",
        "all_zero_card_security_code": True,
        "bin_prefix": "11111122",
        "bulk_ship": True,
        "pan_length": "19",
        "fulfillment_provider": "IDEMIA_UK",
        "allow_card_creation": False,
        "uppercase_name_lines": False,
        "enable_offline_pin": True,
        "card_personalization": {
            "text": {"name_line_1": {"value": "Mara"}, "name_line_2": {"value": "Okafor"}, "name_line_3": {"value": "Harbor"}},
            "images": {
                "card": {"name": "card.png", "thermal_color": "black"},
                "carrier": {"name": "carrier.png", "message_1": "Hello"},
                "signature": {"name": "signature.png"},
                "carrier_return_window": {"name": "window.png"},
            },
            "carrier": {
                "template_id": "t1",
                "logo_file": "logo.png",
                "logo_thumbnail_file": "thumb.png",
                "message_file": "message.txt",
                "message_line": "one",
                "message_line_2": "two",
            },
            "perso_type": "LASER",
        },
        "shipping": {
            "method": "TWO_DAY",
            "return_address": {"address1": "1 Quay", "city": "Oakland", "state": "CA", "postal_code": "94607", "country": "USA"},
            "recipient_address": {
                "first_name": "Mara",
                "middle_name": "J",
                "last_name": "Okafor",
                "address1": "2 Quay",
                "address2": "Floor 3",
                "city": "Oakland",
                "state": "CA",
                "zip": "94607",
                "postal_code": "94608",
                "country": "USA",
                "phone": "5105551212",
            },
            "care_of_line": "Harbor master",
        },
        "bin_prefixes": [{"bin_prefix": "111111", "status": "ACTIVE"}, {"bin_prefix": "11111122334455", "status": "INACTIVE"}],
        "bin_issue_country": "USA",
    },
}

server = shared_server()


@pytest.fixture(scope="module")
def api(server: RunningServer) -> Iterator[Client]:
    with client_of(server, new_program(server)) as client:
        client.post("/merchantgroups", {"token": "friendly_casinos", "name": "Friendly casinos", "mids": ["c1"]})
        yield client


@pytest.fixture(scope="module")
def source(api: Client) -> str:
    """Create a program funding source and return its token."""
    return str(api.post("/fundingsources/program", {"name": "Harbor"}).json["token"])


def product(api: Client, **fields: Any) -> dict[str, Any]:
    """Create a card product."""
    return made_by(api.post("/cardproducts", {"name": "Harbor Virtual", "start_date": "2026-01-01", **fields}))


def managed(token: str, **fields: Any) -> dict[str, Any]:
    """Return a config with Managed JIT Funding."""
    return {"jit_funding": {"program_funding_source": {"enabled": True, "funding_source_token": token, **fields}}}


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every leaf of a JSON tree with its path."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def tree_of(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a tree with one leaf."""
    return {path[0]: tree_of(path[1:], value) if len(path) > 1 else value}


# --- Defaults and fields ----------------------------------------------------------------------


def test_a_product_with_name_and_date_only_gets_the_observed_defaults(api: Client) -> None:
    """A product with a name and a start date gets the defaults of the reference, in its order of fields."""
    made = product(api)
    assert list(made) == ["token", "name", "active", "start_date", "config", "created_time", "last_modified_time"]
    assert made["active"] is True
    assert made["created_time"] == made["last_modified_time"]
    assert json.dumps(made["config"]) == json.dumps(DEFAULT_CONFIG)


def test_the_tutorials_product_is_echoed_whole(api: Client, source: str) -> None:
    """The config of the tutorial is returned with all defaults, in the order of the reference."""
    token = fresh("harbor_card_product")
    config = {
        "fulfillment": {"payment_instrument": "VIRTUAL_PAN"},
        "poi": {"ecommerce": True, "atm": False},
        "card_life_cycle": {"activate_upon_issue": True},
        **managed(source, refunds_destination="PROGRAM_FUNDING_SOURCE"),
    }
    made = product(api, token=token, config=config)
    expected = copy.deepcopy(DEFAULT_CONFIG)
    expected["fulfillment"]["payment_instrument"] = "VIRTUAL_PAN"
    expected["poi"]["ecommerce"] = True
    expected["card_life_cycle"]["activate_upon_issue"] = True
    expected["jit_funding"]["program_funding_source"] = {
        "enabled": True,
        "funding_source_token": source,
        "refunds_destination": "PROGRAM_FUNDING_SOURCE",
    }
    assert json.dumps(made["config"]) == json.dumps(expected)
    assert api.get(f"/cardproducts/{token}").json == made


def test_every_leaf_can_be_set_and_comes_back(api: Client) -> None:
    """Every field of the wire reference is returned as sent."""
    assert json.dumps(product(api, config=FULL_CONFIG)["config"]) == json.dumps(FULL_CONFIG)
    defaults = dict(leaves(DEFAULT_CONFIG))
    same = [path for path, value in leaves(FULL_CONFIG) if defaults.get(path) == value]
    # At most one source can be enabled, so two of the three have their default.
    assert same == [("jit_funding", name, "enabled") for name in ("programgateway_funding_source", "program_funding_source")]


def test_read_only_limits_are_ignored(api: Client) -> None:
    """The limits of strong customer authentication are read-only: values in a request are ignored."""
    limits = {"sca_lvp_transaction_limit": 30, "enable_issuer_tra_exemption": True}
    made = product(api, config={"transaction_controls": {"strong_customer_authentication_limits": limits}})
    assert made["config"]["transaction_controls"]["strong_customer_authentication_limits"] == {}


def test_a_half_minimum_life_is_completed_from_the_offset(api: Client) -> None:
    """A missing unit or value of ``min_offset`` is taken from the offset that contains it."""
    offset = {"unit": "MONTHS", "value": 6, "min_offset": {"unit": "DAYS"}}
    made = product(api, config={"card_life_cycle": {"expiration_offset": offset}})
    assert made["config"]["card_life_cycle"]["expiration_offset"]["min_offset"] == {"unit": "DAYS", "value": 6}


def test_dates_are_cut_to_the_day(api: Client) -> None:
    """A date-time in a date field is accepted, and only its day is stored."""
    made = product(api, start_date="2026-08-24T14:15:22Z", end_date="2027-08-24T00:00:00.000Z")
    assert (made["start_date"], made["end_date"]) == ("2026-08-24", "2027-08-24")
    assert list(made)[3:5] == ["start_date", "end_date"]


def test_text_for_booleans_and_numbers_is_taken(api: Client) -> None:
    """The texts "true" and "12" are accepted as true and 12."""
    config = {"poi": {"atm": "true"}, "card_life_cycle": {"expiration_offset": {"unit": "MONTHS", "value": "12"}}}
    made = product(api, active="false", config=config)
    assert made["active"] is False
    assert made["config"]["poi"]["atm"] is True
    assert made["config"]["card_life_cycle"]["expiration_offset"] == {"unit": "MONTHS", "value": 12}


# --- Replays, reads and lists -------------------------------------------------------------------


def test_a_repeat_makes_nothing_new_and_another_body_is_a_conflict(api: Client) -> None:
    """The token is the idempotency key: an equal body returns the same product, another body gets 409."""
    token = fresh("twice")
    body = {"token": token, "name": "Once", "start_date": "2026-01-01"}
    first = api.post("/cardproducts", body)
    again = api.post("/cardproducts", {"config": None, **body})
    assert (again.status, again.json) == (201, first.json)
    other = api.post("/cardproducts", {**body, "name": "Twice"})
    assert (other.status, other.json["error_code"]) == (409, "409002")
    assert api.get(f"/cardproducts/{token}").json["name"] == "Once"


def test_the_list_is_newest_first_and_short(api: Client) -> None:
    """A page has five products by default and at most ten, newest first; a larger count gets 413. ``fields`` has no effect."""
    tokens = [product(api, token=fresh("listed"))["token"] for _ in range(6)]
    page = api.get("/cardproducts").json
    assert [row["token"] for row in page["data"]] == tokens[:0:-1]
    assert (page["count"], page["start_index"], page["end_index"], page["is_more"]) == (5, 0, 4, True)
    assert api.get("/cardproducts?count=1&start_index=5").json["data"][0]["token"] == tokens[0]
    assert api.get("/cardproducts?count=10").status == 200
    assert api.get("/cardproducts?count=11").status == 413
    assert api.get("/cardproducts?fields=token&count=1").json["data"][0]["name"] == "Harbor Virtual"
    assert api.get("/cardproducts?sort_by=createdTime&count=1").json["data"][0]["token"] != tokens[-1]


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", {})])
def test_an_unknown_product_is_not_found(api: Client, method: str, body: object) -> None:
    """An unknown token gets 404 with the message for card products."""
    reply = api.request(method, "/cardproducts/nowhere", body)
    assert reply.status == 404
    assert reply.json == {"error_code": "404003", "error_message": "Card product not found"}


# --- Updates ------------------------------------------------------------------------------------


def test_a_change_reaches_only_the_leaves_that_it_names(api: Client, source: str) -> None:
    """An update merges the config leaf by leaf. Null and absent fields keep their values at every depth."""
    made = product(api, config={"poi": {"ecommerce": True}, **managed(source)}, end_date="2030-01-01")
    changes = {
        "name": None,
        "end_date": None,
        "config": {
            "poi": {"other": {"allow": False, "card_presence_required": None}, "ecommerce": None},
            "jit_funding": {"program_funding_source": {"refunds_destination": "GPA"}},
            "fulfillment": None,
        },
    }
    reply = api.put(f"/cardproducts/{made['token']}", changes)
    expected = copy.deepcopy(made["config"])
    expected["poi"]["other"]["allow"] = False
    expected["jit_funding"]["program_funding_source"]["refunds_destination"] = "GPA"
    assert reply.status == 200
    assert reply.json == {**made, "config": expected, "last_modified_time": reply.json["last_modified_time"]}


def test_plain_fields_change(api: Client) -> None:
    """Name, active and both dates can change. The body may repeat the token of the path."""
    made = product(api)
    fields = {"name": "Other", "active": False, "start_date": "2026-02-01T00:00:00Z", "end_date": "2026-03-01"}
    changed = api.put(f"/cardproducts/{made['token']}", {"token": made["token"], **fields}).json
    assert {name: changed[name] for name in fields} == {**fields, "start_date": "2026-02-01"}
    assert api.get(f"/cardproducts/{made['token']}").json == changed


def test_lists_are_replaced_as_a_whole(api: Client) -> None:
    """An update replaces an array as a whole."""
    made = product(api, config={"fulfillment": {"bin_prefixes": [{"bin_prefix": "111111", "status": "ACTIVE"}]}})
    prefixes = [{"bin_prefix": "22222233", "status": "INACTIVE"}]
    changed = api.put(f"/cardproducts/{made['token']}", {"config": {"fulfillment": {"bin_prefixes": prefixes}}}).json
    assert changed["config"]["fulfillment"]["bin_prefixes"] == prefixes


def test_each_leaf_merges_alone() -> None:
    """A change of one leaf changes no other leaf, for every leaf of the config."""
    before = default_config("111111")
    known = dict(leaves(DEFAULT_CONFIG))
    for path, value in leaves(FULL_CONFIG):
        change = msgspec.convert(tree_of(path, value), ProductConfig)
        after = dict(leaves(json.loads(msgspec.json.encode(merged(before, change)))))
        assert after == {**known, path: value}, path


def test_a_branch_that_says_nothing_changes_nothing() -> None:
    """Merging a tree with an empty tree, with itself or with None leaves it unchanged."""
    tree = msgspec.convert(FULL_CONFIG, ProductConfig)
    assert merged(tree, ProductConfig()) == tree
    assert merged(tree, tree) == tree
    assert merged(tree, None) == tree


# --- Funding sources ------------------------------------------------------------------------------


def test_funding_can_be_switched_on_later(api: Client, source: str) -> None:
    """JIT Funding can be enabled by a later update, if the product has the token of the source by then."""
    made = product(api, config={"jit_funding": {"program_funding_source": {"funding_source_token": source}}})
    switch = {"config": {"jit_funding": {"program_funding_source": {"enabled": True}}}}
    changed = api.put(f"/cardproducts/{made['token']}", switch).json
    funding = {"enabled": True, "funding_source_token": source, "refunds_destination": ""}
    assert changed["config"]["jit_funding"]["program_funding_source"] == funding


def test_a_switch_that_would_lose_the_source_is_refused(api: Client, source: str) -> None:
    """An update that would leave an enabled source without a token gets 400 and changes nothing."""
    made = product(api, config=managed(source))
    reply = api.put(f"/cardproducts/{made['token']}", {"config": managed("")})
    assert (reply.status, reply.json["error_code"]) == (400, "400001")
    assert api.get(f"/cardproducts/{made['token']}").json == made


def test_an_inactive_source_may_be_named(api: Client) -> None:
    """A product may name an inactive funding source, which declines purchases."""
    sleeping = api.post("/fundingsources/program", {"name": "Asleep", "active": False}).json["token"]
    assert product(api, config=managed(sleeping))["config"]["jit_funding"]["program_funding_source"]["enabled"] is True


JIT = "config.jit_funding"
FUNDING_REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "program source without a token",
        {"program_funding_source": {"enabled": True}},
        "400001",
        f"{JIT}.program_funding_source.funding_source_token",
    ),
    (
        "program source with an empty token",
        {"program_funding_source": {"enabled": True, "funding_source_token": ""}},
        "400001",
        f"{JIT}.program_funding_source.funding_source_token",
    ),
    (
        "unknown program source",
        {"program_funding_source": {"enabled": True, "funding_source_token": "nobody"}},
        "400009",
        "nobody",
    ),
    (
        "gateway without a token",
        {"programgateway_funding_source": {"enabled": True}},
        "400001",
        f"{JIT}.programgateway_funding_source.funding_source_token",
    ),
    (
        "unknown gateway",
        {"programgateway_funding_source": {"enabled": True, "funding_source_token": "nobody"}},
        "400009",
        "nobody",
    ),
    (
        "a program source where a gateway belongs",
        {"programgateway_funding_source": {"enabled": True, "funding_source_token": "SOURCE"}},
        "400009",
        "programgateway_funding_source",
    ),
    (
        "two sources",
        {
            "program_funding_source": {"enabled": True, "funding_source_token": "SOURCE"},
            "paymentcard_funding_source": {"enabled": True},
        },
        "400001",
        JIT,
    ),
    (
        "an unknown destination of refunds",
        {"program_funding_source": {"refunds_destination": "WINDFALL"}},
        "400037",
        f"{JIT}.program_funding_source.refunds_destination",
    ),
    (
        "the gateway's destination at the program source",
        {"program_funding_source": {"refunds_destination": "GATEWAY"}},
        "400037",
        f"{JIT}.program_funding_source.refunds_destination",
    ),
    (
        "a token of 37 characters",
        {"program_funding_source": {"funding_source_token": "x" * 37}},
        "400001",
        f"{JIT}.program_funding_source.funding_source_token",
    ),
]


@pytest.mark.parametrize(("name", "jit", "code", "names"), FUNDING_REFUSED, ids=[row[0] for row in FUNDING_REFUSED])
def test_funding_that_cannot_work_is_refused(
    api: Client, source: str, name: str, jit: dict[str, Any], code: str, names: str
) -> None:
    """An invalid ``jit_funding`` gets 400 with a message that names the field or the token, in a create and in an update."""
    config = {"jit_funding": json.loads(json.dumps(jit).replace('"SOURCE"', f'"{source}"'))}
    made = product(api)
    replies = [
        api.post("/cardproducts", {"name": "x", "start_date": "2026-01-01", "config": config}),
        api.put(f"/cardproducts/{made['token']}", {"config": config}),
    ]
    for reply in replies:
        assert (reply.status, reply.json["error_code"]) == (400, code), reply.text
        assert names in reply.json["error_message"]
    assert api.get(f"/cardproducts/{made['token']}").json == made


# --- Bad input ------------------------------------------------------------------------------------

LIFE = "config.card_life_cycle.expiration_offset"


def life(**offset: Any) -> dict[str, Any]:
    return {"config": {"card_life_cycle": {"expiration_offset": offset}}}


def plastic(**fulfillment: Any) -> dict[str, Any]:
    return {"config": {"fulfillment": fulfillment}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"name": None}, "400001", "name may not be null"),
    ({"start_date": None}, "400001", "start_date may not be null"),
    ({"name": ""}, "400001", "name"),
    ({"name": "x" * 41}, "400001", "name"),
    ({"name": 7}, "400037", "name"),
    ({"token": ""}, "400001", "token"),
    ({"token": "x" * 37}, "400001", "token"),
    ({"active": "perhaps"}, "400037", "active"),
    ({"start_date": "yesterday"}, "400001", "start_date must be a date"),
    ({"start_date": "2026-02-30"}, "400001", "start_date must be a date"),
    ({"end_date": "2026-13-01"}, "400001", "end_date must be a date"),
    ({"end_date": "2025-12-31"}, "400001", "end_date"),
    ({"config": []}, "400037", "config"),
    ({"config": {"poi": {"atm": "maybe"}}}, "400037", "config.poi.atm"),
    ({"config": {"selective_auth": {"sa_mode": 3}}}, "400037", "config.selective_auth.sa_mode"),
    ({"config": {"selective_auth": {"dmd_location_sensitivity": 5}}}, "400037", "config.selective_auth.dmd_location_sensitivity"),
    ({"config": {"clearing_and_settlement": {"overdraft_destination": "X"}}}, "400037", "overdraft_destination"),
    ({"config": {"card_life_cycle": {"reloadability": "SOMETIMES"}}}, "400037", "config.card_life_cycle.reloadability"),
    ({"config": {"card_life_cycle": {"card_service_code": 99}}}, "400001", "config.card_life_cycle.card_service_code"),
    ({"config": {"card_life_cycle": {"card_service_code": 1000}}}, "400001", "config.card_life_cycle.card_service_code"),
    ({"config": {"transaction_controls": {"accepted_countries_token": "mars"}}}, "400001", "accepted_countries_token"),
    ({"config": {"transaction_controls": {"accepted_countries_token": "x" * 51}}}, "400001", "accepted_countries_token"),
    ({"config": {"transaction_controls": {"notification_language": "xxx"}}}, "400037", "notification_language"),
    ({"config": {"transaction_controls": {"quasi_cash_exempt_merchant_group_token": ""}}}, "400001", "merchant_group_token"),
    (life(unit="DAYS"), "400001", f"{LIFE}.value may not be null"),
    (life(value=3), "400001", f"{LIFE}.unit may not be null"),
    (life(unit="CENTURIES", value=1), "400037", f"{LIFE}.unit"),
    (life(unit="DAYS", value=0), "400001", f"{LIFE}.value must be at least 1"),
    (life(unit="DAYS", value=-1), "400001", f"{LIFE}.value must be at least 1"),
    (life(unit="YEARS", value=8000), "400001", f"{LIFE}.value reaches beyond"),
    (life(unit="YEARS", value=2**31 - 1), "400001", f"{LIFE}.value reaches beyond"),
    (life(unit="DAYS", value=3, min_offset={"value": 0}), "400001", f"{LIFE}.min_offset.value"),
    (life(unit="DAYS", value=3, min_offset={"unit": "YEARS", "value": 9000}), "400001", LIFE),
    (life(unit="DAYS", value="three"), "400037", f"{LIFE}.value"),
    (plastic(payment_instrument="PAPER"), "400037", "config.fulfillment.payment_instrument"),
    (plastic(fulfillment_provider="GARAGE"), "400037", "config.fulfillment.fulfillment_provider"),
    (plastic(package_id=""), "400001", "config.fulfillment.package_id"),
    (plastic(package_id="x" * 51), "400001", "config.fulfillment.package_id"),
    (plastic(bin_prefix="11111"), "400001", "config.fulfillment.bin_prefix"),
    (plastic(bin_prefix="1" * 15), "400001", "config.fulfillment.bin_prefix"),
    (plastic(bin_prefix="11111a"), "400001", "config.fulfillment.bin_prefix"),
    (plastic(bin_prefix="١١١١١١"), "400001", "config.fulfillment.bin_prefix"),
    (plastic(pan_length="11"), "400001", "config.fulfillment.pan_length"),
    (plastic(pan_length="20"), "400001", "config.fulfillment.pan_length"),
    (plastic(pan_length="many"), "400001", "config.fulfillment.pan_length"),
    (plastic(pan_length="12", bin_prefix="11111111111"), "400001", "config.fulfillment.pan_length"),
    (plastic(bin_prefixes=[{"bin_prefix": "1", "status": "ACTIVE"}]), "400001", "config.fulfillment.bin_prefixes[0].bin_prefix"),
    (plastic(bin_prefixes=[{"bin_prefix": "111111"}]), "400001", "status may not be null"),
    (plastic(card_personalization={"perso_type": "FLAT"}), "400001", "card_personalization.text.name_line_1 may not be null"),
    (plastic(card_personalization={"perso_type": "INK"}), "400037", "config.fulfillment.card_personalization.perso_type"),
    (plastic(shipping={"method": "PIGEON"}), "400037", "config.fulfillment.shipping.method"),
    (plastic(shipping={"return_address": {"zip": "x" * 11}}), "400001", "config.fulfillment.shipping.return_address.zip"),
]


@pytest.mark.parametrize(("wrong", "code", "names"), REFUSED, ids=[f"{row[2]}: {str(row[0])[:60]}" for row in REFUSED])
def test_bad_input_is_refused_by_name(api: Client, wrong: dict[str, Any], code: str, names: str) -> None:
    """A wrong field gets 400 with the code of its kind and a message that names the field."""
    reply = api.post("/cardproducts", {"name": "Wrong", "start_date": "2026-01-01", **wrong})
    assert (reply.status, reply.json["error_code"]) == (400, code), reply.text
    assert names in reply.json["error_message"]


def test_all_missing_fields_are_named_at_once(api: Client) -> None:
    """The error for an empty object names all missing fields."""
    reply = api.post("/cardproducts", {})
    expected = {"error_code": "400001", "error_message": "Invalid input(s): name may not be null, start_date may not be null"}
    assert (reply.status, reply.json) == (400, expected)


UPDATES_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"token": "another"}, "token"),
    ({"name": ""}, "name"),
    ({"start_date": "2031-01-01"}, "end_date"),
    ({"end_date": "2025-01-01"}, "end_date"),
    (life(unit="MONTHS"), f"{LIFE}.value"),
    (plastic(pan_length="12", bin_prefix="11111111111"), "config.fulfillment.pan_length"),
]


@pytest.mark.parametrize(("wrong", "names"), UPDATES_REFUSED, ids=[row[1] + str(row[0])[:40] for row in UPDATES_REFUSED])
def test_a_bad_update_changes_nothing(api: Client, wrong: dict[str, Any], names: str) -> None:
    """An update is validated together with the stored product. If it is invalid, none of its fields is applied."""
    made = product(api, end_date="2030-01-01")
    reply = api.put(f"/cardproducts/{made['token']}", {"active": False, **wrong})
    assert (reply.status, reply.json["error_code"]) == (400, "400001")
    assert names in reply.json["error_message"]
    assert api.get(f"/cardproducts/{made['token']}").json == made


# --- Versions that decisions read -----------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, FULL_CONFIG], ids=["defaults", "everything"])
def test_a_stored_product_is_what_a_decision_reads(api: Client, config: dict[str, Any]) -> None:
    """The JSON of a product decodes as the engine's ``ProductFact``, with equal values in every leaf that the engine reads."""
    made = product(api, config=config, end_date="2031-12-31")
    fact = msgspec.json.decode(api.get(f"/cardproducts/{made['token']}").text, type=ProductFact)
    assert isinstance(fact, ProductFact)
    assert fact.end_date == "2031-12-31"
    read = dict(leaves(msgspec.to_builtins(fact)["config"]))
    shown = dict(leaves(made["config"]))
    assert read == {path: shown.get(path) for path in read}


def test_changes_are_remembered_and_raise_the_programs_revision(api: Client, database: Path) -> None:
    """Each change adds a version under a new revision of the program. An update without a change adds none."""
    made = product(api)
    url = f"/cardproducts/{made['token']}"
    changed = api.put(url, {"name": "Renamed"}).json
    assert api.put(url, {}).json == changed
    assert api.put(url, {"name": "Renamed", "config": {"poi": {"atm": False}}}).json == changed
    with sqlite3.connect(database) as db:
        rows = db.execute(
            "SELECT h.revision, h.doc FROM config_history h JOIN card_products p ON p.id = h.object_id"
            " WHERE h.kind = 2 AND p.token = ? ORDER BY h.revision",
            [made["token"]],
        ).fetchall()
        query = "SELECT g.revision FROM programs g JOIN card_products p ON p.program_id = g.id WHERE p.token = ?"
        now = db.execute(query, [made["token"]]).fetchone()[0]
    assert [json.loads(doc) for _, doc in rows] == [made, changed]
    assert rows[0][0] < rows[1][0] == now


def test_shapes_have_no_value_of_their_own() -> None:
    """The shapes of the config have no defaults other than None: an update would reset stored values to them."""

    def check(shape: type[Branch]) -> None:
        for field in structs.fields(shape):
            assert field.default is None or field.required, f"{shape.__name__}.{field.name}"

    for shape in Branch.__subclasses__():
        check(shape)
