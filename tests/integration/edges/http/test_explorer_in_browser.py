"""The API explorer in a browser: opened, searched, filled in and sent with mouse and keys, against a running server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cardwright.edges.http.openapi import document_bytes
from cardwright.resources.catalog import ROUTES
from tests.support.browser import Browser, Page
from tests.support.fixtures import shared_server
from tests.support.issuing import new_program
from tests.support.server import RunningServer

DOCUMENT = json.loads(document_bytes())
OPERATIONS = {
    operation["operationId"]: {**operation, "path": path}
    for path, verbs in DOCUMENT["paths"].items()
    for operation in verbs.values()
}
GUIDE = [operation for step in DOCUMENT["x-guide"] for operation in step["operations"]]

server = shared_server()


def open_explorer(page: Page, server: RunningServer, fragment: str = "") -> None:
    """Open the explorer and wait until its script has shown the operations."""
    page.navigate(f"{server.root_url}/docs{fragment}")
    page.wait_for("document.querySelector('#operations a') !== null")


def faults(page: Page, server: RunningServer) -> list[str]:
    """Return the errors on the console and the requests to other hosts. The API's answers of 400 and above are not errors."""
    page.evaluate("new Promise((resolve) => setTimeout(resolve))")
    errors = [error for error in page.errors if f"({server.base_url}/" not in error]
    return errors + page.requests_to_others(server.root_url)


@pytest.fixture
def page(server: RunningServer, browser: Browser) -> Iterator[Page]:
    """The explorer in a page with empty storage. After each test its console has no error, and all requests went to this host."""
    with browser.new_page() as page:
        open_explorer(page, server)
        yield page
        assert faults(page, server) == []


@pytest.fixture
def program(server: RunningServer, page: Page) -> dict[str, Any]:
    """A new program whose credentials are typed into the page."""
    program = new_program(server)
    type_credentials(page, program["application_token"], program["access_token"])
    return program


def type_credentials(page: Page, application_token: str, access_token: str) -> None:
    page.type("input[name=application]", application_token)
    page.type("input[name=access]", access_token)


def open_operation(page: Page, operation_id: str) -> None:
    """Click the operation in the list, as the search left it."""
    page.click(f"#operations a[href='#{operation_id}']")
    page.wait_for("(id) => document.querySelector('#operations [aria-current]')?.hash === `#${id}`", operation_id)


def shown_answer(page: Page) -> tuple[str, Any]:
    """Return the status line and the JSON of the answer, after it has appeared."""
    status = page.text(".answer .status")
    return status, json.loads(page.text(".answer > pre"))


def send(page: Page) -> tuple[str, Any]:
    """Click Send and return the answer."""
    page.click("button.send")
    return shown_answer(page)


def value_of(page: Page, selector: str) -> str:
    return str(page.evaluate("(selector) => document.querySelector(selector).value", selector))


def api_requests(page: Page, server: RunningServer) -> list[str]:
    """Return the URLs of the requests to the API so far, in their order."""
    page.evaluate("new Promise((resolve) => setTimeout(resolve))")
    return [url for url in page.requests if url.startswith(f"{server.base_url}/")]


def listed_operations(page: Page) -> list[str]:
    """Return the operations of the list from top to bottom."""
    return list(page.evaluate("[...document.querySelectorAll('#operations a')].map((link) => link.hash.slice(1))"))


# --- The list -----------------------------------------------------------------------------


def test_page_lists_every_operation(page: Page) -> None:
    """Each operation of the document is in the list once, and the document has one for each route."""
    assert len(OPERATIONS) == len(ROUTES)
    assert sorted(listed_operations(page)) == sorted(OPERATIONS)


