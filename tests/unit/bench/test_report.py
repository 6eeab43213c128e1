"""Report of the benchmark: disturbed rounds do not count, and ratios are formed within a round."""

from bench.report import CALM, by_round, quotients

CALM_SHARE, DISTURBED_SHARE = CALM / 2, CALM * 2


def row(number: int, rate: float, others: float) -> dict[str, float]:
    return {"round": number, "rate": rate, "others_share": others}


def test_two_measurements_of_a_round_count_with_their_mean() -> None:
    """Two tries of a round give their median and the larger share of other processes, so one disturbed try marks the round."""
    measured = {"a": [row(1, 90, 0.0), row(1, 110, 0.04), row(2, 50, 0.01)]}
    assert by_round(measured, "a") == {1: (100.0, 0.04), 2: (50.0, 0.01)}


def test_a_ratio_is_formed_in_each_round_and_disturbed_rounds_do_not_count() -> None:
    """A round with a disturbed side does not count. If all rounds are disturbed, all count and the result is marked."""
    above = [row(1, 100, CALM_SHARE), row(2, 300, CALM_SHARE), row(3, 900, DISTURBED_SHARE)]
    below = [row(1, 100, CALM_SHARE), row(2, 100, CALM_SHARE), row(3, 100, CALM_SHARE)]
    ratios = quotients({"a": above, "b": below}, "a", "b")
    assert (ratios.numbers, ratios.is_disturbed) == ((1.0, 3.0), False)
    ratios = quotients({"a": above[2:], "b": below[2:]}, "a", "b")
    assert (ratios.numbers, ratios.is_disturbed) == ((9.0,), True)
