"""Users over HTTP: fields, secrets, replays, updates, parents and children, lists, look-ups, and refused input."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cardwright.core.enums import HolderStatus
from cardwright.core.snapshot import UserFact
from tests.support.facts import facts_of, revision_of
from tests.support.fixtures import module_server
from tests.support.issuing import client_of, fresh, made_by, new_program, problem_of, read_of
from tests.support.server import Client, RunningServer

MASK = "_" * 11

# The plain fields of a user: no email, secrets, metadata, group or parent.
PROFILE: dict[str, Any] = {
    "honorific": "Dr.",
    "gender": "F",
    "first_name": "Mara",
    "middle_name": "June",
    "last_name": "Okafor",
    "title": "Harbor master",
    "address1": "1 Quay",
    "address2": "Floor 2",
    "city": "Oakland",
    "state": "CA",
    "postal_code": "94607",
    "country": "USA",
    "birth_date": "1991-05-06",
    "birth_place": "NGA",
    "nationality": "USA",
    "phone": "+15105551212",
    "company": "Harbor",
    "ip_address": "2001:db8::1",
    "passport_number": "X1234567",
    "passport_expiration_date": "2030-01-31",
    "id_card_number": "ID-77",
    "id_card_expiration_date": "01/31/2030",
    "notes": "Prefers mornings",
}

server = module_server()


def user(api: Client, **fields: Any) -> dict[str, Any]:
    """Create a user and return it."""
    return made_by(api.post("/users", fields))


def change(api: Client, made: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Update a user and return it. Raises AssertionError if the update is refused."""
    return read_of(api.put(f"/users/{made['token']}", body))


# --- Fields of the answer ---------------------------------------------------------------------------


def test_nothing_is_required(api: Client) -> None:
    """An empty object creates an active user. The answer is the minimal one of the reference, with its order of fields."""
    made = user(api)
    assert made["created_time"] == made["last_modified_time"]
    assert json.dumps(made) == json.dumps(
        {
            "token": made["token"],
            "active": True,
            "uses_parent_account": False,
            "corporate_card_holder": False,
            "created_time": made["created_time"],
            "last_modified_time": made["created_time"],
            "metadata": {},
            "account_holder_group_token": "DEFAULT_AHG",
            "status": "ACTIVE",
        }
    )


def test_everything_said_is_shown(api: Client) -> None:
    """All fields of the profile are returned as sent, by a create and by an update."""
    email = f"{fresh('mara')}@harbor.example"
    fields = {**PROFILE, "email": email, "corporate_card_holder": True, "metadata": {"berth": "7"}}
    made = user(api, **fields, account_holder_group_token="DEFAULT_AHG")
    assert {name: made.get(name) for name in fields} == fields
    assert made["authentication"] == {"email_verified": False}
    assert "zip" not in made
    assert api.get(f"/users/{made['token']}").json == made
    # Free the email address for the update of an empty user.
    api.put(f"/users/{made['token']}", {"email": f"{fresh('old')}@harbor.example"})
    changed = change(api, user(api), fields)
    assert {name: changed.get(name) for name in fields} == fields
    assert list(changed) == list(made)


def test_secrets_are_masked_and_the_password_is_never_shown(api: Client) -> None:
    """``ssn`` is fully masked, a longer identification shows its last four characters, and a password only its change time."""
    numbers = [
        {"type": "TIN", "value": "912345678", "expiration_date": "2030-01-01", "issuing_country": "USA"},
        {"type": "PASSPORT_NUMBER", "value": "X123456"},
    ]
    made = user(api, ssn="123456789", password="Harbor#2026", identifications=numbers)
    assert made["ssn"] == MASK
    assert made["identifications"] == [{**numbers[0], "value": "___-__-5678"}, {"type": "PASSPORT_NUMBER", "value": MASK}]
    assert made["authentication"] == {
        "email_verified": False,
        "last_password_update_channel": "USER_CHANGE",
        "last_password_update_time": made["created_time"],
    }
    assert "password" not in made
    listed = api.get("/users?count=100").json["data"]
    assert next(row for row in listed if row["token"] == made["token"]) == made


