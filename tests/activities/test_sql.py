"""The sql family: the same on SQLite and on a real PostgreSQL, and what only one of them can."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.catalogue.providers import catalogue_of
from pipeline_runner.activities.sql import call as sql_call
from pipeline_runner.activities.sql import statements as sql
from pipeline_runner.activities.sql.statements import execute, script
from pipeline_runner.activities.toolkit.context import set_working_directory
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.server.devserver import free_port
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import failure
from tests.services import Database

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]
PASSWORD = "pw-of-the-tests"


class Sql:
    """A database with a look at it from outside, which names it ``DB``."""

    kind: str
    slow: str
    """A statement that takes a minute."""

    def query(self, statement: str) -> str:
        """Ask without the activity: the lines of the answer, columns separated by ``|``."""
        raise NotImplementedError


class Postgres(Sql):
    kind = "postgresql"
    slow = "select pg_sleep(60)"

    def __init__(self, server: Database) -> None:
        self.server = server

    def query(self, statement: str) -> str:
        return self.server.query(statement)

    def busy(self) -> str:
        """Return what connections of the activities are doing."""
        return self.query(
            "select state, query from pg_stat_activity where application_name = 'pipeline-runner'"
        )


class Lite(Sql):
    kind = "sqlite"
    slow = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"

    def __init__(self, path: Path) -> None:
        self.path = path

    def query(self, statement: str) -> str:
        with contextlib.closing(sqlite3.connect(self.path, timeout=5)) as connection:
            rows = connection.execute(statement).fetchall()
            connection.commit()
        return "\n".join("|".join("" if v is None else str(v) for v in row) for row in rows)

    def locked(self) -> bool:
        """Tell whether somebody has written, and has not committed yet."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("begin immediate")
            except sqlite3.OperationalError:
                return True
            return False


