"""A module with an activity."""

from temporalio import activity


@activity.defn(name="good.one")
def one() -> None:
    """Do nothing."""
