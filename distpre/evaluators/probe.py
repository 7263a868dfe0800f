"""Linear and ridge probes of frozen features (scikit-learn), judged on participants that they were not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distpre.errors import DataError, RecipeError
from distpre.evaluators.features import Features, participants, samples
from distpre.evaluators.intervals import bootstrap
from distpre.group import from_rank_zero, gathered, rank
from distpre.types import Batch, Embedder, Row


class Probe:
    """A linear model of a target, fitted and judged in turns: each participant is predicted by a fold without them.

    view; id: the target, a class or a whole number; above: the class is whether the number is at least this. by: the
    participant's id, also what the bootstrap interval draws. each: what one item is: "participant" (the mean of their
    samples' features, Abbaspourazad et al. 2024) or "sample". linear: logistic regression, rows AUROC (of several
    classes the mean, one against the rest) and balanced accuracy. ridge: rows MAE and R2; its strength is chosen by
    leave-one-out within the fitted part. labelled: shares of the fitted participants whose target is known, a curve of
    rows; a share's participants are among a larger one's, and are more where all have one target. Folds and they are
    drawn with a fixed seed. Features are standardised by the part that is fitted. Rank 0 fits; it holds one row an
    item. Raises DataError for too few participants or classes.
    """

    def __init__(
        self,
        view: str,
        id: str,
        by: str,
        kind: Literal["linear", "ridge"] = "linear",
        above: float | None = None,
        each: Literal["participant", "sample"] = "participant",
        features: Features = "encoder",
        folds: int = 5,
        strength: float = 1.0,
        labelled: list[float] = (1.0,),  # noqa: B006
    ):
        if not labelled or not all(0 < share <= 1 for share in labelled):
            raise RecipeError(f"probe.labelled {labelled} will not do.", "It may be a list of shares, above 0 up to 1.")
        self.view, self.id, self.by, self.kind, self.above, self.each = view, id, by, kind, above, each
        self.features, self.folds, self.strength, self.labelled = features, folds, strength, labelled

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        if self.each == "participant":
            x, ids = participants(embed, data, self.view, self.by, [self.id], self.features)
        else:
            x, ids = samples(embed, data, self.view, ["ordinal", self.by, self.id], self.features)
            order = gathered(ids["ordinal"]).argsort()  # folds must not depend on the number of ranks
            x, ids = gathered(x)[order], {name: gathered(values)[order] for name, values in ids.items()}
        yield from self.rows(x, ids[self.id], ids[self.by])

    def rows(self, x: Tensor, target: Tensor, groups: Tensor) -> Iterator[Row]:
        """Features (n, d), targets (n,) and participants (n,) of all ranks, in an order that their number leaves."""
        if rank() == 0:
            try:
                items = x.double().cpu().numpy(), target.cpu().numpy(), groups.cpu().numpy()
                said: Any = list(self._judged(*items))
            except DataError as e:
                said = e
        said = from_rank_zero(said if rank() == 0 else None)
        if isinstance(said, DataError):
            raise said
        yield from said

    def _judged(self, x: NDArray, target: NDArray, groups: NDArray) -> Iterator[Row]:
        if self.above is not None:
            target = (target >= self.above).astype(np.int64)
        classes = self.kind == "linear"
        enough = self.folds if not classes else min(_groups_a_class(target, groups), self.folds)
        if len(np.unique(groups)) < self.folds or enough < 2 or (classes and len(np.unique(target)) < 2):
            raise DataError(
                f"evaluate: {self.id} of {len(np.unique(groups))} {self.by} cannot be probed in {self.folds} folds.",
                "Every class needs two participants, and there must be as many participants as folds.",
            )
        for share in self.labelled:
            yield from (self._linear if classes else self._ridge)(x, target, groups, share)

    def _linear(self, x: NDArray, target: NDArray, groups: NDArray, share: float) -> Iterator[Row]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold

        names, target = np.unique(target, return_inverse=True)
        scores = np.zeros((len(x), len(names)))
        for fitted, judged in StratifiedGroupKFold(self.folds, shuffle=True, random_state=0).split(x, target, groups):
            fitted = labelled(fitted, target, groups, share)
            model = _scaled(LogisticRegression(C=self.strength, max_iter=2000)).fit(x[fitted], target[fitted])
            scores[np.ix_(judged, model.classes_)] = model.predict_proba(x[judged])

        yield self._row("AUROC", share, lambda at: auroc(scores[at], target[at]), groups)
        named = scores.argmax(1)
        yield self._row("balanced accuracy", share, lambda at: balanced_accuracy(named[at], target[at]), groups)

    def _ridge(self, x: NDArray, target: NDArray, groups: NDArray, share: float) -> Iterator[Row]:
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import GroupKFold

        said = np.zeros(len(x))
        for fitted, judged in GroupKFold(self.folds, shuffle=True, random_state=0).split(x, target, groups):
            fitted = labelled(fitted, target, groups, share)
            said[judged] = _scaled(RidgeCV(np.logspace(-2, 5, 15))).fit(x[fitted], target[fitted]).predict(x[judged])
        error = target - said
        yield self._row("MAE", share, lambda at: float(np.abs(error[at]).mean()), groups)
        yield self._row("R2", share, lambda at: float(1 - (error[at] ** 2).sum() / _spread(target[at])), groups)

    def _row(self, name: str, share: float, statistic: Callable[[NDArray], float], groups: NDArray) -> Row:
        every, labels = np.arange(len(groups)), "" if share == 1 else f" of {share:.0%} labels"
        return Row(f"{self.id} {name}{labels}", statistic(every), len(groups), *bootstrap(statistic, groups))


def labelled(fitted: NDArray, target: NDArray, groups: NDArray, share: float) -> NDArray:
    """Of the fitted items those of `share` of their participants, and of as many more as it takes for two targets."""
    names = np.random.default_rng(0).permutation(np.unique(groups[fitted]))
    for count in range(max(1, round(share * len(names))), len(names) + 1):
        known = fitted[np.isin(groups[fitted], names[:count])]
        if len(np.unique(target[known])) > 1:
            return known
    return fitted


def auroc(scores: NDArray, target: NDArray) -> float:
    """Mean over the classes that are there of each against the rest; a tie counts half (Mann & Whitney 1947).

    scores: (n, classes), target: (n,). As scikit-learn's, without its checks: the bootstrap asks a thousand times.
    """
    from scipy.stats import rankdata

    there = np.unique(target)
    rank, own = rankdata(scores[:, there], axis=0), target[:, None] == there
    count = own.sum(0)
    above = (rank * own).sum(0) - count * (count + 1) / 2
    return float(np.mean(above / (count * (len(target) - count)))) if len(there) > 1 else np.nan


def balanced_accuracy(named: NDArray, target: NDArray) -> float:
    """Mean over the classes that are there of the share of each that is named right."""
    count = np.bincount(target)
    right = np.bincount(target[named == target], minlength=len(count))
    return float((right[count > 0] / count[count > 0]).mean())


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _groups_a_class(target: NDArray, groups: NDArray) -> int:
    """Of the rarest class: how many participants have it."""
    return min(len(np.unique(groups[target == c])) for c in np.unique(target))


def _spread(target: NDArray) -> float:
    total = float(((target - target.mean()) ** 2).sum())
    return total if total > 0 else np.nan
