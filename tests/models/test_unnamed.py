"""Probabilities over slots of which the first have labels."""

import numpy as np

from models.unnamed import certainty, likeliest, losses, shares

P = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.15, 0.1]])
LOG_P = np.log(P)


def test_answers_share_what_named_slots_have() -> None:
    """They sum to one; the rest is the probability of a label not seen yet."""
    found = shares(LOG_P, 2)
    np.testing.assert_allclose(found.named, [[1 / 3, 2 / 3], [2 / 3, 1 / 3]])
    np.testing.assert_allclose(found.unnamed, [0.7, 0.25])
    np.testing.assert_allclose(certainty(LOG_P, np.array([2, 2])), [2 / 3, 2 / 3])


def test_losses_are_those_of_a_proper_distribution() -> None:
    """Over the labels known and a new one, probabilities sum to one, however many are known."""
    for named in range(5):
        known = [np.exp(-losses(LOG_P, np.full(2, slot), np.full(2, named))) for slot in range(min(named + 1, 4))]
        np.testing.assert_allclose(sum(known), 1.0)


def test_only_named_slots_are_answered() -> None:
    """The likeliest of them, and none where there is none."""
    np.testing.assert_array_equal(likeliest(LOG_P, np.array([2, 0])), [1, -1])
    np.testing.assert_array_equal(certainty(LOG_P, np.array([1, 0])), [1.0, 0.0])
    assert shares(LOG_P, 0).named.shape == (2, 0)
