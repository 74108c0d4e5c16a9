"""The stand-in for a Docker Engine: what it notes, how it fails, moments held still."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import docker
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.catalogue import providers
from pipeline_runner.activities.docker.engine import KEY_LABEL
from pipeline_runner.activities.docker.errors import of_answer
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.testing.docker import FakeDocker, answer, broken, unreachable
from tests.activities.conftest import KEY
from tests.activities.docker_world import FOREVER, World, attempt, failure, fake_world, told
from tests.services import IMAGE

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]


@pytest.fixture
def world() -> World:
    return fake_world()


@pytest.fixture
def fake(world: World) -> FakeDocker:
    assert world.fake is not None
    world.fake.add_container("web", IMAGE)
    return world.fake


def test_calls_are_noted_in_order_by_name(world: World, fake: FakeDocker, run: Run) -> None:
    run(world.containers.stop, container="web")
    run(world.containers.start, container="web")
    run(world.containers.commit, container="web", image="snap:1")
    assert fake.changes == ["stop web", "start web", "commit web"]
    assert fake.calls[:3] == ["inspect_container web", "stop web", "inspect_container web"]


def test_what_is_told_to_fail_fails_as_often_as_is_said(world: World, fake: FakeDocker, run: Run) -> None:
    fake.add_container("db", IMAGE)
    fake.fail("stop", container="web", with_=answer(500, "disk on fire"), times=2)
    run(world.containers.stop, container="db")
    for _ in range(2):
        error = failure(run, world.containers.stop, container="web")
        assert told(error) == ("cannot stop container web: disk on fire", "DockerError", True)
    assert run(world.containers.stop, container="web").stopped is True


def test_an_operation_that_does_not_exist_cannot_fail(fake: FakeDocker) -> None:
    with pytest.raises(ValueError, match="there is no operation stopp"):
        fake.fail("stopp")


def test_the_clients_own_classes_work_on_it(fake: FakeDocker) -> None:
    """For code that uses ``docker.from_env()``."""
    client = fake.client
    fake.program(["ls"], exit_code=2, stdout="a\n", stderr="b\n")
    web = client.containers.get("web")
    assert web.image is not None
    assert (web.name, web.status, web.image.tags) == ("web", "running", [IMAGE])
    code, output = web.exec_run(["ls"])
    assert (code, output) == (2, b"a\nb\n")
    web.stop()
    web.reload()
    assert web.status == "exited"
    assert web.commit(repository="snap", tag="1").tags == ["snap:1"]
    front = client.networks.create("front", labels={"a": "b"})
    made = client.containers.create(
        "snap:1", ["sleep", "1"], name="new", network="front", labels={"x": "y"}, ports={"80/tcp": 8080}
    )
    made.start()
    assert [one.name for one in client.containers.list(filters={"label": "x=y"})] == ["new"]
    assert client.api.inspect_container("new")["NetworkSettings"]["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]
    }
    made.remove(force=True)
    front.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("new")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nope")


def test_it_offers_every_activity_of_the_families(fake: FakeDocker) -> None:
    families = ["container", "image", "network", "volume"]
    known = {
        e.name for f in families for e in providers.catalogue_of(f"pipeline_runner.activities.docker.{f}")
    }
    assert {providers.name_of(activity) for activity in fake.activities()} == known
    assert len(known) == 17


@pytest.mark.parametrize(("error", "uncertain"), [(unreachable(), False), (broken(), True)])
@pytest.mark.parametrize(
    ("operation", "activity", "given"),
    [
        ("stop", "containers.stop", {"container": "web"}),
        ("commit", "containers.commit", {"container": "web", "image": "snap:1"}),
        ("create_container_from_config", "containers.run", {"image": IMAGE, "name": "new"}),
        ("tag", "images.tag", {"image": IMAGE, "tag": "app:1"}),
        ("create_network", "networks.create", {"name": "front"}),
        ("create_volume", "volumes.create", {"name": "data"}),
    ],
)
def test_a_lost_engine_leaves_the_outcome_open_only_if_it_was_asked(
    world: World,
    fake: FakeDocker,
    run: Run,
    operation: str,
    activity: str,
    given: dict[str, Any],
    error: Exception,
    uncertain: bool,
) -> None:
    family, _, name = activity.partition(".")
    fake.fail(operation, with_=error)
    raised = failure(run, getattr(getattr(world, family), name), **given)
    reason = "connection reset by peer" if uncertain else "connection refused"
    assert told(raised) == (f"{reason} (Docker Engine)", "EngineUnreachable", True)
    assert raised.details == ((UNCERTAIN,) if uncertain else ())


def test_a_lost_engine_while_it_is_only_looked_at(world: World, fake: FakeDocker, run: Run) -> None:
    fake.fail("inspect_container", with_=broken())
    assert failure(run, world.containers.stop, container="web").details == ()


@pytest.mark.parametrize(
    ("activity", "operation", "given", "flag"),
    [
        (
            "containers.run",
            "create_container_from_config",
            {"image": IMAGE, "name": "new", "settle": "0s"},
            "created",
        ),
        ("containers.commit", "commit", {"container": "web", "image": "snap:1"}, "created"),
        ("networks.create", "create_network", {"name": "front"}, "created"),
        ("volumes.create", "create_volume", {"name": "data"}, "created"),
    ],
)
def test_an_answer_that_got_lost_makes_nothing_twice(
    world: World,
    fake: FakeDocker,
    run: Run,
    key: str,
    activity: str,
    operation: str,
    given: dict[str, Any],
    flag: str,
) -> None:
    family, _, name = activity.partition(".")
    method = getattr(getattr(world, family), name)
    fake.fail(operation, with_=broken(), after=True)
    assert failure(run, method, **given).details == (UNCERTAIN,)
    assert getattr(run(method, **given), flag) is False
    assert sum(line.startswith(operation) for line in fake.changes) == 1


def test_a_stop_that_the_engine_gives_up_is_uncertain(world: World, fake: FakeDocker, run: Run) -> None:
    fake.fail("stop", with_=answer(500, "tried to kill container, but did not receive an exit event"))
    error = failure(run, world.containers.stop, container="web")
    assert (error.type, error.details) == ("DockerError", (UNCERTAIN,))


def test_what_cannot_be_removed_after_a_failed_start_is_told(
    world: World, fake: FakeDocker, run: Run
) -> None:
    fake.fail("start", with_=answer(500, "no cgroups"))
    fake.fail("remove_container", with_=unreachable())
    error = failure(run, world.containers.run, image=IMAGE, name="new", command=FOREVER)
    assert told(error) == ("cannot start container new: no cgroups", "DockerError", True)
    assert error.details == (UNCERTAIN,)
    assert fake.states == {"new": "created", "web": "running"}


def test_an_engine_lost_after_the_start_that_is_back_for_the_removal(
    world: World, fake: FakeDocker, run: Run
) -> None:
    """Nothing is left, so the outcome is known."""
    fake.fail("start", with_=broken(), after=True)
    error = failure(run, world.containers.run, image=IMAGE, name="new", command=FOREVER)
    assert (error.type, error.details) == ("EngineUnreachable", ())
    assert fake.states == {"web": "running"}


def test_a_commit_that_fails_half_way_leaves_no_image(
    world: World, fake: FakeDocker, run: Run, key: str
) -> None:
    before = fake.tags
    fake.fail("commit", with_=answer(500, "no space left on device"), after=True)
    error = failure(run, world.containers.commit, container="web", image="snap:1")
    assert told(error) == ("cannot commit container web: no space left on device", "DockerError", True)
    assert error.details == ()
    assert fake.tags == before
    assert len(fake.images()) == 1


def test_a_removal_that_somebody_else_has_begun_is_waited_for(
    world: World, fake: FakeDocker, run: Run
) -> None:
    busy = answer(409, "removal of container web is already in progress")
    fake.fail("remove_container", with_=busy, after=True)
    assert run(world.containers.remove, container="web", force=True).removed is True


def held(
    env: ActivityEnvironment,
    activity: Any,
    hold: Any,
    then: Coroutine[Any, Any, Any] | None = None,
    **given: Any,
) -> Any:
    """Cancel an activity whose call is held; let it go on when the undo is under way."""

    async def scenario() -> Any:
        task = asyncio.ensure_future(attempt(env, activity, **given))
        assert await asyncio.to_thread(hold.entered.wait, 5)
        begin = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begin < 0.5
        undo = asyncio.ensure_future(then) if then is not None else None
        await asyncio.sleep(0.1)
        assert undo is None or not undo.done()
        hold.release()
        return await undo if undo is not None else None

    return asyncio.run(scenario())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("activity", "operation", "given", "undo"),
    [
        (
            "containers.run",
            "create_container_from_config",
            {"image": IMAGE, "name": "new"},
            "containers.remove",
        ),
        ("containers.commit", "commit", {"container": "web", "image": "snap:1"}, "images.remove"),
        ("networks.create", "create_network", {"name": "front"}, "networks.remove"),
        ("volumes.create", "create_volume", {"name": "data"}, "volumes.remove"),
    ],
)
def test_what_a_cancelled_call_still_makes_is_removed_before_the_undo_looks(
    world: World,
    fake: FakeDocker,
    environment: NewEnvironment,
    key: str,
    activity: str,
    operation: str,
    given: dict[str, Any],
    undo: str,
    after: bool,
) -> None:
    """The activity ends at once, whatever the Engine does; the undo waits for it."""

    def method(path: str) -> Any:
        family, _, name = path.partition(".")
        return getattr(getattr(world, family), name)

    def there() -> list[Any]:
        return [world.states(), world.tags(), world.network_names(), world.volume_names()]

    before = there()
    hold = fake.hold(operation, after=after)
    undone = attempt(environment(), method(undo), key=KEY)
    assert held(environment(), method(activity), hold, undone, **given).removed is False
    assert there() == before


def test_a_retry_waits_for_the_call_of_the_attempt_before(
    world: World, fake: FakeDocker, environment: NewEnvironment, key: str
) -> None:
    """Else the late removal would take away what the retry has made."""
    given: dict[str, Any] = {"image": IMAGE, "name": "new", "settle": "0s"}
    hold = fake.hold("create_container_from_config")
    again = attempt(environment(), world.containers.run, **given)
    assert held(environment(), world.containers.run, hold, again, **given).created is True
    assert fake.states == {"new": "running", "web": "running"}
    assert fake.inspect_container("new")["Config"]["Labels"][KEY_LABEL] == KEY


def test_a_command_ends_with_its_activity(
    world: World, fake: FakeDocker, environment: NewEnvironment
) -> None:
    fake.program(["serve"])
    env = environment()

    async def scenario() -> None:
        task = asyncio.ensure_future(attempt(env, world.containers.exec, container="web", command=["serve"]))
        while "exec_start web" not in fake.calls:
            await asyncio.sleep(0.01)
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    running = [e for e in fake._containers._execs.values() if e.running]
    assert running == []


@pytest.mark.parametrize(
    ("status", "said", "message", "error_type", "retried"),
    [
        (409, 'Conflict. The container name "/web" is already in use by container "1f". You have to', "there is another container named web", "NameTaken", False),
        (500, "failed to set up container networking: driver failed programming external connectivity on endpoint web (1f): failed to bind host port 0.0.0.0:80/tcp: address already in use", "cannot start it: the port 0.0.0.0:80/tcp is taken", "PortTaken", True),
        (500, "failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use", "cannot start it: the port 0.0.0.0:8080:172.17.0.2:80/tcp is taken", "PortTaken", True),
        (400, "invalid\n  JSON", "cannot start it: invalid JSON", "InvalidInput", False),
        (404, "page not found", "cannot start it: page not found", "DockerError", False),
        (409, "Container 1f is paused", "cannot start it: Container 1f is paused", "DockerError", True),
        (503, "x" * 600, "cannot start it: " + "x" * 499 + "…", "DockerError", True),
    ],
)  # fmt: skip
def test_what_engines_of_other_versions_say(
    status: int, said: str, message: str, error_type: str, retried: bool
) -> None:
    assert told(of_answer(status, said, "start it")) == (message, error_type, retried)


def test_an_error_that_is_no_answer_is_not_hidden(world: World, fake: FakeDocker, run: Run) -> None:
    """A mistake in this package, say: it keeps its type."""
    fake.fail("stop", with_=KeyError("Id"))
    with pytest.raises(KeyError):
        run(world.containers.stop, container="web")


def test_the_cause_is_not_linked(world: World, fake: FakeDocker, run: Run) -> None:
    """It would show the request."""
    fake.fail("stop", with_=broken())
    with pytest.raises(ApplicationError) as caught:
        run(world.containers.stop, container="web")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
