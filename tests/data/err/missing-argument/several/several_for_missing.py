"""Activities with several parameters, with one, and with none."""

from temporalio import activity

from pipeline_runner.activity import describe


@describe(undo="none")
@activity.defn(name="several.send")
def send(to: str, subject: str, copies: int = 1) -> None:
    """Send something."""


@describe(undo="none")
@activity.defn(name="several.none")
def none() -> None:
    """Take nothing."""


@describe(undo="none")
@activity.defn(name="several.greet")
def greet(name: str = "world") -> None:
    """Greet somebody."""


@describe(undo="none")
@activity.defn(name="several.any")
def any_number(first: str, *others: str) -> None:
    """Take any number."""


class Holder:
    """An activity that is a method."""

    @describe(undo="none")
    @activity.defn(name="several.hold")
    def hold(self, name: str, seconds: float) -> None:
        """Hold something."""


def activities() -> list[object]:
    """Return them."""
    return [send, none, greet, any_number, Holder().hold]