def test_zip_is_an_older_name_of_postal_code(api: Client) -> None:
    """``zip`` in a request adds it to all later answers, always equal to ``postal_code``. ``postal_code`` alone does not."""
    made = user(api, zip="94607")
    assert (made["zip"], made["postal_code"]) == ("94607", "94607")
    changed = change(api, made, {"postal_code": "10001"})
    assert (changed["zip"], changed["postal_code"]) == ("10001", "10001")
    both = user(api, zip="1", postal_code="2")
    assert (both["zip"], both["postal_code"]) == ("2", "2")
    assert "zip" not in user(api, postal_code="94607")


def test_birth_dates_are_cut_to_the_day(api: Client) -> None:
    """A birth date with a time is accepted, and only its day is stored."""
    assert user(api, birth_date="1991-01-01T00:00:00.000Z")["birth_date"] == "1991-01-01"
    assert user(api, birth_date="1931-07-08")["birth_date"] == "1931-07-08"


def test_metadata_is_text_and_replaced_as_a_whole(api: Client) -> None:
    """Scalars are stored as text, null values are dropped, and an update replaces the whole map."""
    made = user(api, metadata={"site": 1, "open": True, "rate": 1.5, "none": None, "name": "x"})
    assert made["metadata"] == {"site": "1", "open": "true", "rate": "1.5", "name": "x"}
    assert change(api, made, {"metadata": {"only": "this"}})["metadata"] == {"only": "this"}
    assert change(api, made, {"first_name": "Mara"})["metadata"] == {"only": "this"}
    assert change(api, made, {"metadata": {}})["metadata"] == {}


def test_created_inactive_means_suspended(api: Client) -> None:
    """A user created with ``active: false`` has the status SUSPENDED, and its first transition shows that status."""
    made = user(api, active=False)
    assert (made["active"], made["status"]) == (False, "SUSPENDED")
    transitions = api.get(f"/usertransitions/user/{made['token']}").json["data"]
    assert [transition["status"] for transition in transitions] == ["SUSPENDED"]


def test_creation_is_the_first_transition(api: Client) -> None:
    """The first transition of a user has the time of the creation, channel SYSTEM and reason code 00."""
    made = user(api, metadata={"a": "b"})
    (first,) = api.get(f"/usertransitions/user/{made['token']}").json["data"]
    assert {name: first[name] for name in ("status", "reason_code", "channel", "user_token", "metadata")} == {
        "status": "ACTIVE",
        "reason_code": "00",
        "channel": "SYSTEM",
        "user_token": made["token"],
        "metadata": {"a": "b"},
    }
    assert first["created_time"] == made["created_time"]


# --- Replays ----------------------------------------------------------------------------------------


def test_a_replay_creates_no_second_user(api: Client) -> None:
    """The same token and body return the user as it is now. A different body gets 409, even if only a secret differs."""
    token = fresh("once")
    secrets = {"ssn": "111223333", "password": "Harbor#2026"}
    body = {"token": token, "first_name": "Ana", "email": f"{token}@harbor.example", **secrets}
    first = api.post("/users", body)
    change(api, first.json, {"city": "Oakland"})
    again = api.post("/users", {**body, "last_name": None})
    assert (again.status, again.json["city"]) == (201, "Oakland")
    for other in ({"first_name": "Eva"}, {"ssn": "111223334"}, {"password": "Harbor#2027"}, {"identifications": []}):
        assert problem_of(api.post("/users", {**body, **other})) == (409, "409002"), other
    assert api.get(f"/usertransitions/user/{token}").json["count"] == 1


def test_repeats_at_once_make_one_user(server: RunningServer) -> None:
    """Eight concurrent equal requests create one user and get the same answer."""
    program = new_program(server)
    body = {"token": fresh("race"), "first_name": "Ana", "email": f"{fresh('race')}@harbor.example"}

    def ask(_: int) -> Any:
        with client_of(server, program) as client:
            return client.post("/users", body)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(8)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.text for reply in replies}) == 1


# --- Updates ----------------------------------------------------------------------------------------


def test_an_update_touches_what_it_names(api: Client) -> None:
    """Absent and null fields keep their values. An update without a change keeps ``last_modified_time``."""
    made = user(api, first_name="Mara", last_name="Okafor", ssn="123456789")
    changed = change(api, made, {"first_name": "Maria", "last_name": None, "token": made["token"], "created_time": "ignored"})
    assert changed == {**made, "first_name": "Maria", "last_modified_time": changed["last_modified_time"]}
    assert change(api, made, {}) == changed
    assert change(api, made, {"first_name": "Maria", "ssn": "123456789", "active": True, "status": "ACTIVE"}) == changed


