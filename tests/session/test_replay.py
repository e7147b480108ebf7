"""What a client did not get over a connection that was lost: kept within bounds, sent once."""

from __future__ import annotations

import asyncio

import pytest

from tests.session.held import Clock, Held, holding
from tests.session.test_heard import report, reporting
from tests.session.test_outbox import Ledger, Wire, sending
from wsavatar.session import replay
from wsavatar.session.outbox import Outbox, OutgoingFrame
from wsavatar.session.replay import Replay, ReplayError
from wsavatar.session.timeline import PlaybackEstimate

# -- the messages that are kept -------------------------------------------------------------------


def kept(*sizes: int, clock: Clock | None = None) -> Replay[int]:
    """Keeps messages that are their own numbers."""
    messages: Replay[int] = Replay(clock or Clock())
    messages.keep()
    for number, size in enumerate(sizes, 1):
        messages.add(number, size)
    return messages


def test_what_did_not_arrive_is_found_by_its_number() -> None:
    """After the third of five messages, the fourth and the fifth are missing."""
    arrived, missed, frames_gone = kept(*[10] * 5).resume(3)
    assert (arrived, missed, frames_gone) == ([1, 2, 3], [4, 5], 0)


def test_numbers_go_on_over_several_connections() -> None:
    """What is sent again gets the next numbers, as the client counts it."""
    messages = kept(*[10] * 5)
    assert messages.resume(3)[1] == [4, 5]
    assert messages.count == 3
    messages.add(4, 10)
    messages.add(5, 10)
    messages.add(6, 10)
    assert messages.resume(4)[:2] == ([4], [5, 6])
    assert messages.resume(4)[:2] == ([], [])


def test_what_was_not_kept_is_counted() -> None:
    """A client that learns late that it may come back has counted all of its messages."""
    messages: Replay[int] = Replay(Clock())
    for number in range(1, 4):
        messages.add(number, 10)
    messages.keep()
    messages.add(4, 10)
    with pytest.raises(ReplayError, match="too much") as gone:
        messages.check(2)
    assert gone.value.is_lost
    assert messages.resume(3)[1] == [4]


@pytest.mark.parametrize("received", [-1, 6, 10**15])
def test_a_number_that_cannot_be_is_refused_and_nothing_is_lost(received: int) -> None:
    """The client is wrong, not the session: the right number works afterwards."""
    messages = kept(*[10] * 5)
    with pytest.raises(ReplayError) as wrong:
        messages.resume(received)
    assert not wrong.value.is_lost
    assert messages.resume(5)[0] == [1, 2, 3, 4, 5]


