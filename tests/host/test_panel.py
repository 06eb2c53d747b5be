"""Pages beside the one that queues: they hear and command its run, find it after a restart, and send pictures."""

import io
import json
import urllib.request

import pytest
from PIL import Image

WORKFLOW = {"id": "33333333-3333-4333-8333-333333333333", "nodes": [{"id": 5, "type": "ScionTrainLoRA"}], "links": []}
LONG = {"steps": 400, "seed": 311, "batch_size": 1, "rank": 1}


def step(number):
    """Heard when that step is done."""
    return lambda m: m.type == "scion.step" and m.data["first"] + len(m.data["losses"]) > number


@pytest.fixture(scope="module")
def prompt(graph):
    return graph.training(config=LONG, dataset={"resolution": 32}, train={"name": "watched"})


@pytest.fixture(scope="module")
def ended(module_host, graph, prompt):
    """A run that was commanded, and ended by hand, by a page that did not queue it: its messages, and what it asked."""
    with module_host.listen() as queued, module_host.listen() as other:
        sent = {"extra_pnginfo": {"workflow": WORKFLOW}}
        prompt_id = module_host.queue(prompt, queued.client_id, extra_data=sent)
        run = other.wait_for(step(5)).data["run"]
        active = module_host.get("/scion/active")["runs"]
        answers = [
            module_host.request(f"/scion/runs/{run}/commands", {"command": command})
            for command in ("checkpoint", "sample")
        ]
        preview = other.wait_for(lambda m: m.type == "scion.preview").data
        refused = []
        for method, path, headers in (
            ("DELETE", "", {}),
            ("POST", "/continue", {}),
            ("POST", "/commands", {"Sec_Fetch_Site": "cross-site"}),
            ("DELETE", "", {"Origin": "http://evil.example"}),
        ):
            with pytest.raises(Exception, match="^HTTP") as caught:
                module_host.request(f"/scion/runs/{run}{path}", method=method, **headers)
            refused.append(caught.value.status)
        module_host.post(f"/scion/runs/{run}/commands", {"command": "finish"})
        end, _ = queued.until_done(prompt_id)
        assert end.type == "execution_success", end.data
        heard = [message for message in other.messages if message.type and message.type.startswith("scion.")]
    return {"run": run, "active": active, "answers": answers, "preview": preview, "refused": refused, "heard": heard}


@pytest.fixture(scope="module")
def run(module_host, graph, ended):
    return graph.Run(module_host.base / "output" / "scion" / ended["run"])


def test_page_that_comes_late_is_told_what_trains(ended):
    [one] = ended["active"]
    assert (one["node"], one["run"], one["total"]) == ("train", ended["run"], 400)
    assert one["prompt_id"] and one["step"] >= 5


def test_other_page_hears_all_losses_from_the_first(ended, run):
    heard = [loss for message in ended["heard"] if message.type == "scion.step" for loss in message.data["losses"]]
    assert heard == run.losses


def test_commands_are_obeyed_and_the_rest_refused_while_it_trains(ended, run, module_host):
    assert [json.loads(answer) for answer in ended["answers"]] == [{}, {}]
    [made, *_] = [message.data["step"] for message in ended["heard"] if message.type == "scion.checkpoint"]
    assert 5 <= made < run.state["step"] and made % 250
    name = ended["preview"]["name"]
    strip = module_host.request(f"/scion/runs/{ended['run']}/previews/{name}")
    assert strip == (run.folder / "previews" / name).read_bytes() and strip.startswith(b"\x89PNG")
    assert ended["refused"] == [409, 409, 403, 403]


def test_finished_by_hand_it_has_its_file_and_says_so(ended, run, module_host):
    [end] = [message.data for message in ended["heard"] if message.type == "scion.finished"]
    assert (end["status"], end["early"], end["lora"]) == ("finished", True, run.file.name)
    assert 5 < end["step"] < 400 and run.tensors
    assert module_host.get("/scion/active") == {"runs": []}


def test_workflow_that_the_page_sent_is_kept_with_the_run(ended, module_host):
    assert module_host.get(f"/scion/runs/{ended['run']}/workflow") == WORKFLOW
    [listed] = [one for one in module_host.get("/scion/runs")["runs"] if one["run"] == ended["run"]]
    assert listed["workflow"] is True