def test_numbers_and_passwords_change(api: Client) -> None:
    """A new number replaces the old one in the vault, and a list replaces the whole list. The same password is no change."""
    made = user(api, ssn="123456789", identifications=[{"type": "TIN", "value": "912345678"}], password="Harbor#2026")
    url = f"/users/{made['token']}/ssn?full_ssn=true"
    assert change(api, made, {"password": "Harbor#2026"}) == made
    change(api, made, {"ssn": "987654321"})
    assert api.get(url).json == {"ssn": "987654321", "tin": "912345678"}
    change(api, made, {"identifications": [{"type": "SIN", "value": "555666777"}]})
    assert api.get(url).json == {"ssn": "987654321", "sin": "555666777"}
    assert "identifications" not in change(api, made, {"identifications": []})
    assert api.get(url).json == {"ssn": "987654321"}


UNCHANGEABLE: list[tuple[dict[str, Any], str]] = [
    ({"token": "another"}, "token"),
    ({"uses_parent_account": True}, "uses_parent_account"),
    ({"active": False}, "active is changed by POST /v3/usertransitions"),
    ({"status": "CLOSED"}, "status is changed by POST /v3/usertransitions"),
]


@pytest.mark.parametrize(("body", "names"), UNCHANGEABLE, ids=[row[1] for row in UNCHANGEABLE])
def test_what_never_changes_is_refused(api: Client, body: dict[str, Any], names: str) -> None:
    """An update of a field that cannot change gets 400 with a message that names the field. No other field of it is applied."""
    made = user(api)
    reply = api.put(f"/users/{made['token']}", {"first_name": "Mara", **body})
    assert problem_of(reply) == (400, "400001")
    assert names in reply.json["error_message"]
    assert api.get(f"/users/{made['token']}").json == made


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/users/nobody", None),
        ("PUT", "/users/nobody", {}),
        ("GET", "/users/nobody/children", None),
        ("GET", "/users/nobody/ssn", None),
    ],
)
def test_an_unknown_user_is_not_found(api: Client, method: str, path: str, body: object) -> None:
    """An unknown token in the path gets 404 with the message of the reference."""
    reply = api.request(method, path, body)
    assert (reply.status, reply.json) == (404, {"error_code": "404004", "error_message": "Cardholder not found"})


def test_an_email_belongs_to_one_user(api: Client) -> None:
    """An address in use is refused in upper and lower case, in a create and an update. A user may repeat its own address."""
    email = f"{fresh('mara')}@harbor.example"
    owner, other = user(api, email=email.upper()), user(api)
    assert owner["email"] == email.upper()
    taken = {"error_code": "400057", "error_message": "A card holder with the same email already exist"}
    for reply in (api.post("/users", {"email": email}), api.put(f"/users/{other['token']}", {"email": email})):
        assert (reply.status, reply.json) == (400, taken)
    assert change(api, owner, {"email": email})["email"] == email
    # The owner's new address frees the old one.
    change(api, owner, {"email": f"new_{email}"})
    assert change(api, other, {"email": email})["email"] == email


# --- Parents and children ---------------------------------------------------------------------------


def holder_of(database: Path, token: str) -> int:
    with sqlite3.connect(database) as db:
        return int(db.execute("SELECT holder_id FROM users WHERE token = ?", [token]).fetchone()[0])


def test_children_share_an_account_only_when_asked(api: Client, database: Path) -> None:
    """A child has a separate account by default, and its parent's account with ``uses_parent_account``."""
    parent = user(api)
    alone = user(api, parent_token=parent["token"])
    sharing = user(api, parent_token=parent["token"], uses_parent_account=True)
    assert (alone["uses_parent_account"], sharing["uses_parent_account"]) == (False, True)
    assert alone["parent_token"] == sharing["parent_token"] == parent["token"]
    holders = [holder_of(database, person["token"]) for person in (parent, alone, sharing)]
    assert holders[0] == holders[2] != holders[1]


