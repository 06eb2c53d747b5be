"""The dataset of a run: items in buckets, encoded once or as they are asked for, handed out as batches."""

import contextlib
import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from ..errors import BadInput, ScionError
from . import captions, masks, views
from .batch import Batch
from .buckets import Bucket, buckets_for, nearest_bucket
from .cache import Cache, MemoryCache, Tensors, key_of
from .config import DatasetConfig
from .disk_cache import DiskCache, folder_of
from .encoding import Conditioning, Encoder, NotFinite, Rendered, encode_picture, encode_text, rendered
from .holdout import split
from .items import Item, several, shown
from .order import BatchOrder, BatchPlan
from .prefetch import prefetch
from .prior import Turns
from .views import View

MUCH_CROPPED = 0.75
"""Pictures of which less than this share is kept are named in a note."""
FAILURES_SHOWN = 5
"""So many encodings that are not finite are gathered before encoding stops: the rest will be the same."""


class Wanted(NamedTuple):
    """What the cache should hold: a view of a picture, or a caption."""

    key: str
    name: str
    """For messages."""
    item: Item | None
    view: View | None
    text: str


class Showing(NamedTuple):
    """A picture as a batch has it."""

    item: Item
    view: View
    caption: str
    taught: bool = True
    """As in `Batch`."""