def test_memory_is_bounded_by_bytes_and_by_time() -> None:
    """The oldest messages go first; small ones and old ones are bounded as well."""
    large = kept(*[replay.MESSAGE_BYTES // 3] * 5)
    assert large.resume(3)[1] == [4, 5]
    small = kept(*[0] * 100_000)
    with pytest.raises(ReplayError):
        small.check(100)
    clock = Clock()
    old = kept(10, 10, clock=clock)
    clock.now_s += replay.KEPT_S + 1
    old.add(3, 10)
    with pytest.raises(ReplayError) as gone:
        old.check(1)
    assert gone.value.is_lost
    old.check(2)


def test_frames_never_push_out_audio() -> None:
    """They have a bound of their own: beyond it the oldest are counted as gone."""
    messages: Replay[str] = Replay(Clock())
    messages.keep()
    messages.add("audio", 1000)
    for number in range(6):
        messages.add(f"frame {number}", replay.FRAME_BYTES // 4, is_frame=True)
    arrived, missed, frames_gone = messages.resume(0)
    assert not arrived
    assert missed == ["audio", "frame 3", "frame 4", "frame 5"]
    assert frames_gone == 3


def test_what_is_stale_keeps_its_number() -> None:
    """An interrupted response's audio is not sent again; what follows has its own number."""
    messages = kept(*[10] * 5)
    messages.discard(lambda number: number in (2, 4))
    assert messages.resume(1)[:2] == ([1], [3, 5])


# -- the outbox -----------------------------------------------------------------------------------


class Breaking(Wire):
    """A socket that breaks at a message, which arrives all the same, or not."""

    def __init__(self, at: int, *, arrives: bool) -> None:
        super().__init__()
        self.open()
        self.at = at
        self.arrives = arrives

    async def send(self, payload: str | bytes) -> None:
        if len(self.taken) == self.at:
            if self.arrives:
                self.taken.append(payload)
            raise ConnectionResetError
        await super().send(payload)


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_message_at_which_the_socket_breaks_arrives_once(arrives: bool) -> None:
    """Nobody here knows whether it did: the client's count does. What counts the audio that was
    sent is told once."""
    outbox, taken = Outbox(frame_bytes=1000), []
    outbox.replay.keep()
    for number in range(5):
        outbox.put(f"{number}", sent=lambda number=number: taken.append(number))
    first, second = Breaking(2, arrives=arrives), Wire()
    second.open()
    with pytest.raises(ConnectionResetError):
        await outbox.run(first.send)
    assert outbox.resume(len(first.taken)) == 0
    async with sending(outbox, second):
        await outbox.flushed()
    assert first.taken + second.taken == [f"{number}" for number in range(5)]
    assert taken == [0, 1, 2, 3, 4]
    assert outbox.message_bytes == 0


async def test_frames_that_are_late_by_now_are_dropped_and_the_others_sent() -> None:
    """Of those that waited and of those that were lost on their way; each is settled once."""
    outbox, ledger, wire = Outbox(frame_bytes=1000), Ledger(), Wire()
    outbox.replay.keep()
    position = 0

    def frame(index: int) -> OutgoingFrame:
        made = ledger.frame(index)
        return OutgoingFrame(1, 100, made.encode, made.settled, lambda: index < position)

    for index in range(4):
        outbox.put_frame(frame(index))
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    for index in range(4, 8):
        outbox.put_frame(frame(index))
    position = 6
    again = Wire()
    again.open()
    assert outbox.resume(2) == 4  # 2 and 3 of those that were sent, 4 and 5 of those that waited
    async with sending(outbox, again):
        await outbox.flushed()
    assert again.taken == [b"frame 6", b"frame 7"]
    position = 7
    assert outbox.resume(2) == 1
    third = Wire()
    third.open()
    async with sending(outbox, third):
        await outbox.flushed()
    assert third.taken == [b"frame 7"]
    assert (ledger.sent, ledger.dropped) == ([0, 1, 2, 3, 6, 7], [4, 5])


async def test_an_event_about_one_connection_is_not_for_the_next() -> None:
    """It comes first, has a number, and is not sent again."""
    outbox, first = Outbox(frame_bytes=1000), Breaking(2, arrives=False)
    outbox.replay.keep()
    for text in ("a", "b", "c"):
        outbox.put(text)
    outbox.put_first("hello")
    with pytest.raises(ConnectionResetError):
        await outbox.run(first.send)
    assert first.taken == ["hello", "a"]
    outbox.resume(0)
    outbox.put_first("hello again")
    second = Wire()
    second.open()
    async with sending(outbox, second):
        await outbox.flushed()
    assert second.taken == ["hello again", "a", "b", "c"]


# -- a session without a connection ---------------------------------------------------------------


def lost(held: Held) -> int:
    """The session's connection is gone; returns how many messages its client has."""
    held.session.disconnected()
    return len(held.line.got)


async def speaks_at_length(held: Held) -> None:
    held.session._use_extension()
    held.line.say("avatar.speak", text="440 60")
    await held.line.until("response.output_audio.delta", 21)  # as much as it runs ahead


async def test_nothing_is_said_while_nobody_listens() -> None:
    """Speech waits for the next connection: no audio piles up, and no time passes for it."""
    async with holding() as held:
        await speaks_at_length(held)
        lost(held)
        sent_s = held.metrics.snapshot()["audio"]["out_s"]
        held.clock.now_s += 25
        for _ in range(50):
            await asyncio.sleep(0)
        assert held.metrics.snapshot()["audio"]["out_s"] <= sent_s + 0.5
        held.session.resume(len(held.line.got))
        await held.line.until("response.output_audio.delta", 40)  # what it ran dry of
        assert not held.line.of("response.done")


async def test_what_was_said_before_is_not_over_while_the_client_is_away() -> None:
    """A client that reports cannot have heard what it never got: the response ends later."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text="440 4")
        response = (await held.line.until("response.created", 2))["response"]
        await held.line.until("response.video.done", 2)
        report(held.line, response, 500)
        await held.line.caught_up()
        received = lost(held)
        held.clock.now_s += 20
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(held.line.of("response.done")) == 1
        held.session.resume(received)
        await held.line.until("response.done", 2)


def test_a_client_that_was_cut_off_has_played_no_more_than_it_got() -> None:
    """The estimate goes on from there, not from where the clock would be."""
    playback = PlaybackEstimate()
    playback.sent(30.0, 100.0)
    playback.cut_off(5.0, 120.0)
    assert playback.position_s(120.0) == 5.0
    assert playback.position_s(121.0) == 6.0
    playback.cut_off(5.5, 120.2)  # it had more than it needed: nothing changes
    assert playback.position_s(121.0) == 6.0


async def test_a_response_that_is_interrupted_meanwhile_is_not_said_again() -> None:
    """Its audio is gone, and the next connection is told how it ended."""
    async with holding() as held:
        await speaks_at_length(held)
        lost(held)
        held.access.interrupt()
        held.line.got.clear()
        held.session.resume(3)
        done = await held.line.until("response.done")
        assert done["response"]["status"] == "cancelled"
        assert not held.line.of("response.output_audio.delta")
        assert held.line.kinds()[0] == "avatar.resumed"


async def test_only_clients_that_know_avatars_may_come_back() -> None:
    """A stock client gets no event that it does not know, and nothing is kept for it."""
    async with holding() as held:
        held.line.say("session.update", session={"instructions": "Hi"})
        await held.line.caught_up()
        assert not held.session.resumption.is_possible
        held.line.say("session.update", session={"avatar": {"id": "ada"}})
        held.line.say("session.update", session={"avatar": {"id": "ada"}})
        await held.line.caught_up()
        (event,) = held.line.of("avatar.resumable")
        assert event["within_s"] == 30 and len(event["token"]) >= 32
        assert held.session.resumption.is_possible


async def test_secrets_differ_and_a_server_may_have_none() -> None:
    """One for each session; ``resume_s: 0`` gives none to anybody."""
    tokens = set()
    for resume_s in (30, 30, 0):
        async with holding(server={"resume_s": resume_s, "frames": "always"}) as held:
            await held.line.caught_up()
            tokens |= {one["token"] for one in held.line.of("avatar.resumable")}
            assert held.session.resumption.is_possible == (resume_s > 0)
    assert len(tokens) == 2


async def test_messages_of_the_client_are_counted_as_they_are_taken_in() -> None:
    """Refused ones count too: the client would send what is not counted again."""
    async with holding() as held:
        held.session._use_extension()
        held.line.say("nonsense")
        held.line.inbox.put_nowait("{")
        held.line.inbox.put_nowait(bytes(960))
        await held.line.caught_up()
        received = lost(held)
        held.session.resume(received)
        assert (await held.line.until("avatar.resumed"))["received"] == 4
