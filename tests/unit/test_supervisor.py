"""Programs are kept running, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.mesh.errors import CannotStart
from services.mesh.process import Lifeline, how
from services.mesh.supervisor import Program, Supervisor
from tests.patience import PATIENCE
from tests.processes import alive, until

STEADY = "import time; open({mark!r}, 'a').write('x'); time.sleep(3600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "open({mark!r}, 'a').write('x'); time.sleep(3600)"
)
PARENT = """
import asyncio, sys
from pathlib import Path
from services.mesh.process import Lifeline, Process

async def main():
    child = await Process.start(
        [sys.executable, "-c", "import time; time.sleep(3600)"],
        {}, Path(sys.argv[1]), Lifeline(pipe=sys.argv[2] == "pipe"),
    )
    print(child.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


class Desk:
    """Programs for a test, and what was said about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    def program(
        self,
        code: str,
        name: str = "one",
        healthy: Callable[[], Awaitable[bool]] | None = None,
        answers: Callable[[], Awaitable[bool]] | None = None,
    ) -> Program:
        """A Python program that is healthy once it has made its mark."""
        mark = self.mark(name)

        async def marked() -> bool:
            return mark.exists()

        return Program(
            name=name,
            command=[sys.executable, "-c", code.format(mark=str(mark))],
            env=os.environ,
            log=self.folder / f"{name}.log",
            healthy=healthy or marked,
            answers=answers or marked,
        )

    def mark(self, name: str = "one") -> Path:
        return self.folder / f"{name}.mark"

    def starts(self, name: str = "one") -> int:
        return len(self.mark(name).read_text()) if self.mark(name).exists() else 0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_killed_program_is_started_again_and_it_is_said_how_it_died(desk: Desk) -> None:
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(STEADY))
        await supervisor.serving()
        first = supervisor.pids["one"]

        os.kill(first, signal.SIGKILL)
        await until(lambda: desk.starts() == 2)

        assert supervisor.pids["one"] != first
    assert "one was ended by SIGKILL; starting it again at once" in desk.said
    assert not alive(first)


async def test_a_program_that_keeps_dying_is_kept_being_started_and_quoted(desk: Desk) -> None:
    code = (
        "import os, time; open({mark!r}, 'a').write('x');"
        "time.sleep(3600) if os.path.getsize({mark!r}) == 1 else exit('no luck')"
    )
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(code))
        await supervisor.serving()
        os.kill(supervisor.pids["one"], signal.SIGKILL)

        await until(lambda: "one said last: no luck" in desk.said)
        await until(lambda: desk.starts() >= 4)
    assert any("ended with exit status 1; starting it again in 0.2 s" in line for line in desk.said)


async def test_a_program_that_ends_before_it_ever_served_is_not_tried_again(desk: Desk) -> None:
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program("exit('The setting CONDUCTOR_X is wrong.')"))
        supervisor.add(desk.program(STEADY, name="other"))

        with pytest.raises(CannotStart, match=r"exit status 1(.|\n)*CONDUCTOR_X is wrong\."):
            await supervisor.serving()
    assert supervisor.pids == {}


async def test_a_program_that_is_killed_before_it_served_is_tried_again(desk: Desk) -> None:
    code = (
        "import os, time; open({mark!r}, 'a').write('x');"
        "time.sleep(3600) if os.path.getsize({mark!r}) == 2 else os.kill(os.getpid(), 9)"
    )

    async def second() -> bool:
        return desk.starts() == 2

    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(code, healthy=second))
        await supervisor.serving()

        assert desk.starts() == 2


async def test_a_start_that_hangs_is_given_up_with_the_end_of_its_log(desk: Desk) -> None:
    async def never() -> bool:
        return False

    code = "import time; print('waiting for Godot', flush=True); time.sleep(3600)"
    async with Supervisor(desk.said.append, start_timeout=0.5) as supervisor:
        supervisor.add(desk.program(code, healthy=never))

        with pytest.raises(CannotStart, match=r"did not serve within 0\.5 s(.|\n)*Godot"):
            await supervisor.serving()


@pytest.mark.parametrize("serves", [True, False])
async def test_a_start_that_logs_on_has_time_until_it_answers(desk: Desk, *, serves: bool) -> None:
    asked = 0

    async def healthy() -> bool:
        nonlocal asked
        asked += 1
        with program.log.open("a") as log:
            log.write(f"document {asked}\n")
        return asked == (20 if serves else 40)

    async def answers() -> bool:
        return asked >= 10 and not serves

    program = desk.program("import time; time.sleep(3600)", healthy=healthy, answers=answers)
    supervisor = Supervisor(desk.said.append, start_timeout=3, clock=lambda: float(asked))
    async with supervisor:
        supervisor.add(program)

        if serves:
            await supervisor.serving()
        else:
            with pytest.raises(CannotStart, match="did not serve within 3 s"):
                await supervisor.serving()
    assert asked == (20 if serves else 13)


async def test_a_program_that_served_and_falls_silent_is_killed_and_started_again(
    desk: Desk,
) -> None:
    asked: list[int] = []

    async def unless_first() -> bool:
        asked.append(desk.starts())
        return desk.starts() != 1

    async with Supervisor(desk.said.append, silence=0.3) as supervisor:
        supervisor.add(desk.program(STEADY, answers=unless_first))
        await supervisor.serving()
        first = supervisor.pids["one"]
        await until(lambda: desk.starts() == 2)
        second = supervisor.pids["one"]
        await until(lambda: asked.count(2) > 10)

        assert supervisor.pids["one"] == second
    assert not alive(first)
    assert desk.said[0] == "one has not answered for 0.3 s; starting it again at once"


async def test_a_program_that_cannot_be_executed_is_told_by_name(desk: Desk) -> None:
    program = desk.program("")
    missing = replace(program, command=["/nowhere/to/be/found"])
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(missing)

        with pytest.raises(CannotStart, match="/nowhere/to/be/found cannot be started"):
            await supervisor.serving()


async def test_a_program_that_ignores_sigint_is_killed_after_the_grace(desk: Desk) -> None:
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(STUBBORN))
        await supervisor.serving()
        pid = supervisor.pids["one"]

        await supervisor.stop("one", grace=0.2)

        assert not alive(pid)
        assert supervisor.pids == {}


async def test_kill_ends_a_stop_that_takes_its_time(desk: Desk) -> None:
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(STUBBORN))
        await supervisor.serving()

        stopping = asyncio.create_task(supervisor.stop("one", grace=3600))
        await asyncio.sleep(0)
        supervisor.kill()

        await asyncio.wait_for(stopping, PATIENCE)


async def test_a_program_gets_no_sigint_of_the_terminal(desk: Desk) -> None:
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(STEADY))
        await supervisor.serving()

        assert os.getsid(supervisor.pids["one"]) != os.getsid(0)


async def test_what_a_program_left_behind_ends_with_it(desk: Desk) -> None:
    code = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)']);"
        "open({mark!r}, 'a').write(str(child.pid)); time.sleep(3600)"
    )
    async with Supervisor(desk.said.append) as supervisor:
        supervisor.add(desk.program(code))
        await supervisor.serving()
        await until(lambda: desk.mark().read_text() != "")

        await supervisor.stop("one", grace=5)

    left_behind = int(desk.mark().read_text())
    await until(lambda: not alive(left_behind))


@pytest.mark.parametrize(
    "tie",
    [
        pytest.param(
            "kernel",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux alone"),
        ),
        "pipe",
    ],
)
async def test_a_child_ends_when_its_starter_is_killed(tmp_path: Path, tie: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path / "log"), tie), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert alive(child)

    parent.kill()
    await parent.wait()

    await until(lambda: not alive(child))


async def test_a_child_tied_by_a_pipe_can_end_by_itself(desk: Desk) -> None:
    async with Supervisor(desk.said.append, lifeline=Lifeline(pipe=True)) as supervisor:
        supervisor.add(desk.program(STEADY))
        await supervisor.serving()
        pid = supervisor.pids["one"]

        await supervisor.stop("one", grace=5)

        assert not alive(pid)


def test_an_end_is_told_in_words() -> None:
    assert how(0) == "ended with exit status 0"
    assert how(-signal.SIGSEGV) == "was ended by SIGSEGV"
    assert how(-200) == "was ended by signal 200"
