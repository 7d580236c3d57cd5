"""Jobs of one workflow run share a process, and nothing but the time they take tells so."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clsp.workflow.handover import SOCKET, SWITCH, address, same_user
from clsp.workflow.shared_process import THREAD_VARIABLES

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are shared on Linux only")

STAGE = '''"""A stage for tests."""

import json, os, resource, signal, sys, time
from pathlib import Path

from clsp.runtime.errors import DataError
from clsp.runtime.stage import Outcome, Output


def act(what: str, note: Output) -> Outcome:
    """Do what is asked for."""
    mask = os.umask(0)
    os.umask(mask)
    own = {k: v for k, v in sorted(os.environ.items()) if not k.startswith("CLSP_SHARED_")}
    about = {"environment": own, "folder": os.getcwd(), "umask": mask}
    handlers = [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)]
    note.write_text(json.dumps(about | {"handlers": handlers, "argv": sys.argv[1:2]}))
    print("to standard output")
    print("to standard error", file=sys.stderr)
    Path(f"process-{note.parent.parent.name}").write_text(str(os.getpid()))
    if what == "data":
        raise DataError("no such thing")
    if what == "bug":
        raise RuntimeError("a bug")
    if what.isdecimal():
        os.kill(os.getpid(), int(what))
    while what == "wait":
        time.sleep(0.02)
    return Outcome(metrics={"two": 2})
'''
# Stands for Snakemake: starts the process, then jobs that are given as lines of JSON.
PARENT = """
import json, os, subprocess, sys
from pathlib import Path
from clsp.workflow.shared_process import start
start("export CLSP_DIE_WITH_PARENT=1; ", Path("shared.log"))
print(os.environ.get("CLSP_SHARED_SOCKET", ""), flush=True)
for line in sys.stdin:
    threads = dict.fromkeys(json.loads(os.environ["THREADS"]), "1")
    subprocess.Popen(json.loads(line), env={**os.environ, **threads, "CLSP_DIE_WITH_PARENT": "1"})
"""


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def gone(pid):
    """Whether a process has ended; one that nobody has waited for counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def mentions(pid, word):
    return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


class Workflow:
    """A folder with a copy of the package and a process that stands for Snakemake."""

    def __init__(self, folder, **environment):
        self.folder = folder
        if not (folder / "clsp").exists():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "clsp", folder / "clsp", ignore=ignored)
            (folder / "clsp/data/act.py").write_text(STAGE)
            main = folder / "clsp/__main__.py"
            given = 'STAGES = {\n    "act": ("clsp.data.act:act", "for tests"),'
            main.write_text(main.read_text().replace("STAGES = {", given, 1))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLSP_", "MLFLOW_"))}
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "PYTHONHASHSEED": "0",
            "THREADS": json.dumps(THREAD_VARIABLES),
            **environment,
        }
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.socket = self.parent.stdout.readline().strip()

    def command(self, name, what):
        out = self.folder / "out" / name
        note = ("--note", str(out / "note.json"), "--manifest", str(out / "manifest.json"))
        bash = ("bash", "-c", 'exec "$@"', "bash")  # as Snakemake does
        return [*bash, sys.executable, "-m", "clsp", "act", "--what", what, *note]

    def start(self, name, what, shared=True, **changes):
        """Start one job, as a child of this process."""
        about = {SOCKET: self.socket, "CLSP_DIE_WITH_PARENT": "1", **changes}
        environment = {**self.environment, **dict.fromkeys(THREAD_VARIABLES, "1"), **about}
        if not shared:
            environment[SWITCH] = "0"
        return subprocess.Popen(
            self.command(name, what),
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name, what, **changes):
        """Run one job; its exit code, standard output and standard error."""
        process = self.start(name, what, **changes)
        streams = process.communicate(timeout=60)
        return process.returncode, *streams

    def worker(self, name):
        """The process that does a job, once it is at it."""
        file = self.folder / f"process-{name}"
        text = wait_for(lambda: file.exists() and file.read_text())
        return int(text)

    @property
    def server(self):
        """The shared process."""
        children = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children")

        def found():
            return [pid for pid in children.read_text().split() if mentions(pid, "share-process")]

        return int(wait_for(found)[0])

    @property
    def log(self):
        return (self.folder / "shared.log").read_text()

    def read(self, name, file):
        return json.loads((self.folder / "out" / name / file).read_text())

    def manifest(self, name):
        """The manifest without what differs between any two runs."""
        text = (self.folder / "out" / name / "manifest.json").read_text()
        predicate = (statement := json.loads(text))["predicate"]
        for key in ("run_uid", "runDetails"):
            del predicate[key]
        return statement

    def close(self):
        self.parent.kill()
        self.parent.wait()


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    opened = Workflow(tmp_path_factory.mktemp("shared"))
    yield opened
    opened.close()


@pytest.fixture
def private(workflow, tmp_path):
    """A workflow to be killed or edited."""
    shutil.copytree(workflow.folder / "clsp", tmp_path / "clsp", copy_function=shutil.copy2)
    opened = Workflow(tmp_path)
    yield opened
    opened.close()


def both(workflow, name, what):
    """Run a job in the shared process and by itself; which did what is made sure of."""
    alone = workflow.run(f"{name}-alone", what, shared=False)
    shared = workflow.run(name, what)
    assert f"act: process {workflow.worker(name)}\n" in workflow.log
    assert f"process {workflow.worker(f'{name}-alone')}\n" not in workflow.log
    return shared, alone