def test_children_are_listed(api: Client) -> None:
    """Children are listed in pages, the last changed first, and cut to ``fields``. Without children the list is empty."""
    parent = user(api)
    tokens = [user(api, parent_token=parent["token"])["token"] for _ in range(6)]
    url = f"/users/{parent['token']}/children"
    page = api.get(url).json
    assert (page["count"], page["is_more"]) == (5, True)
    assert [child["token"] for child in page["data"]] == tokens[:0:-1]
    assert api.get(f"{url}?sort_by=createdTime&count=1&fields=token,status").json["data"] == [
        {"token": tokens[0], "status": "ACTIVE"}
    ]
    none = api.get(f"/users/{tokens[0]}/children").json
    assert (none["count"], none["is_more"], none["data"]) == (0, False, [])


def test_a_child_can_be_freed_and_given_again(api: Client) -> None:
    """``parent_token: null`` removes the parent, and another token sets a new one. An absent ``parent_token`` keeps it."""
    parent, other = user(api), user(api)
    child = user(api, parent_token=parent["token"])
    assert change(api, child, {"first_name": "Ana"})["parent_token"] == parent["token"]
    freed = change(api, child, {"parent_token": None})
    assert "parent_token" not in freed
    assert api.get(f"/users/{parent['token']}/children").json["count"] == 0
    assert change(api, child, {"parent_token": other["token"]})["parent_token"] == other["token"]
    assert api.get(f"/users/{other['token']}/children").json["data"][0]["token"] == child["token"]
    assert change(api, child, {"parent_token": None, "first_name": "Eva"})["first_name"] == "Eva"


NO_GRANDCHILDREN = "Children of a User Cardholder may not have children"
FAMILIES_REFUSED: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("an unknown parent", "POST", {"parent_token": "nobody"}, "400011", "Parent not found"),
    ("a shared account without a parent", "POST", {"uses_parent_account": True}, "400001", "parent_token may not be null"),
    ("a grandchild", "POST", {"parent_token": "CHILD"}, "400064", NO_GRANDCHILDREN),
    ("a grandchild with the account", "POST", {"parent_token": "CHILD", "uses_parent_account": True}, "400064", NO_GRANDCHILDREN),
    ("an unknown new parent", "LONER", {"parent_token": "nobody"}, "400011", "Parent not found"),
    ("a child of a child by update", "LONER", {"parent_token": "CHILD"}, "400064", NO_GRANDCHILDREN),
    ("a parent made a child", "PARENT", {"parent_token": "LONER"}, "400064", NO_GRANDCHILDREN),
    ("one's own parent", "LONER", {"parent_token": "LONER"}, "400001", "parent_token may not be the user's own"),
    ("another account by another parent", "SHARER", {"parent_token": "LONER"}, "400001", "parent_token can never be changed"),
    ("no account by no parent", "SHARER", {"parent_token": None}, "400001", "parent_token can never be changed"),
    ("an empty parent", "LONER", {"parent_token": ""}, "400001", "parent_token"),
]