@pytest.fixture
def postgres(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """The session's PostgreSQL, running and empty after the test."""
    monkeypatch.setenv("DB", database.url)
    yield Postgres(database)
    if database.process is None or database.process.poll() is not None:
        database.start()
    database.query("drop schema public cascade; create schema public")


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lite:
    monkeypatch.setenv("DB", f"sqlite:///{tmp_path}/file.db")
    return Lite(tmp_path / "file.db")


@pytest.fixture(params=["postgres", "lite"])
def db(request: pytest.FixtureRequest) -> Any:
    found: Any = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def table(db: Sql) -> Sql:
    """A database with two rows in ``t``."""
    db.query("create table t (id integer primary key, name text)")
    db.query("insert into t values (1, 'one'), (2, 'two')")
    return db


ROWS = "1|one\n2|two"
ALL = "select * from t order by id"


def failed(run: Run, activity: Any, /, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(activity, **{"connection": "DB", **parameters})
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


def told(error: ApplicationError) -> tuple[str | None, bool, bool]:
    """Return the type, whether it is final, and whether the outcome is not known."""
    return error.type, error.non_retryable, UNCERTAIN in error.details


FINAL = True, False
PASSES = False, False


# One statement.


def test_rows_are_returned(run: Run, table: Sql) -> None:
    found = run(execute, connection="DB", statement=f"{ALL};")
    assert dataclasses.asdict(found) == {
        "rows": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "row_count": 2,
        "columns": ["id", "name"],
    }
    none = run(execute, connection="DB", statement="select id from t where id > :id", parameters={"id": 7})
    assert (none.rows, none.row_count, none.columns) == ([], 0, ["id"])


@pytest.mark.parametrize(
    ("statement", "count", "after"),
    [
        ("insert into t values (3, 'three')", 1, f"{ROWS}\n3|three"),
        ("update t set name = null", 2, "1|\n2|"),
        ("delete from t where id = 1", 1, "2|two"),
        ("delete from t where id = 7", 0, ROWS),
        ("create table other (id integer)", 0, ROWS),
        ("insert into t values (4, 'x') returning id", 1, f"{ROWS}\n4|x"),
        ("with n as (select 5 as id) insert into t select id, 'y' from n", 1, f"{ROWS}\n5|y"),
        ("-- ; \n update t set name = ':a;' /* ; :b */ where id = 1 -- ;", 1, "1|:a;\n2|two"),
    ],
)
def test_a_statement_is_committed(run: Run, table: Sql, statement: str, count: int, after: str) -> None:
    assert run(execute, connection="DB", statement=statement).row_count == count
    assert table.query(ALL) == after


EVIL = "'; drop table t; --"


@pytest.mark.parametrize("value", [EVIL, "", "%s %(x)s :y", "é\n\\", 'a"b', "?1"])
def test_a_value_is_data(run: Run, table: Sql, value: str) -> None:
    given = {"id": 3, "name": value}
    run(execute, connection="DB", statement="insert into t values (:id, :name)", parameters=given)
    found = run(
        execute,
        connection="DB",
        statement="select name from t where name = :name",
        parameters={"name": value},
    )
    assert found.rows == [{"name": value}]


def test_values_of_all_kinds(run: Run, db: Sql) -> None:
    db.query("create table v (i bigint, f double precision, b boolean, t text)")
    given = {"i": 2**40, "f": 1.5, "b": True, "t": None}
    run(execute, connection="DB", statement="insert into v values (:i, :f, :b, :t)", parameters=given)
    found = run(execute, connection="DB", statement="select * from v")
    assert found.rows == [{"i": 2**40, "f": 1.5, "b": True, "t": None}]


def test_a_list_of_mappings_runs_the_statement_for_each(run: Run, table: Sql) -> None:
    many = [{"id": n, "name": EVIL} for n in range(3, 6)]
    statement = "insert into t values (:id, :name)"
    done = run(execute, connection="DB", statement=statement, parameters=many)
    assert (done.rows, done.row_count, done.columns) == ([], 3, [])
    assert table.query("select count(*) from t") == "5"
    error = failed(
        run, execute, statement=statement, parameters=[{"id": 6, "name": "x"}, {"id": 1, "name": "x"}]
    )
    assert told(error) == ("ConstraintViolated", *FINAL)
    assert table.query("select count(*) from t") == "5"


def test_more_rows_than_asked_for_change_nothing(run: Run, table: Sql) -> None:
    statement = "update t set name = 'x' returning id"
    error = failed(run, execute, statement=statement, max_rows=1)
    assert error.message == "DB: more than 1 rows (max_rows)"
    assert told(error) == ("TooManyRows", *FINAL)
    assert failed(run, execute, statement=ALL, max_rows=1).type == "TooManyRows"
    assert table.query(ALL) == ROWS
    assert run(execute, connection="DB", statement=statement, max_rows=2).row_count == 2


def test_rows_that_are_too_large_change_nothing(run: Run, table: Sql) -> None:
    given = {"statement": "insert into t values (3, :name)", "parameters": {"name": "é" * 200_000}}
    run(execute, connection="DB", **given)
    error = failed(run, execute, statement="update t set id = id + 10 returning name, name as again")
    assert error.message == "DB: the rows are larger than 1.5 MiB, which is too large for a step's output"
    assert told(error) == ("ResultTooLarge", *FINAL)
    assert table.query("select min(id) from t") == "1"


def test_columns_of_one_name_are_refused(run: Run, table: Sql) -> None:
    error = failed(run, execute, statement="select a.id, b.id, a.name from t a join t b on a.id = b.id")
    assert error.message == 'DB: several columns are named "id": rename them with AS'
    assert told(error) == ("StatementFailed", *FINAL)


def test_an_endless_result_ends_at_its_bound(run: Run, db: Sql) -> None:
    """It is not read into memory first."""
    endless = {
        "postgresql": "select repeat('x', 1000), generate_series(1, 2000000000)",
        "sqlite": "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n",
    }[db.kind]
    begin = time.monotonic()
    assert failed(run, execute, statement=endless).type == "TooManyRows"
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"statement": "select :a"}, "DB: the statement's :a is not in parameters"),
        ({"statement": "select 1", "parameters": {"b": 1}}, "DB: there is no :b in the statement"),
        ({"statement": "select ':b'", "parameters": {"b": 1}}, "DB: there is no :b in the statement"),
        (
            {"statement": "insert into t values (:a)", "parameters": [{"a": 1}, {}]},
            "DB: the statement's :a is not in parameters",
        ),
        (
            {"statement": "select 1; select 2"},
            "DB: only one statement is allowed: use sql.script for several",
        ),
        ({"statement": " ; -- nothing\n"}, "DB: there is no statement"),
        (
            {"statement": "/* */ commit"},
            "DB: the statement is COMMIT, but each call is one transaction",
        ),
        (
            {"statement": "select 1", "max_rows": 10_001},
            "the input is not valid: Expected `int` <= 10000 - at `max_rows`",
        ),
        (
            {"statement": "select 1", "parameters": []},
            "the input is not valid: Expected `array` of length >= 1 - at `parameters`",
        ),
        (
            {"statement": "select :a", "parameters": {"a": "\ud800"}},
            "DB: the database does not accept one of the values or strings",
        ),
        ({"statement": "select '\ud800'"}, "DB: the database does not accept one of the values or strings"),
    ],
)
def test_input_that_cannot_be(run: Run, table: Sql, given: dict[str, Any], message: str) -> None:
    error = failed(run, execute, **given)
    assert error.message == message
    assert told(error) == ("InvalidInput", *FINAL)
    assert table.query(ALL) == ROWS


@pytest.mark.parametrize(
    ("statement", "postgresql", "sqlite"),
    [
        ("selec 1", 'syntax error at or near "selec"', 'near "selec": syntax error'),
        ("select * from nope", 'relation "nope" does not exist', "no such table: nope"),
        ("select nope from t", 'column "nope" does not exist', "no such column: nope"),
    ],
)
def test_a_statement_that_is_wrong(
    run: Run, table: Sql, statement: str, postgresql: str, sqlite: str
) -> None:
    error = failed(run, execute, statement=statement)
    assert error.message == f"DB: {postgresql if table.kind == 'postgresql' else sqlite}"
    assert told(error) == ("StatementFailed", *FINAL)


