"""Files of the API explorer: part of the package, served under a strict policy, without addresses of other hosts."""

import re
import urllib.request
from email.message import Message

import pytest

from cardwright.edges.http.examples import HERE, NUMBER, PURCHASE
from cardwright.edges.http.explorer import FILES, FOLDER
from cardwright.edges.http.openapi import document_bytes
from tests.support.fixtures import shared_server
from tests.support.server import RunningServer

PAGE = FOLDER.joinpath("index.html").read_text(encoding="utf-8")
SVG_NAME = "http://www.w3.org/2000/svg"

server = shared_server()


def fetch(server: RunningServer, path: str) -> tuple[int, Message, str]:
    """Return status, headers and text of a response, requested without credentials."""
    with urllib.request.urlopen(server.root_url + path, timeout=60) as answer:
        return answer.status, answer.headers, answer.read().decode()


@pytest.mark.parametrize("path", [*FILES, "/openapi.json"])
def test_file_is_served(server: RunningServer, path: str) -> None:
    """Page, files and document are public. Each has its content type, and the browser must not guess another one."""
    status, headers, text = fetch(server, path)
    assert status == 200
    assert headers.get_content_type() == (FILES[path][1] if path in FILES else "application/json")
    assert headers["x-content-type-options"] == "nosniff"
    assert text == (FOLDER.joinpath(FILES[path][0]).read_text(encoding="utf-8") if path in FILES else document_bytes().decode())


@pytest.mark.parametrize("path", FILES)
def test_policy_is_strict(server: RunningServer, path: str) -> None:
    """The policy allows only files of this server and no embedding in a frame."""
    policy = dict(part.strip().split(" ", 1) for part in fetch(server, path)[1]["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["frame-ancestors"] == "'none'"


def test_root_leads_to_the_page(server: RunningServer) -> None:
    """The root address and /docs/ show the explorer."""
    assert fetch(server, "/")[2] == PAGE
    assert fetch(server, "/docs/")[2] == PAGE


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_file_names_no_other_host(name: str) -> None:
    """No file of the explorer has an address of another host: the explorer works without a network."""
    text = FOLDER.joinpath(name).read_text(encoding="utf-8").replace(SVG_NAME, "").replace(HERE, "")
    assert not re.findall(r"(?:[a-z]+:)?//[\w.-]+\.\w+", text)
    assert "@import" not in text


def test_folder_is_what_is_served() -> None:
    """The page names only files that are served, and the folder has no other file."""
    named = set(re.findall(r'(?:src|href)="(/docs/[^"]+)"', PAGE))
    assert named == set(FILES) - {"/docs"}
    assert {path.name for path in FOLDER.iterdir()} == {name for name, _ in FILES.values()}


def test_script_knows_what_examples_leave_open() -> None:
    """The script has the same placeholders as the examples for the server's address, a purchase and an account number."""
    script = FOLDER.joinpath("explorer.js").read_text(encoding="utf-8")
    assert f"HERE = '{HERE}'" in script
    assert f"PURCHASE = '{PURCHASE}'" in script
    assert f"NUMBER = '{NUMBER}'" in script


def test_page_has_nothing_inline() -> None:
    """Script and style are separate files, because the policy does not allow inline code."""
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", PAGE)


def test_every_field_of_the_page_has_a_label() -> None:
    """Each field of the page has a label for screen readers."""
    page = re.sub(r"<label>.*?</label>", "", PAGE, flags=re.DOTALL)
    fields = re.findall(r"<(?:input|button|nav)[^>]*>", page)
    assert fields
    assert [field for field in fields if "aria-label=" not in field] == []
