"""How fast a language model answers: ``python -m wsavatar.bench.language_model``.

A conversation is held with the configured model. Measured are, for each turn, the time to the first
token, which grows with what the model has to read, tokens a second, and the processor's time of
this process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from wsavatar.config import LlmSettings
from wsavatar.dialogue.chat import INSTRUCTIONS
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.llm import ChatRequest, LanguageModel, TextDelta, create_language_model

__all__ = ["main"]

_QUESTIONS = (
    "Hello!",
    "What is the capital of Italy?",
    "What can one see there?",
    "Why is the sky blue?",
    "I feel a bit sad today.",
    "Do you like music?",
    "What should I cook tonight?",
    "How many days has a week?",
    "Tell me about the sea.",
    "Thank you, goodbye.",
)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Seconds. ``tokens``: the deltas of the answer, which most servers send one a token."""

    question: str
    answer: str
    first_s: float
    all_s: float
    processor_s: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second after the first."""
        return (self.tokens - 1) / max(self.all_s - self.first_s, 1e-9)


async def _ask(model: LanguageModel, messages: Sequence[dict[str, Any]], max_tokens: int) -> _Turn:
    begun_s, processor_s = time.perf_counter(), time.process_time()
    first_s, tokens, text = 0.0, 0, ""
    request = ChatRequest(tuple(messages), max_tokens=max_tokens)
    async with aclosing(model.answer(request)) as parts:
        async for part in parts:
            if isinstance(part, TextDelta):
                first_s = first_s or time.perf_counter() - begun_s
                tokens += 1
                text += part.text
    all_s = time.perf_counter() - begun_s
    spent_s = time.process_time() - processor_s
    return _Turn(messages[-1]["content"], text.strip(), first_s, all_s, spent_s, tokens)


async def _converse(settings: LlmSettings, show: bool) -> list[_Turn]:
    """Raises EngineError."""
    model = create_language_model(settings)
    if model is None:
        raise EngineError("engine_missing", "llm.engine is none.")
    try:
        begun_s = time.perf_counter()
        await model.start()
        print(f"{model.name}: started in {time.perf_counter() - begun_s:.1f} s")
        messages = [{"role": "system", "content": settings.instructions or INSTRUCTIONS}]
        turns = []
        for question in _QUESTIONS:
            messages.append({"role": "user", "content": question})
            turn = await _ask(model, messages, settings.max_tokens)
            messages.append({"role": "assistant", "content": turn.answer})
            turns.append(turn)
            shown = f"  {question}  {turn.answer}" if show else ""
            print(
                f"first token {1000 * turn.first_s:5.0f} ms, {turn.tokens:3} tokens at "
                f"{turn.rate:5.1f}/s, processor {turn.processor_s:4.1f} s{shown}",
                flush=True,
            )
    finally:
        await model.close()
    return turns


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one model. Returns 1 if it does not answer."""
    parser = argparse.ArgumentParser(description=__doc__, prog="wsavatar.bench.language_model")
    parser.add_argument("--engine", default="auto", help="as llm.engine (default: auto)")
    parser.add_argument("--model", default="", help="as llm.model")
    parser.add_argument("--base-url", default="", help="as llm.base_url")
    parser.add_argument("--max-tokens", type=int, default=60, help="longest answer (default: 60)")
    parser.add_argument("--show", action="store_true", help="print what was asked and answered")
    args = parser.parse_args(argv)
    settings = LlmSettings(
        engine=args.engine, model=args.model, base_url=args.base_url, max_tokens=args.max_tokens
    )
    try:
        turns = asyncio.run(_converse(settings, args.show))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    spoken = [turn for turn in turns if turn.tokens > 1]
    if not spoken:
        print("error: the model answered with nothing", file=sys.stderr)
        return 1
    firsts = [1000 * turn.first_s for turn in spoken]
    print(
        f"median of {len(spoken)} turns: first token {statistics.median(firsts):.0f} ms "
        f"(greatest {max(firsts):.0f}), {statistics.median(t.rate for t in spoken):.1f} tokens/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