def test_a_constraint_that_is_violated(run: Run, table: Sql) -> None:
    given = {"id": 1, "name": "hunter2"}
    error = failed(run, execute, statement="insert into t values (:id, :name)", parameters=given)
    assert (
        error.message
        == {
            "postgresql": 'DB: duplicate key value violates unique constraint "t_pkey"',
            "sqlite": "DB: UNIQUE constraint failed: t.id",
        }[table.kind]
    )
    assert told(error) == ("ConstraintViolated", *FINAL)


# Several statements.


def test_a_script_runs_as_a_whole(run: Run, db: Sql) -> None:
    text = """
    -- comment; with a semicolon
    create table t (id integer, name text);
    insert into t values (1, 'it''s; one'), (2, 'a -- b'); /* ; */;
    insert into t values (3, '100% :x');
    create table "odd;name" (id integer)
    """
    assert run(script, connection="DB", script=text).statements == 4
    assert db.query(ALL) == "1|it's; one\n2|a -- b\n3|100% :x"


@pytest.mark.parametrize("last", ["insert into t values (1, 'again')", "nonsense", "select * from nope"])
def test_a_script_that_fails_leaves_nothing(run: Run, table: Sql, last: str) -> None:
    text = f"create table other (id integer); alter table t add column more integer; delete from t; insert into other values (1); insert into t (id) values (1); {last};"
    error = failed(run, script, script=text)
    assert error.type in {"StatementFailed", "ConstraintViolated"}
    assert error.non_retryable
    assert not error.details
    assert table.query(ALL) == ROWS
    assert failed(run, execute, statement="select * from other").type == "StatementFailed"


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("COMMIT", "COMMIT"),
        ("/* x */ commit", "COMMIT"),
        ("Begin", "BEGIN"),
        ("rollback", "ROLLBACK"),
        ("rollback work", "ROLLBACK"),
        ("end", "END"),
        ("end transaction", "END"),
        ("start transaction", "START"),
    ],
)
def test_a_script_that_ends_the_transaction_is_refused(
    run: Run, table: Sql, statement: str, word: str
) -> None:
    error = failed(run, script, script=f"delete from t; {statement}; nonsense")
    assert error.message == f"DB: statement 2 is {word}, but each call is one transaction"
    assert told(error) == ("InvalidInput", *FINAL)
    assert table.query(ALL) == ROWS


def test_savepoints_are_fine(run: Run, table: Sql) -> None:
    text = "savepoint a; delete from t; rollback to a; rollback to savepoint a; release savepoint a"
    assert run(script, connection="DB", script=text).statements == 5
    assert table.query(ALL) == ROWS


def test_a_script_from_a_file(run: Run, db: Sql, tmp_path: Path) -> None:
    path = tmp_path / "script.sql"
    path.write_text("\ufeffcreate table t (id integer, name text);\r\ninsert into t values (1, 'é');\r\n")
    assert run(script, connection="DB", path=str(path)).statements == 2
    assert db.query(ALL) == "1|é"


def test_files_that_are_no_scripts(
    run: Run, lite: Lite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "SCRIPT_LIMIT", 100)
    path = tmp_path / "script.sql"
    path.write_bytes(b"select '\xff'")
    error = failed(run, script, path=str(path))
    assert error.message == f"cannot read {path}: it is not UTF-8 text (byte 8)"
    assert told(error) == ("NotText", *FINAL)
    path.write_bytes(b" " * 101)
    error = failed(run, script, path=str(path))
    assert (error.message, told(error)) == (
        f"cannot read {path}: it is larger than 16 MiB",
        ("FileTooLarge", *FINAL),
    )
    error = failed(run, script, path=str(tmp_path / "none.sql"))
    assert told(error) == ("FileNotFound", *FINAL)
    os.mkfifo(tmp_path / "pipe")
    error = failed(run, script, path=str(tmp_path / "pipe"))
    assert told(error) == ("NotARegularFile", *FINAL)


@pytest.mark.parametrize("given", [{}, {"script": "select 1", "path": "x.sql"}])
def test_script_and_path_exclude_each_other(run: Run, lite: Lite, given: dict[str, str]) -> None:
    error = failed(run, script, **given)
    assert (error.message, told(error)) == ("set either script or path", ("InvalidInput", *FINAL))


def test_a_script_without_a_statement(run: Run, db: Sql) -> None:
    error = failed(run, script, script=" -- nothing\n;; ")
    assert (error.message, told(error)) == ("DB: there is no statement", ("InvalidInput", *FINAL))


# What only one of them can.


def test_the_types_of_postgresql(run: Run, postgres: Postgres) -> None:
    statement = """
    select 1::smallint as i, 1.5::float8 as f, 'nan'::float8 as nan, 1.50::numeric as n, true as b, null as z,
      date '2026-02-03' as d, time '04:05:06' as t, timestamp '2026-02-03 04:05:06.5' as ts,
      timestamptz '2026-02-03 04:05:06+00' at time zone 'UTC' as tz, interval '-1 day 0.25 seconds' as iv,
      '6b0e4fbe-2a0f-4d3c-9f10-111111111111'::uuid as u, '\\x00ff'::bytea as by, '{"a": [1, null]}'::jsonb as j,
      array[1.5, 2]::numeric[] as a, '10.0.0.1'::inet as ip, int4range(1, 3) as r, interval '1234567 seconds' as long
    """
    assert run(execute, connection="DB", statement=statement).rows == [
        {
            "i": 1, "f": 1.5, "nan": "nan", "n": "1.50", "b": True, "z": None,
            "d": "2026-02-03", "t": "04:05:06", "ts": "2026-02-03T04:05:06.500000",
            "tz": "2026-02-03T04:05:06", "iv": "-PT86399.75S",
            "u": "6b0e4fbe-2a0f-4d3c-9f10-111111111111", "by": "AP8=", "j": {"a": [1, None]},
            "a": ["1.5", "2"], "ip": "10.0.0.1", "r": "[1, 3)", "long": "PT1234567S",
        }
    ]  # fmt: skip


