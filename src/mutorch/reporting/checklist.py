"""Which questions of the NAS best-practice checklist (Lindauer and Hutter, arXiv 1909.02453) a run card answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Item:
    """One question of the checklist, in our words.

    Attributes:
        question: what a paper should answer.
        status: `"yes"` where the card answers it, `"missing"` where it could and does not, `"yours"` where only you can.
        detail: the answer, or how to give it.
    """

    question: str
    status: Literal["yes", "missing", "yours"]
    detail: str

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"question": self.question, "status": self.status, "detail": self.detail}


def checklist(card: Mapping[str, Any]) -> list[Item]:
    """The checklist, as far as a card answers it.

    Example:
        >>> [item.status for item in checklist({})][:2]
        ['missing', 'yours']
    """
    git, space, random, seeds = card.get("git"), card.get("space") or {}, card.get("random"), card.get("repeated")
    comparable = card.get("baseline")
    return [
        _known(
            "Is the code of the search released?",
            git
            and f"revision {git['revision'][:12]}" + (", with changes that are not committed" if git["dirty"] else ""),
            "the folder is no git repository; commit your code and give folder=",
        ),
        Item(
            "Is the code that trains the final architectures released, with its hyperparameters and seeds?",
            "yours",
            "say where it is",
        ),
        _known(
            "Is the search space defined?",
            space.get("decisions") and f"{space['decisions']} decisions, fingerprint {space['fingerprint']}",
            "give space=, mutator= or table=",
        ),
        _known(
            "Are the hyperparameters and the seed of the method given?",
            card.get("strategy") and f"{card['strategy']}, seed {card.get('seed')}, {card.get('ahead')} ahead",
            "the history does not say how it was made",
        ),
        _known(
            "Are the versions of the libraries given?",
            card.get("versions") and "in the run card",
            "give a card of run_card",
        ),
        _known(
            "Is it compared to random search?",
            (comparable and f"with {comparable['trials']} trials each")
            or (random and f"with the first {random['trials']} trials, which are random"),
            "give baseline=, a history of strategy='random'",
        ),
        _known(
            "Do methods that are compared share space, data, training and evaluation?",
            comparable and comparable["same_space"] and "the same space; data and training are as you ran them",
            "give baseline=, a search of the same space",
        ),
        _known("Is performance shown over time?", card.get("trials") and "figure of progress", "there are no trials"),
        _known(
            "Was it run several times, with the seeds reported?",
            seeds and len(seeds["seeds"]) > 1 and f"seeds {', '.join(map(str, seeds['seeds']))}",
            "give repeated=, of mutorch.search.repeat",
        ),
        _known(
            "Is the time of the whole method reported, not of the search alone?",
            card.get("wall_seconds") is not None and f"{card.get('wall_seconds'):.1f} s",
            "give wall_seconds=, training of the supernet and of the final architectures included",
        ),
        Item(
            "Is it reported how hyperparameters were tuned, and at which cost?",
            "yours",
            "say which were tried, of the training too",
        ),
        Item(
            "Were parts of the method left out to see what they contribute?",
            "yours",
            "another strategy, or training, with all else the same",
        ),
        Item(
            "Was it also tried on a tabular or surrogate benchmark?",
            "yours",
            "search_space takes a table of results as evaluate",
        ),
    ]


def _known(question: str, answer: Any, remedy: str) -> Item:
    return Item(question, "yes", str(answer)) if answer else Item(question, "missing", remedy)
