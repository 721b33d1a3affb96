from workshop.bench import PARTS, Figure, at_most, compare, plot_goals
from workshop.measure import Times, interleaved


def test_the_ratio_is_that_of_neighbours_and_not_of_the_medians():
    services = Times("services", [10.0, 100.0, 1000.0, 20.0])
    script = Times("monolith", [20.0, 100.0, 500.0, 40.0])
    (p50,) = compare("pipeline", services, script, 1.05)
    assert p50.value == "0.75 ×"  # ratios 0.5, 1, 2, 0.5
    assert p50.met
    _, longest = compare("pipeline", services, script, 1.05, 1.15)
    assert (longest.value, longest.met) == ("2.00 ×", False)
    assert "longest 1000.0 ms against 500.0 ms" in longest.note


def test_a_missed_goal_is_marked():
    assert at_most("memory", 787, 700, "{:.0f} MB") == Figure(
        "memory", "787 MB", "≤ 700 MB", False, ""
    )


def test_each_arm_runs_once_a_round_and_the_first_place_changes():
    calls = []
    arms = {name: (lambda number, name=name: calls.append((name, number))) for name in "ab"}
    times = interleaved(arms, 4, warm_up=1)
    assert [len(arm.milliseconds) for arm in times] == [4, 4]
    first_places = [name for name, _ in calls[2::2]]
    assert sorted(first_places) == ["a", "a", "b", "b"]


def test_goals_are_drawn(tmp_path):
    figures = [
        at_most("memory", 787, 700, "{:.0f} MB"),
        Figure("batching", "2.17 ×", "≥ 1.60 ×", True),
        Figure("without a goal", "3 ms"),
    ]
    plot_goals(figures, tmp_path / "goals.png")
    assert (tmp_path / "goals.png").stat().st_size > 5_000
    plot_goals(figures[2:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert len(PARTS) == 8