class Dataset:
    """Items, sorted into buckets and split into training and holdout.

    `encode` must be called once before `load` and `holdout_batches`. What an entry becomes depends on the seed, the
    epoch and the entry alone: not on the batch that it is in, on caching, or on the number of threads. For that reason,
    pictures and captions are encoded one at a time.
    """

    def __init__(
        self,
        items: Iterable[Item],
        config: DatasetConfig,
        seed: int,
        side_step: int,
        resolution: int,
        tokenised: bool = False,
        sized: bool = False,
    ):
        """
        Args:
            items: of a scan without problems.
            seed: the run's.
            side_step: sides of pictures must be multiples of this, in pixels; the base says so.
            resolution: the base's own side, in pixels.
            tokenised: whether captions are handed out as tokens, for a text encoder that learns, instead of encoded.
            sized: whether batches tell the size and crop of each picture ("time_ids"); the base's family says so.

        Raises:
            BadInput: no items, a holdout that leaves none, or sizes that the base cannot take.
        """
        self.config, self.seed, self._parts, self.tokenised = config, seed, config.parts(), tokenised
        self._sized = sized
        self.buckets = buckets_for(config, side_step, resolution)
        self.items, self.holdout = split(sorted(items, key=lambda item: item.key), config.holdout, self.is_prior)
        self._items = {item.key: item for item in (*self.items, *self.holdout)}
        sizes = {(item.width, item.height) for item in self._items.values()}
        nearest = {size: nearest_bucket(*size, self.buckets) for size in sizes}
        self._buckets = {key: nearest[item.width, item.height] for key, item in self._items.items()}
        live = any(captions.is_live(item, self.config_of(item)) for item in self.items)
        self._live_captions = live and not tokenised
        self._live_views = config.variants == 0 and any(views.is_random(part) for part in self._parts)
        self.notes = self._notes()
        """What the user should know, one sentence each."""
        self._cache: Cache | None = None
        self._encoder: Encoder | None = None
        self._identity = ""
        self._stack: Callable[[list[Conditioning]], Conditioning] | None = None
        self._tokens: Callable[[list[str]], list[Conditioning]] | None = None
        self._encoding = threading.Lock()

    @property
    def needs_encoder(self) -> bool:
        """Whether training encodes as it goes, so that the encoder must stay loaded after `encode`."""
        return self.config.cache == "off" or self._live_captions or self._live_views

    @property
    def bucket_counts(self) -> dict[Bucket, tuple[int, int]]:
        """For each bucket in use: its training pictures, and their showings in an epoch."""
        prior = self._turns()
        pictures, showings = Counter(), Counter(prior.shares if prior else {})
        for item in self.items:
            pictures[self.bucket_of(item)] += 1
            showings[self.bucket_of(item)] += 0 if self.is_prior(item) else item.repeats
        return {bucket: (pictures[bucket], showings[bucket]) for bucket in sorted(pictures)}

    def bucket_of(self, item: Item) -> Bucket:
        return self._buckets[item.key]

    def config_of(self, item: Item) -> DatasetConfig:
        """The settings of the folder that an item is in."""
        return self._parts[item.folder]

    def is_prior(self, item: Item) -> bool:
        """Whether an item shows the class, for prior preservation."""
        return self.config_of(item).regularisation

    def weight_of(self, item: Item) -> float:
        """How much an item's loss counts."""
        part = self.config_of(item)
        return part.weight * (part.prior_weight if part.regularisation else 1)

    def fixed_caption(self, item: Item) -> str:
        """The caption that validation uses; see `captions.fixed_caption`."""
        return captions.fixed_caption(item, self.config_of(item))

    def captions(self) -> Iterator[str]:
        """Texts that hold every word of the captions that training may show; see `captions.written`."""
        for item in self.items:
            yield from captions.written(item, self.config_of(item))

    def order(self, batch_size: int) -> BatchOrder:
        """The batches of training.

        Raises:
            BadInput: there is nothing to train on but regularisation pictures.
        """
        groups = self._groups(prior=False)
        if not groups:
            raise BadInput(
                "dataset.regularisation: every folder is for regularisation; add one with the pictures to train on."
            )
        return BatchOrder(groups, batch_size, self.seed, self._turns())

    def _groups(self, prior: bool) -> dict[Bucket, list[tuple[str, int]]]:
        """Keys and repeats by bucket, of the regularisation pictures or of the others."""
        groups = defaultdict(list)
        for item in self.items:
            if self.is_prior(item) == prior:
                groups[self.bucket_of(item)].append((item.key, item.repeats))
        return groups

    def _turns(self) -> Turns | None:
        """The showings of regularisation pictures; None where there are none."""
        if not any(part.regularisation for part in self._parts):
            return None
        groups = self._groups(prior=True)
        showings = sum(item.repeats for item in self.items if not self.is_prior(item))
        return Turns(groups, showings, self.seed) if groups else None

    def encode(
        self,
        encoder: Encoder,
        watch: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> bool:
        """Encode what the cache lacks: every prepared view, every fixed caption and the empty one (no caption where
        they are handed out as tokens).

        The encoder is kept only if `needs_encoder`; its `stack` is kept in any case and should not hold the weights.

        Args:
            watch: called with (done, total) pictures and captions.
            should_stop: asked after each.

        Returns:
            False if `should_stop` ended it; calling it again continues.

        Raises:
            BadInput: latents or conditioning that are not finite (the files are named), a picture that changed
                since the scan, or a memory cache that is full.
        """
        self._identity, self._stack = encoder.identity, encoder.stack
        if self.tokenised:
            self._stack, self._tokens = encoder.stack_tokens, encoder.tokens
        self._encoder = encoder if self.needs_encoder else None
        if self.config.cache == "off":
            return True
        if self._cache is None:
            self._cache = self._open_cache()
        total = sum(self._cache.claim(wanted.key) for wanted in self._wanted())
        there = total - self._cache.look()
        if watch and there:
            watch(there, total)
        if there == total:
            return True
        failures = []
        with contextlib.closing(self._encoded(encoder)) as encoded:
            for done, failure in enumerate(encoded, there + 1):
                failures += [failure] if failure else []
                if watch:
                    watch(done, total)
                if len(failures) == FAILURES_SHOWN:
                    break
                if should_stop and should_stop() and done < total:
                    return False
        if failures:
            raise BadInput(*failures)
        return True

    def load(self, plan: BatchPlan) -> Batch:
        """The batch of a plan; may be called from several threads.

        Raises:
            BadInput: as for `encode`, where encoding happens now.
            ScionError: a cached entry has disappeared.
        """
        showings = []
        for key, repeat in plan.entries:
            item = self._items[key]
            config = self.config_of(item)
            view = views.view_for(item, self.bucket_of(item), config, self.seed, plan.epoch, repeat)
            which = (item, config, self.seed, plan.epoch, repeat)
            taught = not (config.regularisation or captions.is_dropped(*which))
            showings.append(Showing(item, view, captions.caption_for(*which), taught))
        return self._batch(showings)

    def holdout_batches(self, batch_size: int) -> Iterator[Batch]:
        """The pictures kept out of training, always the same: the middle of each, with its whole caption."""
        groups = defaultdict(list)
        for item in self.holdout:
            groups[self.bucket_of(item)].append(item)
        for bucket, items in sorted(groups.items()):
            for start in range(0, len(items), batch_size):
                yield self._batch(
                    [
                        Showing(item, views.plain_view(item, bucket), self.fixed_caption(item))
                        for item in items[start : start + batch_size]
                    ]
                )

    def _batch(self, showings: list[Showing]) -> Batch:
        if self._stack is None:
            raise RuntimeError("Dataset.encode must be called before batches are loaded")
        pictures = [self._picture(one.item, one.view) for one in showings]
        items = [one.item for one in showings]
        entries = [self._conditioning(one.item, one.caption) for one in showings]
        sizes = {"time_ids": torch.stack([one.view.time_ids for one in showings])} if self._sized else {}
        # Inference tensors, which the host's mode would make of these, cannot be trained on.
        with torch.inference_mode(False):
            return Batch(
                torch.stack([picture["latents"] for picture in pictures]),
                self._stack(entries) | sizes,
                [item.key for item in items],
                [one.caption for one in showings],
                [one.view for one in showings],
                torch.tensor([one.taught for one in showings]),
                self._weights(items),
                self._masks(items, pictures),
            )

    def _weights(self, items: list[Item]) -> torch.Tensor | None:
        weights = [self.weight_of(item) for item in items]
        return None if set(weights) == {1.0} else torch.tensor(weights, dtype=torch.float32)

    def _masks(self, items: list[Item], pictures: list[Tensors]) -> torch.Tensor | None:
        if not any(item.mask_digest for item in items):
            return None
        whole = torch.ones(pictures[0]["latents"].shape[-2:])
        found = [
            masks.with_floor(picture["mask"], self.config_of(item).mask_floor) if item.mask_digest else whole
            for item, picture in zip(items, pictures, strict=True)
        ]
        return torch.stack(found)[:, None]

    def _picture(self, item: Item, view: View) -> Tensors:
        """As `encode_picture` makes it."""
        cached = self._cache.get(self._picture_key(item, view)) if self._cache else None
        if cached is not None:
            return cached
        ready = rendered(item, view)
        with self._encoding:
            return encode_picture(self._live_encoder(item.key), item, ready)

    def _conditioning(self, item: Item, text: str) -> Conditioning:
        """Tensors without a batch axis."""
        if self._tokens:
            with self._encoding:
                return self._tokens([text])[0]
        cached = self._cache.get(self._text_key(text)) if self._cache else None
        if cached is not None:
            return cached
        with self._encoding:
            return encode_text(self._live_encoder(item.key), item.key, text)

    def _live_encoder(self, key: str) -> Encoder:
        if self._encoder is None:
            raise ScionError(
                f"{shown(key)}: its encoded form is damaged, or has disappeared from the cache (was its folder "
                "emptied?). Start again: what is missing is encoded anew."
            )
        return self._encoder

    def _open_cache(self) -> Cache:
        limit, folder = int(self.config.cache_limit_gb * 1e9), folder_of(self.config)
        return MemoryCache(limit) if folder is None else DiskCache(folder, limit)

    def _wanted(self) -> Iterator[Wanted]:
        """What the cache should hold, bucket by bucket, then the captions; the same may come more than once.

        Made anew each time: kept, it would take more memory than the items themselves.
        """
        held = {item.key for item in self.holdout}
        for item in sorted(self._items.values(), key=lambda item: (self.bucket_of(item), item.key)):
            bucket = self.bucket_of(item)
            if item.key in held:
                shown_views = [views.plain_view(item, bucket)]
            else:
                shown_views = views.views_for(item, bucket, self.config_of(item), self.seed) or []
            for view in shown_views:
                yield Wanted(self._picture_key(item, view), item.key, item, view, "")
        if self.tokenised:
            return
        yield Wanted(self._text_key(""), "the empty caption", None, None, "")
        for item in self._items.values():
            fixed = [self.fixed_caption(item)] if item.key in held else captions.prepared(item, self.config_of(item))
            for text in fixed:
                yield Wanted(self._text_key(text), item.key, None, None, text)

    def _encoded(self, encoder: Encoder) -> Iterator[str | None]:
        """Encodes into the cache what it lacks; yields after each entry None, or what is wrong with it."""

        def render(wanted: Wanted) -> Rendered | None:
            return rendered(wanted.item, wanted.view) if wanted.item else None

        lacking = (wanted for wanted in self._wanted() if not self._cache.has(wanted.key))
        ahead, again = itertools.tee(lacking)
        # Pictures are read ahead in threads; the encoder itself is only ever called by one.
        with contextlib.closing(prefetch(render, ahead, self.config.workers)) as ready:
            for picture, wanted in zip(ready, again, strict=True):
                if self._cache.has(wanted.key):  # the same picture or caption was just before this one
                    continue
                if wanted.item:
                    yield self._keep(wanted.key, encode_picture, encoder, wanted.item, picture)
                else:
                    yield self._keep(wanted.key, encode_text, encoder, wanted.name, wanted.text)

    def _keep(self, key: str, encode: Callable[..., Tensors], *what: object) -> str | None:
        """Encode something into the cache; the complaint if the result is not finite."""
        with self._encoding:
            try:
                tensors = encode(*what)
            except NotFinite as error:
                return str(error)
        self._cache.put(key, tensors)
        return None

    def _picture_key(self, item: Item, view: View) -> str:
        masked = ["mask", masks.MASKING, item.mask_digest] if item.mask_digest else []
        return key_of("picture", self._identity, item.digest, view.digest, *masked)

    def _text_key(self, text: str) -> str:
        return key_of("caption", self._identity, text)

    def _notes(self) -> list[str]:
        notes, config = [], self.config
        small, cropped = [], []
        for item in self._items.values():
            view = views.plain_view(item, self.bucket_of(item))
            if view.scale > 1:
                small.append(f"{shown(item.key)} ({item.size} to {self.bucket_of(item)})")
            if view.kept < MUCH_CROPPED:
                cropped.append(f"{shown(item.key)} ({item.size} to {self.bucket_of(item)}, {view.kept:.0%} kept)")
        if small:
            notes.append(f"smaller than their bucket, so they are enlarged: {several(small)}.")
        if cropped:
            notes.append(f"much of the picture is cropped: {several(cropped)}.")
        if config.width and config.buckets:
            notes.append(f"one fixed size, {self.buckets[0]}: buckets and the base's own resolution are not used.")
        if self._live_captions and config.cache != "off":
            notes.append(
                "tags are shuffled, or wildcards give many captions, so captions are encoded while training and the "
                "encoder stays loaded."
            )
        if self._live_views and config.cache != "off":
            notes.append("variants is 0, so pictures are encoded while training and the encoder stays loaded.")
        return notes
