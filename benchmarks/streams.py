"""Clients that read the stream of `ptarmigan explore` while a run logs: errors, delay of events, the server's memory.

    python benchmarks/streams.py RUN [--clients 200] [--seconds 60]

The server and this script are processes of one machine.  A copy of RUN gets a line of its log each second.  The memory
is the server's resident set a third of the time after all clients are connected, and at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from ptarmigan.core.log import Metrics

START = 10**9  # images seen in the first line that is logged: later ones count from it, so that an event names its line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = shutil.copytree(options.run, Path(folder) / "run")
        command = [sys.executable, "-m", "ptarmigan", "explore", str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                with ExitStack() as clients:
                    address = server.stdout.readline().strip()
                    measure(server.pid, address, run, clients, options.clients, options.seconds)
            finally:
                server.terminate()


def measure(pid: int, address: str, run: Path, open_clients: ExitStack, clients: int, seconds: int) -> None:
    parts, log = urlsplit(address), Metrics(run / "metrics.jsonl")
    request = f"GET {parts.path}events HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    place = parts.hostname or "", parts.port or 0
    opened = [open_clients.enter_context(socket.create_connection(place)) for _ in range(clients)]
    selector = open_clients.enter_context(selectors.DefaultSelector())
    unread = {}
    for connection in opened:
        connection.sendall(request)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        unread[connection] = b""
    begun, written, delays, ended, memory = time.monotonic(), [], [], 0, []
    cpu = cpu_seconds(pid)
    while (now := time.monotonic()) < begun + seconds:
        if now - begun >= len(written):
            written.append(now)
            log.write(START + len(written) - 1, clock=float(len(written)), d_adv=1.0, g_adv=1.0, images_per_second=1.0)
        if now - begun >= (len(memory) + 1) * seconds / 3:
            memory.append(resident(pid))
        for key, _ in selector.select(0.2):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            content = connection.recv(1 << 20)
            if not content:
                ended += 1
                selector.unregister(connection)
            *lines, unread[connection] = (unread[connection] + content).split(b"\n")
            for line in lines:
                if line.startswith(b"data: ") and (number := json.loads(line[6:])["images"] - START) >= 0:
                    delays.append(time.monotonic() - written[number])
    memory.append(resident(pid))
    print(f"{clients} clients, {seconds} s: {ended} ended early, {len(delays):,} events of {len(written)} lines")
    print(f"delay of an event: median {statistics.median(delays):.2f} s, most {max(delays):.2f} s")
    print(f"memory: {', '.join(f'{size / 1e6:.1f}' for size in memory)} MB after each third; and at the end")
    print(f"CPU time of the server: {(cpu_seconds(pid) - cpu) / seconds:.1%} of a core")


def resident(pid: int) -> int:
    """Bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
