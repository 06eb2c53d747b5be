"""From a folder to batches: encoded once, the same whatever the cache, the batch and the number of workers."""

import threading

import pytest
import torch

from trainer_core.data import disk_cache
from trainer_core.data.config import DatasetConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.pictures import open_picture
from trainer_core.data.prefetch import prefetch
from trainer_core.data.report import report_lines
from trainer_core.data.sheet import contact_sheet
from trainer_core.data.views import render_view
from trainer_core.errors import BadInput, ScionError
from trainer_core.options import options_of, problems_of

EVERYTHING = {"crop": "random", "flip": True, "colour_jitter": 0.5, "caption_dropout": 0.3, "trigger": "sks"}


def batches(dataset, count=12, batch_size=2, workers=0):
    order = dataset.order(batch_size)
    return list(prefetch(lambda i: dataset.load(order.batch(i)), range(count), workers))


def same(some, others):
    def equal(a, b):
        return (
            torch.equal(a.latents, b.latents)
            and a.conditioning.keys() == b.conditioning.keys()
            and all(torch.equal(a.conditioning[k], b.conditioning[k]) for k in a.conditioning)
            and (a.keys, a.captions, a.views) == (b.keys, b.captions, b.views)
        )

    return len(some) == len(others) and all(map(equal, some, others))