@pytest.mark.parametrize(("case", "whom", "body", "code", "message"), FAMILIES_REFUSED, ids=[row[0] for row in FAMILIES_REFUSED])
def test_impossible_families_are_refused(
    api: Client, case: str, whom: str, body: dict[str, Any], code: str, message: str
) -> None:
    """A parent must exist and have no parent. A child that shares an account cannot change its parent."""
    parent, loner = user(api)["token"], user(api)["token"]
    family = {
        "PARENT": parent,
        "LONER": loner,
        "CHILD": user(api, parent_token=parent)["token"],
        "SHARER": user(api, parent_token=parent, uses_parent_account=True)["token"],
    }
    named = {name: family.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
    reply = api.post("/users", named) if whom == "POST" else api.put(f"/users/{family[whom]}", named)
    assert problem_of(reply) == (400, code)
    assert message in reply.json["error_message"]


def test_a_childs_parent_may_be_repeated(api: Client) -> None:
    """An update with the same parent changes nothing. This is also true of a child that shares its parent's account."""
    parent = user(api)
    child = user(api, parent_token=parent["token"], uses_parent_account=True)
    assert change(api, child, {"parent_token": parent["token"], "uses_parent_account": True}) == child


# --- Lists and look-ups -----------------------------------------------------------------------------


def test_the_list_has_the_last_changed_first(api: Client) -> None:
    """A page has five users by default and at most 100, the last changed first. ``fields`` cuts each user."""
    tokens = [user(api)["token"] for _ in range(6)]
    page = api.get("/users").json
    assert [row["token"] for row in page["data"]] == tokens[:0:-1]
    assert (page["count"], page["is_more"]) == (5, True)
    api.put(f"/users/{tokens[0]}", {"first_name": "First"})
    assert api.get("/users?count=1&fields=token,metadata&search_type=any").json["data"] == [{"token": tokens[0], "metadata": {}}]
    assert api.get("/users?count=100").status == 200


BAD_PAGES = [
    ("count=101", 413, "413001", "count"),
    ("count=0", 400, "400002", "count"),
    ("count=-1", 400, "400002", "count"),
    ("count=many", 400, "400002", "count"),
    ("start_index=-1", 400, "400002", "start_index"),
    ("sort_by=shoe_size", 400, "400002", "sort_by"),
]


@pytest.mark.parametrize(("query", "status", "code", "names"), BAD_PAGES, ids=[row[0] for row in BAD_PAGES])
@pytest.mark.parametrize("path", ["/users", "/users/phonenumber/1", "LOOKUP", "LOOKUP_BY_NAME"])
def test_bad_pages_are_refused(api: Client, path: str, query: str, status: int, code: str, names: str) -> None:
    """All lists of users take the same parameters, and the error names the wrong one."""
    if path.startswith("LOOKUP"):
        reply = api.post(f"/users/lookup?{query}", {"first_name": "A"} if path == "LOOKUP_BY_NAME" else {})
    else:
        reply = api.get(f"{path}?{query}")
    assert problem_of(reply) == (status, code)
    assert names in reply.json["error_message"]


def test_a_phone_number_is_matched_exactly(api: Client) -> None:
    """A phone number matches exactly, plus sign included. No match is an empty list, and only the newest number matches."""
    number = "+15105550146"
    made = user(api, phone=number)
    page = api.get(f"/users/phonenumber/{quote(number)}").json
    assert [person["token"] for person in page["data"]] == [made["token"]]
    assert api.get(f"/users/phonenumber/{number[1:]}").json["data"] == []
    change(api, made, {"phone": "555-867-5309"})
    assert api.get(f"/users/phonenumber/{quote(number)}").json["count"] == 0
    assert api.get("/users/phonenumber/555-867-5309?fields=token").json["data"] == [{"token": made["token"]}]


@pytest.fixture(scope="module")
def people(api: Client) -> dict[str, str]:
    """Create three users to look up, and return their names by token."""
    known: dict[str, dict[str, Any]] = {
        "alex": {"first_name": "Alexander", "last_name": "Quayside", "phone": "q-1", "email": "alex@quay.example"},
        "alexa": {"first_name": "alexa", "last_name": "Quayle", "phone": "q-2"},
        "zoe": {"first_name": "ÉLODIE", "last_name": "Straße", "phone": "q-2"},
    }
    known["alex"]["ssn"] = "400500600"
    known["alexa"]["identifications"] = [{"type": "TIN", "value": "987987987"}]
    return {user(api, **fields)["token"]: name for name, fields in known.items()}


LOOKUPS: list[tuple[dict[str, Any], set[str]]] = [
    ({"first_name": "ALEX"}, {"alex", "alexa"}),
    ({"first_name": "Alexan"}, {"alex"}),
    ({"first_name": "lex"}, set()),
    ({"last_name": "quay"}, {"alex", "alexa"}),
    ({"first_name": "alex", "last_name": "Quays"}, {"alex"}),
    ({"first_name": "élo"}, {"zoe"}),
    ({"last_name": "STRASSE"}, {"zoe"}),
    ({"first_name": "alexander%"}, set()),
    ({"phone": "q-2"}, {"alexa", "zoe"}),
    ({"phone": "Q-2"}, set()),
    ({"phone": "q-2", "first_name": "alexa"}, {"alexa"}),
    ({"email": "ALEX@quay.example"}, {"alex"}),
    ({"email": "alex@quay"}, set()),
    ({"email": "alex@quay.example", "phone": "q-2"}, set()),
    ({"ssn": "400500600"}, {"alex"}),
    ({"ssn": "400500600", "first_name": "alexan"}, {"alex"}),
    ({"ssn": "400500600", "last_name": "Quayle"}, set()),
    ({"ssn": "987987987"}, {"alexa"}),
    ({"ssn": "0600"}, set()),
    ({"ssn": "abcdefghi"}, set()),
    ({"dda": "19001234567890"}, set()),
    ({"dda": "19001234567890", "first_name": "alex"}, set()),
]


@pytest.mark.parametrize(("body", "expected"), LOOKUPS, ids=[str(row[0]) for row in LOOKUPS])
def test_people_are_looked_up(api: Client, people: dict[str, str], body: dict[str, Any], expected: set[str]) -> None:
    """Names match by their beginning in any case, other fields exactly. All conditions must hold; no match is an empty list."""
    reply = api.post("/users/lookup?count=100", body)
    assert reply.status == 200
    assert {people[person["token"]] for person in reply.json["data"]} == expected


def test_lookup_by_deposit_account(api: Client) -> None:
    """The number of a deposit account matches only its user. Other conditions of the search must hold too."""
    users = [made_by(api.post("/users", {"first_name": f"Holder{number}"}))["token"] for number in range(2)]
    numbers = [made_by(api.post("/depositaccounts", {"user_token": user}))["account_number"] for user in users]
    for body, expected in (
        ({"dda": numbers[0]}, [users[0]]),
        ({"dda": numbers[1], "first_name": "holder"}, [users[1]]),
        ({"dda": numbers[1], "first_name": "Other"}, []),
        ({"dda": numbers[0][:-1]}, []),
    ):
        assert [user["token"] for user in api.post("/users/lookup", body).json["data"]] == expected, body


def test_look_ups_come_in_pages(api: Client) -> None:
    """A search by name has pages, ``sort_by`` and ``fields`` like any list."""
    name = fresh("Paged")
    tokens = [user(api, first_name=f"{name}{number}")["token"] for number in range(7)]
    first = api.post("/users/lookup", {"first_name": name}).json
    assert [person["token"] for person in first["data"]] == tokens[:1:-1]
    assert (first["count"], first["is_more"]) == (5, True)
    rest = api.post("/users/lookup?start_index=5", {"first_name": name}).json
    assert [person["token"] for person in rest["data"]] == tokens[1::-1]
    assert (rest["start_index"], rest["end_index"], rest["is_more"]) == (5, 6, False)
    cut = api.post("/users/lookup?sort_by=createdTime&count=1&fields=token", {"first_name": name.upper()}).json
    assert cut["data"] == [{"token": tokens[0]}]
    beyond = api.post("/users/lookup?start_index=7", {"first_name": name}).json
    assert (beyond["count"], beyond["is_more"]) == (0, False)


def test_a_search_without_conditions_lists_everybody(api: Client) -> None:
    """An empty search matches all users. Empty names and nulls are no conditions."""
    newest = user(api)["token"]
    for body in ({}, {"first_name": None}, {"first_name": ""}):
        assert api.post("/users/lookup?count=1", body).json["data"][0]["token"] == newest


# --- Identification numbers -------------------------------------------------------------------------


def test_numbers_are_shown_on_request(api: Client) -> None:
    """Numbers are cut to four digits by default, and whole with ``full_ssn=true``. A user without numbers has an empty object."""
    kinds = [{"type": kind, "value": f"{number}23456789"} for number, kind in enumerate(("SSN", "TIN", "SIN", "NIN"), 1)]
    kinds[0]["value"] = "123456789"
    made = user(api, identifications=[*kinds, {"type": "DRIVERS_LICENSE", "value": "D123"}])
    url = f"/users/{made['token']}/ssn"
    assert api.get(url).json == {"ssn": "6789", "tin": "6789", "sin": "6789", "nin": "6789"}
    whole = {kind["type"].lower(): kind["value"] for kind in kinds}
    assert api.get(f"{url}?full_ssn=true").json == whole
    assert api.get(f"{url}?full_ssn=false").json["ssn"] == "6789"
    assert problem_of(api.get(f"{url}?full_ssn=perhaps")) == (400, "400002")
    assert api.get(f"/users/{user(api)['token']}/ssn").json == {}


def test_four_digits_stay_four(api: Client) -> None:
    """If only the last four digits are stored, both forms return them."""
    made = user(api, ssn="6789")
    for query in ("", "?full_ssn=true"):
        assert api.get(f"/users/{made['token']}/ssn{query}").json == {"ssn": "6789"}


def test_secrets_are_nowhere_in_the_database_file(api: Client, database: Path, server: RunningServer) -> None:
    """Numbers and passwords are encrypted in the database file and absent from the server's output."""
    canaries = ["731946285", "Zq9#canary-Password", "LICENSE-canary-4711"]
    license = {"type": "DRIVERS_LICENSE", "value": canaries[2]}
    made = user(api, first_name="Visible-Vera", ssn=canaries[0], password=canaries[1], identifications=[license])
    api.put(f"/users/{made['token']}", {"email": "no address"})
    assert api.get(f"/users/{made['token']}/ssn?full_ssn=true").json["ssn"] == canaries[0]
    stored = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    assert b"Visible-Vera" in stored
    for canary in canaries:
        assert canary.encode() not in stored
        assert canary not in server.output()


# --- Bad input --------------------------------------------------------------------------------------

LIMITS = {
    "first_name": 40, "middle_name": 40, "last_name": 40, "honorific": 10, "title": 255, "email": 255, "phone": 16,
    "password": 255, "birth_place": 255, "nationality": 255, "address1": 255, "address2": 255, "city": 40, "state": 32,
    "postal_code": 10, "zip": 10, "country": 40, "company": 255, "account_holder_group_token": 36, "passport_number": 40,
    "id_card_number": 255, "ip_address": 39, "notes": 255, "token": 36, "parent_token": 36,
}  # fmt: skip


@pytest.mark.parametrize(("field", "limit"), LIMITS.items(), ids=LIMITS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_texts_have_limits(api: Client, field: str, limit: int, method: str) -> None:
    """A text one character above the limit of the reference gets 400, in a create and an update. The message names the field."""
    path = "/users" if method == "POST" else f"/users/{user(api)['token']}"
    reply = api.request(method, path, {field: "x" * (limit + 1)})
    assert problem_of(reply) == (400, "400001")
    assert field in reply.json["error_message"]


SPECIAL = {"email", "password", "account_holder_group_token", "token", "parent_token", "zip"}
PLAIN_LIMITS = [name for name in LIMITS if name not in SPECIAL]


def test_texts_may_reach_their_limits(api: Client) -> None:
    """A text may have exactly the maximum length. It may be empty where the reference allows that."""
    longest = {name: "é" * LIMITS[name] for name in PLAIN_LIMITS}
    made = user(api, **longest, email="x" * 240 + "@harbor.example", token="t" * 36)
    assert {name: made[name] for name in longest} == longest
    empty = dict.fromkeys(PLAIN_LIMITS, "")
    made = user(api, **empty, password="", account_holder_group_token="")
    assert {name: made[name] for name in empty} == empty
    assert "authentication" not in made


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"token": ""}, "400001", "token"),
    ({"first_name": 7}, "400037", "first_name"),
    ({"gender": "X"}, "400037", "gender"),
    ({"email": ""}, "400001", "email"),
    ({"email": "nobody"}, "400001", "email must be an email address"),
    ({"email": "a b@harbor.example"}, "400001", "email must be an email address"),
    ({"email": "ß" * 200 + "@harbor.example"}, "400001", "email must be an email address"),
    ({"birth_date": "soon"}, "400001", "birth_date must be a date"),
    ({"birth_date": "1991-02-30"}, "400001", "birth_date must be a date"),
    ({"birth_date": ""}, "400001", "birth_date must be a date"),
    ({"password": "short"}, "400001", "password must have a digit"),
    ({"password": "nodigits#Here"}, "400001", "password must have a digit"),
    ({"password": "NOLOWER#1"}, "400001", "password must have"),
    ({"password": "noupper#1"}, "400001", "password must have"),
    ({"password": "NoSymbol1"}, "400001", "password must have"),
    ({"ssn": "12345678"}, "400001", "ssn must be nine digits"),
    ({"ssn": "123-45-6789"}, "400001", "ssn must be nine digits"),
    ({"ssn": MASK}, "400001", "ssn must be nine digits"),
    ({"ssn": 123456789}, "400037", "ssn"),
    ({"identifications": [{"type": "SSN", "value": "___-__-6789"}]}, "400001", "identifications[0].value must be nine digits"),
    ({"identifications": [{"type": "LIBRARY", "value": "1"}]}, "400037", "identifications[0].type"),
    ({"identifications": [{"value": "1"}]}, "400001", "identifications[0].type may not be null"),
    ({"identifications": [{"type": "TIN"}]}, "400001", "identifications[0].value may not be null"),
    ({"identifications": [{"type": "TIN", "value": ""}]}, "400001", "identifications[0].value"),
    ({"identifications": [{"type": "TIN", "value": "1"}] * 21}, "400001", "identifications"),
    ({"identifications": {"type": "TIN"}}, "400037", "identifications"),
    ({"account_holder_group_token": "vip"}, "400010", "Account holder group not found"),
    ({"corporate_card_holder": "perhaps"}, "400037", "corporate_card_holder"),
    ({"metadata": []}, "400037", "metadata"),
    ({"metadata": {"a": {}}}, "400037", "metadata"),
    ({"metadata": {"a": "x" * 256}}, "400001", "metadata.a"),
    ({"metadata": {"": "x"}}, "400001", "metadata"),
    ({"metadata": {f"n{number}": "x" for number in range(21)}}, "400001", "metadata may have at most 20"),
    ({"notes": "a\x00b"}, "400001", "notes"),
]