def test_search_narrows_the_list(page: Page) -> None:
    """All words of a search must fit verb, path, summary or group; an empty search shows everything again."""
    page.press("/")
    page.press("a")
    assert value_of(page, "#search") == "a"
    page.type("#search", "PUT /users/{token}")
    assert listed_operations(page) == ["update_user"]
    page.type("#search", "no such operation")
    assert listed_operations(page) == []
    assert page.text("#operations") == "No operation matches."
    page.type("#search", "")
    assert len(listed_operations(page)) == len(OPERATIONS)


def test_every_operation_opens(page: Page, server: RunningServer) -> None:
    """Each operation shows its path, a labelled field for each parameter, its body and Send, without error or other host."""
    for operation_id, operation in OPERATIONS.items():
        shown = page.evaluate(
            """async (id) => {
              const shown = new Promise((resolve) => addEventListener('hashchange', resolve, {once: true}));
              location.hash = id;
              await shown;
              const labels = [...document.querySelectorAll('main .parameter label')];
              return {
                path: document.querySelector('.place code').textContent,
                current: document.querySelector('[aria-current]').hash.slice(1),
                labels: labels.filter((label) => label.control).map((label) => label.control.name),
                body: document.querySelector('#body')?.value ?? null,
                send: document.querySelector('button.send').textContent,
              };
            }""",
            operation_id,
        )
        body = shown.pop("body")
        names = [parameter["name"] for parameter in operation.get("parameters", [])]
        assert shown == {"path": operation["path"], "current": operation_id, "labels": names, "send": "Send"}
        assert (body is not None) == ("requestBody" in operation), operation_id
        assert body is None or isinstance(json.loads(body), dict), operation_id
    assert faults(page, server) == []


# --- Requests -----------------------------------------------------------------------------


def test_request_is_sent_and_answered(page: Page, program: dict[str, Any]) -> None:
    """The typed body is sent with the typed credentials. Status and JSON of the response appear."""
    open_operation(page, "create_user")
    page.type("#body", '{"token": "mara", "first_name": "Mara", "metadata": {"note": "a \\"quoted\\" ünïcode"}}')
    status, user = send(page)
    assert status == "201 Created"
    assert (user["token"], user["first_name"], user["metadata"]) == ("mara", "Mara", {"note": 'a "quoted" ünïcode'})
    assert page.text("#said") == "The answer is 201 Created."


def test_created_object_is_found_again(page: Page, program: dict[str, Any]) -> None:
    """The token that the server chose for a new object is filled in at operations that read the object."""
    open_operation(page, "create_user")
    page.type("#body", '{"first_name": "Mara"}')
    status, created = send(page)
    assert status == "201 Created"
    open_operation(page, "get_user")
    assert value_of(page, "#path-token") == created["token"]
    assert send(page) == ("200 OK", created)
    page.type("#query-fields", "first_name")
    assert send(page) == ("200 OK", {"first_name": "Mara"})


def test_guide_leads_to_a_purchase(page: Page, program: dict[str, Any]) -> None:
    """The operations of the guide succeed in their order with unchanged examples. Amounts are shown with their decimals."""
    for operation_id in GUIDE:
        page.click(f".guide a[href='#{operation_id}']")
        status, answer = send(page)
        assert status in ("200 OK", "201 Created"), (operation_id, answer)
        if operation_id == "simulate_authorization":
            assert answer["transaction"]["response"]["code"] == "0000"
            assert '"available_balance": 0.00,' in page.text(".answer > pre")
        page.click(".brand")


def test_wrong_credential_is_refused(page: Page, program: dict[str, Any]) -> None:
    """A wrong access token shows the status 401 and the error. Without a token the page asks for the credentials."""
    open_operation(page, "list_users")
    page.type("input[name=access]", "wrong")
    status, problem = send(page)
    assert status == "401 Unauthorized"
    assert set(problem) == {"error_code", "error_message"}
    assert "Fill in the credentials" not in page.text(".answer")
    page.type("input[name=access]", "")
    assert send(page)[0] == "401 Unauthorized"
    assert "Fill in the credentials" in page.text(".answer")
    page.type("input[name=access]", program["access_token"])
    assert send(page)[0] == "200 OK"


