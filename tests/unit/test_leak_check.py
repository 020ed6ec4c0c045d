"""The leak check itself: a test that leaves something behind fails, a tidy one does not."""

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import asyncio, os, subprocess, threading

kept = []

def test_descriptor():
    os.memfd_create("forgotten")

def test_process():
    kept.append(subprocess.Popen(["sleep", "2"]))

def test_orphan():
    subprocess.run(["sh", "-c", "sleep 2 >/dev/null 2>&1 &"], check=True)

def test_thread():
    threading.Thread(target=threading.Event().wait, args=(3,), daemon=True).start()

async def test_task():
    kept.append(asyncio.ensure_future(asyncio.Event().wait()))

def test_tidy():
    os.close(os.memfd_create("closed"))
    subprocess.run(["true"], check=True)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

async def test_tidy_tasks():
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await asyncio.wait([task])
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await asyncio.to_thread(int)
"""


@pytest.mark.slow
def test_each_kind_of_leak_fails_its_test_and_no_other(pytester, request):
    conftest = (request.config.rootpath / "tests" / "conftest.py").read_text()
    pytester.makeconftest(conftest.replace("SETTLE_S = 5.0", "SETTLE_S = 0.2"))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "no:randomly")
    result.assert_outcomes(passed=7, errors=5)
    for leak in ("descriptor", "process", "orphan", "thread"):
        title = f"*ERROR at teardown of test_{leak} *"
        result.stdout.fnmatch_lines([title, "the test left behind: *"], consecutive=True)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_task *", "tasks that nobody awaited*"])
