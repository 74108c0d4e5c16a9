"""``send``, ``approve`` and ``reject``."""

from pathlib import Path

import pytest

from pipeline_runner.cli.session import _user
from tests.cli.command import assert_nothing_left, finish, popen, run

CHILD = """
name: ship
steps:
  - {id: ok, name: the release, approval: {message: Ship it?, schema: {type: integer}}}
output: "{{ steps.ok.output.payload }}"
"""
PIPELINE = """
name: shop
steps:
  - {id: paid, wait: {event: paid, schema: {type: object}}}
  - {id: ship, pipeline: ./ship.yaml}
  - {id: last, approval: {not_by_starter: true}, catch: [{types: [ApprovalRejected], output: "{{ error.message }}"}]}
output: ["{{ steps.paid.output }}", "{{ steps.ship.output }}", "{{ steps.last.output }}"]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "ship.yaml").write_text(CHILD)
    (tmp_path / "event.yaml").write_text("amount: 5\n")
    return tmp_path


def test_a_run_is_told_what_it_waits_for(shop: Path) -> None:
    process = popen(shop, "shop.yaml", "--workflow-id", "shop", "--identity", "ann@desk")
    assert process.stderr is not None
    seen: list[str] = []

    def until(part: str) -> str:
        while part not in (line := process.stderr.readline()):  # type: ignore[union-attr]
            assert line, seen
            seen.append(line)
        return line

    assert until("waiting for").endswith("paid: waiting for event paid\n")
    refused = run(shop, "send", "shop", "paid", "--payload", "5")
    assert (refused.code, refused.out, refused.err) == (
        1, "", 'run-pipeline: the payload of the event "paid" does not fit its schema: payload: must be a mapping, not 5\n',
    )  # fmt: skip
    sent = run(shop, "send", "shop", "paid", "--payload-file", "event.yaml")
    assert (sent.code, sent.out, sent.err) == (0, "", "sent: paid\n")
    assert until("ship/ok: waiting").endswith("ship/ok: waiting for approval: Ship it?, the release\n")
    assert until("") == "to approve: run-pipeline approve shop ship/ok\n"
    wrong = run(shop, "approve", "shop", "shop/ok")
    assert (wrong.code, wrong.err) == (
        1, 'run-pipeline: the step "shop" of the run "shop" has no open child: those that have one are ship\n',
    )  # fmt: skip
    approved = run(shop, "approve", "shop", "ok", "--payload", "7")
    assert (approved.code, approved.out, approved.err) == (0, "", "approved: ship/ok\n")
    assert until("last: waiting").endswith("last: waiting for approval\n")
    own = run(shop, "approve", "shop", "last", "--identity", "ann@desk")
    assert (own.code, own.err) == (
        1, 'run-pipeline: "last" must not be approved by ann@desk, who started the run\n',
    )  # fmt: skip
    rejected = run(shop, "reject", "shop", "last", "--comment", "not today")
    assert (rejected.code, rejected.out, rejected.err) == (0, "", "rejected: last\n")
    ended = finish(process)
    assert ended.code == 0
    assert ended.json == [{"amount": 5}, 7, f"last: rejected by {_user()}: not today"]
    over = run(shop, "send", "shop", "paid")
    assert (over.code, over.err) == (
        1, 'run-pipeline: the run "shop" is not open: its status is completed\n',
    )  # fmt: skip


def test_a_run_that_nobody_serves_is_told_nothing(shop: Path) -> None:
    process = popen(shop, "shop.yaml", "--workflow-id", "shop")
    assert process.stderr is not None
    while "waiting for" not in process.stderr.readline():
        pass
    process.kill()
    finish(process)
    assert_nothing_left(shop)
    sent = run(shop, "send", "shop", "paid", "--payload", "{}")
    assert sent.code == 1
    assert sent.err == (
        "run-pipeline: nothing was sent: no worker serves the run. Follow it in another terminal (run-pipeline"
        " watch shop), and try again\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send", "shop"], "the following arguments are required: EVENT"),
        (["send", "shop", "paid", "--payload", "{"], "--payload: "),
        (["approve", "shop", "ok", "--payload-file", "none.yaml"], "none.yaml cannot be read: No such file"),
        (["reject", "shop", "ok", "--payload", "1"], "unrecognized arguments: --payload 1"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(tmp_path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_server_that_is_away(tmp_path: Path) -> None:
    done = run(tmp_path, "send", "shop", "paid", "--address", "127.0.0.1:1")
    assert done.code == 5
