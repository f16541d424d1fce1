"""What a run shows: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator

import pytest

from ptarmigan.core import console
from ptarmigan.core.console import Display, Terminal


class Refusing(io.StringIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed"), UnicodeError()])
def test_a_display_swallows_the_faults_of_its_stream(error: Exception, terminal: bool) -> None:
    stream = Terminal()
    stream.file = Refusing(error)
    stream._force_terminal = terminal
    with Display(stream) as display:
        with display.doing("working"):
            display.say("a line")
        display.preparing("reading", 1, 2)
        display.tick(8, 0.5, 1.0, 1.0, {"d_adv": 1.0})


def test_a_terminal_shows_the_beginning_of_a_note_and_breaks_lines_between_words() -> None:
    note, path = "3 files are left out (a.png, b.png)", "/a/path/that/is/wider/than/the/screen"
    for is_terminal, lines in (
        (False, [f"note: {note}", f"saved as {path}"]),
        (True, ["note: 3 files are left out", "  ...", "saved as", f"  {path}"]),
    ):
        stream = Terminal()
        stream.file, stream._force_terminal, stream.width = io.StringIO(), is_terminal, 26
        display = Display(stream)
        display.note(note)
        display.say(f"saved as {path}")
        assert stream.file.getvalue().splitlines() == lines


def test_two_threads_do_not_print_at_once() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def __rich_console__(self, *_: object) -> Iterator[str]:
            begun.set()
            go_on.wait(10)
            yield "a picture"

    stream = Terminal()
    stream.file = io.StringIO()
    display = Display(stream)
    threads = [threading.Thread(target=display.show, args=[Slow()])]
    threads[0].start()
    assert begun.wait(10)
    threads.append(threading.Thread(target=display.say, args=["a line"]))
    threads[1].start()
    threads[1].join(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert stream.file.getvalue().splitlines() == ["a picture", "a line"]


@pytest.mark.parametrize(("rate", "shown"), [(0.31, "0.3/s"), (9.5, "9.5/s"), (23.4, "23/s"), (2345.6, "2,346/s")])
def test_the_speed_of_large_images_is_not_shown_as_0(rate: float, shown: str) -> None:
    stream = Terminal()
    stream.file = printed = io.StringIO()
    with Display(stream) as display:
        display.tick(8, 0.5, rate, 1.0, {})
    assert f"8 images  {shown}  1s left" in printed.getvalue()


def test_a_bar_shows_how_long_a_task_will_take_and_training_says_it_itself() -> None:
    display = Display(Terminal())
    for done in (1, 2):
        display.preparing("reading", done, 40)
    assert re.search(r"reading.*2 of 40 +0:00:0", console.in_text(display.live.renderable))
    display._remove("reading")
    display.shows_bar = True
    for share in (0.1, 0.2):
        display.tick(8, share, 1.0, 9.0, {})
    shown = console.in_text(display.live.renderable)
    assert "9s left" in shown
    assert "0:0" not in shown


def test_short_ticks_do_not_flood_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    stream = Terminal()
    stream.file = io.StringIO()
    display = Display(stream)
    for step in range(1, 101):
        clock[0] += 0.01
        display.tick(step, step / 100, 1.0, 1.0, {})
    lines = stream.file.getvalue().splitlines()
    assert len(lines) == 3
    assert "100 images" in lines[-1]


def test_nothing_that_takes_long_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    stream = Terminal()
    stream.file = io.StringIO()
    display = Display(stream)

    def printed() -> list[str]:
        lines = stream.file.getvalue().splitlines()  # type: ignore[attr-defined]
        stream.file = io.StringIO()
        return list(lines)

    with display.doing("measuring"):
        for clock[0] in (1.6, 1.8, 3.0, 4.2):
            display._break_silence()
        assert printed() == ["measuring, 2s so far", "measuring, 4s so far"]
        for clock[0], done in ((5.0, 10), (6.5, 1200), (7.0, 1300)):
            display.preparing("reading images", done, 5000)
        assert printed() == ["reading images: 1,200 of 5,000"]
        display.preparing("reading images", 5000, 5000)
        clock[0] = 9.0
        display._break_silence()
        assert printed() == ["measuring, 2s so far"]
    clock[0] = 20.0
    display._break_silence()
    assert printed() == []
    display.training()  # whose ticks may take long
    display.tick(8, 0.1, 1.0, 1.0, {})
    for clock[0] in (20.5, 22.0, 24.0):
        display._break_silence()
    assert printed()[1:] == ["training, 2s so far", "training, 4s so far"]
    with display.doing("saving", at_once=True):
        assert printed() == ["saving"]
