import json
import math
import subprocess

import pytest

from mutorch.errors import StateError
from mutorch.reporting import run_card
from mutorch.search import History, Trial
from mutorch.search.repeat import Repeated


def statuses(card):
    return {item["question"]: item["status"] for item in card["checklist"]}


def test_the_card_says_what_the_search_was_and_found(make_history, space):
    history = make_history(30)
    card = run_card(history, space=space)
    assert card["space"] == {"fingerprint": space.fingerprint, "decisions": 2, "size": 9}
    assert (card["strategy"], card["seed"], card["ahead"], card["trials"]) == ("evolution", 0, 8, 30)
    assert card["best"]["architecture"] == history.best.architecture
    assert card["evaluation_seconds"] == 60
    first = [trial.score for trial in history.trials[:20]]
    assert card["random"] == {"trials": 20, "best": max(first), "mean": pytest.approx(sum(first) / 20)}
    assert {*card["versions"]} == {"mutorch", "torch", "numpy", "python", "platform", "device"}
    json.dumps(card)


def test_trials_that_failed_broke_constraints_or_gave_no_number_are_counted():
    trials = [
        Trial(0, {}, 1.0),
        Trial(1, {}, 2.0, violation=1.0),
        Trial(2, {}, -math.inf),
        Trial(3, {}, -math.inf, error="E"),
    ]
    card = run_card(History(trials))
    assert (card["failed"], card["infeasible"], card["without_number"]) == (1, 1, 1)
    assert card["best"]["trial"] == 0


def test_a_baseline_is_compared_at_the_same_number_of_trials(make_history):
    card = run_card(make_history(30), baseline=make_history(10, seed=1, strategy="random"))
    assert card["baseline"]["trials"] == 10
    assert card["baseline"]["search"]["best"] == max(trial.score for trial in make_history(30).trials[:10])
    assert card["baseline"]["same_space"]


def test_the_checklist_names_what_is_missing_and_what_would_be_given(make_history, space, tmp_path):
    bare = run_card(make_history(), folder=tmp_path)
    assert statuses(bare)["Is the search space defined?"] == "missing"
    assert "give wall_seconds=" in next(i["detail"] for i in bare["checklist"] if "time of the whole" in i["question"])
    seeds = Repeated({0: make_history(), 1: make_history(seed=1)})
    whole = run_card(
        make_history(), space=space, baseline=make_history(seed=3, strategy="random"), repeated=seeds, wall_seconds=9.0
    )
    left = [question for question, status in statuses(whole).items() if status == "missing"]
    assert [question for question in left if "code of the search" not in question] == []


def test_the_revision_is_that_of_the_folder_and_says_whether_files_differ(make_history, tmp_path):
    assert run_card(make_history(), folder=tmp_path)["git"] is None

    def git(*command):
        names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *names, *command], check=True, capture_output=True)

    git("init")
    (tmp_path / "train.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    assert run_card(make_history(), folder=tmp_path)["git"]["dirty"] is False
    (tmp_path / "train.py").write_text("2")
    found = run_card(make_history(), folder=tmp_path)["git"]
    assert found["dirty"] is True
    assert len(found["revision"]) == 40


def test_a_card_of_nothing_is_refused():
    with pytest.raises(StateError, match="no trials yet"):
        run_card(History([]))