@pytest.mark.parametrize(("wrong", "code", "names"), REFUSED, ids=[f"{row[2]}: {str(row[0])[:50]}" for row in REFUSED])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_bad_input_is_refused_by_name(api: Client, method: str, wrong: dict[str, Any], code: str, names: str) -> None:
    """A wrong field gets 400 with the code of its kind and a message that names the field and quotes no secret."""
    made = user(api)
    reply = api.request(method, "/users" if method == "POST" else f"/users/{made['token']}", wrong)
    assert problem_of(reply) == (400, code), reply.text
    assert names in reply.json["error_message"]
    for secret in ("password", "ssn"):
        assert str(wrong.get(secret, "absent")) not in reply.json["error_message"]
    assert api.get(f"/users/{made['token']}").json == made


def test_bad_searches_are_refused(api: Client) -> None:
    """A condition that is too long or malformed gets 400 with a message that names the field."""
    for wrong in ({"first_name": "x" * 41}, {"last_name": "x" * 41}, {"phone": "x" * 256}, {"email": "x" * 256}, {"email": ""}):
        reply = api.post("/users/lookup", wrong)
        assert problem_of(reply) == (400, "400001")
        assert next(iter(wrong)) in reply.json["error_message"]
    assert problem_of(api.post("/users/lookup", {"phone": 5})) == (400, "400037")