def test_a_job_and_its_record_are_the_same(workflow):
    shared, alone = both(workflow, "done", "nothing")
    assert shared == alone == (0, "to standard output\n", "to standard error\n")
    assert workflow.manifest("done") == workflow.manifest("done-alone")
    assert workflow.read("done", "note.json")["argv"] == ["act"]


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("data", 4, "error: no such thing"),
        ("bug", 1, "RuntimeError: a bug"),
        (str(int(signal.SIGKILL)), -signal.SIGKILL, ""),
        (str(int(signal.SIGSEGV)), -signal.SIGSEGV, ""),
        (str(int(signal.SIGTERM)), 128 + signal.SIGTERM, ""),
    ],
)
def test_a_job_ends_in_the_same_way(workflow, what, code, said):
    shared, alone = both(workflow, f"end-{what}", what)
    assert shared[0] == alone[0] == code
    assert said in shared[2] and said in alone[2]
    assert not (workflow.folder / f"out/end-{what}/manifest.json").exists()


def test_wrong_usage_is_reported_by_the_job(workflow):
    command = [*workflow.command("usage", "nothing"), "--unknown"]
    environment = {**workflow.environment, **dict.fromkeys(THREAD_VARIABLES, "1")}
    environment |= {SOCKET: workflow.socket, "CLSP_DIE_WITH_PARENT": "1"}
    done = subprocess.run(
        command, cwd=workflow.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --unknown" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_job(workflow, number):
    name = f"told-{number.name}"
    process = workflow.start(name, "wait")
    worker = workflow.worker(name)
    assert worker != process.pid
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    wait_for(lambda: gone(worker))
    assert not list((workflow.folder / "out" / name).glob(".partial*"))


def test_a_killed_job_computes_no_further(workflow):
    process = workflow.start("killed", "wait")
    worker = workflow.worker("killed")
    process.kill()
    process.communicate()
    wait_for(lambda: gone(worker))
    assert workflow.run("killed", "nothing")[0] == 0  # and what it held is free


def test_jobs_run_at_the_same_time(workflow):
    waiting = [workflow.start(f"many-{i}", "wait") for i in range(3)]
    workers = [workflow.worker(f"many-{i}") for i in range(3)]
    assert len({*workers}) == 3 and not any(map(gone, workers))
    assert workflow.run("between", "nothing")[0] == 0
    for process in waiting:
        process.terminate()
        process.communicate(timeout=30)
    wait_for(lambda: all(map(gone, workers)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"OMP_NUM_THREADS": "2"}, "another OMP_NUM_THREADS"),
        ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, "another CUBLAS_WORKSPACE_CONFIG"),
        ({SOCKET: "clsp-of-nobody"}, None),
        ({"CLSP_PROCESSES": "2"}, None),
    ],
)
def test_other_circumstances_and_no_process_are_no_obstacle(workflow, changes, reason):
    name = "alone-" + "-".join(changes)
    assert workflow.run(name, "nothing", **changes)[0] == 0
    assert f"process {workflow.worker(name)}\n" not in workflow.log
    assert reason is None or f"act runs by itself: it was started with {reason}" in workflow.log


def test_a_job_brings_its_own_variables(workflow):
    assert workflow.run("variables", "nothing", CLSP_DECODE_THREADS="3", TMPDIR="/var/tmp")[0] == 0
    seen = workflow.read("variables", "note.json")["environment"]
    assert (seen["CLSP_DECODE_THREADS"], seen["TMPDIR"]) == ("3", "/var/tmp")
    assert f"act: process {workflow.worker('variables')}" in workflow.log


def test_edited_code_is_not_run_from_memory(private):
    assert private.run("before", "nothing")[0] == 0
    file = private.folder / "clsp/data/act.py"
    file.write_text(file.read_text().replace('{"two": 2}', '{"two": 3}'))
    assert private.run("after", "nothing")[0] == 0
    metrics = [private.manifest(name)["predicate"]["metrics"] for name in ("before", "after")]
    assert metrics == [{"two": 2}, {"two": 3}]
    assert "the code has been edited" in private.log


def test_a_job_whose_process_was_killed_is_done_all_the_same(private):
    process = private.start("lost", "wait")
    worker = private.worker("lost")
    (private.folder / "process-lost").unlink()
    os.kill(private.server, signal.SIGKILL)
    assert private.worker("lost") == process.pid  # begun again by itself
    assert gone(worker)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert private.run("later", "nothing")[0] == 0


def test_all_end_with_snakemake(private):
    server = private.server
    private.parent.stdin.write(json.dumps(private.command("orphan", "wait")) + "\n")
    private.parent.stdin.flush()
    worker = private.worker("orphan")
    private.parent.kill()
    private.parent.wait()
    wait_for(lambda: gone(worker) and gone(server))
    assert not list((private.folder / "out/orphan").glob("*"))


def test_another_user_is_told_apart(monkeypatch):
    for channel in socket.socketpair():
        with channel:
            assert same_user(channel)
            with monkeypatch.context() as patched:
                patched.setattr(os, "getuid", lambda: -2)
                assert not same_user(channel)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_is_sent_away_unheard(workflow):
    """Not even read, so that nobody else can make the process wait or fill its memory."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(30)
        os.seteuid(65534)
        try:
            channel.connect(address(workflow.socket))
        finally:
            os.seteuid(0)
        assert channel.recv(1) == b""
    assert workflow.run("after-another", "nothing")[0] == 0


def test_it_can_be_switched_off(workflow, tmp_path):
    (tmp_path / "clsp").symlink_to(workflow.folder / "clsp")
    with contextlib.closing(Workflow(tmp_path, **{SWITCH: "0"})) as opened:
        assert opened.socket == ""
        assert opened.run("off", "nothing")[0] == 0
        assert not (tmp_path / "shared.log").exists()