def test_validation_error_names_the_field(page: Page, program: dict[str, Any]) -> None:
    """A body that the server refuses shows the status 400, and its message has the name of the field."""
    open_operation(page, "create_user")
    page.type("#body", json.dumps({"first_name": "x" * 41}))
    status, problem = send(page)
    assert status == "400 Bad Request"
    assert "first_name" in problem["error_message"]
    page.type("#body", "{")
    assert send(page)[0] == "400 Bad Request"


def test_required_parameter_is_asked_for(page: Page, server: RunningServer, program: dict[str, Any]) -> None:
    """An empty path parameter is not sent: the field is marked as invalid and gets the focus."""
    open_operation(page, "get_user")
    page.type("#path-token", "")
    before = len(api_requests(page, server))
    page.click("button.send")
    assert page.evaluate("document.activeElement.matches('#path-token:invalid')") is True
    assert page.evaluate("document.querySelector('.answer')") is None
    assert api_requests(page, server)[before:] == []


@pytest.mark.parametrize("selector", ["#path-token", "#body", "button.send"])
def test_ctrl_enter_sends_once(page: Page, server: RunningServer, program: dict[str, Any], selector: str) -> None:
    """Ctrl+Enter sends from a field, the body and the button, and sends one request."""
    open_operation(page, "create_user")
    send(page)
    open_operation(page, "update_user")
    before = len(api_requests(page, server))
    page.evaluate("(selector) => document.querySelector(selector).focus()", selector)
    page.press("Enter", ctrl=True)
    status, user = shown_answer(page)
    assert (status, user["token"]) == ("200 OK", "ana")
    assert api_requests(page, server)[before:] == [f"{server.base_url}/users/ana"]


# --- The frame ----------------------------------------------------------------------------


def test_credentials_stay_in_the_tab(page: Page, server: RunningServer, program: dict[str, Any]) -> None:
    """Credentials stay in the tab when its page changes. They are neither in the address nor in storage beyond the tab."""
    page.navigate("about:blank")
    open_explorer(page, server, "#list_users")
    assert value_of(page, "input[name=application]") == program["application_token"]
    assert send(page)[0] == "200 OK"
    assert program["access_token"] not in page.evaluate("location.href + JSON.stringify(localStorage) + document.cookie")


def test_skip_link_leaves_the_operation_open(page: Page, server: RunningServer) -> None:
    """The skip link moves the focus to the content and changes nothing else. As an address, its target shows the guide."""
    open_operation(page, "create_user")
    page.evaluate("document.querySelector('.skip').focus()")
    page.press("Enter")
    page.wait_for("document.activeElement.id === 'content'")
    assert page.evaluate("location.hash") == "#create_user"
    for fragment in ("#content", "#%"):
        page.navigate("about:blank")
        open_explorer(page, server, fragment)
        assert page.text("h1") == "From nothing to a paid coffee, in six steps"


def test_form_keeps_only_what_was_typed(page: Page, program: dict[str, Any]) -> None:
    """A typed parameter is kept while other operations are open. An untouched one still gets the token of a later object."""
    open_operation(page, "get_user")
    page.type("#query-fields", "token")
    open_operation(page, "create_user")
    page.type("#body", "{}")
    created = send(page)[1]
    open_operation(page, "get_user")
    assert value_of(page, "#query-fields") == "token"
    assert value_of(page, "#path-token") == created["token"]
    open_operation(page, "create_user")
    assert value_of(page, "#body") == "{}"
    page.click("form .actions button:last-child")
    open_operation(page, "get_user")
    open_operation(page, "create_user")
    assert json.loads(value_of(page, "#body"))["token"] == "ana"


def test_colours_are_kept(page: Page, server: RunningServer) -> None:
    """The button switches between light and dark, and the choice survives a reload."""
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert after != before
    page.navigate("about:blank")
    open_explorer(page, server)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after
