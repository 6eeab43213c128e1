"""Room: the numbers of posts that may begin, by the state of the endpoints and by the posts in progress."""

from collections.abc import Iterable

import pytest

from cardwright.outbox import room as module
from cardwright.outbox.room import Endpoints, EndpointState

SENDS_MAX, ENDPOINT_MAX = 64, 8


def endpoints_with(*, answering: Iterable[int] = (), silent: Iterable[int] = ()) -> Endpoints:
    """Return endpoints in these states, without posts in progress."""
    endpoints = Endpoints(sends_max=SENDS_MAX, endpoint_max=ENDPOINT_MAX)
    for has_answered, ids in ((True, answering), (False, silent)):
        for endpoint_id in ids:
            endpoints.begin(endpoint_id)
            endpoints.end(endpoint_id, has_answered=has_answered)
    return endpoints


def fill(endpoints: Endpoints, ids: Iterable[int]) -> int:
    """Begin as many posts to each of the endpoints as there is room for. Return their number."""
    count = 0
    for endpoint_id in ids:
        for _ in range(endpoints.room().free(endpoint_id)):
            endpoints.begin(endpoint_id)
            count += 1
    return count


def test_an_endpoint_gets_eight_posts_only_after_an_answer() -> None:
    """A new endpoint gets one post at a time, an answering one eight, a silent one a single one again."""
    endpoints = endpoints_with()
    assert fill(endpoints, [1]) == 1
    assert endpoints.room().free(1) == 0
    endpoints.end(1, has_answered=True)
    assert fill(endpoints, [1]) == ENDPOINT_MAX
    assert endpoints.room().free(1) == 0
    for posts in range(ENDPOINT_MAX - 1, -1, -1):
        endpoints.end(1, has_answered=False)
        assert endpoints.room().free(1) == (1 if posts == 0 else 0)
    endpoints.begin(1)
    assert endpoints.room().free(1) == 0


def test_silent_endpoints_have_a_share_of_their_own() -> None:
    """A thousand silent endpoints get 64 posts. Each answering endpoint, and a new one, gets its posts as before."""
    endpoints = endpoints_with(answering=[1], silent=range(10, 1_010))
    assert fill(endpoints, range(10, 1_010)) == SENDS_MAX
    room = endpoints.room()
    assert (room.free(1), room.free(2), room.free(500)) == (ENDPOINT_MAX, 1, 0)


def test_new_endpoints_have_a_share_of_their_own() -> None:
    """A thousand new endpoints get 64 posts, and answering and silent ones their own."""
    endpoints = endpoints_with(answering=[1], silent=[2])
    assert fill(endpoints, range(10, 1_010)) == SENDS_MAX
    room = endpoints.room()
    assert (room.free(1), room.free(2), room.free(5_000)) == (ENDPOINT_MAX, 1, 0)


def test_half_of_the_share_is_for_first_posts() -> None:
    """If 31 answering endpoints stop answering with all the posts that they can get, another one still gets a post."""
    ids = range(1, 32)
    endpoints = endpoints_with(answering=[*ids, 99])
    assert fill(endpoints, ids) == SENDS_MAX // 2 + len(ids)
    assert endpoints.room().free(99) == 1


def test_posts_count_for_the_present_state_of_their_endpoint() -> None:
    """The posts of an endpoint that stopped answering do not count for those that answer."""
    endpoints = endpoints_with(answering=range(1, 20))
    fill(endpoints, range(1, 19))
    assert endpoints.room().free(19) == 1
    for endpoint_id in range(1, 19):
        endpoints.end(endpoint_id, has_answered=False)
    assert endpoints.room().free(19) == ENDPOINT_MAX


def test_first_posts_are_reserved_when_silent_endpoints_answer_again() -> None:
    """Endpoints that answer again with many posts in progress take no first post from others."""
    endpoints = endpoints_with(answering=range(1, 8))
    fill(endpoints, range(1, 8))
    for endpoint_id in range(1, 5):
        endpoints.end(endpoint_id, has_answered=False)
    fill(endpoints, range(5, 8))
    for endpoint_id in range(1, 5):
        endpoints.end(endpoint_id, has_answered=True)
    assert endpoints.room().free(99) == 1
    endpoints.begin(99)
    endpoints.end(99, has_answered=True)
    assert endpoints.room().free(99) >= 1


def test_the_longest_unserved_endpoint_comes_first() -> None:
    """Endpoints sort by state, and within a state by the age of their latest post."""
    endpoints = endpoints_with(answering=[1, 2, 3], silent=[4, 5])
    endpoints.begin(1)
    assert sorted([1, 2, 3, 4, 5, 6], key=endpoints.room().record) == [2, 3, 1, 6, 4, 5]


def test_taking_room_does_not_change_the_endpoints() -> None:
    """A room is a copy: what a claim takes from it is counted only when the posts begin."""
    endpoints = endpoints_with(answering=[1])
    room = endpoints.room()
    room.take(1, 5)
    assert (room.free(1), endpoints.room().free(1)) == (3, 8)


def test_a_recent_delivery_of_another_process_is_an_answer() -> None:
    """An endpoint without a post from this process counts as answering after a recent delivery, a silent one does not."""
    endpoints = endpoints_with(silent=[2])
    room = endpoints.room()
    for endpoint_id in (1, 2):
        room.learn(endpoint_id)
    assert (room.free(1), room.free(2), room.record(2).state) == (ENDPOINT_MAX, 1, EndpointState.SILENT)
    endpoints.begin(1, has_answered=True)
    assert endpoints.room().free(1) == ENDPOINT_MAX - 1
    endpoints.end(1, has_answered=False)
    assert endpoints.room().record(1).state is EndpointState.SILENT


def test_the_number_of_remembered_endpoints_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit, the endpoint with the oldest post is new again. Its posts in progress still count."""
    monkeypatch.setattr(module, "ENDPOINTS_MAX", 3)
    endpoints = endpoints_with(answering=[1])
    fill(endpoints, [1])
    for endpoint_id in (2, 3, 4):
        endpoints.begin(endpoint_id)
    room = endpoints.room()
    assert (len(room.records), room.record(1).state, room.free(1)) == (3, EndpointState.NEW, 0)
