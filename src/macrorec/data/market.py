"""How do people behave in a market whose truth we know? Plant the truth, then draw events from it in order of time.

Letters: U users, I items, G groups of users, K clusters of items, V visits in one slice of time.

A visit: a user (by activity), a moment (by the hour of the day), then either an item that the user viewed on an earlier
slice (``repeat_rate``), or a cluster (by the affinity of the user's group) and an item of it (by its popularity then).
Every visit is a view. A view becomes a cart with probability ``cart_rate`` x lift(group, cluster), and a cart becomes a
buy with probability ``buy_rate`` x conversion(item); both factors have mean 1 over what they multiply.

Randomness is counter-based: one generator for the truth, and one for each slice of time, from (seed, slice). How many
slices there are follows from the configuration alone, so the events depend on (configuration, seed) and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from macrorec.errors import ConfigError

BEHAVIORS = ("view", "cart", "buy")
START = 1_735_689_600
"""First second of every market: 2025-01-01 00:00 UTC."""
DAY = 86_400
VISITS_PER_SLICE = 1 << 18
"""At most so many visits are in memory at once; part of the definition of the events, so not a parameter."""
RECENT = 8
"""A user may return to so many of the items viewed last."""
CART_DELAY = 600.0
"""Mean seconds from view to cart."""
BUY_DELAY = 4 * 3600.0
"""Mean seconds from cart to buy."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketConfig:
    """Size and habits of a market. The defaults are the market of ``macrorec demo``."""

    users: int = 1_500
    """Users; those without an event do not appear in the log."""
    items: int = 800
    """Items on offer at any time."""
    events: int = 80_000
    """Expected events of all behaviours; the report has the exact number."""
    groups: int = 10
    """Planted groups of users, of uneven size."""
    clusters: int = 16
    """Planted clusters of items, of uneven size."""
    categories: int = 32
    """Categories, each at home in one cluster."""
    category_noise: float = 0.1
    """Share of items whose category is drawn from all categories."""
    affinity: float = 0.9
    """Share of visits that follow the group's preferred clusters; the others fall on all clusters alike."""
    popularity: float = 0.9
    """Exponent a of the power law rank^-a over the items of a cluster; 0 is uniform."""
    cart_rate: float = 0.3
    """Mean probability that a view becomes a cart."""
    buy_rate: float = 0.5
    """Mean probability that a cart becomes a buy."""
    repeat_rate: float = 0.15
    """Share of visits to an item that the user viewed before (where there is one)."""
    days: int = 60
    """Length of the log."""
    drift: float = 1.0
    """Standard deviation over items of the change in log popularity from the first day to the last; 0 is none."""
    new_items: float = 0.2
    """Share of items that appear only during the first nine tenths of the log."""

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "users": (1, 2**31 - 1),
            "items": (1, 2**31 - 1),
            "events": (1, 10**12),
            "groups": (1, self.users),
            "clusters": (1, self.items),
            "categories": (1, 2**31 - 1),
            "popularity": (0, 5),
            "days": (1, 3660),
            "drift": (0, 10),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = limits.get(field.name, (0, 1))
            whole = field.type == "int"
            kind = "a whole number" if whole else "a number"
            legal = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not legal or not low <= value <= high:
                raise ConfigError(f"market: {field.name} must be {kind} from {low} to {high}, got {value!r}")
        if self.groups * self.clusters > 10**7:
            raise ConfigError(f"market: groups x clusters must be at most {10**7}, got {self.groups * self.clusters}")

    @property
    def end(self) -> int:
        """The first second after the log."""
        return START + self.days * DAY

    @property
    def visits(self) -> int:
        """Views to draw so that ``events`` are expected."""
        return max(1, round(self.events / (1 + self.cart_rate * (1 + self.buy_rate))))

    @property
    def slices(self) -> int:
        """Slices of time with equal numbers of visits: one a day, or more where a day would be too large."""
        return min(self.visits, max(self.days, math.ceil(self.visits / VISITS_PER_SLICE)))


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """The planted truth."""

    config: MarketConfig
    group_U: Ints
    slots_S: npt.NDArray[np.int32]
    """User numbers, each as often as the user is active: a uniform draw from it is a draw by activity."""
    affinity_GK: Floats
    """P(cluster | group) of a visit that is no repeat; rows sum to 1."""
    lift_GK: Floats
    """Factor on ``cart_rate``; its mean over such visits is 1 in every group."""
    cluster_I: Ints
    category_I: Ints
    conversion_I: Floats
    """Factor on ``buy_rate``; mean 1."""
    release_I: Ints
    """Second from which the item can be viewed."""
    shelf_I: Ints
    """Item numbers in order of cluster, then of popularity rank in it."""
    start_K: Ints
    """The items of cluster k are shelf_I[start_K[k] : start_K[k + 1]]; shape (K + 1,)."""
    trend_I: Floats
    """Standard normal; what ``drift`` multiplies."""

    def popularity(self, second: float) -> Floats:
        """Weights of the items of ``shelf_I`` at a time; 0 before release. Every cluster has a positive one."""
        rank = np.arange(len(self.shelf_I)) - np.repeat(self.start_K[:-1], np.diff(self.start_K)) + 1
        elapsed = (second - START) / (self.config.days * DAY)
        shift = self.config.drift * (elapsed - 0.5) * self.trend_I[self.shelf_I]
        weight = rank**-self.config.popularity * np.exp(shift)
        return np.where(self.release_I[self.shelf_I] <= second, weight, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Rows of the log: second, user number, item number, index into BEHAVIORS; each of shape (n,)."""

    time: Ints
    user: Ints
    item: Ints
    behavior: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: npt.NDArray[np.bool_] | Ints) -> Events:
        """The rows of a mask or an index array."""
        return Events(self.time[rows], self.user[rows], self.item[rows], self.behavior[rows])


def plant(config: MarketConfig, seed: int) -> Market:
    """Draw the truth of a market. Raises ConfigError for a negative seed."""
    if seed < 0:
        raise ConfigError(f"market: seed must be 0 or more, got {seed}")
    rng = _generator(seed, 0)
    group_U = _labels(rng, config.users, config.groups)
    cluster_I = _labels(rng, config.items, config.clusters)
    shelf_I = np.lexsort((rng.random(config.items), cluster_I))
    start_K = np.searchsorted(cluster_I[shelf_I], np.arange(config.clusters + 1))
    affinity_GK = _affinity(rng, config)
    release = np.where(rng.random(config.items) < config.new_items, rng.uniform(0, 0.9, config.items), 0.0)
    release[shelf_I[start_K[:-1]]] = 0.0  # no cluster is ever empty
    activity = rng.lognormal(0.0, 0.8, config.users)
    return Market(
        config=config,
        group_U=group_U,
        slots_S=np.repeat(np.arange(config.users, dtype=np.int32), np.ceil(4 * activity / activity.mean()).astype(int)),
        affinity_GK=affinity_GK,
        lift_GK=np.sqrt(affinity_GK) / (affinity_GK * np.sqrt(affinity_GK)).sum(1, keepdims=True),
        cluster_I=cluster_I,
        category_I=_categories(rng, cluster_I, config),
        conversion_I=rng.gamma(8.0, 1 / 8.0, config.items),
        release_I=START + (release * config.days * DAY).astype(np.int64),
        shelf_I=shelf_I,
        start_K=start_K,
        trend_I=rng.standard_normal(config.items),
    )


def events(market: Market, seed: int) -> Iterator[Events]:
    """The log in order of time, in parts of bounded size. Carts and buys after the last day are cut off."""
    config = market.config
    clock = _clock(config.days)
    edges = _moments(np.arange(config.slices + 1) / config.slices, clock)
    first_visit = np.arange(config.slices + 1) * config.visits // config.slices
    recent = _Recent(config.users)
    waiting: Events | None = None
    for number in range(config.slices):
        rng = _generator(seed, 1, number)
        n_visits = int(first_visit[number + 1] - first_visit[number])
        time_V = np.minimum(_moments((number + np.sort(rng.random(n_visits))) / config.slices, clock), config.end - 1)
        views = _views(market, recent, time_V, float(edges[number]), rng)
        recent.add(views)
        rows = _concat(waiting, views, *_follow(market, views, rng))
        rows = rows.take(np.argsort(rows.time, kind="stable"))
        last = number + 1 == config.slices
        due = np.searchsorted(rows.time, config.end if last else edges[number + 1])
        waiting = rows.take(np.arange(due, len(rows)))
        yield rows.take(np.arange(due))


def _views(market: Market, recent: _Recent, time_V: Ints, since: float, rng: np.random.Generator) -> Events:
    """One slice's visits at ``time_V``, with the popularity of its first second ``since``."""
    user_V = market.slots_S[rng.integers(len(market.slots_S), size=len(time_V))].astype(np.int64)
    group_V = market.group_U[user_V]
    n_clusters = market.affinity_GK.shape[1]
    # One searchsorted over all rows of the affinity matrix: row g occupies (g, g + 1].
    ladder = (np.arange(len(market.affinity_GK))[:, None] + np.cumsum(market.affinity_GK, axis=1)).ravel()
    cluster_V = np.searchsorted(ladder, group_V + rng.random(len(time_V)), side="right") - group_V * n_clusters
    cluster_V = np.clip(cluster_V, 0, n_clusters - 1)
    heap = np.cumsum(market.popularity(since))
    edge_K = np.concatenate(([0.0], heap))[market.start_K]
    below, above = edge_K[cluster_V], edge_K[cluster_V + 1]
    height = np.minimum(below + rng.random(len(time_V)) * (above - below), np.nextafter(above, 0))
    fresh_V = market.shelf_I[np.searchsorted(heap, height, side="right")]
    item_V = recent.revisit(user_V, fresh_V, market.config.repeat_rate, rng)
    return Events(time_V, user_V, item_V, np.zeros(len(time_V), dtype=np.int8))


def _follow(market: Market, views: Events, rng: np.random.Generator) -> tuple[Events, Events]:
    """The carts that follow from views, and the buys that follow from those carts, each later by a second or more."""
    config = market.config
    lift = market.lift_GK[market.group_U[views.user], market.cluster_I[views.item]]
    carts = _later(views, config.cart_rate * lift, CART_DELAY, 1, rng)
    return carts, _later(carts, config.buy_rate * market.conversion_I[carts.item], BUY_DELAY, 2, rng)


def _later(rows: Events, chance: Floats, delay: float, behavior: int, rng: np.random.Generator) -> Events:
    """Each row with its chance (above 1 counts as 1), as another behaviour after an exponential delay."""
    follow = rows.take(rng.random(len(rows)) < chance)
    wait = 1 + rng.exponential(delay, len(follow)).astype(np.int64)
    return Events(follow.time + wait, follow.user, follow.item, np.full(len(follow), behavior, dtype=np.int8))


class _Recent:
    """The items that each user viewed last: a ring of RECENT places per user."""

    def __init__(self, users: int) -> None:
        self.item_UR = np.zeros((users, RECENT), dtype=np.int32)
        self.count_U = np.zeros(users, dtype=np.int64)

    def revisit(self, user_V: Ints, fresh_V: Ints, rate: float, rng: np.random.Generator) -> Ints:
        """``fresh_V``, with a share ``rate`` of places (of users who have a past) taken by an item of that past."""
        known = np.minimum(self.count_U[user_V], RECENT)
        back = (rng.random(len(user_V)) < rate) & (known > 0)
        place = (rng.random(len(user_V)) * known).astype(np.int64)
        return np.where(back, self.item_UR[user_V, place], fresh_V)

    def add(self, views: Events) -> None:
        """Remember ``views``, which are in order of time."""
        order = np.argsort(views.user, kind="stable")
        user = views.user[order]
        first = np.flatnonzero(np.diff(user, prepend=-1))
        count = np.diff(first, append=len(user))
        nth = np.arange(len(user)) - np.repeat(first, count)
        self.item_UR[user, (self.count_U[user] + nth) % RECENT] = views.item[order]
        self.count_U[user[first]] += count


def _generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of one part of the market."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _labels(rng: np.random.Generator, n: int, k: int) -> Ints:
    """A label in 0..k-1 for each of n; no label is unused, and shares differ by up to a factor of 3."""
    share = rng.uniform(0.5, 1.5, k)
    labels: Ints = rng.choice(k, size=n, p=share / share.sum())
    labels[rng.permutation(n)[:k]] = np.arange(k)
    return labels


def _affinity(rng: np.random.Generator, config: MarketConfig) -> Floats:
    """P(cluster | group): each group prefers up to three clusters, the first of them in turn, so that all are used."""
    preferred = np.zeros((config.groups, config.clusters))
    turn = rng.permutation(config.clusters)
    for group in range(config.groups):
        own = turn[group % config.clusters]
        others = rng.permutation(config.clusters)
        chosen = np.concatenate(([own], others[others != own]))[:3]
        preferred[group, chosen] = np.array([0.5, 0.3, 0.2])[: len(chosen)]
    preferred /= preferred.sum(1, keepdims=True)
    blend: Floats = config.affinity * preferred + (1 - config.affinity) / config.clusters
    return blend


def _categories(rng: np.random.Generator, cluster_I: Ints, config: MarketConfig) -> Ints:
    """Category c is at home in cluster c mod K (cluster k uses category k mod C where categories are fewer)."""
    if config.categories < config.clusters:
        own = cluster_I % config.categories
    else:
        choices = (config.categories - cluster_I + config.clusters - 1) // config.clusters
        own = cluster_I + config.clusters * (rng.random(len(cluster_I)) * choices).astype(np.int64)
    stray = rng.random(len(cluster_I)) < config.category_noise
    return np.where(stray, rng.integers(config.categories, size=len(cluster_I)), own)


def _clock(days: int) -> Floats:
    """Share of visits before each full hour, shape (24 days + 1,): quiet at 4, busy at 16."""
    hour = np.arange(24 * days) % 24
    rate = 1 - 0.8 * np.cos(2 * np.pi * (hour + 0.5 - 4) / 24)
    passed: Floats = np.concatenate(([0.0], np.cumsum(rate))) / rate.sum()
    return passed


def _moments(share: Floats, clock: Floats) -> Ints:
    """The second at which a ``share`` of all visits has passed."""
    hours = np.interp(share, clock, np.arange(len(clock)))
    return START + (hours * 3600).astype(np.int64)


def _concat(*parts: Events | None) -> Events:
    """All rows, part after part."""
    rows = [part for part in parts if part is not None]
    return Events(*(np.concatenate([getattr(part, f.name) for part in rows]) for f in fields(Events)))
