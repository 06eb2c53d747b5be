"""Hashes cover the bytes that the tools hash."""

import hashlib

import safetensors.torch
import torch

from trainer_core.lora_file.hashes import hash_metadata, sha256_of_data, sha256_of_file
from trainer_core.lora_file.safe_io import write_tensors

LARGE = {"a": torch.arange(300_000.0), "b": torch.arange(9.0, dtype=torch.float16)}


def test_the_data_hash_is_that_of_the_bytes_behind_the_header_whatever_the_metadata(tmp_path):
    write_tensors(tmp_path / "plain", LARGE)
    write_tensors(tmp_path / "told", LARGE, {"ss_seed": "5", "note": "x" * 99})
    expected = hashlib.sha256(LARGE["a"].numpy().tobytes() + LARGE["b"].numpy().tobytes()).hexdigest()
    assert sha256_of_data(tmp_path / "plain") == sha256_of_data(tmp_path / "told") == expected
    assert hash_metadata(LARGE, {})["sshs_model_hash"] == expected
    assert hash_metadata(LARGE, {})["modelspec.hash_sha256"] == "0x" + expected


def test_the_legacy_hash_is_of_64_kib_at_1_mib_of_the_file_with_training_metadata_alone():
    metadata = {"ss_seed": "5", "ss_steps": "10"}
    public = safetensors.torch.save(LARGE, metadata)
    expected = hashlib.sha256(public[0x100000:0x110000]).hexdigest()[:8]
    assert hash_metadata(LARGE, {**metadata, "modelspec.title": "dog"})["sshs_legacy_hash"] == expected
    small = {"a": torch.ones(3)}
    assert hash_metadata(small, {})["sshs_legacy_hash"] == hashlib.sha256(b"").hexdigest()[:8]


def test_the_hash_of_a_file_is_of_all_its_bytes(tmp_path):
    write_tensors(tmp_path / "file", LARGE)
    whole = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert sha256_of_file(tmp_path / "file") == whole
