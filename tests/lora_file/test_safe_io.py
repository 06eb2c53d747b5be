"""Equal tensors give equal bytes, a failed check leaves the old file, and hostile files are refused with their name."""

import io
import json
import pickle
import zipfile

import pytest
import safetensors.torch
import torch

from trainer_core.errors import BadInput
from trainer_core.lora_file import safe_io

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "scalar": torch.tensor(4.5),
    "empty": torch.empty(0, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "eight": torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn),
    "whole": torch.arange(3),
    "flags": torch.tensor([True, False, True]),
    "ä name": torch.ones(1),
}


def file_of(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin, end, shape=None, dtype="F32"):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def test_equal_tensors_give_equal_bytes_whatever_their_order(tmp_path):
    metadata = {f"key{n}": str(n) for n in range(50)}
    safe_io.write_tensors(tmp_path / "a", TENSORS, metadata)
    safe_io.write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_bytes_are_those_of_the_public_library(tmp_path):
    safe_io.write_tensors(tmp_path / "ours", TENSORS)
    assert (tmp_path / "ours").read_bytes() == safetensors.torch.save(TENSORS)


def test_what_is_written_is_read_back_with_dtypes_shapes_and_metadata(tmp_path):
    safe_io.write_tensors(tmp_path / "file", TENSORS, {"who": "Zoë"})
    tensors, metadata = safe_io.read_tensors(tmp_path / "file")
    public = safetensors.torch.load_file(tmp_path / "file")
    assert metadata == {"who": "Zoë"}
    assert tensors.keys() == TENSORS.keys() == public.keys()
    for name, tensor in TENSORS.items():
        for read in (tensors[name], public[name]):
            assert read.dtype == tensor.dtype and read.shape == tensor.shape
            assert torch.equal(read.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_transposed_and_shared_tensors_are_written_by_value(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    safe_io.write_tensors(tmp_path / "file", {"a": matrix, "turned": matrix.t(), "row": matrix[1]})
    tensors, _ = safe_io.read_tensors(tmp_path / "file")
    assert tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert tensors["row"].tolist() == [3, 4, 5]


def test_read_tensors_leave_the_file_free_to_be_replaced(tmp_path):
    safe_io.write_tensors(tmp_path / "file", {"a": torch.ones(3)})
    tensors, _ = safe_io.read_tensors(tmp_path / "file")
    safe_io.write_tensors(tmp_path / "file", {"a": torch.zeros(3)})
    tensors["a"] += 1
    assert tensors["a"].tolist() == [2, 2, 2]
    assert safe_io.read_tensors(tmp_path / "file")[0]["a"].tolist() == [0, 0, 0]


def test_a_check_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    safe_io.write_tensors(tmp_path / "file", {"a": torch.ones(1)})

    def check(written):
        assert safe_io.read_tensors(written)[0]["a"].item() == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        safe_io.write_tensors(tmp_path / "file", {"a": torch.tensor([2.0])}, check=check)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert safe_io.read_tensors(tmp_path / "file")[0]["a"].item() == 1


def archive() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return memory.getvalue()


WHOLE = safetensors.torch.save({"a": torch.ones(4), "b": torch.ones(4)})
HOSTILE = {
    "empty": (b"", "empty"),
    "one byte": (b"{", "not a safetensors file"),
    "torch archive": (archive(), "zip archive or a PyTorch"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
    "web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "text": (b"this is a description of my LoRA", "looks like text"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "picture"),
    "huge header": (file_of(b"{}", length=10**12), "claims 1,000,000,000,000 bytes"),
    "cut in the header": (WHOLE[:40], "cut off within its header"),
    "cut in the data": (WHOLE[:-5], "cut off"),
    "data after the end": (WHOLE + b"extra", "5 bytes follow"),
    "offsets outside": (file_of({"a": entry(0, 400)}, bytes(16)), "cut off"),
    "overlap": (file_of({"a": entry(0, 16), "b": entry(8, 24)}, bytes(24)), "overlaps"),
    "gap": (file_of({"a": entry(4, 16)}, bytes(16)), "gap"),
    "shape lies": (file_of({"a": entry(0, 16, [1000, 1000])}, bytes(16)), "does not fit"),
    "negative shape": (file_of({"a": entry(0, 16, [-2, -2])}, bytes(16)), "shape"),
    "fractional shape": (file_of({"a": entry(0, 16, [4.0])}, bytes(16)), "shape"),
    "negative offset": (file_of({"a": entry(-4, 12, [4])}, bytes(16)), "shape"),
    "strange dtype": (file_of({"a": entry(0, 16, [4], "Q4")}, bytes(16)), "unknown dtype 'Q4'"),
    "listed dtype": (file_of({"a": entry(0, 16, [4], ["F32"])}, bytes(16)), "unknown dtype"),
    "absurd extent": (file_of({"a": entry(0, 0, [10**30, 0])}), "shape"),
    "number as offsets": (file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": 4}}), "shape"),
    "number as shape": (file_of({"a": entry(0, 16, 4)}, bytes(16)), "shape"),
    "number as entry": (file_of({"a": 5}), "without dtype"),
    "name twice": (file_of(b'{"a": %b, "a": %b}' % ((json.dumps(entry(0, 0)).encode(),) * 2)), "twice"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 5}}), "metadata"),
    "no json": (file_of(b"{" + bytes(20)), "damaged"),
    "deep json": (file_of(b'{"a":' + b"[" * 100_000), "damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_with_its_name_and_what_it_is(tmp_path, kind):
    content, message = HOSTILE[kind]
    path = tmp_path / "my lora.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        safe_io.read_tensors(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_a_folder_and_a_file_too_large_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        safe_io.read_tensors(tmp_path / "absent")
    with pytest.raises(BadInput, match="folder"):
        safe_io.read_tensors(tmp_path)
    safe_io.write_tensors(tmp_path / "large", {"a": torch.ones(1000)})
    with pytest.raises(BadInput, match="at most 1,000"):
        safe_io.read_tensors(tmp_path / "large", max_bytes=1000)
