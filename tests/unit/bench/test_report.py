"""The report of the benchmark: which numbers count, and how they are put together."""

from bench.report import CALM, by_round, quotients

CALM_SHARE, DISTURBED_SHARE = CALM / 2, CALM * 2


def row(number: int, rate: float, others: float) -> dict[str, float]:
    return {"round": number, "rate": rate, "others_share": others}


def test_two_measurements_of_a_round_count_with_their_mean() -> None:
    """The share of others is the larger one: a pair of which one was disturbed is disturbed."""
    measured = {"a": [row(1, 90, 0.0), row(1, 110, 0.04), row(2, 50, 0.01)]}
    assert by_round(measured, "a") == {1: (100.0, 0.04), 2: (50.0, 0.01)}


def test_a_ratio_is_formed_in_each_round_and_disturbed_rounds_do_not_count() -> None:
    """Of three rounds the one in which either side was disturbed is left out; when all were, all count and it is said."""
    above = [row(1, 100, CALM_SHARE), row(2, 300, CALM_SHARE), row(3, 900, DISTURBED_SHARE)]
    below = [row(1, 100, CALM_SHARE), row(2, 100, CALM_SHARE), row(3, 100, CALM_SHARE)]
    ratios = quotients({"a": above, "b": below}, "a", "b")
    assert (ratios.numbers, ratios.is_disturbed) == ((1.0, 3.0), False)
    ratios = quotients({"a": above[2:], "b": below[2:]}, "a", "b")
    assert (ratios.numbers, ratios.is_disturbed) == ((9.0,), True)
