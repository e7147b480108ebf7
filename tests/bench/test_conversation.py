"""A conversation that is measured: turns, interruptions, and a "mm-hmm" now and then."""

from __future__ import annotations

import pytest

from wsavatar.bench.conversation import ConversationReport, measure_conversation, report_table
from wsavatar.config import Settings


def test_the_table_has_medians_and_percentiles() -> None:
    """Each time with p50, p95 and the worst; what was not measured says so."""
    report = ConversationReport(answers=[300, 310, 400], resumed=2, backchannels=3)
    text = report_table(report)
    assert "p50 310 ms" in text and "most 400 ms (3)" in text and "2 of 3" in text
    assert "to silence: nothing measured" in text


@pytest.mark.slow
@pytest.mark.alone
async def test_a_conversation_with_the_real_server() -> None:
    """With the packaged model: answers, interruptions that are noticed, answers that go on."""
    report = await measure_conversation(Settings(), 1, lambda text: None, echo_answers=0)
    assert len(report.answers) == len(report.ours) == 1
    assert report.undetected + len(report.interruptions) == 1 and report.late_events == 0
    assert report.backchannels == 1
