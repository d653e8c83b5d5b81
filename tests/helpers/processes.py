"""Several processes of one run, forked from this one: what takes seconds to import is there already."""

import os
import pickle
import socket
import traceback

from lightning.pytorch.utilities import rank_zero_only


def on_processes(count, work, folder):
    """What ``work()`` gives on every one of ``count`` processes, in the order of their ranks.

    A Lightning trainer of as many devices with the strategy ddp, that is made in ``work``, finds itself
    to be one of them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(count):
        process = os.fork()
        if process == 0:
            _work_as(rank, port, work, folder / f"found_{rank}")
        processes.append(process)
    ends = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    assert not any(ends), ends
    return [pickle.loads((folder / f"found_{rank}").read_bytes()) for rank in range(count)]


def _work_as(rank, port, work, path):
    """In the child, which leaves by os._exit, so that nothing of the test process is done twice."""
    status = 1
    try:
        ranks = {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
        os.environ.update(ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        rank_zero_only.rank = rank
        path.write_bytes(pickle.dumps(work()))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