def test_casts_and_quotes_of_postgresql(run: Run, postgres: Postgres) -> None:
    statement = """
    select :a::int + 1 as a, ':a' as b, '{"k": ":a"}'::jsonb ->> 'k' as c, $x$ ; :a $x$ as d, E'\\'; :a' as e,
      (array[1, 2, 3])[1:2] as f, '10:30'::time as g /* :a */ -- :a ;
    """
    found = run(execute, connection="DB", statement=statement, parameters={"a": "41"})
    assert found.rows == [
        {"a": 42, "b": ":a", "c": ":a", "d": " ; :a ", "e": "'; :a", "f": [1, 2], "g": "10:30:00"}
    ]


def test_the_values_of_sqlite(run: Run, lite: Lite) -> None:
    found = run(
        execute,
        connection="DB",
        statement="select x'00ff' as b, 9e999 as inf, 1.5 as f, '2026-02-03' as d, `a:b` as q from (select 1 as `a:b`)",
    )
    assert found.rows == [{"b": "AP8=", "inf": "inf", "f": 1.5, "d": "2026-02-03", "q": 1}]
    error = failed(run, execute, statement="select :n", parameters={"n": 2**70})
    assert error.message == "DB: the database does not accept one of the values or strings"


def test_bodies_of_functions_are_one_statement(run: Run, postgres: Postgres) -> None:
    text = """
    create table t (id integer);
    create function one() returns integer language plpgsql as $body$
    begin
      insert into t values (1); -- end;
      return 1;
    end;
    $body$;
    create function two(n integer) returns integer language sql
    begin atomic
      insert into t values (2);
      select case when n > 0 then 2 else 0 end;
    end;
    do $$ begin perform one(); perform two(1); end $$;
    select one();
    """
    assert run(script, connection="DB", script=text).statements == 5
    assert postgres.query("select id from t order by id") == "1\n1\n2"
    error = failed(
        run, execute, statement="create procedure p() language plpgsql as $$ begin commit; end $$; select 1"
    )
    assert error.message == "DB: only one statement is allowed: use sql.script for several"


def test_a_procedure_cannot_commit(run: Run, postgres: Postgres) -> None:
    text = "create procedure p() language plpgsql as $$ begin commit; end $$; create table t (id integer); call p()"
    error = failed(run, script, script=text)
    assert error.message == "DB: invalid transaction termination"
    assert told(error) == ("StatementFailed", *FINAL)
    assert postgres.query("select to_regclass('t')") == ""


def test_a_transaction_that_was_ended_all_the_same(run: Run, postgres: Postgres) -> None:
    """The text is read well enough, but not by PostgreSQL: comments may be nested."""
    text = "create table t (id integer); /* /* */ ' */ commit; select 1 /* ' */"
    error = failed(run, script, script=text)
    assert error.message == "DB: a statement ended the transaction; the changes made before that stay"
    assert told(error) == ("StatementFailed", True, True)


def test_triggers_of_sqlite_are_one_statement(run: Run, lite: Lite) -> None:
    text = """
    create table t (id integer, name text);
    create temp trigger tr after insert on t when new.id > 0 begin
      update t set name = case when id = 1 then 'x;' else 'y' end where id = new.id;
      delete from t where id = 9; -- end;
    end;
    insert into t (id) values (1), (9);
    """
    assert run(script, connection="DB", script=text).statements == 3
    assert lite.query(ALL) == "1|x;"
    statement = "create trigger tr after insert on t begin delete from t; select 1; end;"
    run(execute, connection="DB", statement=statement)
    run(execute, connection="DB", statement="insert into t values (5, null)")
    assert lite.query(ALL) == ""


