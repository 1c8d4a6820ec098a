"""Ranks on several hosts, simulated by network namespaces. One host is disconnected.

Each host has its own network, name and process numbers, so that ranks on different hosts know each
other only through the network. These tests need root and Linux's `ip` and `unshare`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.minigrad.parallel import mpi_program as program
from tests.mpirun import environment, launcher

pytestmark = pytest.mark.slow
HOSTS = {"10.99.7.1": "minigrad0", "10.99.7.2": "minigrad1"}
LAUNCH = """#!/bin/sh
# The launcher calls this in place of ssh: options, a host, and what to run there.
while [ "${1#-}" != "$1" ]; do shift; done
case $1 in %s) name=%s;; *) name=%s;; esac
shift
exec ip netns exec $name unshare --uts --pid --fork --mount-proc sh -c "hostname $name; exec $*"
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path):
    """Two network namespaces with a virtual cable between them; the launcher's options."""
    mpiexec = launcher()
    if "hydra" not in os.path.realpath(mpiexec) and not Path(f"{mpiexec}.hydra").exists():
        pytest.skip("this mpiexec takes other options")
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    (first, one), (second, two) = HOSTS.items()
    made = []
    try:
        for name in HOSTS.values():
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "mg0", "netns", one, "type", "veth", "peer", "name", "mg1", "netns", two)
        for number, (address, name) in enumerate(HOSTS.items()):
            ip("-n", name, "address", "add", f"{address}/24", "dev", f"mg{number}")
            ip("-n", name, "link", "set", f"mg{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        subprocess.run(["unshare", "--uts", "--pid", "--fork", "true"], check=True)
        for name in HOSTS.values():  # the cable takes a moment until it works
            words = ["ip", "-n", name, "-br", "link", "show", "up", "type", "veth"]
            end = time.monotonic() + 20
            while " UP " not in subprocess.run(words, capture_output=True, text=True).stdout:
                assert time.monotonic() < end, "the cable does not carry"
                time.sleep(0.05)
    except (subprocess.CalledProcessError, OSError) as error:
        for name in made:
            ip("netns", "delete", name)
        pytest.skip(f"this machine makes no network namespaces ({error})")
    script = tmp_path / "launch.sh"
    script.write_text(LAUNCH % (first, one, two), encoding="utf-8")
    script.chmod(0o755)
    yield [
        *("ip", "netns", "exec", one, mpiexec, "-launcher", "ssh", "-launcher-exec", str(script)),
        *("-hosts", f"{first},{second}", "-ppn", "1", "-iface", "mg0", "-disable-auto-cleanup"),
    ]
    for name in made:
        ip("netns", "delete", name)


def start(hosts, what, folder):
    # Otherwise MPICH detects that it is one machine, and tries shared memory.
    variables = environment(UCX_TLS="tcp,self", FI_PROVIDER="tcp")
    words = [*hosts, "-n", "2", sys.executable, str(Path(program.__file__)), what, str(folder)]
    return subprocess.Popen(
        words,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(files, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not all(file.exists() for file in files):
        assert time.monotonic() < end and process.poll() is None, "it did not come so far"
        time.sleep(0.1)


def end(process):
    """End the launcher and what it has started; returns the output."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate(timeout=30)[0]


def test_two_hosts_compute_the_same(hosts, tmp_path):
    process = start(hosts, "by_hand", tmp_path)
    try:
        assert process.wait(60) == 0, process.stdout.read()
    finally:
        printed = end(process)
    ours = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert ours[0] == ours[1], printed


def test_a_host_that_is_cut_off_is_named(hosts, tmp_path):
    """Each side names the other one, and neither keeps waiting."""
    process = start(hosts, "forever", tmp_path)
    try:
        wait_for([tmp_path / "begun 0", tmp_path / "begun 1"], process)
        ip("-n", "minigrad1", "link", "set", "mg1", "down")
        began = time.monotonic()
        wait_for([tmp_path / "0.json"], process)
        seconds = time.monotonic() - began
        other_side = tmp_path / "1.json"
        while not other_side.exists() and time.monotonic() < began + 30:
            time.sleep(0.1)
    finally:
        printed = end(process)
    assert json.loads(other_side.read_text())[1] == [0]
    message, ranks, step = json.loads((tmp_path / "0.json").read_text())
    assert ranks == [1] and step >= 20, printed
    assert "rank 1 (process" in message and "on minigrad1) has not come within 3 s" in message
    assert seconds < 20