def test_a_batch_holds_what_the_encoder_makes_of_its_pictures_and_captions(kit):
    dataset = kit.five().dataset(encoder=kit.Encoder(), trigger="sks")
    items, seen = {item.key: item for item in dataset.items}, set()
    for batch in batches(dataset, dataset.order(2).batches_per_epoch):
        for n, key in enumerate(batch.keys):
            seen.add(key)
            pixels = render_view(open_picture(items[key]), batch.views[n])
            assert torch.equal(batch.latents[n], kit.Encoder().encode_pictures(pixels[None])[0])
            assert batch.captions[n] == "sks, " + items[key].caption
            text = kit.Encoder.embed(batch.captions[n])
            assert torch.equal(batch.conditioning["text"][n, : len(text)], text)
            assert (batch.views[n].width, batch.views[n].height) == dataset.bucket_of(items[key])
        assert batch.latents.shape[2:] == (batch.views[0].height // 8, batch.views[0].width // 8)
        assert batch.latents.dtype == torch.float32
    assert seen == set(items)


@pytest.mark.parametrize(
    "settings", [{}, EVERYTHING, {**EVERYTHING, "shuffle_tags": True}, {**EVERYTHING, "variants": 0}]
)
def test_batches_are_the_same_from_memory_from_disk_and_without_a_cache(kit, tmp_path, settings):
    kit.five()
    memory = batches(kit.dataset(encoder=kit.Encoder(), **settings))
    disk = kit.dataset(encoder=kit.Encoder(), cache="disk", cache_path=str(tmp_path / "cache"), **settings)
    off = kit.dataset(encoder=kit.Encoder(), cache="off", **settings)
    assert same(memory, batches(disk)) and same(memory, batches(off))
    assert not same(memory, batches(kit.dataset(seed=8, encoder=kit.Encoder(), **settings)))


@pytest.mark.parametrize("settings", [EVERYTHING, {**EVERYTHING, "variants": 0, "shuffle_tags": True}])
def test_the_number_of_workers_changes_nothing(kit, settings):
    dataset = kit.five().dataset(encoder=kit.Encoder(), **settings)
    alone = batches(dataset, workers=0)
    assert same(alone, batches(dataset, workers=1)) and same(alone, batches(dataset, workers=4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_batches_loaded_in_the_hosts_inference_mode_can_be_trained_on(kit, cache):
    with torch.inference_mode():
        dataset = kit.five().dataset(encoder=kit.Encoder(), cache=cache)
        (batch,) = batches(dataset, 1)
    assert not batch.latents.is_inference() and not batch.conditioning["text"].is_inference()


def test_an_entry_is_the_same_in_every_size_of_batch(kit):
    dataset = kit.five().dataset(encoder=kit.Encoder(), **EVERYTHING)
    by_key = {}
    for size in (1, 3):
        for batch in batches(dataset, dataset.order(size).batches_per_epoch, size):
            for n, key in enumerate(batch.keys):
                by_key.setdefault(key, []).append((batch.latents[n], batch.captions[n]))
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in by_key.values()) and len(by_key) == 5


def test_a_second_run_reads_the_disk_and_encodes_nothing(kit, tmp_path):
    settings = {"cache": "disk", "cache_path": str(tmp_path / "cache"), "flip": True}
    first, second, other = kit.Encoder(), kit.Encoder(), kit.Encoder("another vae")
    before = batches(kit.five().dataset(encoder=first, **settings))
    assert (first.pictures, len(first.captions)) == (10, 6)
    assert same(before, batches(kit.dataset(encoder=second, **settings)))
    assert (second.pictures, second.captions) == (0, [])
    kit.dataset(encoder=other, **settings)
    assert other.pictures == 10


def test_only_what_is_damaged_or_changed_is_encoded_again(kit, tmp_path):
    settings = {"cache": "disk", "cache_path": str(tmp_path / "cache")}
    before = batches(kit.five().dataset(encoder=kit.Encoder(), **settings))
    entry = max((tmp_path / "cache").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    entry.write_bytes(entry.read_bytes()[:100])
    again = kit.Encoder()
    assert same(before, batches(kit.dataset(encoder=again, **settings)))
    assert again.pictures + len(again.captions) == 1
    kit.write("0.txt", "another caption")
    kit.draw(kit.folder / "1.png", colour=(0, 0, 0))
    changed = kit.Encoder()
    kit.dataset(encoder=changed, **settings)
    assert (changed.pictures, changed.captions) == (1, ["another caption"])


def test_of_a_large_cache_damage_is_found_by_training_and_encoded_anew_by_the_next_start(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "READ_MOST", 5)
    settings = {"cache": "disk", "cache_path": str(tmp_path / "cache")}
    before = batches(kit.five().dataset(encoder=kit.Encoder(), **settings))
    entry = max((tmp_path / "cache").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    entry.write_bytes(entry.read_bytes()[:100])
    again = kit.Encoder()
    damaged = kit.dataset(encoder=again, **settings)
    assert again.pictures + len(again.captions) == 0
    with pytest.raises(ScionError, match=r"its encoded form is damaged.*Start again"):
        batches(damaged)
    assert same(before, batches(kit.dataset(encoder=again, **settings)))
    assert again.pictures + len(again.captions) == 1


def test_prepared_variants_bound_what_is_encoded_and_fresh_views_are_not_bounded(kit):
    encoder = kit.Encoder()
    dataset = kit.five().dataset(encoder=encoder, colour_jitter=0.5, variants=3)
    assert encoder.pictures == 15 and not dataset.needs_encoder
    epochs = batches(dataset, 8 * dataset.order(1).batches_per_epoch, 1)
    assert encoder.pictures == 15
    assert len({batch.views[0] for batch in epochs if batch.keys == ["0.png"]}) == 3
    fresh = kit.dataset(encoder=kit.Encoder(), colour_jitter=0.5, variants=0)
    assert fresh.needs_encoder and any("variants is 0" in note for note in fresh.notes)
    epochs = batches(fresh, 8 * fresh.order(1).batches_per_epoch, 1)
    assert len({batch.views[0] for batch in epochs if batch.keys == ["0.png"]}) == 8


def test_dropout_works_with_cached_captions(kit):
    encoder = kit.Encoder()
    dataset = kit.five().dataset(encoder=encoder, caption_dropout=0.5)
    assert not dataset.needs_encoder and "" in encoder.captions
    before = len(encoder.captions)
    loaded = batches(dataset, 40, 1)
    dropped = [batch for batch in loaded if batch.captions == [""]]
    assert 8 < len(dropped) < 32 and len(encoder.captions) == before
    assert {bool(batch.captions[0]) for batch in loaded if batch.keys == ["0.png"]} == {True, False}
    assert all(torch.equal(batch.conditioning["text"][0], kit.Encoder.embed("")) for batch in dropped)


def test_shuffled_tags_keep_the_encoder_and_say_so(kit):
    encoder = kit.Encoder()
    dataset = kit.five().dataset(encoder=encoder, shuffle_tags=True)
    assert dataset.needs_encoder and any("tags are shuffled" in note for note in dataset.notes)
    assert encoder.captions == [""] and encoder.pictures == 5
    loaded = batches(dataset, 40, 1)
    assert len(encoder.captions) == 41 and encoder.pictures == 5
    assert len({batch.captions[0] for batch in loaded if batch.keys == ["0.png"]}) > 3


def test_held_out_pictures_are_never_trained_on_and_always_look_the_same(kit):
    dataset = kit.five().dataset(encoder=kit.Encoder(), holdout=2, **EVERYTHING)
    trained = {key for batch in batches(dataset, 20) for key in batch.keys}
    held = list(dataset.holdout_batches(2))
    held_keys = {key for batch in held for key in batch.keys}
    assert len(held_keys) == 2 and trained | held_keys == {f"{n}.png" for n in range(5)} and not trained & held_keys
    assert same(held, list(dataset.holdout_batches(2)))
    assert all(text.startswith("sks, thing") for batch in held for text in batch.captions)
    assert not any(view.flip or view.hue for batch in held for view in batch.views)
    other_seed = kit.dataset(seed=99, holdout=2)
    assert {item.key for item in other_seed.holdout} == held_keys


def test_the_holdout_follows_content_keeps_copies_together_and_leaves_something(kit):
    kit.five()
    before = {item.digest for item in kit.dataset(holdout=1).holdout}
    held = kit.dataset(holdout=1).holdout[0].key
    (kit.folder / "zz.png").write_bytes((kit.folder / held).read_bytes())
    kit.write("zz.txt", "x")
    again = kit.dataset(holdout=1)
    assert {item.digest for item in again.holdout} == before and len(again.holdout) == 2
    for path in list(kit.folder.glob("?.*")):
        path.rename(path.with_stem(chr(ord("z") - int(path.stem))))
    assert {item.digest for item in kit.dataset(holdout=1).holdout} == before
    with pytest.raises(BadInput, match="at most 5"):
        kit.dataset(holdout=6)


def test_latents_that_are_not_finite_are_refused_with_the_pictures_name(kit):
    kit.five()
    kit.flat((255, 0, 255), (64, 64)).save(kit.folder / "bad.png")
    kit.write("bad.txt", "bad")
    broken = kit.Encoder(broken_picture=(255.0, 0.0, 255.0))
    with pytest.raises(BadInput, match=r"^bad\.png: its latents are not finite"):
        kit.dataset(encoder=broken)
    live = kit.dataset(encoder=broken, cache="off")
    with pytest.raises(BadInput, match=r"bad\.png"):
        batches(live, live.order(2).batches_per_epoch)


def test_conditioning_that_is_not_finite_is_refused_with_the_pictures_name(kit):
    class Broken(kit.Encoder):
        def encode_captions(self, captions):
            made = super().encode_captions(captions)
            return [
                {"text": entry["text"] / (text != "thing 3, red, big, old")}
                for entry, text in zip(made, captions, strict=True)
            ]

    with pytest.raises(BadInput, match=r"^3\.png: the conditioning of its caption is not finite \(text"):
        kit.five().dataset(encoder=Broken())


def test_encoding_tells_its_progress_stops_when_asked_and_goes_on_later(kit):
    dataset, encoder, told = kit.five().dataset(), kit.Encoder(), []
    assert not dataset.encode(encoder, lambda *at: told.append(at), lambda: len(told) == 3)
    assert told == [(1, 11), (2, 11), (3, 11)] and encoder.pictures == 3
    assert dataset.encode(encoder) and (encoder.pictures, len(encoder.captions)) == (5, 6)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_entry_that_vanished_from_the_cache_is_named(kit, tmp_path):
    dataset = kit.five().dataset(encoder=kit.Encoder(), cache="disk", cache_path=str(tmp_path / "cache"))
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(ScionError, match=r"\.png: its encoded form is damaged, or has disappeared"):
        batches(dataset, 1)


def test_small_and_much_cropped_pictures_are_named(kit):
    kit.draw(kit.folder / "small.png", (32, 32), caption="x")
    kit.draw(kit.folder / "panorama.png", (1000, 100), caption="x")
    notes = kit.dataset().notes
    assert "enlarged: small.png (32×32 to 64×64)" in notes[0]
    assert "cropped: panorama.png (1000×100 to" in notes[1]


def test_the_report_counts_buckets_repeats_problems_and_notes(kit):
    for n in range(3):
        kit.draw(kit.folder / "4_dog" / f"{n}.png", colour=(n * 50, 0, 0), caption="x")
    kit.draw(kit.folder / "wide.png", (128, 64), caption="x")
    kit.write("bad.png", b"")
    scan = kit.scan()
    dataset = Dataset(scan.items, DatasetConfig(), 0, 16, 64)
    lines = report_lines(scan, dataset)
    assert lines[0] == "4 pictures, 4 with a caption, 13 showings an epoch"
    table = [line.split() for line in lines if "×" in line and line.startswith("  ")]
    assert table == [["64×64", "3", "12"], ["96×48", "1", "1"]]
    bad = "bad.png: is empty (0 bytes); copy it again or delete it, or set skip_bad to leave it out."
    assert "1 problem" in lines and f"  {bad}" in lines
    assert "1 note" in lines and dataset.bucket_counts == {(64, 64): (3, 12), (96, 48): (1, 1)}


def test_the_contact_sheet_shows_each_picture_at_its_place(kit):
    for n, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        kit.flat(colour, (64, 64)).save(kit.folder / f"{n}.png")
    sheet = contact_sheet(kit.dataset(missing_captions="empty"), side=40)
    assert sheet.shape == (80, 80, 3)
    centres = [[sheet[y, x].tolist() for x in (20, 60)] for y in (20, 60)]
    assert centres == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]


@pytest.mark.parametrize(("settings", "said"), [
    ({"width": 64}, "a fixed size needs both"),
    ({"width": 64, "height": 64, "resolution": 64}, "set one of them to 0"),
    ({"resolution": 5}, "resolution: 5 is out of range"),
    ({"missing_captions": "trigger"}, "needs a trigger word"),
    ({"trigger": "a\nb"}, "line break"),
    ({"cache": "dsk"}, "did you mean 'disk'"),
    ({"caption_dropout": 1.5}, "1.5 is out of range"),
])  # fmt: skip
def test_settings_that_exclude_each_other_are_refused_with_the_reason(settings, said):
    (problem,) = problems_of(DatasetConfig(**settings), "dataset")
    assert said in problem and problem.startswith("dataset.")


def test_the_defaults_are_allowed_and_places_decide_nothing():
    assert problems_of(DatasetConfig(), "dataset") == []
    passive = {name for name, described in options_of(DatasetConfig).items() if not described.decides}
    assert passive == {"path", "skip_bad", "cache", "cache_path", "cache_limit_gb", "workers", "mask_path"}
