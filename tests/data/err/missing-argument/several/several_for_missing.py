"""Activities with several parameters, with one, and with none."""

from temporalio import activity


@activity.defn(name="several.send")
def send(to: str, subject: str, copies: int = 1) -> None:
    """Send something."""


@activity.defn(name="several.none")
def none() -> None:
    """Take nothing."""


@activity.defn(name="several.greet")
def greet(name: str = "world") -> None:
    """Greet somebody."""


@activity.defn(name="several.any")
def any_number(first: str, *others: str) -> None:
    """Take any number."""


class Holder:
    """An activity that is a method."""

    @activity.defn(name="several.hold")
    def hold(self, name: str, seconds: float) -> None:
        """Hold something."""


def activities() -> list[object]:
    """Return them."""
    return [send, none, greet, any_number, Holder().hold]
