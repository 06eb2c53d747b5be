"""What pages ask about datasets: pictures with captions page by page, thumbnails, new captions, new files."""

import io

import pytest
from PIL import Image

THINGS = "/scion/datasets/things"


@pytest.fixture
def things(host, picture):
    """Three pictures, one of them in a subfolder and one damaged; the first has a hostile caption."""
    folder = host.base / "input/things"
    picture(folder / "a.png", "<img src=x onerror=alert(1)>", size=(96, 48))
    picture(folder / "b.jpg", None)
    (picture(folder / "train/c.png")).write_bytes(b"no picture")
    return folder


@pytest.fixture
def encoded():
    """The bytes of a small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def send(ask):
    """send({name: bytes}, query): what becomes of files that a form sends; written names, and why by refused name."""
    aiohttp = pytest.importorskip("aiohttp")

    def post(files, query="", to=THINGS, status=200, **given):
        form = aiohttp.FormData(quote_fields=False)  # as browsers send names
        form.add_field("note", "no file")
        for name, data in files.items():
            form.add_field("files", data, filename=name)
        answer = ask("POST", f"{to}/files{query}", data=form, **given)
        assert answer.status == status, answer.body
        if status != 200:
            return answer.body["error"]
        return answer.body["written"], {one["name"]: one["why"] for one in answer.body["refused"]}

    return post


def test_items_come_with_caption_size_and_what_is_wrong(ask, things):
    page = ask("GET", f"{THINGS}/items").body
    assert (page["count"], page["problems"], page["notes"]) == (3, [], [])
    a, b, c = page["items"]
    assert a == {
        "key": "a.png",
        "caption": "<img src=x onerror=alert(1)>",
        "width": 96,
        "height": 48,
        "bucket": None,
        "problem": None,
    }
    assert (b["key"], b["caption"], b["problem"]) == ("b.jpg", "", "has no caption.")
    assert (c["key"], c["width"], c["problem"][:13]) == ("train/c.png", None, "is no picture")
    assert c["problem"].endswith("; replace or delete it, or set skip_bad to leave it out.")
    [c] = ask("GET", f"{THINGS}/items?offset=2&skip_bad=1").body["items"]
    assert c["problem"].endswith("; replace or delete it.")


def test_pages_and_buckets_are_those_asked_for(ask, things):
    page = ask("GET", f"{THINGS}/items?offset=0&limit=1&resolution=64").body
    assert [(item["key"], item["bucket"]) for item in page["items"]] == [("a.png", [96, 48])] and page["count"] == 3
    assert [item["key"] for item in ask("GET", f"{THINGS}/items?offset=2").body["items"]] == ["train/c.png"]
    assert ask("GET", f"{THINGS}/items?limit=501").status == 400


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..", "nowhere", "things%2f..", "%2fetc", ".hidden"])
def test_dataset_that_is_none_is_not_found(ask, things, name):
    (things.parent / ".hidden").mkdir()
    assert ask("GET", f"/scion/datasets/{name}/items").status in (404, 405)
    assert ask("PUT", f"/scion/datasets/{name}/captions/a.png", json={"caption": "x"}).status in (404, 405)


def test_subfolder_of_a_dataset_is_named_as_one_segment(ask, host, picture):
    picture(host.base / "input/people/alice/1.png")
    assert ask("GET", "/scion/datasets/people%2Falice/items").body["count"] == 1


def test_thumbnails_are_small_kept_and_drawn_anew_when_the_picture_changes(ask, things, picture):
    got = ask("GET", f"{THINGS}/thumbnails/a.png?side=32")
    assert (got.status, got.headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(got.body)).size == (32, 16)
    mark = {"If-None-Match": got.headers["ETag"]}
    assert ask("GET", f"{THINGS}/thumbnails/a.png?side=32", headers=mark).status == 304
    picture(things / "a.png", None, (0, 0, 255))
    again = ask("GET", f"{THINGS}/thumbnails/a.png?side=32", headers=mark)
    assert again.status == 200 and Image.open(io.BytesIO(again.body)).getpixel((5, 5))[2] > 200
    assert ask("GET", f"{THINGS}/thumbnails/a.png?side=1025").status == 400
    assert ask("GET", f"{THINGS}/thumbnails/train%2Fc.png").status == 409


@pytest.mark.parametrize(
    "key",
    [
        "..%2fsecret.png",
        "%2e%2e/secret.png",
        "a.txt",
        "none.png",
        "train%2f..%2f..%2fsecret.png",
        "away.png",
        "%00.png",
    ],
)
def test_keys_lead_to_no_other_file(ask, things, picture, key):
    secret = picture(things.parent / "secret.png")
    (things / "away.png").symlink_to(secret)
    assert ask("GET", f"{THINGS}/thumbnails/{key}").status in (404, 405)
    assert ask("PUT", f"{THINGS}/captions/{key}", json={"caption": "x"}).status in (404, 405)
    assert secret.with_suffix(".txt").read_text() == "a thing" and not (things / "away.txt").exists()


def test_captions_are_written_where_they_are_read(ask, things):
    assert ask("PUT", f"{THINGS}/captions/b.jpg", json={"caption": "  zwei\n Worte ü "}).status == 200
    assert (things / "b.txt").read_text(encoding="utf-8") == "zwei Worte ü\n"
    (things / "a.txt").rename(things / "a.caption")
    ask("PUT", f"{THINGS}/captions/a.png", json={"caption": "other"})
    assert (things / "a.caption").read_text() == "other\n" and not (things / "a.txt").exists()
    assert [item["caption"] for item in ask("GET", f"{THINGS}/items").body["items"]][:2] == ["other", "zwei Worte ü"]


def test_captions_that_cannot_be_written_are_refused_with_the_reason(ask, things):
    for said, why in (
        ({"caption": 3}, "expected a text"),
        ({"caption": "x" * 20_001}, "20,001 characters"),
        ({"caption": "a\0b"}, "NUL"),
    ):
        answer = ask("PUT", f"{THINGS}/captions/a.png", json=said)
        assert answer.status in (400, 409) and why in answer.body["error"]
    foreign = ask("PUT", f"{THINGS}/captions/a.png", json={"caption": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    example = ask("PUT", "/scion/datasets/scion-example%20(built%20in)/captions/heart-01.png", json={"caption": "x"})
    (things / "metadata.csv").write_text("file_name,text\na.png,hello\n")
    table = ask("PUT", f"{THINGS}/captions/a.png", json={"caption": "x"})
    assert [foreign.status, example.status, table.status] == [403, 409, 409]
    assert table.body["error"].startswith("metadata.csv gives the captions")
    assert (things / "a.txt").read_text() == "<img src=x onerror=alert(1)>"


def test_files_are_taken_into_a_new_dataset(send, host, encoded):
    written, refused = send({"x.png": encoded, "x.txt": "ein Bild"}, to="/scion/datasets/new%2Fones")
    folder = host.base / "input/new/ones"
    assert (written, refused) == (["x.png", "x.txt"], {})
    assert (folder / "x.png").read_bytes() == encoded and (folder / "x.txt").read_text() == "ein Bild"
    assert sorted(path.name for path in folder.iterdir()) == ["x.png", "x.txt"]
    assert send({"x.png": b"no picture"}, to="/scion/datasets/bad%2Fones")[0] == []
    assert not (host.base / "input/bad").exists()


def test_files_that_are_not_what_they_say_are_refused_and_leave_nothing(send, things, encoded):
    before = sorted(path.name for path in things.iterdir())
    hostile = {
        "evil.png": b"<script>",
        "cut.png": encoded[:60],
        "empty.jpg": b"",
        "utf16.txt": "caption".encode("utf-16"),
        "x.html": b"<script>",
        "x.png.py": encoded,
        "..": encoded,
        ".hidden.png": encoded,
        "../up.png": encoded,
        "a\\b.png": encoded,
        "nul.png": encoded,
        "a.png": encoded,
    }
    written, refused = send(hostile)
    assert written == [] and refused.keys() == hostile.keys()
    assert refused["evil.png"].startswith("is no picture") and refused["cut.png"].startswith("is damaged or cut off")
    assert refused["a.png"] == "is there already; rename it, or replace that one."
    assert sorted(path.name for path in things.iterdir()) == before
    assert not (things.parent / "up.png").exists()


def test_a_caption_is_not_taken_behind_a_picture_that_is_refused(send, things, encoded):
    files = {"e.png": b"<script>", "e.txt": b"e", "f.png": b"<script>", "f.bmp": encoded, "f.txt": b"f"}
    written, refused = send(files)
    assert (written, list(refused)) == (["f.bmp", "f.txt"], ["e.png", "e.txt", "f.png"])
    assert refused["e.txt"] == "belongs to a picture that was refused."
    (things / "a.txt").unlink()
    # The picture is in the dataset already, so its caption has a place.
    assert send({"a.png": encoded, "a.txt": b"a"})[0] == ["a.txt"]


def test_a_file_is_replaced_only_where_that_is_asked_and_the_new_one_is_good(send, things, encoded):
    assert send({"a.png": b"broken"}, "?replace=1")[0] == []
    assert (things / "a.png").read_bytes() != b"broken"
    assert send({"a.png": encoded}, "?replace=1") == (["a.png"], {})
    assert (things / "a.png").read_bytes() == encoded


def test_files_are_bounded_and_not_for_other_sites_or_other_folders(send, ask, things, host, encoded):
    _, refused = send({"big.png": encoded + b"x" * 5000, "c.png": encoded}, most=4000)
    assert list(refused) == ["big.png"] and "larger than 4,000 bytes" in refused["big.png"]
    send({"d.png": encoded}, status=403, headers={"Sec-Fetch-Site": "cross-site"})
    for name in ("..%2fx", "a%2fb%2fc", ".x", "scion-example%20(built%20in)%2f.."):
        send({"d.png": encoded}, to=f"/scion/datasets/{name}", status=409)
    (host.base / "outside").mkdir()
    (host.base / "input/link").symlink_to(host.base / "outside")
    send({"d.png": encoded}, to="/scion/datasets/link", status=409)
    assert not list(host.base.rglob("d.png")) and ask("POST", f"{THINGS}/files", data=b"x").status == 400


def test_the_whole_dataset_is_counted_and_filtered_before_it_is_cut_into_pages(ask, things, picture):
    picture(things / "d.png", "A fox", size=(96, 48))
    first = ask("GET", f"{THINGS}/items?limit=1&resolution=64").body
    assert (first["count"], first["matching"], first["checked"], first["uncaptioned"]) == (4, 4, 1, 1)
    whole = ask("GET", f"{THINGS}/items?limit=1&resolution=64&ahead=1").body
    assert (whole["checked"], whole["unusable"], whole["buckets"]) == (4, 1, [[[96, 48], 2], [[64, 64], 1]])

    def keys(query):
        page = ask("GET", f"{THINGS}/items?{query}").body
        return page["matching"], [item["key"] for item in page["items"]]

    assert keys("only=problems") == (1, ["train/c.png"])
    assert keys("only=uncaptioned") == (1, ["b.jpg"])
    assert keys("q=FOX") == (1, ["d.png"]) and keys("q=.png&offset=1&limit=1") == (3, ["d.png"])
    assert ask("GET", f"{THINGS}/items?only=nothing").status == 400


def test_buckets_are_those_of_the_settings_asked_for(ask, things):
    def bucket(query):
        page = ask("GET", f"{THINGS}/items?limit=1&{query}").body
        return page["items"][0]["bucket"], page["problems"]

    assert bucket("resolution=64&buckets=0") == ([64, 64], [])
    assert bucket("resolution=96&bucket_step=32") == ([128, 64], [])
    assert bucket("width=40&height=80") == ([40, 80], [])
    for half_typed, why in (("height=40", "a fixed size needs both"), ("resolution=7", "out of range")):
        none, problems = bucket(half_typed)
        assert none is None and why in problems[0]
    [no_step] = bucket("resolution=64&bucket_step=12")[1]
    assert "no multiple of 8 pixels" in no_step


def test_page_says_who_gives_the_captions_and_whether_files_may_come(ask, things):
    def said(name="things", query=""):
        page = ask("GET", f"/scion/datasets/{name}/items?fresh=1{query}").body
        return page["table"], page["built_in"], page["in_input"]

    assert said() == (None, False, True)
    assert said("scion-example%20(built%20in)")[1:] == (True, False)
    (things / "train/metadata.csv").write_text("file_name,text\nc.png,hello\n")
    assert said()[0] == "train/metadata.csv" and said(query="&captions=files")[0] is None
    assert ask("PUT", f"{THINGS}/captions/a.png?captions=files", json={"caption": "x"}).status == 200
    assert (things / "a.txt").read_text() == "x\n"


def test_listing_is_kept_for_a_moment_and_made_anew_when_something_is_written(ask, things, picture, send, encoded):
    def count(query=""):
        return ask("GET", f"{THINGS}/items?limit=1{query}").body["count"]

    assert count() == 3
    picture(things / "d.png")
    assert (count(), count("&fresh=1")) == (3, 4)
    send({"e.png": encoded})
    assert count() == 5


def test_nothing_is_looked_at_ahead_while_something_trains(ask, things, pack):
    active, requests = pack("nodes.host.active"), pack("trainer_core.engine.requests").Requests()
    one = active.Training("5", "prompt", requests)
    active.enter(one)
    try:
        assert ask("GET", f"{THINGS}/items?limit=1&ahead=1").body["checked"] == 1
    finally:
        active.leave(one)
    assert ask("GET", f"{THINGS}/items?limit=1&ahead=1").body["checked"] == 3


def test_what_is_known_of_a_picture_goes_when_it_changes_and_only_then(ask, things, picture, pack, monkeypatch):
    catalogue, opened = pack("trainer_core.data.catalogue"), []
    check = catalogue.check_picture
    monkeypatch.setattr(catalogue, "check_picture", lambda path: opened.append(path.rpartition("/")[2]) or check(path))

    def sizes():
        page = ask("GET", f"{THINGS}/items?fresh=1").body
        return [item["width"] for item in page["items"]], sorted(opened.pop() for _ in opened.copy())

    assert sizes() == ([96, 64, None], ["a.png", "b.jpg", "c.png"]) and sizes() == ([96, 64, None], [])
    picture(things / "train/c.png", size=(32, 32))
    assert sizes() == ([96, 64, 32], ["c.png"])
