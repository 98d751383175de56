"""Overlap of two token sequences: longest common subsequence, and common runs of n tokens."""

from typing import Any

import numpy as np

from ..runtime.units import kernel

__all__ = ["common_runs", "common_subsequence"]

# A table of places by the tokens that stand there: as many slots as the next power of two above twice the places, and
# a token's slot is the first, from where its product with this odd number points to, that is free or holds it.
MIX = np.int64(-7046029254386353131)


def slots_for(longest):
    """Slots of a table of so many places."""
    slots = 4
    while slots < 2 * longest:
        slots *= 2
    return slots


def mixed(h, x):
    """One more number in a sum of a hash, whose high bits depend on all."""
    h = (h ^ x) * MIX
    return h ^ ((h >> 29) & ((1 << 35) - 1))


def place(tokens, at, n, others, table):
    """The slot of the n tokens from `at`: where the same ones of `others` stand, or free."""
    h = np.int64(n)
    for j in range(n):
        # Hashed, not compared: looking each token up in the other sequence would take the product of both lengths.
        h = mixed(h, tokens[at + j])
    slot = h & (table.size - 1)
    while table[slot] >= 0:
        same = True
        for j in range(n):
            if others[table[slot] + j] != tokens[at + j]:
                same = False
                break
        if same:
            break
        # The next free one: the table is at most half full, so few steps are taken.
        slot = (slot + 1) & (table.size - 1)
    return slot


def longest_of(lo, hi, starts):
    """The longest of some sequences."""
    longest = 0
    for i in range(lo, hi):
        longest = max(longest, starts[i + 1] - starts[i])
    return longest


def subsequences(lo, hi, tokens, starts, others, ends, lengths):
    """Length of the longest common subsequence of each pair, 64 tokens of the first at a time.

    Hyyro (2004): a zero bit of `row` is a place where the length grows by one along the first sequence.
    """
    longest = longest_of(lo, hi, starts)
    table = np.empty(slots_for(longest), np.int64)
    follower, row = np.empty(longest, np.int64), np.empty(longest // 64 + 1, np.uint64)
    match = np.zeros(longest // 64 + 1, np.uint64)
    one, full = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
    for i in range(lo, hi):
        a, b = tokens[starts[i] : starts[i + 1]], others[ends[i] : ends[i + 1]]
        words = (a.size + 63) // 64
        for s in range(table.size):
            table[s] = -1
        # Backwards, so that a slot ends with the first place of its token, and each place knows the next.
        for k in range(a.size - 1, -1, -1):
            s = place(a, k, 1, a, table)
            follower[k] = table[s]
            table[s] = k
        for w in range(words):
            row[w] = full
        for j in range(b.size):
            first = table[place(b, j, 1, a, table)]
            if first < 0:
                continue
            k = first
            while k >= 0:
                # 64 places of the first sequence in a word, which one addition advances together.
                match[k >> 6] |= one << np.uint64(k & 63)
                k = follower[k]
            carry = np.uint64(0)
            for w in range(words):
                v = row[w]
                u = v & match[w]
                total = v + u
                over = total < v
                total += carry
                carry = one if over or total < carry else np.uint64(0)
                row[w] = total | (v & ~match[w])
            k = first
            while k >= 0:
                match[k >> 6] = np.uint64(0)
                k = follower[k]
        found = 0
        for k in range(a.size):
            found += 1 if (row[k >> 6] >> np.uint64(k & 63)) & one == np.uint64(0) else 0
        lengths[i] = found


def shared(lo, hi, orders, tokens, starts, others, ends, counts):
    """Count the runs of n tokens that each pair has in common, each as often as the sequence that has fewer of it."""
    longest = longest_of(lo, hi, starts)
    table, left = np.empty(slots_for(longest), np.int64), np.empty(max(longest, 1), np.int64)
    for i in range(lo, hi):
        a, b = tokens[starts[i] : starts[i + 1]], others[ends[i] : ends[i + 1]]
        for q in range(orders.size):
            n = orders[q]
            for s in range(table.size):
                table[s] = -1
            for k in range(a.size - n + 1):
                s = place(a, k, n, a, table)
                if table[s] < 0:
                    table[s] = k
                    left[k] = 0
                left[table[s]] += 1
            found = 0
            for k in range(b.size - n + 1):
                first = table[place(b, k, n, a, table)]
                if first >= 0 and left[first] > 0:
                    left[first] -= 1
                    found += 1
            counts[i, q] = found


HELPERS = (slots_for, mixed, place, longest_of)


def common_subsequence(a: Any, b: Any) -> Any:
    """Length of the longest common subsequence of each pair; each side is (tokens, starts)."""
    lengths = np.empty(a[1].size - 1, np.int64)
    sizes = np.diff(a[1])
    work = float((np.diff(b[1]) * (20 + sizes / 32)).sum() + 20 * sizes.sum())
    kernel(subsequences, "subsequences", "float64", None, HELPERS)(lengths.size, work, *a, *b, lengths)
    return lengths


def common_runs(a: Any, b: Any, orders: Any) -> Any:
    """Return the number of common runs of each pair, by the lengths in `orders`; each side is (tokens, starts)."""
    counts = np.empty((a[1].size - 1, orders.size), np.int64)
    work = 20.0 * orders.size * (a[0].size + b[0].size)
    kernel(shared, "shared", "float64", None, HELPERS)(len(counts), work, orders, *a, *b, counts)
    return counts
