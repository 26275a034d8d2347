"""What the bench makes of its samples."""

import pytest

from tests.bench import goals, table
from tests.bench.goals import Goal, Peer, judge

PEERS = (Peer("ttyd", "ttyd"), Peer("ttyd, by virsh", "virsh", 2.0))
AT_MOST = Goal("rtt", "p50", "echo", "µs", 0.5, PEERS)
AT_LEAST = Goal("rtt", "p50", "echo", "µs", 1.8, PEERS, at_least=True)
OF_ITSELF = Goal("rtt", "p50", "echo", "µs", 50)


def results(**targets):
    return {"rtt": {name: {"p50": values} for name, values in targets.items()}}


@pytest.mark.parametrize(
    ("goal", "ours", "ttyd", "ratio", "reached"),
    [
        (AT_MOST, [50.0], [100.0], 0.5, True),
        (AT_MOST, [51.0], [100.0], 0.51, False),
        (AT_LEAST, [180.0], [100.0], 1.8, True),
        (AT_LEAST, [179.0], [100.0], 1.79, False),
        # Of each round, not of the medians (2.0): a slow round slows both.
        (AT_MOST, [10.0, 40.0, 90.0], [100.0, 20.0, 30.0], 2.0, False),
        (AT_MOST, [10.0, 40.0, 90.0], [100.0, 200.0, 90.0], 0.2, True),
    ],
)
def test_a_ratio_is_the_median_of_the_rounds_ratios(goal, ours, ttyd, ratio, reached):
    verdict = judge(goal, results(ours=ours, ttyd=ttyd, virsh=[1.0] * len(ours)))
    assert (verdict.ratio, verdict.reached) == (pytest.approx(ratio), reached)
    assert verdict.peer == "ttyd"


@pytest.mark.parametrize(("ours", "reached"), [([49.0, 50.0, 1000.0], True), ([51.0], False)])
def test_a_goal_without_a_peer_is_a_limit_for_the_median(ours, reached):
    assert judge(OF_ITSELF, results(ours=ours)).reached is reached


def test_a_peer_that_is_not_installed_is_estimated_or_told():
    verdict = judge(AT_MOST, results(ours=[50.0], virsh=[50.0]))
    assert (verdict.peer, verdict.theirs, verdict.reached) == ("ttyd, by virsh", 100.0, True)
    verdict = judge(AT_MOST, results(ours=[50.0]))
    assert (verdict.peer, verdict.theirs, verdict.reached) == ("ttyd", None, None)
    assert judge(AT_MOST, results(ttyd=[50.0])).reached is None


def test_the_table_says_what_was_reached_missed_and_not_measured(monkeypatch):
    missed = AT_LEAST._replace(what="missed")
    nobody = AT_MOST._replace(what="nobody's", peers=(Peer("nobody", "nobody"),))
    monkeypatch.setattr(goals, "GOALS", (AT_MOST, missed, nobody))
    rows = table.goals(results(ours=[50.0], ttyd=[100.0])).splitlines()[2:]
    ends = [row.strip("| ").rpartition("| ")[2] for row in rows]
    assert ends == ["yes", "**no**", "not measured here"]


def test_every_goal_is_of_a_metric_that_its_figure_draws_or_lists():
    from tests.bench.measures import FIGURES

    assert {goal.figure for goal in goals.GOALS} < set(FIGURES)
