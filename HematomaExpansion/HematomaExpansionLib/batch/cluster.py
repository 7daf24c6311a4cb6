"""Workers of an existing Dask cluster, instead of processes on this computer.

Every machine needs this software, the scans and the output folder under the same paths. Dask sends pickled Python
objects between machines: use it only on a network you trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingLibraryError
from .workers import Workers

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as Task


_TIMEOUT_S = 20
_GONE = "The scheduler is gone. Restart it, then restart the run with --resume."


@contextmanager
def connect(address: str) -> Iterator[Workers]:
    """The cluster whose scheduler is at that address, such as tcp://host:8786.

    Raises:
        MissingLibraryError: Dask is not installed.
        InputError: nothing answers there, the cluster has no workers or some with several threads, or its
            scheduler goes away.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingLibraryError(
            "A scheduler needs Dask: run `pip install hematoma-expansion[cluster]`."
        ) from error
    try:
        client = Client(address, timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError("No Dask scheduler answers at that address: give one such as tcp://host:8786.") from error

    def open_workers(cases: int) -> Executor:
        if client.status != "running":
            raise InputError(_GONE)
        _check_threads(client)  # workers may have joined since
        return _ClusterWorkers(client)

    with client:
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT_S)
        except TimeoutError as error:
            raise InputError("The scheduler has no workers: start some with `dask worker`.") from error
        _check_threads(client)
        yield Workers(sum(client.nthreads().values()), open_workers)


def _check_threads(client: Client) -> None:
    """Reject workers that run several cases at once in one process.

    What is set there for one case, such as warning filters, would apply to all.
    """
    if any(threads > 1 for threads in client.nthreads().values()):
        raise InputError(
            "A worker of the cluster has several threads, in which cases would disturb each other: start more "
            "workers instead, each with `dask worker ADDRESS --nthreads 1`."
        )


class _ClusterWorkers(Executor):
    """An executor whose cases fail with ``BrokenExecutor`` if their worker died for good, as with local processes.

    Dask first retries such a case on other workers. Its own executor would keep results on the workers that made
    them, and rerun finished cases when such a worker dies.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pending: set[Future[Any]] = set()
        self._over = Event()
        Thread(target=self._watch, daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        if self._client.status == "closed":
            raise BrokenExecutor(_GONE)
        outcome: Future[Any] = Future()
        self._pending.add(outcome)
        outcome.add_done_callback(self._pending.discard)
        task = self._client.submit(partial(function, *arguments, **options), pure=False)
        task.add_done_callback(partial(_deliver_result, outcome))
        outcome.add_done_callback(partial(_give_up, task))
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._over.set()

    def _watch(self) -> None:
        """End the tasks of a client that has lost its scheduler; they would otherwise never end."""
        while not self._over.wait(1.0):
            if self._client.status == "closed":
                for outcome in tuple(self._pending):
                    _end(outcome, BrokenExecutor(_GONE))


def _deliver_result(outcome: Future[Any], task: Task[Any]) -> None:
    """Fetch the result of a finished task, and let the cluster forget it."""
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        _end(outcome, result=task.result())
    except (KilledWorker, CommClosedError, CancelledError) as error:
        _end(outcome, BrokenExecutor(str(error)))
    except BaseException as error:  # the case's own error, raised when its result is requested
        _end(outcome, error)
    finally:
        task.release()


def _give_up(task: Task[Any], outcome: Future[Any]) -> None:
    if outcome.cancelled() and task.client.status == "running":
        task.cancel()


def _end(outcome: Future[Any], error: BaseException | None = None, result: Any = None) -> None:
    with suppress(InvalidStateError):  # it was canceled, or has already ended
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)
