"""What is the AUC of each of many resamples of users? One compiled pass over the sorted impressions per resample.

Shape letters: E impressions, U users, R resamples.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def auc_of_resamples(user_E, positive_E, ends_E, counts_RU, answer_R):  # type: ignore[no-untyped-def]
    """The AUC of each resample into ``answer_R``, NaN where one class is missing; counts are exact integers.

    Impressions ascend by score; ``ends_E`` is true at the last of equal scores. User u was drawn counts_RU[r, u] times.
    """
    for r in range(len(counts_RU)):
        below = won = positives = 0
        tied_positives = tied_negatives = 0
        for e in range(len(user_E)):
            n = counts_RU[r, user_E[e]]
            if positive_E[e]:
                tied_positives += n
            else:
                tied_negatives += n
            if ends_E[e]:
                won += tied_positives * (2 * below + tied_negatives)  # twice the pairs that a positive wins
                below += tied_negatives
                positives += tied_positives
                tied_positives = tied_negatives = 0
        answer_R[r] = won / (2 * positives * below) if positives and below else float("nan")