def test_errors_of_postgresql_show_no_values(run: Run, postgres: Postgres) -> None:
    postgres.query("create table t (id integer primary key, name varchar(3))")
    for statement, parameters, message, kind in [
        ("select :a::int", {"a": "hunter2"}, 'invalid input syntax for type integer: "…"', "StatementFailed"),
        ("select :a::int", {"a": 'a"b\n"c'}, 'invalid input syntax for type integer: "…"', "StatementFailed"),
        ("select :a::date", {"a": "x1"}, 'invalid input syntax for type date: "…"', "StatementFailed"),
        ("insert into t values (1, :a)", {"a": "hunter2"}, "value too long for type character varying(3)", "StatementFailed"),
        ("select 1 / :a", {"a": 0}, "division by zero", "StatementFailed"),
        ("select date '20000-01-01'", {}, "date too large (after year 10K): '…'", "StatementFailed"),
        ("select :a", {"a": "hunter2\0"}, "PostgreSQL text fields cannot contain NUL (0x00) bytes", "StatementFailed"),
        ("do $$ begin raise exception 'no % today', 'x'; end $$", {}, "no x today", "StatementFailed"),
        ("insert into t values (:a)", {"a": None}, 'null value in column "id" of relation "t" violates not-null constraint', "ConstraintViolated"),
    ]:  # fmt: skip
        error = failed(run, execute, statement=statement, parameters=parameters)
        assert error.message == f"DB: {message}"
        assert told(error) == (kind, *FINAL)
    postgres.query(
        "create function f(a text) returns text language plpgsql as $$ begin raise exception 'no %', a; end $$"
    )
    error = failed(run, execute, statement="select f(:a)", parameters={"a": "hunter2"})
    assert error.message == "DB: no ***"


def test_a_constraint_that_is_checked_at_the_commit(run: Run, postgres: Postgres) -> None:
    postgres.query("create table t (id integer unique deferrable initially deferred, name text)")
    error = failed(run, script, script="insert into t values (1, 'a'); insert into t values (1, 'b')")
    assert error.message == 'DB: duplicate key value violates unique constraint "t_id_key"'
    assert told(error) == ("ConstraintViolated", *FINAL)
    assert postgres.query(ALL) == ""


# Locks.


