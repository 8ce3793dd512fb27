"""Files of tensors are safetensors' own."""

import subprocess
from pathlib import Path

import torch
from safetensors.torch import load_file

from zoo.storage.files import open_folder
from zoo.storage.tensors import write_tensors


def test_tensors_are_read_by_safetensors_as_they_were_written(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "one": torch.ones(1).expand(1),
        "strided": torch.arange(10, dtype=torch.int16)[::3],
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "halves": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    }
    with open_folder(tmp_path) as folder, folder.write("file") as file:
        digest = write_tensors(file, tensors, {"text": "ü"})
    loaded = load_file(tmp_path / "file")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    shown = subprocess.run(["sha256sum", str(tmp_path / "file")], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[0] == digest