# --- Versions that decisions read -------------------------------------------------------------------


def test_the_history_says_what_decisions_see(api: Client, database: Path) -> None:
    """Creation and each real change store a version of the user without secrets, under a new revision of the account."""
    made = user(api, address1="1 Quay", postal_code="94607", ssn="123456789", metadata={"a": "b"})
    change(api, made, {"zip": "10001", "metadata": {"c": "d"}})
    change(api, made, {})
    (first, before), (second, after) = facts_of(database, made["token"])
    assert before == UserFact(
        token=made["token"], status=HolderStatus.ACTIVE, address1="1 Quay", postal_code="94607", metadata={"a": "b"}
    )
    assert after == UserFact(
        token=made["token"], status=HolderStatus.ACTIVE, address1="1 Quay", postal_code="10001", metadata={"c": "d"}
    )
    assert first < second == revision_of(database, made["token"])


def test_a_sharing_child_raises_its_parents_revision(api: Client, database: Path) -> None:
    """Creation and update of a child that shares its parent's account each increase the revision of that account."""
    parent = user(api)
    start = revision_of(database, parent["token"])
    child = user(api, parent_token=parent["token"], uses_parent_account=True)
    change(api, child, {"first_name": "Ana"})
    assert revision_of(database, parent["token"]) == start + 2
    assert [number for number, _ in facts_of(database, child["token"])] == [start + 1, start + 2]