def test_a_lock_is_waited_for_and_then_told(run: Run, lite: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    lite.query("create table t (id integer, name text)")
    monkeypatch.setattr(sql_call, "BUSY_TIMEOUT", 0.1)
    with contextlib.closing(sqlite3.connect(lite.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        begin = time.monotonic()
        error = failed(run, execute, statement="insert into t values (1, 'a')")
        assert time.monotonic() - begin >= 0.1
    assert error.message == "DB: database is locked"
    assert told(error) == ("DatabaseBusy", *PASSES)
    assert run(execute, connection="DB", statement="insert into t values (1, 'a')").row_count == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lock_timeout", "canceling statement due to lock timeout"),
        ("statement_timeout", "canceling statement due to statement timeout"),
    ],
)
def test_the_limits_of_postgresql(
    run: Run, postgres: Postgres, setting: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    postgres.query("create table t (id integer)")
    monkeypatch.setenv("DB", f"{postgres.server.url}?options=-c%20{setting}%3D100")
    with psycopg.connect(postgres.server.url.replace("+psycopg", "")) as other:
        other.execute("lock table t")
        error = failed(run, execute, statement="insert into t values (1)")
    assert error.message == f"DB: {message}"
    assert told(error) == ("DatabaseBusy", *PASSES)


def test_a_deadlock(run: Run, postgres: Postgres) -> None:
    import psycopg

    postgres.query("create table t (id integer primary key, n integer)")
    postgres.query("insert into t values (1, 0), (2, 0)")
    with psycopg.connect(postgres.server.url.replace("+psycopg", "")) as other:
        other.execute("set deadlock_timeout = '1h'")  # the other side is the one that notices
        other.execute("update t set n = 1 where id = 2")

        def cross() -> None:
            eventually(lambda: "transactionid" in postgres.query("select wait_event from pg_stat_activity"))
            other.execute("update t set n = 1 where id = 1")

        thread = threading.Thread(target=cross)
        thread.start()
        error = failed(run, script, script="update t set n = 2 where id = 1; update t set n = 2 where id = 2")
        thread.join()
    assert error.message == "DB: deadlock detected"
    assert told(error) == ("DatabaseBusy", *PASSES)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# Cancellation.


def cancelled(env: ActivityEnvironment, ready: Callable[[], bool], activity: Any, **given: Any) -> float:
    """Cancel an activity once it is ready; return how many seconds that took."""

    async def scenario() -> float:
        task = asyncio.ensure_future(env.run(activity, {"connection": "DB", **given}))
        await asyncio.to_thread(eventually, ready)
        begin = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begin

    return asyncio.run(scenario())


def sleeping(postgres: Postgres) -> Callable[[], bool]:
    return lambda: "active" in postgres.busy()


def started() -> bool:
    """Tell whether a thread of the activity is at work; SQLite cannot be asked."""
    return any(thread.name == "blocking-call" for thread in threading.enumerate())


@pytest.mark.parametrize("parameters", [{}, {"seconds": 60}])
def test_cancellation_stops_the_statement_of_postgresql(
    environment: NewEnvironment, postgres: Postgres, parameters: dict[str, int]
) -> None:
    statement = "select pg_sleep(:seconds)" if parameters else postgres.slow
    took = cancelled(environment(), sleeping(postgres), execute, statement=statement, parameters=parameters)
    assert took < 0.7
    eventually(lambda: not postgres.busy(), 1)


def test_cancellation_rolls_back_a_script_of_postgresql(
    environment: NewEnvironment, postgres: Postgres
) -> None:
    text = f"create table t (id integer); insert into t values (1); {postgres.slow}"
    assert cancelled(environment(), sleeping(postgres), script, script=text) < 0.7
    eventually(lambda: not postgres.busy(), 1)
    assert postgres.query("select to_regclass('t')") == ""


def test_cancellation_stops_a_wait_for_a_lock(environment: NewEnvironment, postgres: Postgres) -> None:
    import psycopg

    postgres.query("create table t (id integer)")
    with psycopg.connect(postgres.server.url.replace("+psycopg", "")) as other:
        other.execute("lock table t")
        took = cancelled(environment(), sleeping(postgres), execute, statement="insert into t values (1)")
        assert took < 0.7
        eventually(lambda: not postgres.busy(), 1)
    assert postgres.query("select count(*) from t") == "0"


def test_cancellation_stops_a_script_of_sqlite(environment: NewEnvironment, lite: Lite) -> None:
    lite.query("create table t (id integer, name text)")
    text = f"insert into t values (1, 'a'); create table other (id integer); {lite.slow};"

    assert cancelled(environment(), lite.locked, script, script=text) < 0.7
    assert not lite.locked()
    assert lite.query(ALL) == ""
    assert lite.query("select count(*) from sqlite_master") == "1"


def test_cancellation_at_any_moment_leaves_nothing(environment: NewEnvironment, lite: Lite) -> None:
    """Before the thread has begun, as it connects, as it starts the statement."""
    lite.query("create table t (id integer, name text)")
    text = f"insert into t values (1, 'a'); {lite.slow}"

    async def scenario(seconds: float) -> float:
        env = environment()
        task = asyncio.ensure_future(env.run(script, sql.ScriptInput(connection="DB", script=text)))
        await asyncio.sleep(seconds)
        begin = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begin

    for number in range(20):
        assert asyncio.run(scenario(number * 0.002)) < 0.7
    eventually(lambda: not started())
    assert lite.query(ALL) == ""


def test_cancellation_does_not_wait_for_a_connection(
    environment: NewEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, contextlib.ExitStack() as held:

        def accepted() -> bool:
            held.enter_context(silent.accept()[0])  # Left alone, it would be closed, and the client told.
            return True

        monkeypatch.setenv("DB", f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d")
        assert cancelled(environment(), accepted, execute, statement="select 1") < 0.3


def test_a_statement_that_cannot_be_stopped_is_left_behind(
    environment: NewEnvironment, lite: Lite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on in its thread, and what it did is rolled back when it is done."""
    lite.query("create table t (id integer, name text)")
    monkeypatch.setattr(sql_call.Call, "_interrupt", lambda _: None)
    monkeypatch.setattr(sql_call, "STOP_TIMEOUT", 0.2)
    slow = (
        "with recursive n(i) as (select 1 union all select i + 1 from n limit 10000000) select max(i) from n"
    )
    text = f"insert into t values (1, 'a'); {slow}"
    assert 0.2 <= cancelled(environment(), lite.locked, script, script=text) < 0.7
    assert "DB: it goes on for a while after its cancellation, to roll back" in caplog.text
    eventually(lambda: not started())
    assert lite.query(ALL) == ""


# Servers that are not there, or go away.


def test_a_server_that_is_down_and_comes_back(run: Run, postgres: Postgres) -> None:
    postgres.server.kill()
    error = failed(run, execute, statement="select 1")
    assert error.message == "DB: connection refused"
    assert told(error) == ("DatabaseUnreachable", *PASSES)
    postgres.server.start()
    assert run(execute, connection="DB", statement="select 1 as one").rows == [{"one": 1}]


def test_a_server_that_is_killed_in_the_middle(run: Run, postgres: Postgres) -> None:
    """Nothing was to be committed yet: that it was not is certain."""

    def kill() -> None:
        eventually(sleeping(postgres))
        postgres.server.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    error = failed(run, script, script="create table t (id integer); select pg_sleep(60)")
    thread.join()
    assert error.message.startswith("DB: ")
    assert told(error) == ("ConnectionLost", *PASSES)
    postgres.server.start()
    assert postgres.query("select to_regclass('t')") == ""
    assert run(script, connection="DB", script="create table t (id integer); select 1").statements == 2


def test_a_server_that_is_shut_down_in_the_middle(run: Run, postgres: Postgres) -> None:
    def terminate() -> None:
        eventually(sleeping(postgres))
        postgres.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pipeline-runner'"
        )

    thread = threading.Thread(target=terminate)
    thread.start()
    error = failed(run, execute, statement=postgres.slow)
    thread.join()
    assert error.message == "DB: terminating connection due to administrator command"
    assert told(error) == ("ConnectionLost", *PASSES)


def test_a_commit_without_an_answer_is_uncertain(run: Run, postgres: Postgres) -> None:
    postgres.query("create table t (id integer)")
    postgres.query(
        "create function die() returns trigger language plpgsql as $$ begin"
        " perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60); return null; end $$"
    )
    postgres.query(
        "create constraint trigger last after insert on t deferrable initially deferred"
        " for each row execute function die()"
    )
    error = failed(run, execute, statement="insert into t values (1)")
    assert error.message == "DB: terminating connection due to administrator command"
    assert told(error) == ("ConnectionLost", False, True)


def test_a_wrong_password_is_in_no_message(
    run: Run, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DB", postgres.server.url.replace(PASSWORD, "hunter2%40%25"))
    error = failed(run, execute, statement="select :a", parameters={"a": "hunter2@%"})
    assert error.message == 'DB: password authentication failed for user "***"'
    assert told(error) == ("DatabaseUnreachable", *PASSES)
    for value in ("hunter2", "pipelines", "127.0.0.1"):
        assert value not in error.message + caplog.text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://hunter2@no-such-host.invalid/d", "DB: failed to resolve host '***'"),
        ("postgresql://hunter2@127.0.0.1:PORT/d", "DB: connection refused"),
        ("sqlite:////no/such/folder/hunter2.db", "DB: unable to open database file"),
    ],
)
def test_databases_that_are_not_there(
    run: Run, url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB", url.replace("PORT", str(free_port())))
    error = failed(run, execute, statement="select 1")
    assert error.message.startswith(message)
    assert told(error) == ("DatabaseUnreachable", *PASSES)


def test_a_database_that_does_not_exist(
    run: Run, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB", postgres.server.url.replace("/postgres", "/hunter2"))
    error = failed(run, execute, statement="select 1")
    assert error.message == 'DB: database "***" does not exist'


def test_a_server_that_says_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_call, "CONNECT_TIMEOUT", 2)  # the least that libpq takes
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DB", f"postgres://u@127.0.0.1:{silent.getsockname()[1]}/d")
        error = failed(run, execute, statement="select 1")
    assert error.message == "DB: connection timeout expired"
    assert told(error) == ("DatabaseUnreachable", *PASSES)


def test_a_file_that_is_no_database(run: Run, lite: Lite) -> None:
    lite.path.write_text("hunter2" * 1000)
    error = failed(run, execute, statement="select * from t")
    assert error.message == "DB: file is not a database"
    assert told(error) == ("StatementFailed", *FINAL)


# Connections that cannot be.


@pytest.mark.parametrize(
    ("url", "message", "kind"),
    [
        ("hunter2", 'the secret "DB" is not a database URL such as postgresql://user:password@host/name', "InvalidInput"),
        ("postgresql://u:hunter2@h:port/d", 'the secret "DB" is not a database URL such as postgresql://user:password@host/name', "InvalidInput"),
        ("postgresql://u:hunter2@127.0.0.1/d?hunter2=1", 'the secret "DB" has an option that its driver does not support', "InvalidInput"),
        ("mysql+nosuch://u:hunter2@h/d", 'DB: no installed package supports "mysql+nosuch"', "MissingDriver"),
        ("mysql+pymysql://u:hunter2@h/d", 'DB: "mysql+pymysql" needs the Python package "pymysql"', "MissingDriver"),
        ("postgresql+asyncpg://u:hunter2@h/d", 'DB: "postgresql+asyncpg" needs the Python package "asyncpg"', "MissingDriver"),
        ("postgresql+psycopg_async://u:hunter2@h/d", 'the secret "DB" names an asynchronous driver, "postgresql+psycopg_async"', "InvalidInput"),
    ],
)  # fmt: skip
def test_connections_that_cannot_be(
    run: Run, url: str, message: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB", url)
    for activity, given in ((execute, {"statement": "select 1"}), (script, {"script": "select 1"})):
        error = failed(run, activity, **given)
        assert error.message == message
        assert told(error) == (kind, *FINAL)


def test_a_missing_secret(run: Run) -> None:
    error = failed(run, execute, connection="NO_SUCH_DB", statement="select 1")
    assert error.message.startswith('the worker has no secret "NO_SUCH_DB": there is no environment variable')
    assert told(error) == ("SecretNotFound", *FINAL)


def test_a_connection_from_a_file(
    run: Run, lite: Lite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "MY_DB").write_text(f"sqlite:///{lite.path}\n")
    monkeypatch.setenv("PIPELINE_SECRETS_DIR", str(tmp_path))
    assert run(execute, connection="MY_DB", statement="select 1 as one").rows == [{"one": 1}]


def test_without_the_library(run: Run, lite: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for name, activity, given in (
        ("sql.execute", execute, {"statement": "select 1"}),
        ("sql.script", script, {"script": "select 1"}),
    ):
        error = failed(run, activity, **given)
        assert error.message == f'"{name}" needs the Python package "sqlalchemy": {extras.remedy("sql")}'
        assert told(error) == ("MissingExtra", *FINAL)


def test_other_databases_get_the_text_as_it_is(run: Run, lite: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stood in for by SQLite, as one of which nothing is known."""
    monkeypatch.setattr(sql, "TOKENS", {})
    monkeypatch.setattr(sql_call, "TOKENS", {})
    assert run(script, connection="DB", script="create table t (id integer, name text)").statements is None
    given = {"statement": "insert into t values (:id, :name)", "parameters": {"id": 1, "name": "a"}}
    assert run(execute, connection="DB", **given).row_count == 1
    error = failed(run, script, script="select 'x' from \"nope\"")
    assert told(error) == ("StatementFailed", True, True)
    assert told(failed(run, execute, statement="select * from nope")) == ("StatementFailed", *FINAL)


def test_what_the_catalogue_is_told() -> None:
    entries = {entry.name: entry for entry in catalogue_of("pipeline_runner.activities.sql.statements")}
    assert {name: (e.effect_free, e.undo, e.extra, e.timeouts.heartbeat) for name, e in entries.items()} == {
        "sql.execute": (False, None, "sql", 10.0),
        "sql.script": (False, None, "sql", 10.0),
    }


# In a real run.

PIPELINE = """
name: rows
inputs: {fail: {type: boolean, default: false}}
steps:
  - id: table
    activity: sql.script
    task_queue: QUEUE
    with: {connection: DB, script: "create table t (id integer primary key, name text); create table log (id integer)"}
    compensate: {activity: sql.script, task_queue: QUEUE, with: {connection: DB, script: "drop table t; drop table log"}}
  - id: row
    activity: sql.execute
    task_queue: QUEUE
    with:
      connection: DB
      statement: "insert into t values (:id, :name) returning id, name"
      parameters: {id: 1, name: "'; drop table t; --"}
    compensate:
      activity: sql.execute
      task_queue: QUEUE
      with: {connection: DB, statement: "delete from t where id = :id", parameters: {id: "{{ step.output.rows[0].id }}"}}
  - {id: stop, when: inputs.fail, fail: {message: enough}}
output: "{{ steps.row.output.rows }}"
"""


async def test_a_run_and_its_undo(pipelines: Pipelines, db: Sql) -> None:
    bundle = pipelines.bundle(PIPELINE.replace("QUEUE", pipelines.queue))
    async with pipelines.worker(execute, script):
        _, report = await failure(await pipelines.start(bundle, fail=True))
        assert report is not None
        assert [(undone.path, undone.state) for undone in report.undo] == [
            ("row", "undone"),
            ("table", "undone"),
        ]
        assert await result_of(await pipelines.start(bundle)) == [{"id": 1, "name": "'; drop table t; --"}]
    assert db.query(ALL) == "1|'; drop table t; --"


async def test_a_statement_that_outlives_its_time(pipelines: Pipelines, postgres: Postgres) -> None:
    text = f"""
name: slow
steps:
  - id: wait
    activity: sql.execute
    task_queue: {pipelines.queue}
    with: {{connection: DB, statement: "select pg_sleep(60)"}}
    timeouts: {{start_to_close: 700ms}}
    retry: {{maximum_attempts: 1}}
    compensate: none
"""
    async with pipelines.worker(execute):
        cause, _ = await failure(await pipelines.start(pipelines.bundle(text)))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "StartToCloseTimeout"
    await asyncio.to_thread(eventually, lambda: not postgres.busy(), 2)


def test_a_relative_path_is_in_the_runs_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a database file as of a file of statements."""
    monkeypatch.setenv("HERE", "sqlite:///here.db")
    monkeypatch.setenv("URI", "sqlite:///file:here.db?mode=rw&uri=true")
    (tmp_path / "make.sql").write_text("CREATE TABLE t (x)")
    set_working_directory(str(tmp_path))
    try:
        run(script, connection="HERE", path="make.sql")
        assert run(execute, connection="URI", statement="SELECT count(*) AS n FROM t").rows == [{"n": 0}]
    finally:
        set_working_directory(None)
    assert (tmp_path / "here.db").is_file()


def test_an_engine_is_made_once_and_keeps_no_connection(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Any] = []
    create = sqlalchemy.create_engine

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(create(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(sqlalchemy, "create_engine", counted)
    monkeypatch.setenv("ENGINE_TEST", f"sqlite:///{tmp_path}/engine.db")
    run(sql.execute, connection="ENGINE_TEST", statement="CREATE TEMP TABLE mine (id INTEGER)")
    for _ in range(2):  # what a step has set for its connection is not there for the next
        with pytest.raises(ApplicationError, match="no such table"):
            run(sql.execute, connection="ENGINE_TEST", statement="SELECT * FROM mine")
    assert len(made) == 1
    monkeypatch.setenv("ENGINE_TEST", f"sqlite:///{tmp_path}/other.db")
    run(sql.execute, connection="ENGINE_TEST", statement="CREATE TABLE other (id INTEGER)")
    assert len(made) == 2
    assert (tmp_path / "other.db").exists()


@pytest.mark.parametrize("case", ["commits", "unknown"])
async def test_what_the_database_may_still_complete_is_told(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A commit under way, or a database of which nobody knows that it rolls back. The database is a fake that hangs."""
    monkeypatch.setattr(sql_call, "COMMIT_TIMEOUT", 0.1)
    monkeypatch.setattr(sql_call, "STOP_TIMEOUT", 0.1)
    begun, release = threading.Event(), threading.Event()

    def hang(call: sql_call.Call, _: Any) -> None:
        call._open, call._committing, call._known = True, case == "commits", case == "commits"
        begun.set()
        release.wait(10)

    monkeypatch.setattr(sql_call.Call, "_transact", hang)
    task = asyncio.create_task(sql_call.Call("sql.execute", "DB").make(lambda _: None))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(ApplicationError) as caught:
        await task
    release.set()
    assert caught.value.message == "DB: the database is still running it, and may complete it"
    assert (caught.value.type, caught.value.non_retryable) == ("StatementLeftRunning", True)
    assert caught.value.details == ({"pipeline_runner": {"outcome": "uncertain"}},)
