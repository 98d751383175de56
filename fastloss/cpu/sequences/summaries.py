"""Overlap of summaries of several sentences: the union of the common subsequences of each reference sentence."""

from typing import Any

import numpy as np

from ..runtime.units import kernel

__all__ = ["common_summary"]


def sentence_end(ids, at, stop):
    """Where the sentence from `at` ends: at the next separator, whose id is below 0."""
    while at < stop and ids[at] >= 0:
        at += 1
    return at


def mark_common(r, c, table, marks):
    """Mark the places of a reference sentence in its longest common subsequence with a sentence of the candidate.

    Of several such subsequences it is that of rouge-score, which walks the table back along the reference first.
    """
    n, m = r.size, c.size
    for j in range(m + 1):
        table[0, j] = 0
    for i in range(1, n + 1):
        table[i, 0] = 0
        for j in range(1, m + 1):
            if r[i - 1] == c[j - 1]:
                table[i, j] = table[i - 1, j - 1] + 1
            else:
                table[i, j] = max(table[i - 1, j], table[i, j - 1])
    i, j = n, m
    while i > 0 and j > 0:
        if r[i - 1] == c[j - 1]:
            marks[i - 1] = 1
            i -= 1
            j -= 1
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1


def longest_sentence(lo, hi, ids, starts):
    """The longest sentence of some texts."""
    longest = 0
    for k in range(lo, hi):
        at = starts[k]
        while at < starts[k + 1]:
            stop = sentence_end(ids, at, starts[k + 1])
            longest = max(longest, stop - at)
            at = stop + 1
    return longest


def summaries(lo, hi, ours, starts, theirs, ends, words, hits):
    """Count the tokens of each reference that its union of common subsequences holds, and the candidate as often."""
    rows, columns = longest_sentence(lo, hi, theirs, ends), longest_sentence(lo, hi, ours, starts)
    table, marks = np.empty((rows + 1, columns + 1), np.int64), np.empty(rows, np.int64)
    left, open_ = np.zeros(words[0], np.int64), np.zeros(words[0], np.int64)
    for k in range(lo, hi):
        for at in range(starts[k], starts[k + 1]):
            if ours[at] >= 0:
                left[ours[at]] = 0
        for at in range(ends[k], ends[k + 1]):
            if theirs[at] >= 0:
                open_[theirs[at]] = 0
                left[theirs[at]] = 0
        for at in range(starts[k], starts[k + 1]):
            if ours[at] >= 0:
                left[ours[at]] += 1
        for at in range(ends[k], ends[k + 1]):
            if theirs[at] >= 0:
                open_[theirs[at]] += 1
        found, first = 0, ends[k]
        while first < ends[k + 1]:
            last = sentence_end(theirs, first, ends[k + 1])
            r = theirs[first:last]
            for i in range(r.size):
                marks[i] = 0
            at = starts[k]
            while at < starts[k + 1]:
                stop = sentence_end(ours, at, starts[k + 1])
                mark_common(r, ours[at:stop], table, marks)
                at = stop + 1
            for i in range(r.size):
                # No token counts more often than either text has it.
                if marks[i] == 1 and left[r[i]] > 0 and open_[r[i]] > 0:
                    left[r[i]] -= 1
                    open_[r[i]] -= 1
                    found += 1
            first = last + 1
        hits[k] = found


HELPERS = (sentence_end, mark_common, longest_sentence)


def common_summary(a: Any, b: Any, separator: int) -> tuple[Any, Any, Any]:
    """Return the matches of each pair of texts, and the tokens of either but for separators."""
    (ours, starts), (theirs, ends) = a, b
    distinct, ids = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    ids = np.where(np.concatenate([ours, theirs]) == separator, -1, ids.reshape(-1)).astype(np.int64)
    ours, theirs = np.ascontiguousarray(ids[: ours.size]), np.ascontiguousarray(ids[ours.size :])
    hits = np.empty(starts.size - 1, np.int64)
    work = 4.0 * float((np.diff(starts) * np.diff(ends)).sum()) + 20.0 * ids.size
    each = kernel(summaries, "summaries", "float64", None, HELPERS)
    each(hits.size, work, ours, starts, theirs, ends, np.array([distinct.size]), hits)
    counts = [np.diff(np.concatenate([[0], np.cumsum(x >= 0)])[s]) for x, s in ((ours, starts), (theirs, ends))]
    return hits, counts[0], counts[1]