def test_history_is_there_after_a_restart_and_the_run_is_returned(module_host, graph, prompt, run):
    module_host.restart()
    [listed] = [one for one in module_host.get("/scion/runs")["runs"] if one["run"] == run.folder.name]
    assert (listed["name"], listed["status"], listed["early"]) == ("watched", "finished", True)
    assert listed["step"] == run.state["step"] and len(listed["curve"]) <= 64
    assert module_host.get(f"/scion/runs/{run.folder.name}")["series"]["loss"] == run.losses
    result = module_host.run(prompt)
    assert graph.run_of(module_host, result).folder == run.folder
    assert not result.of("scion.step")


def test_opened_again_it_goes_on_when_the_same_prompt_is_queued(module_host, graph, prompt, run):
    before = run.state["step"]
    module_host.request(f"/scion/runs/{run.folder.name}/continue", {})
    with module_host.listen() as listener:
        prompt_id = module_host.queue(prompt, listener.client_id)
        started = listener.wait_for(lambda m: m.type == "scion.started").data
        module_host.request(f"/scion/runs/{started['run']}/commands", {"command": "finish"})
        listener.until_done(prompt_id)
    assert (started["run"], started["step"]) == (run.folder.name, before)


def test_failure_is_told_to_all_pages(module_host, graph):
    with module_host.listen() as queued, module_host.listen() as other:
        broken = graph.training(config={"seed": 312, "early_stop": 3})  # without held-out pictures
        end, _ = queued.until_done(module_host.queue(broken, queued.client_id))
        failed = other.wait_for(lambda m: m.type == "scion.failed").data
    assert (failed["node"], failed["step"], failed["run"]) == ("train", 0, None)
    assert failed["message"].startswith("early_stop: 3") and failed["message"] in end.data["exception_message"]
    assert module_host.get("/scion/active") == {"runs": []}


def test_deleted_run_is_trained_anew_when_it_is_queued_again(module_host, graph):
    prompt = graph.training(config={"seed": 313}, train={"name": "deleted"})
    run = graph.run_of(module_host, module_host.run(prompt))
    size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    with pytest.raises(Exception, match="^HTTP 404"):  # a script queued it
        module_host.get(f"/scion/runs/{run.folder.name}/workflow")
    answer = json.loads(module_host.request(f"/scion/runs/{run.folder.name}", method="DELETE"))
    assert answer == {"bytes": size} and not run.folder.exists()
    result = module_host.run(prompt)
    assert [message.data["step"] for message in result.of("scion.started")] == [0]


def form_of(files):
    """The body of a form with files, as a browser sends it."""
    head = '--cut\r\nContent-Disposition: form-data; name="files"; filename="{}"\r\n\r\n'
    parts = [head.format(name).encode() + data + b"\r\n" for name, data in files.items()]
    return b"".join([*parts, b"--cut--\r\n"])


def test_pictures_that_a_page_sends_are_a_dataset_that_trains(module_host, graph):
    buffer, dataset = io.BytesIO(), "/scion/datasets/people%2Fnew"
    Image.new("RGB", (64, 64), (200, 30, 40)).save(buffer, "PNG")
    picture = buffer.getvalue()
    body = form_of({"eins.png": picture, "zwei ü.png": picture, "eins.txt": b"a red square", "no.png": b"no"})
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    request = urllib.request.Request(f"{module_host.url}{dataset}/files", body, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        said = json.load(answer)
    assert said["written"] == ["eins.png", "zwei ü.png", "eins.txt"]
    assert [one["name"] for one in said["refused"]] == ["no.png"]
    module_host.request(f"{dataset}/captions/zwei%20%C3%BC.png", {"caption": "another"}, method="PUT")
    items = module_host.get(f"{dataset}/items?resolution=64")["items"]
    assert [(item["key"], item["caption"], item["bucket"], item["problem"]) for item in items] == [
        ("eins.png", "a red square", [64, 64], None),
        ("zwei ü.png", "another", [64, 64], None),
    ]
    small = Image.open(io.BytesIO(module_host.request(f"{dataset}/thumbnails/zwei%20%C3%BC.png?side=16")))
    assert (small.format, small.size) == ("JPEG", (16, 16))
    with pytest.raises(Exception, match="^HTTP 404"):
        module_host.get("/scion/datasets/..%2foutput/items")
    assert module_host.run(graph.training(folder="people/new", config={"seed": 314})).status == "success"
